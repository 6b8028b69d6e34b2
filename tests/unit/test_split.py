"""The split by source: stable, monotone, and never empty."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawl.curation.split import side, split_sources
from pawl.errors import SourceError

NAMES = st.sets(st.text(max_size=8), min_size=2, max_size=60)
PERCENT = st.integers(1, 40)


@given(NAMES, PERCENT, PERCENT)
def test_every_source_has_one_side_and_training_and_test_hold_some(names: set[str], validation: int, test: int) -> None:
    made = split_sources(names, validation, test)
    assert set(made) == names
    held = Counter(made.values())
    assert held["train"] >= 1 and held["test"] >= 1
    assert held["validation"] >= (1 if len(names) > 2 else 0)


@given(NAMES, PERCENT, PERCENT, st.integers(0, 20))
def test_a_larger_share_takes_from_training_only(names: set[str], validation: int, test: int, more: int) -> None:
    for name in names:
        before, after = side(name, validation, test), side(name, validation, test + more)
        assert before == after or (before, after) in {
            ("train", "validation"),
            ("train", "test"),
            ("validation", "test"),
        }
        before, after = side(name, validation, test), side(name, validation + more, test)
        assert before == after or (before, after) == ("train", "validation")


@given(NAMES, st.text(max_size=8))
def test_a_new_source_moves_no_other_one_by_itself(names: set[str], new: str) -> None:
    assert {n: side(n, 15, 15) for n in names} == {n: side(n, 15, 15) for n in {*names, new} & names}


def test_the_shares_are_about_what_was_asked_for() -> None:
    found = Counter(side(f"service-{n}", 15, 15) for n in range(20_000))
    assert found["test"] / 20_000 == pytest.approx(0.15, abs=0.01)
    assert found["validation"] / 20_000 == pytest.approx(0.15, abs=0.01)
    large = split_sources([f"service-{n}" for n in range(2000)], 15, 15)
    assert {n: side(n, 15, 15) for n in large} == large


@pytest.mark.parametrize("names", [[], ["one"], ["one", "one"]])
def test_one_source_cannot_be_split(names: list[str]) -> None:
    with pytest.raises(SourceError, match="at least two tags"):
        split_sources(names, 15, 15)
