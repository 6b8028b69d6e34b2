"""What a model's tests are worth: do they pass on the code, what do they reach, which mutants do they notice."""

from __future__ import annotations

import ast
import builtins
import json
import os
import random
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from .instrument import OutOfSteps, OutOfTime, timed
from .mutants import MOST, mutants
from .observe import CALL_S, Module
from .observe import STEPS as CALL_STEPS

STEPS = 2_000_000
_CHILD_S = 8  # a run of the tests by the wall: tests that sleep
_SUITE_S, _MUTANT_S = 2.0, 1.0  # processor time of the tests on the code, and on a mutant
_FILE = "test_answer.py"
_PYTEST = ["-p", "no:cacheprovider", "-p", "no:terminal", "-p", "no:faulthandler", "-p", "no:junitxml",
           "--assert=plain", "--noconftest", "-c", os.devnull, "--rootdir", ".", "--confcutdir", "."]  # fmt: skip


def evaluated(code: str, tests: str, with_mutants: bool) -> dict[str, Any]:
    """`ran`, `tests`, `failed` (names) and in a second run `again`, `problem`, and where all passed `lines`, `branches`
    and `kills` (mutants by number).

    The right code is run again among the mutants, where nobody can know, and after them, in the same way as they are:
    tests that go by how often they were run, or by their time, fail there too, and notice no mutant.
    """
    tree = ast.parse(tests)
    plain = is_plain(tree)
    if uses_pytest(tree):
        Path(_FILE).write_text(tests)
        import pytest  # noqa: F401  # once for all children

    def run(made: ast.Module, budget: int, first: bool) -> dict[str, Any]:
        return apart(lambda: _ran(made, tree, plain, budget, first))

    told = run(ast.parse(code), STEPS, False)
    if not told["ran"] or not told["tests"] or not with_mutants:
        return told
    told["again"] = run(ast.parse(code), STEPS, False)["failed"]
    if told["failed"] or told["again"]:
        return told
    kills, budget = [], 10 * told["steps"] + 2000
    trees: list[tuple[int | None, ast.Module]] = [(n, m.tree) for n, m in enumerate(mutants(code, MOST))]
    trees.insert(random.SystemRandom().randint(0, len(trees)), (None, ast.parse(code)))
    for number, tried in [*trees, (None, ast.parse(code))]:
        found = run(tried, budget, True)
        if not found["ran"] or found["failed"]:
            if number is None:
                return {**told, "again": found["failed"] or [found["problem"]]}
            kills.append(number)
    return {**told, "kills": kills}


