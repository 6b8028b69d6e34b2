"""The comparison as a table."""

from __future__ import annotations

from pawl.evaluation.report import ItemResult
from pawl.evaluation.rows import columns
from tests.loop_page_data import comparison


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
