"""Where pieces of code come from: Python's own standard library, a folder of the user's, a JSON Lines file."""

from __future__ import annotations

import ast
import hashlib
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from pawl.errors import SourceError
from pawl.qe import rows_jsonl
from pawl.qe.python_code.extract import snippets
from pawl.qe.python_code.inside.mutants import possible
from pawl.qe.python_code.observing import Observation, observe
from pawl.qe.python_code.snippet import LONGEST, Snippet

# Not libraries, or written for one platform, or the interpreter's own machinery.
_LEFT_OUT = {
    "test", "tests", "idlelib", "lib2to3", "turtledemo", "tkinter", "ensurepip", "site-packages", "dist-packages",
    "distutils", "asyncio", "multiprocessing", "unittest", "ctypes", "concurrent", "importlib", "curses", "pydoc_data",
    "lib-dynload", "__pycache__", "msilib", "encodings", "venv", ".venv", "node_modules",
}  # fmt: skip
_LARGEST = 150_000  # characters of a file
_MOST_FILES = 5000
_FEWEST_FAULTS = 4  # mutants
_MOSTLY = 0.7
_BUCKET = 20  # rows of a file whose ids are neighbours are one source


@lru_cache(maxsize=4)
def from_python(location: str | None) -> tuple[Snippet, ...]:
    """Functions of the standard library that is installed, or of the Python files below a folder.

    Raises:
        SourceError: there is no such folder, or no function in it that can be run by itself.
    """
    top = Path(location) if location else Path(sysconfig.get_paths()["stdlib"])
    if not top.is_dir():
        raise SourceError(f"{top} is no folder: `location` must be a folder with Python code")
    found: list[Snippet] = []
    for path in _files(top):
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if len(text) <= _LARGEST:
            with warnings.catch_warnings(action="ignore"):
                found += snippets(text, ".".join(path.relative_to(top).with_suffix("").parts).removesuffix(".__init__"))
    if not found:
        raise SourceError(f"no function below {top} can be run by itself: small, pure, without I/O and decorators")
    return tuple(_distinct(found))


@lru_cache(maxsize=4)
def known(location: str | None) -> tuple[tuple[Snippet, Observation], ...]:
    """The functions of `from_python` of which running them tells enough to test for, with what it tells.

    Raises:
        SourceError: there is no such folder, or no such function in it.
        CannotGrade: the sandbox does not start.
    """
    tried = worth_testing(from_python(location))
    found = [(s, o) for s, o in zip(tried, observe(tried), strict=True) if o is not None and _is_enough(o)]
    if not found:
        raise SourceError(f"of the functions below {location} none returns what a test could state")
    return tuple(found)


def worth_testing(found: Sequence[Snippet]) -> list[Snippet]:
    """Those in which at least some faults are possible."""
    with warnings.catch_warnings(action="ignore"):
        return [s for s in found if possible(s.code) >= _FEWEST_FAULTS]


def _is_enough(seen: Observation) -> bool:
    """Whether most of the code is known: what no call reaches and no check notices, nobody can be asked for."""
    few = len(seen.killable) < max(_FEWEST_FAULTS, seen.mutants // 2)
    return not few and len(seen.reachable_lines) >= _MOSTLY * len(seen.lines)


def _files(top: Path) -> Iterator[Path]:
    left = _MOST_FILES
    todo = [top]
    while todo and left:
        folder = todo.pop()
        for path in sorted(folder.iterdir(), reverse=True):
            if path.is_dir() and path.name not in _LEFT_OUT and not path.is_symlink():
                todo.append(path)
            elif path.suffix == ".py" and left and not path.stem.startswith(("test_", "_test")):
                left -= 1
                yield path


@lru_cache(maxsize=4)
def from_jsonl(location: str) -> tuple[Snippet, ...]:
    """Rows with the fields of MBPP: `text` (what it is for), `code`, `test_list` (assertions); `task_id` names a row.

    Austin et al., "Program Synthesis with Large Language Models" (2021), section 3.1. Rows whose code is too long, or
    whose assertions call none of its functions, are left out.

    Raises:
        SourceError: the file cannot be read, or a row has no code or no tests.
    """
    with warnings.catch_warnings(action="ignore"):  # escapes that Python will not know some day
        found = [s for row in rows_jsonl.read(location) if (s := _of_row(row)) is not None]
    if not found:
        raise SourceError(f"{location}: no row has code of at most {LONGEST} characters with tests that call it")
    return tuple(_distinct(found))


def _of_row(row: rows_jsonl.Row) -> Snippet | None:
    tests = row.fields.get("test_list")
    if not isinstance(tests, list) or not all(isinstance(t, str) for t in tests) or not tests:
        raise row.wrong("field `test_list` must be a list of assertions")
    setup = row.optional("test_setup_code")
    code = "\n".join([*([setup] if setup else []), row.text("code")])
    code = "\n".join(line.rstrip() for line in code.expandtabs(4).splitlines()).strip("\n") + "\n"
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError):
        return None
    defined = [n.name for n in tree.body if isinstance(n, ast.FunctionDef)]
    seeds = [c for t in tests for c in _calls(t, defined)]
    if len(code) > LONGEST or not seeds:
        return None
    entry = seeds[0].partition("(")[0]
    number = row.whole("task_id") if "task_id" in row.fields else None
    stem = Path(row.location).name.partition(".")[0]
    group = f"{number // _BUCKET:03d}" if number is not None else hashlib.sha256(code.encode()).hexdigest()[:2]
    return Snippet(
        source=f"{stem}-{group}",
        entry=entry,
        code=code,
        about=row.optional("text"),
        seeds=tuple(dict.fromkeys(s for s in seeds if s.startswith(f"{entry}("))),
        assertions=tuple(t.strip() for t in tests),
    )


def _calls(text: str, defined: Sequence[str]) -> list[str]:
    """Calls of the functions defined, with arguments that are literals, in one assertion."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return []
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in defined:
            try:
                for argument in node.args:
                    ast.literal_eval(argument)
            except (ValueError, TypeError, SyntaxError):
                continue
            if not node.keywords:
                found.append(ast.unparse(node))
    return found


def _distinct(found: Sequence[Snippet]) -> list[Snippet]:
    """Sorted by name, each code and each name once."""
    seen: set[str] = set()
    kept = []
    for snippet in sorted(found, key=lambda s: (s.name, s.code)):
        if snippet.name not in seen and snippet.code not in seen:
            seen |= {snippet.name, snippet.code}
            kept.append(snippet)
    return kept
