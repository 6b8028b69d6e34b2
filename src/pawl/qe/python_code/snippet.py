"""A piece of code to be tested, with the function that matters."""

from __future__ import annotations

import ast
import warnings

import msgspec

LONGEST = 1800  # characters, some 600 tokens


class Snippet(msgspec.Struct, frozen=True, kw_only=True):
    """Self-contained Python code. `seeds`: calls of `entry` that make sense; `assertions`: tests that are known."""

    source: str  # a module, a file, a group of rows
    entry: str  # the name of the function to test
    code: str
    about: str = ""  # in words, what it is for; "" where nobody says
    seeds: tuple[str, ...] = ()
    assertions: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What it is called, unique within its source."""
        return f"{self.source}.{self.entry}"


def kind_of_code(code: str) -> str:
    """The class of a piece of code, by what makes it hard to test: the first of these that it has.

    recursion, errors (it raises), loops, branches, strings (it works on text), plain; "" where it is no Python.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    found: set[str] = set()
    for function in (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)):
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function.name:
                found.add("recursion")
            elif isinstance(node, ast.Raise):
                found.add("errors")
            elif isinstance(node, ast.For | ast.While | ast.comprehension):
                found.add("loops")
            elif isinstance(node, ast.If | ast.IfExp | ast.BoolOp | ast.Try):
                found.add("branches")
            elif isinstance(node, ast.Attribute) and node.attr in _OF_TEXT:
                found.add("strings")
    return next((k for k in ("recursion", "errors", "loops", "branches", "strings") if k in found), "plain")


_OF_TEXT = {"join", "split", "strip", "lower", "upper", "replace", "startswith", "endswith", "format", "sub", "findall"}
