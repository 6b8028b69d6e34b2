"""The built-in tasks `security-review` and `security-auth`: is it vulnerable, by which weakness, how gravely?"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from pawl.fleet.source import TaskSourceSpec
from pawl.qe.item import Item, Messages
from pawl.qe.judged_task import Judged, JudgedTask, compact
from pawl.qe.security_review import jsonl_source, oracle, prompt, simulated_source
from pawl.qe.security_review.weaknesses import WEAKNESSES
from pawl.qe.task import kind_of, location_of


class SecurityReview(JudgedTask):
    """A verdict with its CWE, judged on code before and after the fix."""

    name = "security-review"
    kinds = ("simulated", "jsonl")
    system = prompt.SYSTEM
    forms: tuple[prompt.Form, ...] = prompt.FORMS

    def items(self, source: TaskSourceSpec) -> Sequence[Item]:
        """Two items for each pair of vulnerable and mended code."""
        if kind_of(self, source) == "jsonl":
            return jsonl_source.items(location_of(self, source), self.forms)
        return [i for i in simulated_source.items() if _form(i.messages) in self.forms]

    def reference(self, item: Item, rng: random.Random) -> str | None:
        """The true class with the usual words for its fix."""
        if not item.truth:
            return None
        cwe = item.truth["cwe"]
        if cwe is None:
            return compact({"vulnerable": False, "cwe": None, "severity": "none", "fix": ""})
        listed = WEAKNESSES.get(cwe)
        fix = listed.fix if listed else "validate what comes from outside"
        return compact({"vulnerable": True, "cwe": cwe, "severity": item.truth["severity"] or "high", "fix": fix})

    def response_schema(self) -> dict[str, Any]:
        """Verdict, class, severity, fix."""
        return oracle.response_schema()

    def source_of(self, messages: Messages) -> str | None:
        """The project."""
        asked = prompt.parsed(messages)
        return asked.project if asked else None

    def judged(self, truth: Any, answer: dict[str, Any] | None) -> Judged:
        """By class and severity; by silence where the code is secure."""
        return oracle.judged(truth, answer)

    def own_items(self, source: str) -> Sequence[Item]:
        """The simulated code of the project."""
        return simulated_source.of_project(source)

    def class_said(self, answer: dict[str, Any]) -> str:
        """The CWE that is named, or `secure`."""
        return oracle.said_class(answer)


class SecurityAuth(SecurityReview):
    """The same of endpoints alone: handlers and OpenAPI fragments, who may call them and what of theirs is trusted."""

    name = "security-auth"
    forms = ("endpoint", "openapi")


def _form(messages: Messages) -> str:
    asked = prompt.parsed(messages)
    return asked.form if asked else ""
