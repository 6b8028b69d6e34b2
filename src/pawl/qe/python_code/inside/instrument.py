"""Code that tells which of its lines and decisions it reaches, by calls put into its syntax tree.

A line is the first line of a statement within a function (docstrings are none). A decision is the condition of an
`if`, `while`, conditional expression or comprehension, with the outcomes true and false; of a `for` loop, true is
that its body was entered and false that it ran out without a break. Decisions on the same line count as one.
Conditions that are constants decide nothing.
"""

from __future__ import annotations

import ast
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, cast

LINE, IF, FOR = "__pawl_line__", "__pawl_if__", "__pawl_for__"
_BODIES = ("body", "orelse", "finalbody")


class OutOfSteps(BaseException):
    """The code took more steps than it may; no `except Exception` of its own holds it back."""


class OutOfTime(OutOfSteps):
    """It took more processor time than it may, though few steps."""


class Recorder:
    """What was reached. A step is a statement or a decision; deterministic, where time is not."""

    def __init__(self, budget: int) -> None:
        self.lines: set[int] = set()
        self.branches: set[str] = set()
        self.budget, self.steps = budget, 0

    def begin(self, budget: int) -> None:
        """Forgets what was reached; `budget` steps from here."""
        self.lines, self.branches = set(), set()
        self.budget, self.steps = budget, 0

    def line(self, number: int) -> None:
        """A statement begins."""
        self.steps += 1
        if self.steps > self.budget:
            raise OutOfSteps
        self.lines.add(number)

    def decision(self, number: int, value: Any) -> bool:
        """A condition was evaluated."""
        self.steps += 1
        if self.steps > self.budget:
            raise OutOfSteps
        truth = bool(value)
        self.branches.add(outcome(number, truth))
        return truth

    def loop(self, number: int, values: Iterable[Any]) -> Iterator[Any]:
        """The values of a `for` loop."""
        for value in values:
            self.branches.add(outcome(number, True))
            yield value
        self.branches.add(outcome(number, False))

    def names(self) -> dict[str, Any]:
        """What the instrumented code calls."""
        return {LINE: self.line, IF: self.decision, FOR: self.loop}


@contextmanager
def timed(seconds: float) -> Iterator[None]:
    """Raises OutOfTime where what is within takes more processor time: one step can take forever, too.

    Again and again, in case it is caught.
    """

    def ring(number: int, frame: FrameType | None) -> None:
        raise OutOfTime

    signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, seconds, 0.1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def outcome(number: int, truth: bool) -> str:
    """The name of an outcome of the decision on a line."""
    return f"{number}:{'true' if truth else 'false'}"


class _Instrument(ast.NodeTransformer):
    def __init__(self) -> None:
        self.lines: set[int] = set()
        self.branches: set[str] = set()
        self.depth = 0

    def visit(self, node: ast.AST) -> ast.AST:
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        self.depth += function
        node = self.generic_visit(node)
        if self.depth:
            self._decided(node)
            for field in _BODIES:
                statements = getattr(node, field, None)
                if isinstance(statements, list) and statements and isinstance(statements[0], ast.stmt):
                    setattr(node, field, self._counted(statements, function and field == "body"))
        self.depth -= function
        return node

    def _decided(self, node: ast.AST) -> None:
        if isinstance(node, ast.If | ast.While | ast.IfExp):
            node.test = self._condition(node.test, node.lineno)
        elif isinstance(node, ast.comprehension):
            node.ifs = [self._condition(c, c.lineno) for c in node.ifs]
        elif isinstance(node, ast.For):
            self.branches |= {outcome(node.lineno, True), outcome(node.lineno, False)}
            node.iter = _call(FOR, node.lineno, node.iter)

    def _condition(self, test: ast.expr, line: int) -> ast.expr:
        if isinstance(test, ast.Constant):
            return test
        self.branches |= {outcome(line, True), outcome(line, False)}
        return _call(IF, line, test)

    def _counted(self, statements: list[ast.stmt], function: bool) -> list[ast.stmt]:
        kept: list[ast.stmt] = []
        for place, statement in enumerate(statements):
            if not (function and place == 0 and is_docstring(statement)):
                self.lines.add(statement.lineno)
                call = ast.Expr(_call(LINE, statement.lineno))
                kept.append(ast.copy_location(call, statement))
            kept.append(statement)
        return kept


def is_docstring(statement: ast.stmt) -> bool:
    """Whether the first statement of a body is nothing but a text."""
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _call(name: str, line: int, *more: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), [ast.Constant(line), *more], [])


def instrumented(tree: ast.Module) -> tuple[ast.Module, set[int], set[str]]:
    """The tree (changed in place) with its calls put in, all its lines, and all outcomes of its decisions."""
    maker = _Instrument()
    made = cast(ast.Module, maker.visit(tree))
    return ast.fix_missing_locations(made), maker.lines, maker.branches
