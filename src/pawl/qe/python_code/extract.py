"""Finds functions in Python files that can be run by themselves: pure as far as their text tells, small, no I/O.

What a function needs of its module (imports of harmless modules, constants, other such functions) is taken along.
Nothing is run here; whether a function really is that well behaved is found out in the sandbox.
"""

from __future__ import annotations

import ast
import builtins
import symtable
from collections.abc import Iterator

from pawl.qe.python_code.snippet import LONGEST, Snippet

# Modules without effects. `random` and `time` are left out: what they return cannot be tested for.
HARMLESS = {
    "math", "re", "string", "itertools", "functools", "operator", "collections", "bisect", "heapq", "struct",
    "binascii", "unicodedata", "textwrap", "fractions", "decimal", "statistics", "keyword", "cmath", "numbers", "types",
    "base64", "html", "urllib.parse", "array", "sys",
}  # fmt: skip
_FORBIDDEN = {
    "open", "print", "input", "exec", "eval", "compile", "__import__", "globals", "locals", "vars", "id", "hash",
    "breakpoint", "exit", "quit", "help", "memoryview", "object", "super", "setattr", "delattr", "dir",
    "getattr", "hasattr",
}  # fmt: skip
_FORBIDDEN_NODES = (
    ast.Yield, ast.YieldFrom, ast.Await, ast.AsyncFor, ast.AsyncWith, ast.AsyncFunctionDef, ast.Global, ast.Nonlocal,
    ast.Import, ast.ImportFrom, ast.With, ast.ClassDef, ast.Lambda, ast.Delete,
)  # fmt: skip
_FEWEST_NODES = 25  # below that there is nothing to test
_OF_VALUES = {name for kind in (str, bytes, int, float, list, tuple, dict, set) for name in dir(kind)}
_BUILT_IN = set(dir(builtins)) - _FORBIDDEN


