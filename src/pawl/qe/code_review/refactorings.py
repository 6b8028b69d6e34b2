"""Changes that leave what a function does as it was: any finding on them is a false alarm."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from pawl.qe.code_review.edits import SIMPLE, Change, Code, Edit

KINDS = (
    "renamed_local",
    "extracted_variable",
    "reordered_keywords",
    "added_docstring",
    "flipped_comparison",
    "formatting",
)
_NEW_NAMES = ("found", "value", "current", "entry", "outcome", "chosen")
_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "==": "==", "!=": "!="}
_READS_NAMES = {"locals", "vars", "eval", "exec", "dir", "super", "globals"}


def refactorings(code: Code) -> list[Change]:
    """Every such change that a function offers, by place."""
    return [*_renamed(code), *_docstring(code), *_of_statements(code), *_of_expressions(code)]


def _renamed(code: Code) -> Iterator[Change]:
    """A local variable gets another name, everywhere."""
    nodes = code.nodes
    fixed = {n.arg for n in nodes if isinstance(n, ast.arg)}
    fixed |= {name for n in nodes if isinstance(n, ast.Global | ast.Nonlocal) for name in n.names}
    # What is bound in other ways than by assignment stays: its places are no Name nodes.
    fixed |= {str(n.name) for n in nodes if isinstance(n, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and n.name}
    fixed |= {
        (a.asname or a.name).partition(".")[0]
        for n in nodes
        if isinstance(n, ast.Import | ast.ImportFrom)
        for a in n.names
    }
    fixed |= {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    names = code.names()
    nested = any(isinstance(n, ast.FunctionDef | ast.Lambda | ast.ClassDef) for n in nodes if n is not code.function)
    if nested or names & _READS_NAMES:
        return
    assigned = {t.id for n in nodes if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}
    for name in sorted(assigned - fixed):
        new = next((n for n in _NEW_NAMES if n not in names), None)
        if new is not None:
            places = sorted(code.span(n) for n in nodes if isinstance(n, ast.Name) and n.id == name)
            yield Change("renamed_local", tuple(Edit(*place, new) for place in places))


def _docstring(code: Code) -> Iterator[Change]:
    first = code.function.body[0]
    if ast.get_docstring(code.function) is not None or code.whole_lines(first) is None:
        return
    at = code.at(first.lineno, 0)
    words = code.function.name.strip("_").replace("_", " ").capitalize() or "Internal"
    yield Change("added_docstring", (Edit(at, at, f'{" " * first.col_offset}"""{words}."""\n'),))


def _of_statements(code: Code) -> Iterator[Change]:
    names = code.names()
    new = next((n for n in ("result", *_NEW_NAMES) if n not in names), None)
    for body in code.bodies():
        for node in body:
            plain = isinstance(node, ast.Return) and isinstance(node.value, ast.Call | ast.BinOp | ast.Subscript)
            if not plain or new is None or node.lineno != node.end_lineno or code.whole_lines(node) is None:
                continue
            assert isinstance(node, ast.Return) and node.value is not None
            start, end = code.span(node)
            text = f"{new} = {code.of(node.value)}\n{' ' * node.col_offset}return {new}"
            yield Change("extracted_variable", (Edit(start, end, text),))


def _of_expressions(code: Code) -> Iterator[Change]:
    for node in code.nodes:
        if isinstance(node, ast.Call) and len(node.keywords) >= 2:
            one, two = node.keywords[:2]
            simple = isinstance(one.value, SIMPLE) and isinstance(two.value, SIMPLE)
            if simple and one.arg and two.arg and one.lineno == two.end_lineno:
                start, end = code.at(one.lineno, one.col_offset), code.at(two.lineno, two.end_col_offset or 0)
                text = f"{two.arg}={code.of(two.value)}, {one.arg}={code.of(one.value)}"
                yield Change("reordered_keywords", (Edit(start, end, text),))
        elif isinstance(node, ast.Compare) and len(node.ops) == 1:
            left, right = node.left, node.comparators[0]
            _, _, sign = code.between(left, right)
            if isinstance(left, SIMPLE) and isinstance(right, SIMPLE) and sign in _FLIPPED:
                text = f"{code.of(right)} {_FLIPPED[sign]} {code.of(left)}"
                yield Change("flipped_comparison", (Edit(code.span(left)[0], code.span(right)[1], text),))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = code.of(node)
            if len(text) == len(node.value) + 2 and text[0] == "'" and not set(node.value) & set("\"'\\"):
                yield Change("formatting", (Edit(*code.span(node), f'"{node.value}"'),))
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.BinOp | ast.Compare | ast.BoolOp):
            start, end = code.span(node.value)
            if code.text[start - 1] == " " and (code.text + "\n")[end] == "\n" and "\n" not in code.text[start:end]:
                yield Change("formatting", (Edit(start, end, f"({code.text[start:end]})"),))