def uses_pytest(tree: ast.Module) -> bool:
    """Whether the tests import anything of pytest, or expect it to find them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and any(a.name.split(".")[0] in ("pytest", "_pytest") for a in node.names):
            return True
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("pytest", "_pytest"):
            return True
    return not is_plain(tree)


def is_plain(tree: ast.Module) -> bool:
    """Whether the tests are functions without parameters and decorators, and nothing else that pytest looks for.

    Calling them one after the other is all that pytest would do, and many times faster.
    """
    for top in tree.body:
        if isinstance(top, ast.ClassDef) and top.name.startswith("Test"):
            return False
        if isinstance(top, ast.AsyncFunctionDef):
            return False
        if isinstance(top, ast.FunctionDef):
            given = top.args
            parameters = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
            named = top.name.startswith(("test", "setup", "teardown"))
            if named and (any(parameters) or top.decorator_list or not top.name.startswith("test")):
                return False
    return True


def apart(what: Callable[[], dict[str, Any]], seconds: int = _CHILD_S) -> dict[str, Any]:
    """The result of a function that runs in a child of its own: nothing that it changes stays."""
    read, write = os.pipe()
    # The code could find the pipe and write a result of its own: it does not know this.
    mark = os.urandom(16).hex().encode()
    child = os.fork()
    if child == 0:
        for other in range(3, 256):
            if other != write:
                with suppress(OSError):
                    os.close(other)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(seconds)
        random.seed()
        try:
            told = json.dumps(what()).encode()
        except BaseException as error:  # whatever the tests threw, this child must not go on as its parent
            told = json.dumps({"ran": False, "problem": f"{type(error).__name__}: {error}"[:200]}).encode()
        with os.fdopen(write, "wb") as out:
            out.write(mark + told)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        told = answer.read()
    os.waitpid(child, 0)
    empty = {"ran": False, "tests": 0, "failed": [], "problem": "did not end", "lines": [], "branches": [], "steps": 0}
    return {**empty, **(json.loads(told.removeprefix(mark)) if told.startswith(mark) else {})}


def _ran(made: ast.Module, tests: ast.Module, plain: bool, budget: int, first: bool) -> dict[str, Any]:
    try:
        module = Module(made)
    except (Exception, OutOfSteps) as error:
        return {"ran": False, "problem": f"the code does not load: {type(error).__name__}"}
    module.recorder.begin(budget)
    subject = ModuleType("subject")
    subject.__dict__.update(module.names)
    sys.modules["subject"] = subject
    given = {n: v for n, v in module.names.items() if not n.startswith("__")}
    # A mutant may make numbers grow without end; a suite may take its time.
    with timed(_MUTANT_S if first else _SUITE_S):
        told = _plainly(tests, given, first) if plain else _by_pytest(given, first)
    recorder = module.recorder
    return {
        "ran": True, "problem": "", **told,
        "lines": sorted(recorder.lines), "branches": sorted(recorder.branches), "steps": recorder.steps,
    }  # fmt: skip


def _plainly(tests: ast.Module, given: dict[str, Any], first: bool) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "test_answer", **given}
    try:
        exec(compile(tests, _FILE, "exec", dont_inherit=True), names)  # noqa: S102
    except (Exception, OutOfSteps, SystemExit) as error:
        return {"ran": False, "tests": 0, "failed": [], "problem": _said(error)}
    found = [
        (n, f) for n, f in names.items() if n.startswith("test") and isinstance(f, FunctionType) and n not in given
    ]
    failed, skipped, problem = [], 0, ""
    for name, function in found:
        try:
            function()
        except OutOfTime:
            return {"ran": False, "tests": len(found), "failed": [name], "problem": f"{name} takes too long"}
        except BaseException as error:  # what pytest.raises and pytest.fail throw is no Exception
            if type(error).__name__ == "Skipped":
                skipped += 1
                continue
            failed.append(name)
            problem = problem or f"{name}: {_said(error)}"
            if first:
                break
    return {"tests": len(found) - skipped, "failed": failed, "problem": problem}


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:160]


class _Listening:
    """A plugin of pytest that notes what came of each test."""

    def __init__(self) -> None:
        self.passed: list[str] = []
        self.failed: list[str] = []
        self.problem, self.collected = "", True

    def pytest_collectreport(self, report: Any) -> None:
        """Collection failed: the tests do not run."""
        if report.failed:
            self.collected = False
            self.problem = str(report.longrepr).strip().splitlines()[-1][:160]

    def pytest_runtest_logreport(self, report: Any) -> None:
        """One phase of one test."""
        name = report.nodeid.partition("::")[2]
        if report.failed:
            self.failed.append(name)
            self.problem = self.problem or f"{name}: {str(report.longrepr).strip().splitlines()[-1]}"[:200]
        elif report.when == "call" and report.passed:
            self.passed.append(name)


def _by_pytest(given: dict[str, Any], first: bool) -> dict[str, Any]:
    import pytest

    # The test file is imported by pytest: names that it need not import can only be built in.
    builtins.__dict__.update(given)
    heard = _Listening()
    sys.path.insert(0, ".")
    status = pytest.main([*_PYTEST, *(["-x"] if first else []), _FILE], plugins=[heard])
    if status not in (0, 1) and not heard.problem:
        heard.problem = "pytest found no test" if status == 5 else f"pytest ended with status {int(status)}"
    failed = list(dict.fromkeys(heard.failed))
    ran = heard.collected and status in (0, 1, 2) and bool(heard.passed or failed)
    return {"ran": ran, "tests": len({*heard.passed, *failed}), "failed": failed, "problem": heard.problem}


def reached(code: str, statements: Sequence[str]) -> dict[str, Any]:
    """The lines and outcomes that statements reach together, each run by itself, and all that there are."""

    def run() -> dict[str, Any]:
        module = Module(ast.parse(code))
        lines: set[int] = set()
        branches: set[str] = set()
        for text in statements:
            module.recorder.begin(CALL_STEPS)
            # What raises has reached what it reached.
            with suppress(Exception, OutOfSteps, SystemExit), timed(CALL_S):
                exec(compile(text, "<call>", "exec", dont_inherit=True), dict(module.names))  # noqa: S102
            lines |= module.recorder.lines
            branches |= module.recorder.branches
        return {
            "lines": sorted(lines), "branches": sorted(branches),
            "all_lines": sorted(module.lines), "all_branches": sorted(module.branches),
        }  # fmt: skip

    return apart(run)
