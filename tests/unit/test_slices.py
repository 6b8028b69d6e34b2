"""Slices: what is in them, whose p-values are corrected, and that no slice favours either model."""

from __future__ import annotations

import numpy as np
import pytest

from pawl.evaluation.report import ItemResult, Slice
from pawl.evaluation.slices import slices_of

Pair = tuple[ItemResult, ItemResult]


def pair(n: int, old: float, new: float, part: str, forms: tuple[bool, bool] = (True, True)) -> Pair:
    def side(score: float, conforms: bool) -> ItemResult:
        return ItemResult(item=f"i{n}", source=f"s{n}", score=score, scenario=part, conforms=conforms)

    return side(old, forms[0]), side(new, forms[1])


def of(found: tuple[Slice, ...], name: str) -> Slice:
    (one,) = [s for s in found if s.name == name]
    return one


def test_every_item_is_in_its_scenario_and_in_one_slice_by_form() -> None:
    pairs = [pair(n, 0.5, 1.0, "xy"[n % 2], (n % 3 > 0, n % 2 > 0)) for n in range(30)] + [pair(99, 0.0, 0.0, "")]
    found = slices_of(pairs, 0.05)
    assert [s.name for s in found[:2]] == ["x", "y"] and sum(s.items for s in found if s.by == "scenario") == 30
    assert {s.name: s.items for s in found if s.by == "conforms"} == {
        "both conform": 11, "neither conforms": 5, "one conforms": 15,
    }  # fmt: skip
    assert of(found, "x").difference.mean == pytest.approx(0.5) and of(found, "x").sources == 15


def test_holm_is_over_those_that_could_show_anything() -> None:
    lost = [pair(n, 1.0, 0.0, "lost") for n in range(8)]
    tiny = [pair(100 + n, 1.0, 0.0, f"tiny{n // 2}") for n in range(20)]  # ten slices of two items each
    equal = [pair(200 + n, 1.0, 1.0, f"equal{n}") for n in range(30)]
    found = slices_of([*lost, *tiny, *equal], 0.05)
    one = of(found, "lost")
    assert one.p_worse == pytest.approx(2**-8)
    form = of(found, "both conform")
    assert form.p_worse < one.p_worse
    assert form.holm_worse == pytest.approx(2 * form.p_worse), "the family is these two"
    assert one.holm_worse == pytest.approx(2**-8)
    assert of(found, "tiny3").holm_worse == of(found, "equal3").holm_worse == 1.0
    # Equal pairs, in whatever slices, leave the corrected value as it is.
    assert of(slices_of([*lost, *tiny], 0.05), "lost").holm_worse == one.holm_worse


def test_protected_slices_are_corrected_among_themselves() -> None:
    pairs = [pair(n, 1.0, 0.0, "rare") for n in range(6)]
    pairs += [pair(100 + n, float(n % 2), float(n % 3 == 0), f"part{n % 8}") for n in range(80)]
    assert of(slices_of(pairs, 0.05, ["rare"]), "rare").holm_worse == pytest.approx(2**-6)
    assert of(slices_of(pairs, 0.05), "rare").holm_worse > 2**-6
    assert of(slices_of(pairs, 0.05, ["rare"]), "rare").protected


def test_items_beyond_the_draw_count_in_their_protected_slice_alone() -> None:
    drawn = [pair(n, 1.0, 1.0, "common") for n in range(20)] + [pair(90, 1.0, 1.0, "rare")]
    more = [pair(100 + n, 1.0, 0.0, "rare") for n in range(8)] + [pair(200, 1.0, 0.0, "common")]
    found = slices_of(drawn, 0.05, ["rare", "both conform"], more)
    rare = of(found, "rare")
    assert (rare.items, rare.beyond, rare.sources) == (9, 8, 9) and rare.p_worse == pytest.approx(2**-8)
    assert (of(found, "common").items, of(found, "common").beyond) == (20, 0)
    assert of(found, "both conform").items == 21 and of(found, "both conform").champion == 1.0


def test_exchangeable_models_are_seldom_worse_in_any_slice() -> None:
    rng, runs, alarms = np.random.default_rng(4), 80, 0
    for _ in range(runs):
        pairs = []
        for n in range(80):
            a, b = (rng.integers(0, 4) / 3 for _ in range(2))
            forms = (a > 0, b > 0)  # whoever fails does not conform: a slice of one model's own form would be unfair
            pairs.append(pair(n, float(a), float(b), f"part{n % 5}", (bool(forms[0]), bool(forms[1]))))
        alarms += any(s.holm_worse < 0.05 for s in slices_of(pairs, 0.05))
    assert alarms / runs <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)
