"""The built-in task `performance-analyzer`: series of a service, is it well, and if not, from when to when and why?"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from pawl.fleet.source import TaskSourceSpec
from pawl.qe.item import Item, Messages
from pawl.qe.judged_task import Judged, JudgedTask, compact
from pawl.qe.performance_analyzer import jsonl_source, oracle, prompt, simulated_source
from pawl.qe.task import kind_of, location_of

_ADVICE = {
    "overload": "add workers or shed load",
    "capacity_loss": "bring the lost workers back",
    "leak": "restart, then find the leak",
    "error_burst": "check the failing dependency",
    "noisy_neighbour": "move to a quieter host",
    "anomaly": "look at what changed when it began",
}


class PerformanceAnalyzer(JudgedTask):
    """Status and issues, judged by labelled windows."""

    name = "performance-analyzer"
    kinds = ("simulated", "jsonl")
    system = prompt.SYSTEM

    def items(self, source: TaskSourceSpec) -> Sequence[Item]:
        """An item for each window of each series."""
        if kind_of(self, source) == "jsonl":
            return jsonl_source.items(location_of(self, source))
        return simulated_source.items()

    def reference(self, item: Item, rng: random.Random) -> str | None:
        """The labelled windows; `degraded` and `anomaly` where nobody said more."""
        asked = prompt.parsed(item.messages)
        if asked is None or not item.truth:
            return None
        issues = [
            {
                "metric": w["metric"] or asked.metrics[0],
                "from": w["from"],
                "to": w["to"],
                "kind": w["kind"] or "anomaly",
            }
            for w in item.truth["issues"]
        ]
        advice = list(dict.fromkeys(_ADVICE[i["kind"]] for i in issues))
        status = item.truth["status"] or "degraded"
        return compact({"status": status, "issues": issues, "recommendations": advice})

    def response_schema(self) -> dict[str, Any]:
        """Status, issues, recommendations."""
        return oracle.response_schema()

    def source_of(self, messages: Messages) -> str | None:
        """The service, or the series."""
        asked = prompt.parsed(messages)
        return asked.service if asked else None

    def judged(self, truth: Any, answer: dict[str, Any] | None) -> Judged:
        """By overlap, status and kind."""
        return oracle.judged(truth, answer)

    def own_items(self, source: str) -> Sequence[Item]:
        """The simulated runs of the service."""
        return simulated_source.of_service(source)

    def class_said(self, answer: dict[str, Any]) -> str:
        """The kind of the first issue, or the status."""
        return str(answer["issues"][0]["kind"]) if answer["issues"] else str(answer["status"])
