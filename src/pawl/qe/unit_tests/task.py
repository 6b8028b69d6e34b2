"""The built-in task `unit-test-generation`: pytest tests for a function, judged by what they notice."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any

from pawl.fleet.source import TaskSourceSpec
from pawl.qe.item import Grade, Item, Messages
from pawl.qe.python_code import sources, suite
from pawl.qe.python_code.observing import observation
from pawl.qe.python_code.snippet import kind_of_code
from pawl.qe.task import TaskDefaults, kind_of, location_of, user_text
from pawl.qe.unit_tests import answer, oracle, prompt

_TESTS = re.compile(r"^[ \t]*(?:async )?def test\w*\(", re.MULTILINE)


class UnitTestGeneration(TaskDefaults):
    """Tests for a function, run on it and on mutants of it. Scenario classes are kinds of code."""

    name = "unit-test-generation"
    kinds = ("python", "jsonl")
    instant = False

    def items(self, source: TaskSourceSpec) -> Sequence[Item]:
        """An item for each function that can be run by itself and of which enough is known.

        Functions of Python files are tried out here, since only running them tells whether anything can be known;
        rows of a file bring tests, so they are not.
        """
        if kind_of(self, source) == "jsonl":
            found = sources.worth_testing(sources.from_jsonl(location_of(self, source)))
        else:
            found = [s for s, _ in sources.known(source.location)]
        made = [
            Item(
                id=s.name,
                source=s.source,
                messages=prompt.messages(s),
                truth=prompt.truth_of(s),
                scenario=kind_of_code(s.code),
            )
            for s in found
        ]
        return sorted(made, key=lambda i: i.id)

    def reference(self, item: Item, rng: random.Random) -> str | None:
        """The tests that came with the item, and observed calls that notice what those leave."""
        snippet = prompt.parsed(item.messages, item.truth)
        known = observation(snippet) if snippet else None
        if snippet is None or known is None or not known.killable:
            return None
        given = [c for c in known.checks if c.kind == "assertion"]
        others = [c for c in known.checks if c.kind != "assertion"]
        return suite.written(suite.chosen(others, suite.everything, rng, given), snippet.entry)

    def source_of(self, messages: Messages) -> str | None:
        """The module, file or group of rows that the code is from."""
        snippet = prompt.parsed(messages)
        return snippet.source if snippet else None

    def scenario_of(self, messages: Messages, completion: str) -> str:
        """The kind of the code."""
        snippet = prompt.parsed(messages)
        return kind_of_code(snippet.code) if snippet else ""

    def grade(self, messages: Messages, completion: str, truth: Any = None) -> Grade | None:
        """By mutants killed and branches reached; the prompt's code is truth enough, known tests make it stricter."""
        snippet = prompt.parsed(messages, truth)
        if snippet is None:
            return None
        found = oracle.judged(snippet, completion)
        if found.failure == "not_known":
            return None
        told = (
            f"{found.failure}: {found.problem}" if found.failure and found.problem else found.failure or found.problem
        )
        return Grade(score=found.score, conforms=self.conforms(completion), problem=told, metrics=found.metrics)

    def conforms(self, completion: str) -> bool:
        """Whether it is Python with a test in it, plain or as one fenced block."""
        return not answer.read(completion).failure

    def tests_in(self, completion: str) -> int:
        """Functions named test_..., by their lines: reading it as Python would take a gateway too long."""
        return len(_TESTS.findall(completion[: answer.LONGEST]))

    def content_of(self, messages: Messages) -> str:
        """The code."""
        snippet = prompt.parsed(messages)
        return snippet.code if snippet else user_text(messages)

    def cluster_key(self, messages: Messages, completion: str, truth: Any = None) -> str:
        """What the oracle calls the failure."""
        snippet = prompt.parsed(messages)
        found = oracle.judged(snippet, completion) if snippet else None
        return found.failure if found and found.failure != "not_known" else ""
