"""Bands below the champion's quality: laws, and their false alarms by simulation."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawl.fleet.rollout import BandsSpec
from pawl.rollout.bands import band, ratio_bound, ratio_evidence

SPEC = BandsSpec()
scores = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=30)


@given(scores, st.floats(0, 1), st.floats(0, 1))
def test_a_lower_share_is_never_easier_to_rule_out(both: list[tuple[float, float]], a: float, b: float) -> None:
    low, high = sorted((a, b))
    for lower, higher in zip(ratio_evidence(both, low), ratio_evidence(both, high), strict=True):
        assert lower <= higher * (1 + 1e-9)


@given(scores)
def test_the_bound_is_where_the_evidence_crosses(both: list[tuple[float, float]]) -> None:
    found = ratio_bound(both, 0.1)
    crossed = ratio_evidence(both, 1.0)[1] >= 10
    assert (found is not None) == crossed
    if found is not None:
        assert (ratio_evidence(both, found)[1] >= 10 and ratio_evidence(both, max(0.0, found - 1e-3))[1] < 10.01) or (
            found < 1e-3
        )


def test_the_graver_band_needs_more() -> None:
    both: list[tuple[float, float]] = []
    seen = [""]
    while seen[-1] != "halve":
        both.append((0.4, 0.9))
        if band(both, SPEC) != seen[-1]:
            seen.append(band(both, SPEC))
    assert seen == ["", "hold", "halve"]


def test_bands_must_fall() -> None:
    with pytest.raises(ValueError, match="bands must fall"):
        BandsSpec(hold=0.8, halve=0.9)


@pytest.mark.parametrize(("share", "name"), [(0.95, "hold"), (0.90, "halve")])
def test_one_at_the_edge_of_a_band_enters_it_as_rarely_as_promised(share: float, name: str) -> None:
    """400 challengers with exactly that share of the champion's quality, 150 comparisons each, a look after each."""
    rng, entered = random.Random(4), 0
    alpha = SPEC.hold_alpha if name == "hold" else SPEC.halve_alpha
    for _ in range(400):
        both = [(float(rng.random() < 0.7 * share), float(rng.random() < 0.7)) for _ in range(150)]
        entered += ratio_evidence(both, share)[1] >= 1 / alpha
    assert entered <= 400 * alpha
