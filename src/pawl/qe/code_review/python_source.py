"""Changes of the installed standard library's own functions: one that breaks something, and a twin that does not.

The history is invented, the code is not: a fault is planted in a function, and the fix that followed is the way back
to what the library has. Half of the faulty changes hold a harmless one too, away from the fault.
"""

from __future__ import annotations

import ast
import hashlib
import random
import sys
import sysconfig
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from pawl.qe.code_review import oracle, prompt
from pawl.qe.code_review.edits import Change, Code, Function, apart, applied, line_of
from pawl.qe.code_review.faults import faults
from pawl.qe.code_review.refactorings import refactorings
from pawl.qe.item import Item

_FUNCTIONS = 6  # of each module at most
_LINES = range(5, 31)
_PACKAGES = (
    "asyncio", "collections", "concurrent/futures", "email", "html", "http", "importlib", "importlib/metadata", "json",
    "logging", "multiprocessing", "sqlite3", "tomllib", "unittest", "urllib", "wsgiref", "xml/dom", "xml/etree",
    "xml/sax", "xmlrpc", "zoneinfo",
)  # fmt: skip
_SKIPPED = {"this", "antigravity", "__hello__", "__phello__"}
# How often a kind is wanted where a function offers several: the rarer ones first.
_WANTED = {
    "mutable_default": 60, "dropped_await": 20, "none_check": 6, "swapped_arguments": 3, "wrong_exception": 4,
    "dropped_return": 1, "removed_guard": 2, "off_by_one": 1, "wrong_operator": 1,
}  # fmt: skip


@lru_cache(maxsize=1)
def items() -> tuple[Item, ...]:
    """Two items for each function, sorted by id; the same for the same version of Python."""
    return tuple(sorted((i for module in modules() for i in of_module(module)), key=lambda i: i.id))


@lru_cache(maxsize=1)
def modules() -> dict[str, Path]:
    """The standard library's modules that are looked at, by name."""
    root = Path(sysconfig.get_path("stdlib"))
    found: dict[str, Path] = {}
    for folder in (root, *(root / p for p in _PACKAGES)):
        for path in sorted(folder.glob("*.py")):
            name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            if name.partition(".")[0] in sys.stdlib_module_names and name not in _SKIPPED:
                found[name] = path
    return found


@lru_cache(maxsize=512)
def of_module(module: str) -> tuple[Item, ...]:
    """The items of one module; none where the library has no such module, or no function that will do."""
    path = modules().get(module)
    if path is None:
        return ()
    rng = random.Random(hashlib.sha256(module.encode()).digest())
    candidates = _functions(path)
    rng.shuffle(candidates)
    made: dict[str, Item] = {}
    for name, first, text in candidates:
        if len(made) == 2 * _FUNCTIONS:
            break
        try:
            code = Code(text)
        except (SyntaxError, ValueError):
            continue
        for item in _pair(f"{module}/{name}", module, first, code, rng):
            made[item.id] = item
    return tuple(made.values())


def _functions(path: Path) -> list[tuple[str, int, str]]:
    """Functions of a suitable size: name, first line, text."""
    try:
        text = path.read_text(encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (OSError, UnicodeDecodeError, SyntaxError):
        return []
    lines = text.split("\n")
    found = []
    for node in _defined(tree.body):
        first, last = node.lineno, node.end_lineno or 0
        own = textwrap.dedent("\n".join(lines[first - 1 : last]))
        if last - first + 1 in _LINES and own.isascii() and "\t" not in own:
            found.append((node.name, first, own))
    return found


def _defined(body: Sequence[ast.stmt]) -> Iterator[Function]:
    """Functions of a module and methods of its classes."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
        elif isinstance(node, ast.ClassDef):
            yield from _defined(node.body)


def _pair(name: str, module: str, first: int, code: Code, rng: random.Random) -> list[Item]:
    """A faulty change of a function and a clean one; none where it offers no fault, or the diff is too long.

    Functions with f-strings are left out: before Python 3.12 the tree does not say where in the text they are.
    """
    if any(isinstance(n, ast.JoinedStr) for n in code.nodes):
        return []
    broken, clean = faults(code), refactorings(code)
    if not broken or not clean:
        return []
    kinds = sorted({c.kind for c in broken})
    kind = rng.choices(kinds, weights=[_WANTED[k] for k in kinds])[0]
    fault = rng.choice([c for c in broken if c.kind == kind])
    harmless = _one(clean, rng)
    beside = [c for c in clean if apart(code.text, c.edits, fault.edits)]
    more = [_one(beside, rng)] if beside and rng.random() < 0.5 else []
    twins = (("faulty", [fault, *more], fault), ("clean", [harmless], None))
    made = [_item(f"{name}:{first}/{which}", module, first, code, changes, bad) for which, changes, bad in twins]
    return [i for i in made if i is not None] if all(made) else []


def _one(changes: Sequence[Change], rng: random.Random) -> Change:
    """One of a kind, kinds first: some are on offer at every line."""
    kind = rng.choice(sorted({c.kind for c in changes}))
    return rng.choice([c for c in changes if c.kind == kind])


def _item(name: str, module: str, first: int, code: Code, changes: list[Change], fault: Change | None) -> Item | None:
    edits = [e for c in changes for e in c.edits]
    after = applied(code.text, edits)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(after)
    except SyntaxError:
        return None
    lines = prompt.diff(code.text, after, first)
    if sum(len(line.shown()) + 1 for line in lines) > prompt.MOST_DIFF:
        return None
    findings: list[dict[str, Any]] = []
    if fault is not None:
        # Of lines that repeat (blank ones, `return`) a diff may show another than was taken out: that one is seen.
        planted = first - 1 + line_of(code.text, edits, fault.edits[0])
        line = min((n.number for n in lines if n.sign in "+-"), key=lambda n: abs(n - planted))
        findings.append({"line": line, "kind": fault.kind})
    return Item(
        id=name,
        source=module,
        messages=prompt.messages(module, lines),
        truth={"findings": findings},
        scenario=fault.kind if fault else oracle.CLEAN,
    )
