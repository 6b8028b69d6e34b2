"""The oracle of `unit-test-generation`: the tests are run, on the code and on faulty versions of it.

Coverage alone says little of a suite's worth (Inozemtseva and Holmes, "Coverage Is Not Strongly Correlated with Test
Suite Effectiveness", ICSE 2014, section 5), so what mutants it kills counts most, and one that kills none is worth
nothing. A mutant counts only where some known check kills it: the rest may be equivalent to the code. The known checks
are calls with observed results, and the tests that came with the item.
"""

from __future__ import annotations

from collections.abc import Set
from functools import lru_cache
from typing import Any

import msgspec

from pawl import sandbox
from pawl.qe.python_code.observing import PYTEST, BrokeOff, Observation, in_sandbox, observation
from pawl.qe.python_code.snippet import Snippet
from pawl.qe.unit_tests import answer

KILLS, BRANCHES = 0.7, 0.3  # what they weigh
_ENOUGH = 0.8  # from here on a share is no failure
_KEPT = 1024


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a suite is worth, 0..1. `failure` is "" where nothing much is wrong."""

    score: float = 0.0
    failure: str = ""
    problem: str = ""
    metrics: dict[str, float] = {}


def score_of(killed: float, branches: float) -> float:
    """0.7 of the share of mutants killed and 0.3 of the share of branches reached; 0 where nothing is killed."""
    return KILLS * killed + BRANCHES * branches if killed > 0 else 0.0


def share(found: Set[Any], of: Set[Any]) -> float:
    """How much of `of` was found; all of nothing."""
    return len(found & of) / len(of) if of else 1.0


def judged(snippet: Snippet, completion: str) -> Verdict:
    """The verdict on an answer; the last ones are remembered.

    Raises:
        CannotGrade: no sandbox that will do, whatever the answer: else only bad answers would have grades.
    """
    sandbox.best()
    return _judged(snippet, completion)


@lru_cache(maxsize=_KEPT)
def _judged(snippet: Snippet, completion: str) -> Verdict:
    given = answer.read(completion)
    if given.failure:
        return _nothing(given.failure, given.problem)
    known = observation(snippet)
    if known is None:
        return _nothing("not_known", "nothing is known of this code: no call of it returns what a test could state")
    packages = PYTEST if given.needs_pytest else ()
    job = {"do": "evaluate", "code": snippet.code, "tests": given.code, "mutants": True}
    try:
        told = in_sandbox(job, packages=packages)
        # Once more with other hashes, another time and other random numbers.
        again = in_sandbox({**job, "mutants": False}, packages=packages, hash_seed=1) if told["ran"] else told
    except BrokeOff as error:  # the known code does not end a sandbox, so the tests did
        return _nothing("does_not_run", str(error))
    if not told["ran"] or not told["tests"]:
        return _nothing("does_not_run", told["problem"] or "no test was found")
    if not again["ran"] or not told["failed"] == told["again"] == again["failed"]:
        return _nothing("flaky", "the same tests on the same code passed once and failed once", runs=1.0)
    if told["failed"]:
        return _nothing("fails_on_right_code", told["problem"], runs=1.0, stable=1.0)
    return _worth(known, set(told["kills"]), set(told["branches"]), set(told["lines"]))


def _worth(known: Observation, kills: set[int], branches: set[str], lines: set[int]) -> Verdict:
    """What a suite that passes on the code is worth."""
    killed = share(kills, known.killable)
    # Of code that decides nothing the lines count in place of the branches.
    reached = share(branches, known.reachable) if known.branches else share(lines, known.reachable_lines)
    failure = "kills_nothing" if not killed else "low_coverage" if reached < _ENOUGH else ""
    failure = failure or ("misses_faults" if killed < _ENOUGH else "")
    missed = sorted(known.reachable - branches)
    problem = f"{len(kills & known.killable)} of {len(known.killable)} mutants killed"
    problem += f"; never taken: {', '.join(missed[:6])}" if missed else ""
    metrics = {
        "runs": 1.0,
        "passes": 1.0,
        "stable": 1.0,
        "mutants_killed": killed,
        "branch_coverage": reached,
        "line_coverage": share(lines, known.reachable_lines),
    }
    score = score_of(killed, reached)
    return Verdict(score=score, failure=failure, problem="" if score >= 1 else problem, metrics=metrics)


def _nothing(failure: str, problem: str, *, runs: float = 0.0, stable: float = 0.0) -> Verdict:
    figures = dict.fromkeys(("mutants_killed", "branch_coverage", "line_coverage"), 0.0)
    metrics = {"runs": runs, "passes": 0.0, "stable": stable, **figures}
    return Verdict(failure=failure, problem=problem, metrics=metrics)
