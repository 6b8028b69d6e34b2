"""What a piece of code does with many calls: which lines and decisions each reaches, and which mutants it notices."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from types import CodeType
from typing import Any, NamedTuple

from .inputs import calls
from .instrument import OutOfSteps, OutOfTime, Recorder, instrumented, timed
from .mutants import MOST, mutants

STEPS = 5_000  # of one call on the code as it is
CALL_S = 0.25  # processor time of one call
_TRIES = 160
_PATIENCE = 60  # calls in a row that were nothing new
_KEPT = 24
_ALWAYS = 6  # calls that are kept though they add nothing, so that one can choose
_LONGEST = 160  # characters of a result


class Module:
    """One version of the code, loaded, with what it recorded."""

    def __init__(self, tree: ast.Module) -> None:
        self.recorder = Recorder(STEPS)
        self.hung = False  # whether a check ran out of time
        self.raises = {n.lineno for n in ast.walk(tree) if isinstance(n, ast.Raise)}
        made, self.lines, self.branches = instrumented(tree)
        self.names: dict[str, Any] = {"__name__": "subject", **self.recorder.names()}
        exec(compile(made, "<subject>", "exec", dont_inherit=True), self.names)  # noqa: S102


class Check(NamedTuple):
    """One call and what must come of it. `kind`: value, raises, or assertion (then `call` is the whole of it)."""

    kind: str
    call: str
    expected: str = ""

    def text(self) -> str:
        """The statement of a test."""
        if self.kind == "assertion":
            return self.call
        if self.kind == "raises":
            return f"with pytest.raises({self.expected}):\n    {self.call}"
        same = "is" if self.expected in ("True", "False", "None") else "=="
        return f"assert {self.call} {same} {self.expected}"


def observed(code: str, entry: str, seeds: Sequence[str], assertions: Sequence[str]) -> dict[str, Any] | None:
    """What calls of the function `entry` tell; None where the code cannot be loaded or nothing came of any call.

    `seeds`: calls to begin with and to vary. `assertions`: tests that are known, each tried like a call.
    """
    tree = ast.parse(code)
    function = next((n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == entry), None)
    if function is None:
        return None
    original = Module(ast.parse(code))
    faulty = [_loaded(m.tree) for m in mutants(code, MOST)]
    keeper = _Keeper(original, faulty)

    def tried(text: str) -> tuple[bool, int, str]:
        check = _check(original, text)
        return check is not None, len(original.recorder.lines), check.expected if check else ""

    for known in assertions:
        keeper.try_it(Check("assertion", known), always=True)
    before = len(keeper.kept)
    for text in calls(function, tree, seeds, tried, _TRIES):
        if keeper.done() or len(keeper.kept) - before >= _KEPT:
            break
        check = _check(original, text)
        if check is not None:
            keeper.try_it(check, always=len(keeper.kept) - before < _ALWAYS)
    if not keeper.kept:
        return None
    lines, branches = sorted(original.lines), sorted(original.branches)
    return {"lines": lines, "branches": branches, "mutants": len(faulty), "checks": keeper.kept}


class _Keeper:
    """Keeps the checks that reach or notice something that those before them did not."""

    def __init__(self, original: Module, faulty: list[Module | None]) -> None:
        self.original, self.faulty = original, faulty
        self.kept: list[dict[str, Any]] = []
        self.alive = {n for n, m in enumerate(faulty) if m is not None}
        self.lines: set[int] = set()
        self.branches: set[str] = set()
        self.idle = 0  # checks since the last that was new

    def try_it(self, check: Check, always: bool) -> None:
        """Keeps it where it is new, or where it is to be kept anyway."""
        try:
            code = compiled(check)
        except (SyntaxError, ValueError):
            return
        if not holds(self.original, check, STEPS, code):
            return
        recorder = self.original.recorder
        budget, lines, branches = 10 * recorder.steps + 500, recorder.lines, recorder.branches
        noticed = {n for n in sorted(self.alive) if self._notices(n, check, budget, code)}
        if noticed or not lines <= self.lines or not branches <= self.branches:
            self.idle = 0
        elif not always:
            self.idle += 1
            return
        more = [n for n in range(len(self.faulty)) if n not in self.alive and self._notices(n, check, budget, code)]
        self.alive -= noticed
        self.lines |= lines
        self.branches |= branches
        kept = {"lines": sorted(lines), "branches": sorted(branches), "kills": sorted([*noticed, *more])}
        self.kept.append({**check._asdict(), **kept})

    def _notices(self, number: int, check: Check, budget: int, code: CodeType) -> bool:
        mutant = self.faulty[number]
        # One that hangs is not waited for again: only the first check that made it hang is said to notice it.
        return mutant is None or (not mutant.hung and not holds(mutant, check, budget, code))

    def done(self) -> bool:
        """Whether nothing is left to find, or nothing new was found for long."""
        all_of_it = self.original.lines <= self.lines and self.original.branches <= self.branches
        return (all_of_it and not self.alive and len(self.kept) >= _ALWAYS) or self.idle >= _PATIENCE


def _loaded(tree: ast.Module) -> Module | None:
    try:
        return Module(tree)
    except (Exception, OutOfSteps):
        return None


def holds(module: Module, check: Check, budget: int, code: CodeType | None = None) -> bool:
    """Whether the check passes on this version of the code, within so many steps. `code`: what `compiled` made."""
    module.recorder.begin(budget)
    names = dict(module.names)
    try:
        with timed(CALL_S):
            if check.kind != "raises":
                exec(code or compiled(check), names)  # noqa: S102
                return True
            try:
                eval(code or compiled(check), names)  # noqa: S307
            except Exception as error:
                return check.expected in {c.__name__ for c in type(error).__mro__}
            return False
    except OutOfTime:
        module.hung = True
        return False
    except (Exception, OutOfSteps):
        return False


def compiled(check: Check) -> CodeType:
    """The check's statement; of one that expects an exception the call alone."""
    if check.kind == "raises":
        return compile(check.call, "<check>", "eval", dont_inherit=True)
    return compile(check.text(), "<check>", "exec", dont_inherit=True)


def _check(original: Module, text: str) -> Check | None:
    """What comes of a call, where a test can state it: a literal, or an exception that the code itself raises."""
    original.recorder.begin(STEPS)
    try:
        with timed(CALL_S):
            value = eval(text, dict(original.names))  # noqa: S307
    except Exception as error:
        # A TypeError from deep within says that the call was wrong, not what the code promises.
        last = error.__traceback__
        while last is not None and last.tb_next is not None:
            last = last.tb_next
        own = last is not None and last.tb_frame.f_code.co_filename == "<subject>"
        raised = own and last is not None and last.tb_lineno in original.raises
        built_in = type(error).__module__ == "builtins"
        return Check("raises", text, type(error).__name__) if raised and built_in else None
    except OutOfSteps:
        return None
    shown = _literal(value)
    return Check("value", text, shown) if shown else None


def _literal(value: Any) -> str:
    shown = repr(value)
    if len(shown) > _LONGEST:
        return ""
    try:
        read = ast.literal_eval(shown)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return ""
    return shown if type(read) is type(value) and read == value else ""
