"""Both models on the regression suite."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from pawl.evaluation.report import ItemResult
from pawl.evaluation.suite import suite_of


def side(scores: dict[str, float | None]) -> list[ItemResult]:
    return [ItemResult(item=name, source="s", score=score) for name, score in scores.items()]


def test_losses_and_gains_are_counted_and_tested_exactly() -> None:
    old = side({f"i{n}": 1.0 if n < 8 else 0.0 for n in range(12)})
    new = side({f"i{n}": 0.4 if n in (0, 1, 2, 3, 4, 5) else 0.5 if n != 11 else None for n in range(12)})
    found = suite_of(old, new, must_pass=(), pass_score=0.5)
    o = found.outcomes
    assert (o.both, o.lost, o.gained, o.neither, found.ungraded) == (2, 6, 3, 0, 1)
    assert o.p_lost == pytest.approx(binomtest(6, 9, alternative="greater").pvalue)
    assert found.lost == ("i0", "i1", "i2", "i3", "i4", "i5")


def test_what_must_pass_fails_or_is_not_known() -> None:
    old = side({"a": 0.0, "b": 1.0, "c": 1.0})
    new = side({"a": 0.0, "b": 1.0, "c": None})
    found = suite_of(old, new, must_pass=("a", "b", "c", "gone"), pass_score=0.5, left_out=2)
    assert found.must_pass_failed == ("a",), "also where the champion fails it"
    assert found.must_pass_unknown == ("c", "gone") and found.left_out == 2
    assert len(found.champion) == len(found.challenger) == 3
