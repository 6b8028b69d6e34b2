"""What can be said of an answer before it is run."""

from __future__ import annotations

import ast
import re

import msgspec

LONGEST = 16 * 1024  # characters
# Tests that read the code instead of calling it would notice any mutant and check nothing.
_LOOKING = {
    "inspect", "dis", "gc", "ctypes", "importlib", "signal", "subprocess", "multiprocessing", "socket", "threading",
    "linecache", "pdb", "marshal", "pickle", "trace", "tracemalloc", "resource", "inside",
}  # fmt: skip
_LOOKING_NAMES = {"exec", "eval", "compile", "globals", "vars", "open", "getattr", "__import__", "__builtins__"}
_LOOKING_ATTRIBUTES = {
    "__code__", "__globals__", "__closure__", "__builtins__", "__dict__", "_getframe", "settrace", "setprofile",
    "_exit", "fork", "tb_frame", "f_back", "f_locals", "f_globals", "attrgetter",
}  # fmt: skip
_FENCED = re.compile(r"\s*```(?:python|py)?[ \t]*\n(?P<code>.*?)\n?```\s*", re.DOTALL)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The tests of an answer; `failure` is "" where they may be run."""

    code: str = ""
    needs_pytest: bool = False
    failure: str = ""
    problem: str = ""


def read(completion: str) -> Answer:
    """The tests, which may stand in one fenced block that is the whole answer.

    Failures: too_long, not_python, no_tests, looks_inside.
    """
    from pawl.qe.python_code.inside.evaluate import uses_pytest

    if len(completion) > LONGEST:
        return Answer(failure="too_long", problem=f"longer than {LONGEST} characters")
    fenced = _FENCED.fullmatch(completion)
    code = fenced["code"] if fenced else completion
    try:
        tree = ast.parse(code)
        compile(tree, "test_answer.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return Answer(failure="not_python", problem=f"{type(error).__name__}: {error}"[:120])
    if not _tests(tree):
        return Answer(failure="no_tests", problem="no function is named test_...")
    looking = _looks(tree)
    if looking:
        return Answer(failure="looks_inside", problem=f"tests must call the code, and need no {looking}")
    return Answer(code=code, needs_pytest=uses_pytest(tree))


def _tests(tree: ast.Module) -> bool:
    bodies = [tree.body, *(n.body for n in tree.body if isinstance(n, ast.ClassDef) and n.name.startswith("Test"))]
    return any(isinstance(n, ast.FunctionDef) and n.name.startswith("test") for body in bodies for n in body)


def _looks(tree: ast.Module) -> str:
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [a.name.partition(".")[0] for a in node.names if a.name.partition(".")[0] in _LOOKING]
        elif isinstance(node, ast.ImportFrom):
            names = [n for n in [(node.module or "").partition(".")[0]] if n in _LOOKING]
            names += [a.name for a in node.names if a.name in _LOOKING_ATTRIBUTES]
        elif isinstance(node, ast.Attribute):
            names = [node.attr] if node.attr in _LOOKING_ATTRIBUTES or node.attr.startswith("__pawl") else []
        elif isinstance(node, ast.Name):
            names = [node.id] if node.id in _LOOKING_NAMES or node.id.startswith("__pawl") else []
        if names:
            return names[0]
    return ""
