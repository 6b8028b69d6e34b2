"""Changes of a function's text, as places of its syntax tree, so that everything else stays as it was written."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import NamedTuple

Function = ast.FunctionDef | ast.AsyncFunctionDef
SIMPLE = (ast.Name, ast.Attribute, ast.Constant)  # reading these changes nothing


class Edit(NamedTuple):
    """Text that takes the place of `start` to `end`, offsets into the function's text."""

    start: int
    end: int
    text: str


class Change(NamedTuple):
    """One change of a kind. The first of its edits is where a reviewer would point."""

    kind: str
    edits: tuple[Edit, ...]


class Code:
    """A function's text and tree. The text is ASCII, so columns count characters."""

    def __init__(self, text: str) -> None:
        self.text = text
        (found,) = ast.parse(text).body
        if not isinstance(found, ast.FunctionDef | ast.AsyncFunctionDef):
            raise ValueError("not a function")
        self.function: Function = found
        self.nodes: tuple[ast.AST, ...] = tuple(ast.walk(found))
        self._starts = [0]
        for line in text.split("\n"):
            self._starts.append(self._starts[-1] + len(line) + 1)

    def at(self, line: int, column: int) -> int:
        """The offset of a place as the tree names it: lines from 1, columns from 0."""
        return self._starts[line - 1] + column

    def span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        """Where a node begins and ends."""
        return self.at(node.lineno, node.col_offset), self.at(node.end_lineno or 0, node.end_col_offset or 0)

    def of(self, node: ast.expr | ast.stmt) -> str:
        """A node's text."""
        start, end = self.span(node)
        return self.text[start:end]

    def between(self, left: ast.expr, right: ast.expr) -> tuple[int, int, str]:
        """What stands between two nodes without the spaces around it: start, end, text."""
        start, end = self.span(left)[1], self.span(right)[0]
        found = self.text[start:end]
        start += len(found) - len(found.lstrip())
        return start, start + len(found.strip()), found.strip()

    def whole_lines(self, node: ast.stmt) -> tuple[int, int] | None:
        """The lines of a statement that shares them with nothing, comments apart; None where it does."""
        start, end = self._starts[node.lineno - 1], self._starts[node.end_lineno or 0]
        before = self.text[start : self.span(node)[0]]
        after = self.text[self.span(node)[1] : end].strip()
        return None if before.strip() or (after and not after.startswith("#")) else (start, min(end, len(self.text)))

    def bodies(self) -> Iterator[list[ast.stmt]]:
        """All blocks of statements."""
        for node in self.nodes:
            for field in ("body", "orelse", "finalbody"):
                found = getattr(node, field, None)
                if isinstance(found, list) and found:
                    yield found

    def names(self) -> set[str]:
        """Every name that the function's text mentions."""
        found = {n.id for n in self.nodes if isinstance(n, ast.Name)}
        found |= {n.arg for n in self.nodes if isinstance(n, ast.arg)}
        return found | {n.attr for n in self.nodes if isinstance(n, ast.Attribute)}


def applied(text: str, edits: Sequence[Edit]) -> str:
    """The text with all edits made; they do not overlap."""
    for edit in sorted(edits, reverse=True):
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text


def line_of(text: str, edits: Sequence[Edit], edit: Edit) -> int:
    """The line, from 1, at which one of the edits stands in the changed text."""
    before = [e for e in edits if e.start < edit.start]
    at = edit.start + sum(len(e.text) - (e.end - e.start) for e in before)
    return applied(text, edits)[:at].count("\n") + 1


def apart(text: str, one: Sequence[Edit], other: Sequence[Edit]) -> bool:
    """Whether two changes touch different lines."""

    def lines(edits: Sequence[Edit]) -> set[int]:
        return {n for e in edits for n in range(text.count("\n", 0, e.start), text.count("\n", 0, e.end) + 1)}

    return not lines(one) & lines(other)
