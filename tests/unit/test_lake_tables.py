"""Records as Parquet and back."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pawl.lake import tables_pyarrow as tables
from pawl.lake.records import TABLES, Feedback, Interaction, Observation

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.dictionaries(TEXT, TEXT | st.integers(0, 9) | st.none() | st.lists(TEXT, max_size=2), max_size=2)
COUNT = st.integers(0, 2**62)

INTERACTIONS = st.builds(
    Interaction, id=TEXT, at=NUMBER, agent=TEXT, session=TEXT, user=TEXT, key_id=TEXT, arm=TEXT,
    arm_kind=st.sampled_from(["local", "cloud"]), role=st.sampled_from(["answer", "shadow", "draft"]),
    shadow_of=st.none() | TEXT, rollout=st.none() | TEXT, fallback=st.booleans(), attempts=COUNT,
    messages=st.lists(JSON, max_size=2), completion=TEXT, tool_calls=st.lists(JSON, max_size=1),
    error=st.none() | TEXT, prompt_tokens=COUNT, cost_usd=NUMBER, first_token_s=st.none() | NUMBER, task=JSON,
)  # fmt: skip
FEEDBACK = st.builds(
    Feedback, id=TEXT, at=NUMBER, interaction=TEXT, agent=TEXT, kind=st.sampled_from(["rating", "outcome"]),
    score=st.none() | NUMBER, detail=JSON, source=TEXT,
)  # fmt: skip
OBSERVATIONS = st.builds(
    Observation, id=TEXT, at=NUMBER, agent=TEXT, kind=st.sampled_from(["bug", "load"]), title=TEXT, component=TEXT,
    labels=st.lists(TEXT, max_size=3).map(tuple), resolved=st.booleans(), figures=JSON, subject=TEXT,
)  # fmt: skip


@pytest.mark.parametrize("rows", [INTERACTIONS, FEEDBACK, OBSERVATIONS], ids=list(TABLES.values()))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_is_written_is_read(tmp_path: Path, rows: st.SearchStrategy[Any], data: st.DataObject) -> None:
    given = data.draw(st.lists(rows, min_size=1, max_size=5))
    names = {tables.write(given, tmp_path / "x.parquet") for _ in range(2)}
    assert tables.read(type(given[0]), tmp_path / "x.parquet") == given
    assert len(names) == 1 and set(names.pop()) <= set(string.hexdigits), "the content names it"
    stored = pq.ParquetFile(tmp_path / "x.parquet").read()
    assert stored.schema.equals(tables.schema(type(given[0]))) and stored.equals(tables.table(type(given[0]), given))


SAID = Feedback(id="f", at=1.0, interaction="i", agent="a", kind="rating", detail={"a": 1})


@pytest.mark.parametrize(
    ("column", "value"),
    [("id", None), ("kind", "guess"), ("kind", None), ("record", "interaction"), ("detail", "[1]"), ("at", None)],
)
def test_what_no_record_can_hold_is_an_error(tmp_path: Path, column: str, value: str | None) -> None:
    path = tmp_path / "x.parquet"
    tables.write([SAID], path)
    stored = pq.ParquetFile(path).read()
    place = stored.column_names.index(column)
    pq.write_table(stored.set_column(place, column, pa.array([value], stored.schema.field(column).type)), path)
    with pytest.raises(ValueError):
        tables.read(Feedback, path)
    pq.write_table(stored.drop_columns([column]), path)
    if column == "detail":
        assert tables.read(Feedback, path)[0].detail == {}
    else:
        with pytest.raises(ValueError):
            tables.read(Feedback, path)


def test_rows_share_no_mutable_default(tmp_path: Path) -> None:
    rows = [Feedback(id=str(n), at=1.0, interaction="i", agent="a", kind="rating") for n in range(2)]
    tables.write(rows, tmp_path / "x.parquet")
    one, two = tables.read(Feedback, tmp_path / "x.parquet")
    one.detail["x"] = 1
    assert two.detail == {} and tables.read(Feedback, tmp_path / "x.parquet")[0].detail == {}


def test_older_columns_of_another_number_type_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    tables.write([SAID], path)
    stored = pq.ParquetFile(path).read()
    place = stored.column_names.index("score")
    pq.write_table(stored.set_column(place, "score", pa.array([1], pa.int64())), path)
    assert tables.read(Feedback, path)[0].score == 1.0
    assert tables.columns(path, ("id", "nowhere")) == [("f", None)] and tables.columns(path, ("id",), {"x"}) == []
