"""Exports of other tools: what is taken, what is rejected with which reason, and that twice is once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pawl.errors import SourceError
from pawl.importers.formats import FORMATS
from pawl.importers.imported import Reject, Target, moment
from pawl.lake.records import Feedback, Interaction

KNOWN = "chatcmpl-" + "a" * 32
TARGET = Target("agent", "key-1", {KNOWN: "agent", "i1": "other"}.get)


def read(form: str, path: Path) -> tuple[list[Interaction], list[Feedback], list[Reject]]:
    rows = list(FORMATS[form](path, TARGET))
    records = [r for row in rows if not isinstance(row, Reject) for r in row]
    return (
        [r for r in records if isinstance(r, Interaction)],
        [r for r in records if isinstance(r, Feedback)],
        [r for r in rows if isinstance(r, Reject)],
    )


def lines(tmp_path: Path, *rows: Any) -> Path:
    path = tmp_path / "export.jsonl"
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows))
    return path


USER = {"role": "user", "content": "Hi"}


def test_openai_style_logs(tmp_path: Path) -> None:
    pair = {
        "request": {"model": "gpt-4o", "messages": [USER], "user": "ann"},
        "response": {
            "id": "c1", "created": 1_795_000_000, "model": "gpt-4o-2026",
            "choices": [{"message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 2},
        },
    }  # fmt: skip
    flat = {"messages": [USER], "completion": "Hello", "created_at": "2026-11-18T10:00:00Z", "model": "m"}
    no_time = {"messages": [USER], "completion": "Hello"}
    found, _, rejects = read("openai", lines(tmp_path, pair, flat, "{broken", no_time, "[1]", {"created": 1}))
    one = found[0]
    assert (one.completion, one.session, one.arm, one.prompt_tokens, one.at) == (
        "Hello",
        "ann",
        "gpt-4o-2026",
        5,
        1.795e9,
    )
    assert (one.agent, one.key_id, one.arm_kind, one.reason) == ("agent", "key-1", "cloud", "imported from openai")
    assert len(found) == 2 and [r.row for r in rejects] == [3, 4, 5, 6]
    assert [r.reason.split(":")[0] for r in rejects] == ["no JSON", "no time", "no object", "no messages"]
    again, _, _ = read("openai", lines(tmp_path, pair, flat))
    assert [i.id for i in again] == [i.id for i in found], "the same row is the same record"


def test_langfuse(tmp_path: Path) -> None:
    good = {
        "id": "o1", "type": "GENERATION", "startTime": "2026-11-18T10:00:00.000Z", "endTime": "2026-11-18T10:00:02Z",
        "model": "claude", "input": {"messages": [USER]}, "output": {"role": "assistant", "content": "Hello"},
        "usage": {"input": 3, "output": 4}, "calculatedTotalCost": 0.01, "sessionId": "s",
        "scores": [{"name": "quality", "value": 0.75, "timestamp": "2026-11-19T00:00:00Z"}, {"value": "good"}],
    }  # fmt: skip
    span = {"id": "o2", "type": "SPAN", "startTime": "2026-11-18T10:00:00Z"}
    wild = good | {"id": "o3", "scores": [{"value": 7}]}
    found, said, rejects = read("langfuse", lines(tmp_path, good, span, wild))
    assert [(i.completion, i.latency_s, i.cost_usd, i.prompt_tokens) for i in found] == [("Hello", 2.0, 0.01, 3)]
    assert [(f.interaction, f.kind, f.score) for f in said] == [(found[0].id, "rating", 0.75)]
    assert [r.reason for r in rejects] == [
        "an observation of type SPAN, not GENERATION",
        "the score 7 is not between 0 and 1",
    ]


def test_langsmith(tmp_path: Path) -> None:
    human = {"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", "HumanMessage"],
             "kwargs": {"content": "Hi", "type": "human"}}  # fmt: skip
    ai = {"kwargs": {"content": "Hello", "type": "ai"}}
    good = {
        "id": "r1", "run_type": "llm", "name": "ChatOpenAI", "start_time": "2026-11-18T10:00:00",
        "end_time": "2026-11-18T10:00:01", "inputs": {"messages": [[human]]},
        "outputs": {"generations": [[{"text": "", "message": ai}]]}, "prompt_tokens": 3,
        "extra": {"metadata": {"ls_model_name": "gpt-4o"}}, "feedback": [{"key": "correct", "score": 1}],
    }  # fmt: skip
    whole = tmp_path / "runs.json"
    whole.write_text(json.dumps([good, good | {"run_type": "chain"}, good | {"error": "boom"}, good | {"inputs": {}}]))
    found, said, rejects = read("langsmith", whole)
    assert [(i.completion, i.arm, i.messages) for i in found] == [("Hello", "gpt-4o", [USER])]
    assert [f.score for f in said] == [1.0] and [r.row for r in rejects] == [2, 3, 4]


def test_mlflow_traces(tmp_path: Path) -> None:
    good = {
        "info": {"trace_id": "tr-1", "request_time": "2026-11-18T10:00:00Z", "execution_duration_ms": 1500,
                 "assessments": [{"assessment_name": "ok", "feedback": {"value": True}}]},
        "data": {"spans": [{"parent_span_id": None, "attributes": {
            "mlflow.spanInputs": json.dumps({"messages": [USER], "model": "m"}),
            "mlflow.spanOutputs": json.dumps({"choices": [{"message": {"content": "Hello"}}]})}}]},
    }  # fmt: skip
    path = tmp_path / "traces.json"
    path.write_text(json.dumps({"traces": [good, {"info": {}}]}, indent=1))
    found, said, rejects = read("mlflow", path)
    assert [(i.completion, i.latency_s, i.arm) for i in found] == [("Hello", 1.5, "m")]
    assert [f.score for f in said] == [1.0] and len(rejects) == 1


def test_ratings_in_csv(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text(
        "interaction,score,scale,at,comment\n"
        f"{KNOWN},4,5,2026-11-18,fine\n"
        "i1,0.5,,1795000000,\n"
        "nobody,1,,1795000000,\n"
        f"{KNOWN},6,5,1795000000,\n"
        f"{KNOWN},x,5,1795000000,\n"
        f"{KNOWN},1,0,1795000000,\n"
        f"{KNOWN},1,1,,\n"
    )
    _, said, rejects = read("csv", path)
    assert [(f.agent, f.score, f.detail) for f in said] == [("agent", 0.8, {"comment": "fine"}), ("other", 0.5, {})]
    assert [r.row for r in rejects] == [4, 5, 6, 7, 8]
    (tmp_path / "other.csv").write_text("id,stars\n1,2\n")
    with pytest.raises(SourceError, match="no column interaction and score"):
        read("csv", tmp_path / "other.csv")


def test_junit_reports(tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    path.write_text(f"""<testsuites><testsuite timestamp="2026-11-18T10:00:00">
      <testcase classname="t" name="test_{KNOWN}"/>
      <testcase name="b"><properties><property name="interaction" value="i1"/></properties>
        <failure message="no"/></testcase>
      <testcase name="c"><skipped/></testcase>
      <testcase name="d"/>
    </testsuite></testsuites>""")
    _, said, rejects = read("junit", path)
    assert [(f.interaction, f.agent, f.score, f.kind) for f in said] == [
        (KNOWN, "agent", 1.0, "outcome"), ("i1", "other", 0.0, "outcome"),
    ]  # fmt: skip
    assert said[1].detail["message"] == "no" and [r.row for r in rejects] == [3, 4]
    for text in ('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "<a", "{}"):
        path.write_text(text)
        with pytest.raises(SourceError):
            read("junit", path)


@pytest.mark.parametrize(
    ("given", "seconds"),
    [(1_795_000_000, 1.795e9), (1_795_000_000_000, 1.795e9), ("2026-11-18T11:06:40Z", 1.795e9),
     ("2026-11-18T13:06:40+02:00", 1.795e9), ("2026-11-18T11:06:40", 1.795e9)],
)  # fmt: skip
def test_times_in_the_shapes_tools_write_them(given: Any, seconds: float) -> None:
    assert moment(given) == seconds


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda c: st.lists(c, max_size=3)
    | st.dictionaries(
        st.sampled_from(["messages", "request", "response", "input", "output", "inputs", "outputs", "info", "data",
                         "choices", "scores", "feedback", "value", "startTime", "start_time", "created", "spans"]),
        c, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@pytest.mark.parametrize("form", ["openai", "langfuse", "langsmith", "mlflow"])
@settings(max_examples=60, deadline=None)
@given(rows=st.lists(JSON, max_size=4))
def test_whatever_a_file_holds_each_row_is_taken_or_rejected(
    tmp_path_factory: pytest.TempPathFactory, form: str, rows: list[Any]
) -> None:
    path = tmp_path_factory.mktemp("odd") / "export.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in rows))
    try:
        found = list(FORMATS[form](path, TARGET))
    except SourceError:
        return
    assert all(isinstance(row, Reject) or row for row in found)
