"""The built-in task `flaky-detection`: a test and some reruns of it, is it flaky, and why?"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from pawl.fleet.source import TaskSourceSpec
from pawl.qe.flaky_detection import jsonl_source, oracle, prompt, simulated_source
from pawl.qe.flaky_detection.history import history_verdict
from pawl.qe.item import Item, Messages
from pawl.qe.judged_task import Judged, JudgedTask, compact
from pawl.qe.task import kind_of, location_of


class FlakyDetection(JudgedTask):
    """Verdict, cause and confidence, judged by what many reruns found, or by what a simulated test was made to do."""

    name = "flaky-detection"
    kinds = ("simulated", "jsonl")
    system = prompt.SYSTEM

    def items(self, source: TaskSourceSpec) -> Sequence[Item]:
        """An item for each test."""
        if kind_of(self, source) == "jsonl":
            return jsonl_source.items(location_of(self, source))
        return simulated_source.items()

    def reference(self, item: Item, rng: random.Random) -> str | None:
        """The true verdict, as sure as the history in the prompt allows and never less than even."""
        asked = prompt.parsed(item.messages)
        if asked is None or not item.truth:
            return None
        verdict, confidence = history_verdict(asked.reruns)
        sure = confidence if verdict == item.truth["verdict"] else 0.5
        return compact(
            {
                "verdict": item.truth["verdict"],
                "cause": item.truth["cause"] or "unknown",
                "confidence": sure,
            }
        )

    def response_schema(self) -> dict[str, Any]:
        """Verdict, cause, confidence."""
        return oracle.response_schema()

    def source_of(self, messages: Messages) -> str | None:
        """The project."""
        asked = prompt.parsed(messages)
        return asked.project if asked else None

    def judged(self, truth: Any, answer: dict[str, Any] | None) -> Judged:
        """By verdict and cause."""
        return oracle.judged(truth, answer)

    def own_items(self, source: str) -> Sequence[Item]:
        """The simulated tests of the project."""
        return simulated_source.of_project(source)

    def class_said(self, answer: dict[str, Any]) -> str:
        """The cause where there is one, else the verdict."""
        cause = str(answer["cause"])
        return cause if cause in prompt.CAUSES and answer["verdict"] == "flaky" else str(answer["verdict"])