def snippets(text: str, source: str, longest: int = LONGEST) -> list[Snippet]:
    """The functions of one file that can be run by themselves, in order of their names; none if it is no Python."""
    try:
        tree = ast.parse(text)
        table = symtable.symtable(text, source, "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    module = _Module(text, tree, table)
    found = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name not in found:
            code = module.alone(node, longest)
            if code is not None:
                found[node.name] = Snippet(source=source, entry=node.name, code=code)
    return [found[name] for name in sorted(found)]


class _Module:
    def __init__(self, text: str, tree: ast.Module, table: symtable.SymbolTable) -> None:
        self.lines = text.split("\n")
        self.free = {t.get_name(): _free(t) for t in table.get_children() if t.get_type() == "function"}
        self.functions: dict[str, ast.FunctionDef] = {}
        self.constants: dict[str, ast.Assign] = {}
        self.imports: dict[str, str] = {}
        twice: set[str] = set()
        for node in tree.body:
            for name, kept in self._defined(node):
                if name in self.functions or name in self.constants or name in self.imports:
                    twice.add(name)
                if isinstance(kept, ast.FunctionDef):
                    self.functions[name] = kept
                elif isinstance(kept, ast.Assign):
                    self.constants[name] = kept
                else:
                    self.imports[name] = kept
        for name in twice:  # which of the two is meant depends on when
            for known in (self.functions, self.constants, self.imports):
                known.pop(name, None)

    def _defined(self, node: ast.stmt) -> Iterator[tuple[str, ast.FunctionDef | ast.Assign | str]]:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node
        elif isinstance(node, ast.Import):
            for a in node.names:
                if a.name in HARMLESS and "." not in a.name:
                    yield a.asname or a.name, f"import {a.name}" + (f" as {a.asname}" if a.asname else "")
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module in HARMLESS:
            for a in node.names:
                if a.name != "*":
                    yield (
                        a.asname or a.name,
                        f"from {node.module} import {a.name}" + (f" as {a.asname}" if a.asname else ""),
                    )

    def alone(self, function: ast.FunctionDef, longest: int) -> str | None:
        """The function with all it needs; None where it needs more than may be taken along."""
        if sum(1 for n in ast.walk(function)) < _FEWEST_NODES or not _returns(function):
            return None
        if any(_is_foreign(n, function) for n in ast.walk(function)):
            return None
        if sum(map(len, self.lines[function.lineno - 1 : function.end_lineno])) > longest:
            return None
        taken: dict[str, None] = {}
        todo = [function.name]
        while todo:
            name = todo.pop()
            if name in taken:
                continue
            taken[name] = None
            needs = self._needs(name)
            if needs is None or len(taken) > 12:
                return None
            todo += sorted(needs - taken.keys())
        imports = sorted({self.imports[n] for n in taken if n in self.imports})
        rest = sorted((n for n in taken if n not in self.imports), key=self._line)
        # The function that matters comes last, wherever it stood.
        parts = [self._text(n) for n in rest if n != function.name] + [self._text(function.name)]
        code = "\n".join([*imports, ""] if imports else []) + "\n\n".join(parts) + "\n"
        return code if len(code) <= longest and _parses(code) else None

    def _line(self, name: str) -> int:
        return (self.functions.get(name) or self.constants[name]).lineno

    def _text(self, name: str) -> str:
        node = self.functions.get(name) or self.constants[name]
        # Statements of a module begin lines of their own, or the code is too clever to be taken apart.
        return "\n".join(self.lines[node.lineno - 1 : node.end_lineno])

    def _needs(self, name: str) -> set[str] | None:
        """Names of the module that a name of it rests on; None where they are too much."""
        if name in self.imports:
            return set()
        node: ast.AST
        if name in self.functions:
            node = self.functions[name]
            if (
                self.functions[name].decorator_list
                or self.functions[name].args.vararg
                or self.functions[name].args.kwarg
            ):
                return None
            # Defaults and annotations are the module's business, so the function's own table does not have them.
            outer: list[ast.AST] = [self.functions[name].args, self.functions[name].returns or ast.Module([], [])]
            used = {n.id for o in outer for n in ast.walk(o) if isinstance(n, ast.Name)} | self.free.get(name, set())
        else:
            node = self.constants.get(name) or ast.Module([], [])
            used = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
            if name not in self.constants:
                return None
        if any(isinstance(n, _FORBIDDEN_NODES) for n in ast.walk(node)):
            return None
        needs = used - _BUILT_IN
        known = self.functions.keys() | self.constants.keys() | self.imports.keys()
        # Of `sys` only what is the same on each run.
        if "sys" in needs and any(isinstance(n, ast.Attribute) and _is_state(n) for n in ast.walk(node)):
            return None
        return None if needs - known or used & _FORBIDDEN else needs


def _is_foreign(node: ast.AST, function: ast.FunctionDef) -> bool:
    """Whether a parameter is used as an object that no literal is: a file, a frame, a class."""
    named = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    if not named or not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
        return False
    given = function.args
    parameters = {a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)}
    return node.value.id in parameters and node.attr not in _OF_VALUES


def _is_state(node: ast.Attribute) -> bool:
    of_sys = isinstance(node.value, ast.Name) and node.value.id == "sys"
    return of_sys and node.attr not in ("maxsize", "maxunicode", "byteorder", "float_info")


def _free(table: symtable.SymbolTable) -> set[str]:
    """Names that a function takes from its module or from Python, those of its inner scopes included."""
    found = {s.get_name() for s in table.get_symbols() if s.is_global()}
    for inner in table.get_children():
        found |= _free(inner)
    return found


def _returns(function: ast.FunctionDef) -> bool:
    return any(isinstance(n, ast.Return) and n.value is not None for n in ast.walk(function))


def _parses(code: str) -> bool:
    try:
        ast.parse(code)
    except SyntaxError:
        return False
    return True
