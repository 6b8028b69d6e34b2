"""Which task an agent's spec names: a built-in one, or a class of the user's own."""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib import import_module
from pathlib import Path

from pawl.errors import SourceError
from pawl.qe.task import GenericTask, Task

# Imported when they are asked for: some oracles need more than others, and the gateway starts without any.
_BUILT_IN = {
    "functional-negative": "pawl.qe.functional_negative.task:FunctionalNegative",
    "functional-positive": "pawl.qe.functional_positive.task:FunctionalPositive",
    "spec-analyzer": "pawl.qe.spec_analyzer.task:SpecAnalyzer",
    "test-validator": "pawl.qe.case_validator.task:CaseValidator",
    "flaky-detection": "pawl.qe.flaky_detection.task:FlakyDetection",
    "security-review": "pawl.qe.security_review.task:SecurityReview",
    "security-auth": "pawl.qe.security_review.task:SecurityAuth",
    "performance-analyzer": "pawl.qe.performance_analyzer.task:PerformanceAnalyzer",
    "code-review": "pawl.qe.code_review.task:CodeReview",
    "accessibility-advocate": "pawl.qe.accessibility.task:AccessibilityAdvocate",
    "unit-test-generation": "pawl.qe.unit_tests.task:UnitTestGeneration",
    "coverage-analysis": "pawl.qe.coverage_gaps.task:CoverageAnalysis",
}


def names() -> tuple[str, ...]:
    """Names of the built-in tasks; `generic`, the last, is that of an agent without an oracle."""
    return (*_BUILT_IN, GenericTask.name)


@lru_cache(maxsize=64)
def task_of(name: str) -> Task:
    """The task of that name: a built-in one, or `module:Class` of the user's own.

    Raises:
        SourceError: there is no such task, or its module cannot be imported.
    """
    if name == GenericTask.name:
        return GenericTask()
    where = _BUILT_IN.get(name, name if ":" in name else None)
    if where is None:
        known = ", ".join(names())
        raise SourceError(
            f"no task is called {name!r}: in fleet.yaml write one of {known}, or module:Class of your own"
        )
    module, _, attribute = where.partition(":")
    try:
        found = getattr(import_module(module), attribute)()
    except (ImportError, AttributeError, TypeError) as error:
        raise SourceError(f"task {name!r} cannot be loaded: {type(error).__name__}: {error}") from error
    return found  # type: ignore[no-any-return]


def find_modules_in(*folders: Path) -> None:
    """Let the modules of users' own tasks be found in these folders too, after everything that is installed."""
    for folder in (str(f.resolve()) for f in folders):
        if folder not in sys.path:
            sys.path.append(folder)
