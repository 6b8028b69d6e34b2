"""Small faults put into code, one at a time: a test that notices none of them checks little.

The operators are the usual ones of mutation testing: Offutt et al., "An Experimental Determination of Sufficient
Mutant Operators" (TOSEM 5(2), 1996), section 3, finds that relational, logical, arithmetic, absolute value and unary
ones suffice; here constants and return values stand for the last two.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

MOST = 12
_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_CALCULATED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitAnd, ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}  # fmt: skip
# In turns, so that a function full of constants is not judged by them alone.
_KINDS = ("comparison", "condition", "arithmetic", "boolean", "return", "constant")


class Mutant(NamedTuple):
    """One fault: its kind, the line it is on, and the whole tree with it (new nodes have no locations yet)."""

    kind: str
    line: int
    tree: ast.Module


class _Site(NamedTuple):
    kind: str
    node: int  # its place in the order of `_nodes`
    change: Callable[[ast.AST], None]


def mutants(code: str, most: int = MOST) -> list[Mutant]:
    """At most `most` mutants of the functions in `code`, the same ones each time, in order of their lines.

    Raises:
        SyntaxError: it is no Python.
    """
    by_kind = _sites(code)
    rng = random.Random(7)
    turns = [rng.sample(sites, len(sites)) for sites in by_kind.values() if sites]
    chosen: list[_Site] = []
    while len(chosen) < most and any(turns):
        chosen += [sites.pop() for sites in turns if sites][: most - len(chosen)]
    made = []
    for site in chosen:
        tree = ast.parse(code)
        node = _nodes(tree)[site.node]
        line = getattr(node, "lineno", 0)
        site.change(node)
        made.append((site.node, Mutant(site.kind, line, tree)))
    return [m for _, m in sorted(made, key=lambda pair: (pair[1].line, pair[0]))]


def possible(code: str) -> int:
    """How many mutants the code has in all."""
    return sum(map(len, _sites(code).values()))


def _sites(code: str) -> dict[str, list[_Site]]:
    by_kind: dict[str, list[_Site]] = {kind: [] for kind in _KINDS}
    for place, node in enumerate(_nodes(ast.parse(code))):
        for kind, change in _changes(node):
            by_kind[kind].append(_Site(kind, place, change))
    return by_kind


def _nodes(tree: ast.Module) -> list[ast.AST]:
    """The nodes of all function bodies and defaults, without docstrings, annotations, decorators and f-strings."""
    found: list[ast.AST] = []

    def walk(node: ast.AST, within: bool) -> None:
        if within:
            found.append(node)
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "decorator_list", "type_params") or isinstance(node, ast.JoinedStr):
                continue
            inner = within or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and not _is_text(child):
                    walk(child, inner)

    walk(tree, False)
    return found


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _changes(node: ast.AST) -> Iterator[tuple[str, Callable[[ast.AST], None]]]:
    if isinstance(node, ast.Compare):
        for place, op in enumerate(node.ops):
            if type(op) in _COMPARED:
                yield "comparison", _set_op(place, _COMPARED[type(op)])
    elif isinstance(node, ast.BinOp | ast.AugAssign):
        # `%` with a text on its left fills in values.
        text = isinstance(node, ast.BinOp) and isinstance(node.left, ast.Constant | ast.JoinedStr)
        if type(node.op) in _CALCULATED and not (text and isinstance(node.op, ast.Mod)):
            yield "arithmetic", _set("op", _CALCULATED[type(node.op)]())
    elif isinstance(node, ast.BoolOp):
        yield "boolean", _set("op", ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, ast.Constant):
        changed = _other(node.value)
        if changed is not None:
            yield "constant", _set("value", changed)
    elif isinstance(node, ast.Return):
        if node.value is not None and getattr(node.value, "value", node) is not None:
            yield "return", _set("value", ast.Constant(None))
    # A lone `==` that is negated is the mutant `!=` again.
    elif isinstance(node, ast.If | ast.While | ast.IfExp) and not _is_simple(node.test):
        yield "condition", _negate


def _is_simple(test: ast.expr) -> bool:
    exact = isinstance(test, ast.Compare) and len(test.ops) == 1 and _is_exact(test.ops[0])
    return exact or isinstance(test, ast.Constant)


def _is_exact(op: ast.cmpop) -> bool:
    return not isinstance(op, ast.Lt | ast.LtE | ast.Gt | ast.GtE)


def _other(value: object) -> object:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return "" if value else "x"
    if isinstance(value, bytes):
        return b"" if value else b"x"
    return None


def _set(field: str, value: object) -> Callable[[ast.AST], None]:
    return lambda node: setattr(node, field, value)


def _set_op(place: int, op: type[ast.cmpop]) -> Callable[[ast.AST], None]:
    def change(node: ast.AST) -> None:
        assert isinstance(node, ast.Compare)
        node.ops[place] = op()

    return change


def _negate(node: ast.AST) -> None:
    assert isinstance(node, ast.If | ast.While | ast.IfExp)
    node.test = ast.UnaryOp(ast.Not(), node.test)
