"""The built-in task `coverage-analysis`: what do these tests leave out, and which calls would reach it?"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from pawl.fleet.source import TaskSourceSpec
from pawl.qe.coverage_gaps import oracle, prompt
from pawl.qe.coverage_gaps.gaps import Reach, named, reach, reach_of_all
from pawl.qe.coverage_gaps.prompt import Asked
from pawl.qe.item import Grade, Item, Messages
from pawl.qe.judged_task import Judged, JudgedTask, compact
from pawl.qe.python_code import sources, suite
from pawl.qe.python_code.observing import Check, Observation, observation
from pawl.qe.python_code.snippet import Snippet, kind_of_code
from pawl.qe.task import kind_of, location_of

_FEWEST = 2  # gaps


class CoverageAnalysis(JudgedTask):
    """Lines and decisions that given tests leave out, held against a real run. Scenario classes are kinds of code."""

    name = "coverage-analysis"
    kinds = ("python", "jsonl")
    instant = False

    def items(self, source: TaskSourceSpec) -> Sequence[Item]:
        """An item for each function of which one of its tests, or one observed call, leaves something out."""
        if kind_of(self, source) == "jsonl":
            asked = _of_rows(location_of(self, source))
        else:
            asked = [told for s, o in sources.known(source.location) if (told := _subset(s, o)) is not None]
        made = [
            Item(
                id=a.snippet.name,
                source=a.snippet.source,
                messages=prompt.messages(a, seen.lines),
                truth=prompt.truth_of(a.snippet),
                scenario=kind_of_code(a.snippet.code),
            )
            for a, seen in asked
            if len(seen.gaps) >= _FEWEST and seen.lines and seen.all_branches
        ]
        return sorted(made, key=lambda i: i.id)

    def reference(self, item: Item, rng: random.Random) -> str | None:
        """The gaps as a run shows them, and a few observed calls that reach those within reach."""
        asked = prompt.parsed(item.messages, item.truth)
        known = observation(asked.snippet) if asked else None
        if asked is None or known is None:
            return None
        seen = reach(asked.snippet.code, asked.tests)
        calls = [c for c in known.checks if oracle.is_call(c.call, asked.snippet.entry)]
        taken = suite.chosen(calls, lambda c: set(_reached(c) & seen.gaps), rng)
        if not taken or len(taken) > oracle.MOST_CALLS:
            return None  # nothing is known to reach them, or not in so few calls
        return compact(
            {
                "lines": sorted(seen.all_lines - seen.lines),
                "branches": sorted(seen.all_branches - seen.branches, key=_by_line),
                "calls": [c.call for c in taken],
            }
        )

    def response_schema(self) -> dict[str, Any]:
        """Lines, outcomes of decisions, calls."""
        return oracle.response_schema()

    def source_of(self, messages: Messages) -> str | None:
        """The module, file or group of rows that the code is from."""
        asked = prompt.parsed(messages)
        return asked.snippet.source if asked else None

    def scenario_of(self, messages: Messages, completion: str) -> str:
        """The kind of the code."""
        asked = prompt.parsed(messages)
        return kind_of_code(asked.snippet.code) if asked else ""

    def recalled(self, messages: Messages) -> Any:
        """What a run of the prompt's own tests shows is all the truth that is needed."""
        return {"messages": messages}

    def judged(self, truth: Any, answer: dict[str, Any] | None) -> Judged:
        """By the gaps that are named and those that the calls close."""
        asked = prompt.parsed(truth["messages"], truth)
        if asked is None:
            raise TypeError("not a prompt of coverage-analysis")
        return oracle.judged(asked, answer)

    def grade(self, messages: Messages, completion: str, truth: Any = None) -> Grade | None:
        """The answer held against a run; None for foreign prompts."""
        known = truth if isinstance(truth, dict) else {}
        return super().grade(messages, completion, {**known, "messages": messages})

    def content_of(self, messages: Messages) -> str:
        """The code with its tests."""
        asked = prompt.parsed(messages)
        return "\n".join([asked.snippet.code, *asked.tests]) if asked else super().content_of(messages)


def _reached(check: Check) -> frozenset[str]:
    return named(check.lines, check.branches)


def _by_line(outcome: str) -> tuple[int, str]:
    line, _, truth = outcome.partition(":")
    return int(line), truth


def _subset(snippet: Snippet, known: Observation) -> tuple[Asked, Reach] | None:
    """One or two of the observed calls as the tests that the code has so far, the same ones each time.

    With what they reach, as it was observed; None where no other call reaches more.
    """
    rng = random.Random(snippet.name)
    lines = [c for c in known.checks if c.kind == "value" and prompt.one_line([c.text()])]
    given = rng.sample(lines, min(len(lines), rng.choice((1, 1, 2))))
    seen = Reach(
        lines=frozenset(n for c in given for n in c.lines),
        branches=frozenset(b for c in given for b in c.branches),
        all_lines=frozenset(known.lines),
        all_branches=frozenset(known.branches),
    )
    if not given or not any(_reached(c) & seen.gaps for c in known.checks):
        return None
    return Asked(snippet=snippet, tests=tuple(c.text() for c in given)), seen


@lru_cache(maxsize=4)
def _of_rows(location: str) -> list[tuple[Asked, Reach]]:
    """Rows with the first of their tests alone."""
    found = sources.worth_testing(sources.from_jsonl(location))
    asked = [Asked(snippet=s, tests=s.assertions[:1]) for s in found if prompt.one_line(s.assertions[:1])]
    return list(zip(asked, reach_of_all([(a.snippet.code, a.tests) for a in asked]), strict=True))
