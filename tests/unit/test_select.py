"""Selection: room, shares, turns, and hard ones first."""

from __future__ import annotations

import math
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from pawl.curation.select import Pick, age_weight, select
from pawl.fleet.data import DataSpec

PICKS = st.lists(
    st.builds(
        Pick,
        source=st.sampled_from("abcdef"),
        scenario=st.sampled_from(["", "type", "range"]),
        cluster=st.integers(0, 4),
        value=st.sampled_from([0.2, 0.9, 1.0]),
        at=st.floats(0, 100),
        hard=st.integers(0, 2),
    ),
    max_size=80,
)
SPECS = st.builds(
    DataSpec,
    max_source_share=st.sampled_from([0.05, 0.2, 1.0]),
    max_class_share=st.sampled_from([0.3, 0.6, 1.0]),
    hard_share=st.sampled_from([0.0, 0.25, 1.0]),
)


@settings(max_examples=300, deadline=None)
@given(PICKS, st.integers(1, 60), SPECS)
def test_laws(picks: list[Pick], most: int, spec: DataSpec) -> None:
    found = select(picks, most, spec)
    room = min(most, len(picks))
    assert len(found.rows) == len(set(found.rows)) <= room
    assert len(found.rows) + found.capped + found.unneeded == len(picks)
    for name, share in (("source", spec.max_source_share), ("scenario", spec.max_class_share)):
        used = Counter(getattr(picks[n], name) for n in found.rows)
        cap = math.ceil(room * max(share, 1 / max(1, len({getattr(p, name) for p in picks}))))
        assert all(n <= cap for n in used.values())
    # Room stays free only where every other row is of a source or a class that has its share.
    if len(found.rows) < room:
        assert found.unneeded == 0
    assert select(picks, most, spec) == found


def pick(source: str = "s", scenario: str = "", cluster: int = 0, value: float = 1.0, hard: int = 0) -> Pick:
    return Pick(source, scenario, cluster, value, 0.0, hard)


def wide(**more: float) -> DataSpec:
    return DataSpec(**{"max_source_share": 1.0, "max_class_share": 1.0, "hard_share": 0.0, **more})  # type: ignore[arg-type]


def test_classes_clusters_and_sources_take_turns() -> None:
    picks = [pick(scenario="many") for _ in range(90)] + [pick(scenario="few") for _ in range(10)]
    assert Counter(picks[n].scenario for n in select(picks, 20, wide()).rows) == {"many": 10, "few": 10}
    picks = [pick(cluster=0) for _ in range(90)] + [pick(cluster=n) for n in range(1, 6)]
    assert {picks[n].cluster for n in select(picks, 10, wide()).rows} == {0, 1, 2, 3, 4, 5}
    picks = [pick("big") for _ in range(90)] + [pick(f"s{n}") for n in range(9)]
    assert Counter(picks[n].source for n in select(picks, 10, wide()).rows)["big"] == 1


def test_the_most_valuable_of_a_stratum_comes_first() -> None:
    picks = [pick(value=v) for v in (0.1, 0.9, 0.5)]
    assert select(picks, 2, wide()).rows == [1, 2]


def test_what_the_champion_got_wrong_has_room_and_what_it_let_stand_comes_first() -> None:
    picks = [pick() for _ in range(50)] + [pick(hard=1, value=0.1) for _ in range(10)] + [pick(hard=2, value=0.1)]
    rows = select(picks, 20, wide(hard_share=0.25)).rows
    assert picks[rows[0]].hard == 2
    assert sum(picks[n].hard > 0 for n in rows) >= 5
    without = select(picks, 20, wide()).rows
    assert sum(picks[n].hard > 0 for n in without) == 0


def test_an_even_share_is_always_allowed() -> None:
    picks = [pick("a"), pick("b")] * 10
    assert len(select(picks, 20, wide(max_source_share=0.01)).rows) == 20


def test_age_halves() -> None:
    assert age_weight(0.0, 90 * 86_400, 90) == 0.5
    assert age_weight(5.0, 0.0, 90) == 1.0
