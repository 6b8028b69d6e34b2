"""The built-in task `code-review`: a diff, what does it break, and where?"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from pawl.fleet.source import TaskSourceSpec
from pawl.qe.code_review import jsonl_source, oracle, prompt, python_source
from pawl.qe.code_review.faults import WHY
from pawl.qe.item import Item, Messages
from pawl.qe.judged_task import Judged, JudgedTask, compact
from pawl.qe.task import kind_of, location_of


class CodeReview(JudgedTask):
    """Findings on a change, judged by the fix that followed."""

    name = "code-review"
    kinds = ("python", "jsonl")
    system = prompt.SYSTEM

    def items(self, source: TaskSourceSpec) -> Sequence[Item]:
        """An item for each change."""
        if kind_of(self, source) == "jsonl":
            return jsonl_source.items(location_of(self, source))
        return python_source.items()

    def reference(self, item: Item, rng: random.Random) -> str | None:
        """The faults that the fix took back, in usual words."""
        if not item.truth:
            return None
        found = [
            {"line": f["line"], "kind": f["kind"] or "other", "why": WHY.get(f["kind"], "a later fix changed it back")}
            for f in item.truth["findings"]
        ]
        return compact({"findings": found})

    def response_schema(self) -> dict[str, Any]:
        """Findings with line, kind and reason."""
        return oracle.response_schema()

    def source_of(self, messages: Messages) -> str | None:
        """The module, or the project."""
        return prompt.module_of(messages)

    def judged(self, truth: Any, answer: dict[str, Any] | None) -> Judged:
        """By line and kind; by silence where the change is clean."""
        return oracle.judged(truth, answer)

    def own_items(self, source: str) -> Sequence[Item]:
        """The changes of the standard library's module."""
        return python_source.of_module(source)

    def class_said(self, answer: dict[str, Any]) -> str:
        """The kind of the first finding, or `clean`."""
        return str(answer["findings"][0]["kind"]) if answer["findings"] else oracle.CLEAN
