"""Where the contract tests take each built-in task's items from: the default source, or a small file of the tests."""

from __future__ import annotations

from pawl.fleet.source import TaskSourceSpec

SOURCES: dict[str, TaskSourceSpec] = {
    "functional-negative": TaskSourceSpec(),
    "functional-positive": TaskSourceSpec(),
    "spec-analyzer": TaskSourceSpec(),
    "test-validator": TaskSourceSpec(),
    "flaky-detection": TaskSourceSpec(),
    "security-review": TaskSourceSpec(),
    "security-auth": TaskSourceSpec(),
    "performance-analyzer": TaskSourceSpec(),
    "code-review": TaskSourceSpec(),
    "accessibility-advocate": TaskSourceSpec(),
    "unit-test-generation": TaskSourceSpec(),
    "coverage-analysis": TaskSourceSpec(),
}
