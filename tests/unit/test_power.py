"""How many items a comparison needs: against a textbook, and against what the gate does in simulation."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.gate_calibration import decided
from benchmarks.gate_worlds import World, simulate
from pawl.evaluation.power import (
    Spread,
    chance_to_promote,
    detectable,
    items_for,
    items_of,
    picked,
    power_of,
    spread_of,
)


def test_many_independent_items_need_what_the_textbook_says() -> None:
    """Non-inferiority of paired means takes (z_alpha + z_beta)^2 (sd / margin)^2 pairs (Julious, "Sample sizes for
    clinical trials with normal data", Statistics in Medicine 23, 2004); the gate is a little more careful."""
    needed = items_for(Spread(0.4, 1.0, 0.0), 0.05, 0.05, 0.8)
    assert needed == pytest.approx((1.6449 + 0.8416) ** 2 * (0.4 / 0.05) ** 2, rel=0.05)


def test_items_that_share_sources_are_worth_less() -> None:
    alone, shared = (items_for(Spread(0.4, 10.0, icc), 0.05, 0.05, 0.8) or 0 for icc in (0.0, 0.1))
    assert shared == pytest.approx(1.9 * alone, rel=0.1)
    assert Spread(0.4, 10.0, 0.1, unequal=1.0).design_effect == pytest.approx(1 + 19 * 0.1)
    # More items of the same sources are no way out where sources matter.
    assert items_of([1000] * 8, 0.4, 0.2, 0.05, 0.05, 0.8) is None
    few = items_of([1000] * 60, 0.4, 0.01, 0.1, 0.05, 0.8)
    assert few is not None and 100 < few < 200


def test_a_narrower_margin_or_more_power_needs_more() -> None:
    spread = Spread(0.3, 2.0, 0.05)
    sizes = [items_for(spread, margin, 0.05, power) or 0 for margin, power in ((0.1, 0.8), (0.05, 0.8), (0.05, 0.9))]
    assert sizes == sorted(sizes) and sizes[0] > 0
    assert (items_for(spread, 0.05, 0.05, 0.8, difference=0.05) or 0) < sizes[1]
    assert items_for(spread, 0.05, 0.05, 0.99) is None, "one equal challenger in twenty looks worse by chance"


def test_spread_is_what_was_put_in() -> None:
    rng = np.random.default_rng(3)
    rows = [(f"s{n % 200}", 0.0) for n in range(2000)]
    shared = {f"s{s}": rng.normal(0, 0.2) for s in range(200)}
    found = spread_of([(s, shared[s] + float(rng.normal(0, 0.4))) for s, _ in rows])
    assert found is not None and found.per_source == 10 and found.unequal == 0
    assert found.sd == pytest.approx(np.sqrt(0.2), rel=0.05) and found.icc == pytest.approx(0.2, abs=0.04)
    assert spread_of([("a", 1.0)] * 5) is None and spread_of([]) is None


@pytest.mark.parametrize(("items", "sources"), [(100, 50), (400, 60)])
def test_the_chance_is_what_the_gate_does(items: int, sources: int) -> None:
    made = simulate(World("thirds", 0.5, sources, "shifts"), items, 0.0, 400, np.random.default_rng(items))
    promoted = np.mean(decided(*made.clusters(), margin=0.1, alpha=0.05).promoted)
    measured = [
        spread_of([(str(s), float(d)) for s, d in zip(made.source[r], made.after[r] - made.before[r], strict=True)])
        for r in range(60)
    ]
    known = [s for s in measured if s is not None]
    typical = Spread(*(float(np.mean([s[n] for s in known])) for n in range(4)))
    assert chance_to_promote(items, typical, 0.1, 0.05) == pytest.approx(promoted, abs=0.1)


def test_the_detectable_loss_is_seen_as_often_as_it_says() -> None:
    world = World("thirds", 0.6, 50, "shifts")
    base = simulate(world, 150, 0.0, 1, np.random.default_rng(1))
    spread = spread_of([(str(s), float(d)) for s, d in zip(base.source[0], (base.after - base.before)[0], strict=True)])
    assert spread is not None
    loss = detectable(150, spread, 0.05, 0.8)
    made = simulate(world, 150, loss, 300, np.random.default_rng(2))
    seen = decided(*made.clusters(), margin=0.05, alpha=0.05, everything=True).verdicts.count("worse") / 300
    assert 0.68 < seen < 0.92


def test_what_a_comparison_could_see() -> None:
    rng = np.random.default_rng(5)
    rows = [(f"s{n % 30}", float(rng.choice([-1, 0, 0, 0, 1]))) for n in range(120)]
    found = power_of(rows, margin=0.05, alpha=0.05, power=0.8, available=500)
    assert found is not None and found.available == 500 and found.items_for_margin > 120
    assert found.sd == pytest.approx(np.sqrt(0.4), rel=0.2) and 0.05 < found.detectable < 0.3
    assert power_of([], margin=0.05, alpha=0.05, power=0.8) is None


def test_no_source_picks_less_than_an_item() -> None:
    assert picked([100, 1], 0.1, 0.4, 0.1).per_source == 5.5 and picked([], 0.5, 0.4, 0.1).per_source == 1.0
