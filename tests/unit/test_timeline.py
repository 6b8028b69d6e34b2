"""The split of wall time adds up and counts nothing twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawl.monitoring import timeline
from pawl.monitoring.timeline import Span, split

KINDS = st.sampled_from(["model", "waiting", "install"])
SPANS = st.lists(
    st.builds(
        lambda kind, start, length: Span(kind, "x", start, start + length),
        KINDS,
        st.floats(0, 90),
        st.floats(0, 30),
    )
)


@given(SPANS)
def test_parts_add_up_to_the_wall_time(spans: list[Span]) -> None:
    s = split(spans, [(0.0, 40.0), (60.0, 100.0)])
    assert s.wall == 80
    assert s.model + s.waiting + s.install + s.orchestration == pytest.approx(80)
    assert min(s.model, s.waiting, s.install, s.orchestration) >= -1e-9


def test_model_time_wins_where_spans_overlap() -> None:
    spans = [Span("waiting", "rollout", 0, 10), Span("model", "train", 4, 6), Span("model", "again", 5, 7)]
    s = split(spans, [(0.0, 12.0)])
    assert (s.model, s.waiting, s.orchestration) == (3, 7, 2)


def test_spans_and_beats_survive_in_files(tmp_path: Path) -> None:
    with timeline.span(tmp_path / "t.jsonl", "model", "train"):
        pass
    assert timeline.read(tmp_path / "t.jsonl")[0].name == "train"
    timeline.beat(tmp_path / "s.jsonl", 100.0, 110.0)
    timeline.beat(tmp_path / "s.jsonl", 100.0, 120.0)
    timeline.beat(tmp_path / "s.jsonl", 500.0, 505.0)
    assert timeline.sessions(tmp_path / "s.jsonl", 507.0) == [(100.0, 120.0), (500.0, 507.0)]
