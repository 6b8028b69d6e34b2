"""Changes that break a function: what a mutation test plants, as a careless commit would.

Operators of mutation as in Jia and Harman, An Analysis and Survey of the Development of Mutation Testing (2011),
section 3, and the slips that reviews of Python find: a lost await or return, a lost check, a mutable default.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from pawl.qe.code_review.edits import SIMPLE, Change, Code, Edit

WHY = {
    "wrong_operator": "the condition or sum is not what it was",
    "off_by_one": "the bound is one off",
    "swapped_arguments": "the arguments changed places",
    "dropped_await": "the coroutine is never awaited",
    "dropped_return": "the result is not returned",
    "none_check": "None is not handled any more",
    "removed_guard": "the guard is gone",
    "wrong_exception": "another exception than callers expect",
    "mutable_default": "the default is shared by all calls",
}
_OPERATORS = {
    "==": "!=", "!=": "==", "<": ">", ">": "<", "<=": ">=", ">=": "<=",
    "is": "is not", "is not": "is", "in": "not in", "not in": "in",
}  # fmt: skip
_BOUNDS = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
_ERRORS = {
    "KeyError": "IndexError", "IndexError": "KeyError", "ValueError": "TypeError", "TypeError": "ValueError",
    "OSError": "ValueError", "AttributeError": "KeyError", "RuntimeError": "ValueError", "StopIteration": "IndexError",
    "NotImplementedError": "ValueError", "EOFError": "ValueError", "ImportError": "OSError",
}  # fmt: skip
# In either order they do the same, or nearly.
_SYMMETRIC = {"min", "max", "print", "zip", "chain", "gcd", "isclose", "update", "union", "append"}
_OBVIOUS = {"isinstance", "issubclass", "hasattr", "getattr", "setattr", "delattr"}  # would fail at the first call
_EMPTY = (ast.List, ast.Dict, ast.Set)


def faults(code: Code) -> list[Change]:
    """Every fault that can be planted in a function, by place."""
    return [*_of_expressions(code), *_of_blocks(code), *_of_exceptions(code), *_of_defaults(code)]


def _of_expressions(code: Code) -> Iterator[Change]:
    for node in code.nodes:
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            start, end, text = code.between(node.left, node.comparators[0])
            if text in _OPERATORS:
                yield _change("wrong_operator", start, end, _OPERATORS[text])
            if text in _BOUNDS:
                yield _change("off_by_one", start, end, _BOUNDS[text])
        elif isinstance(node, ast.BoolOp) and len(node.values) == 2:
            start, end, text = code.between(*node.values)
            if text in ("and", "or"):
                yield _change("wrong_operator", start, end, "or" if text == "and" else "and")
        elif isinstance(node, ast.BinOp):
            yield from _of_sums(code, node)
        elif isinstance(node, ast.Slice):
            for bound in (node.lower, node.upper):
                if isinstance(bound, ast.Constant) and type(bound.value) is int:
                    yield _change("off_by_one", *code.span(bound), str(bound.value + 1))
        elif isinstance(node, ast.Call):
            yield from _of_calls(code, node)
        elif isinstance(node, ast.Await):
            yield _change("dropped_await", code.span(node)[0], code.span(node.value)[0], "")
        elif isinstance(node, ast.Return) and isinstance(node.value, ast.Call | ast.Await):
            yield _change("dropped_return", code.span(node)[0], code.span(node.value)[0], "")


def _of_sums(code: Code, node: ast.BinOp) -> Iterator[Change]:
    if not isinstance(node.right, ast.Constant) or type(node.right.value) is not int:
        return
    start, end, text = code.between(node.left, node.right)
    if text in ("+", "-") and node.right.value:
        yield _change("wrong_operator", start, end, "-" if text == "+" else "+")
        if node.right.value == 1:
            # All of it goes: `len(x) - 1` becomes `len(x)`.
            yield _change("off_by_one", code.span(node.left)[1], code.span(node.right)[1], "")


def _of_calls(code: Code, node: ast.Call) -> Iterator[Change]:
    name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
    if name == "range" and node.args and not any(isinstance(a, ast.Starred) for a in node.args):
        end = node.args[1] if len(node.args) > 1 else node.args[0]
        if isinstance(end, ast.Constant | ast.Name | ast.Call):
            at = code.span(end)[1]
            yield _change("off_by_one", at, at, " - 1")
    if 2 <= len(node.args) <= 3 and name not in _SYMMETRIC | _OBVIOUS:
        first, second = node.args[:2]
        one, two = code.of(first), code.of(second)
        if isinstance(first, SIMPLE) and isinstance(second, SIMPLE) and one != two and first.lineno == second.lineno:
            yield _change("swapped_arguments", code.span(first)[0], code.span(second)[1], f"{two}, {one}")


def _of_blocks(code: Code) -> Iterator[Change]:
    """Guards that go, with all of their lines."""
    for body in code.bodies():
        for node in body:
            if not isinstance(node, ast.If) or node.orelse or len(body) < 2 or len(node.body) != 1:
                continue
            lines = code.whole_lines(node)
            if lines is None or not code.of(node).startswith("if"):
                continue
            leaves = isinstance(node.body[0], ast.Raise | ast.Return | ast.Continue | ast.Break)
            if _asks_for_none(node.test):
                yield _change("none_check", *lines, "")
            elif leaves:
                yield _change("removed_guard", *lines, "")


def _of_exceptions(code: Code) -> Iterator[Change]:
    for node in code.nodes:
        named: ast.expr | None = None
        if isinstance(node, ast.ExceptHandler):
            named = node.type
        elif isinstance(node, ast.Raise):
            named = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        if isinstance(named, ast.Name) and named.id in _ERRORS:
            yield _change("wrong_exception", *code.span(named), _ERRORS[named.id])


def _of_defaults(code: Code) -> Iterator[Change]:
    """`=()` becomes `=[]`, and so do `=None` and `if x is None: x = []`."""
    arguments = code.function.args
    args = [*arguments.posonlyargs, *arguments.args]
    defaults = dict(zip([a.arg for a in args][len(args) - len(arguments.defaults) :], arguments.defaults, strict=True))
    defaults |= {a.arg: d for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if d is not None}
    for default in defaults.values():
        if code.of(default) == "()":
            yield _change("mutable_default", *code.span(default), "[]")
    for node in code.function.body:
        if not isinstance(node, ast.If) or node.orelse or len(node.body) != 1 or not _asks_for_none(node.test):
            continue
        (made,) = node.body
        lines = code.whole_lines(node)
        if not isinstance(made, ast.Assign) or not isinstance(made.targets[0], ast.Name) or lines is None:
            continue
        default = defaults.get(made.targets[0].id)  # type: ignore[assignment]
        empty = isinstance(made.value, _EMPTY) and len(code.of(made.value)) == 2
        if empty and isinstance(default, ast.Constant) and default.value is None and len(code.function.body) > 1:
            edits = (Edit(*code.span(default), code.of(made.value)), Edit(*lines, ""))
            yield Change("mutable_default", edits)


def _asks_for_none(test: ast.expr) -> bool:
    return (
        isinstance(test, ast.Compare)
        and isinstance(test.ops[0], ast.Is)
        and isinstance(test.comparators[0], ast.Constant)
        and test.comparators[0].value is None
    )


def _change(kind: str, start: int, end: int, text: str) -> Change:
    return Change(kind, (Edit(start, end, text),))
