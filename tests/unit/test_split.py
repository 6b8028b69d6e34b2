"""The laws of the split by source."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawl.curation.split import side, split_sources
from pawl.errors import SourceError
from pawl.fleet.spec import TaskSourceSpec
from pawl.qe import sources

PERCENT = st.integers(5, 60)
NAMES = st.sets(st.text(min_size=1, max_size=8), min_size=2, max_size=30)


@given(st.text(), PERCENT, PERCENT)
def test_raising_the_percentage_only_moves_to_evaluation(source: str, one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert (side(source, low), side(source, high)) != ("evaluation", "training")


@given(NAMES, PERCENT)
def test_both_sides_hold_something_and_nothing_is_on_both(names: set[str], percent: int) -> None:
    training, evaluation = split_sources(names, percent)
    assert training and evaluation and not training & evaluation
    assert training | evaluation == names


@given(NAMES, PERCENT, PERCENT)
def test_the_whole_split_is_monotone_too(names: set[str], one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert split_sources(names, low)[1] <= split_sources(names, high)[1]


@given(st.lists(st.text(min_size=1, max_size=8), min_size=2, unique=True), PERCENT, st.randoms())
def test_neither_order_nor_repetition_matters(names: list[str], percent: int, rng: object) -> None:
    again = [*names, *names]
    rng.shuffle(again)  # type: ignore[attr-defined]
    assert split_sources(again, percent) == split_sources(names, percent)


def test_the_split_is_the_same_for_ever() -> None:
    """Changing the hash would carry held-out sources into training; these sides must never change."""
    held = [s for s in ("acm", "ec2", "iam", "lambda", "rds", "s3", "sns", "sqs") if side(s, 25) == "evaluation"]
    assert held == ["acm", "ec2", "lambda", "s3", "sqs"]


def test_real_sources_split_by_about_the_percentage() -> None:
    names = {o.source for o in sources.load(TaskSourceSpec())}
    training, evaluation = split_sources(names, 25)
    assert 0.16 < len(evaluation) / len(names) < 0.34
    assert {s for s in names if side(s, 25) == "evaluation"} == evaluation
    assert {s for s in names if side(s, 25) == "training"} == training


@pytest.mark.parametrize("names", [[], ["only"], ["only", "only"]])
def test_one_source_cannot_be_split(names: list[str]) -> None:
    with pytest.raises(SourceError, match="at least two"):
        split_sources(names, 25)
