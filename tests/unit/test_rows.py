"""The comparison as a table."""

from __future__ import annotations

from pawl.evaluation.report import ItemResult
from pawl.evaluation.rows import columns, figures
from tests.loop_page_data import comparison, detailed


def test_the_worst_regression_comes_first_and_what_has_no_score_last() -> None:
    import msgspec

    c = comparison()
    lost = ItemResult(item="service1.CreateThing1", source="service1", score=None, problem="the oracle failed")
    items = tuple(lost if i.item == lost.item else i for i in c.challenger.items)
    found = columns(msgspec.structs.replace(c, challenger=msgspec.structs.replace(c.challenger, items=items)))
    changes = found["change"]
    assert len(changes) == 120 and changes[-1] is None and found["item"][-1] == lost.item
    assert changes[:-1] == sorted(changes[:-1]) and changes[0] < 0
    old = {i.item: i for i in c.champion.items}
    assert found["champion_answer"][0] == old[found["item"][0]].completion
    assert {len(v) for v in found.values()} == {120}


def test_figures_are_finite_and_named_by_side() -> None:
    import msgspec

    from pawl.evaluation.report import Interval

    c = detailed(comparison())
    found = figures(c)
    assert found["champion_score"] == c.champion.score.mean and found["challenger_validity"] == 0.8
    assert found["items"] == c.pairs and "challenger_token_accuracy" not in found
    endless = msgspec.structs.replace(c, difference=Interval(0.1, float("-inf"), float("inf")))
    assert figures(endless).keys() == found.keys() - {"difference_lower", "difference_upper"}
