"""Exports of other tools: what is taken, what is rejected with which reason, and that twice is once."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pawl.errors import SourceError
from pawl.importers.formats import FORMATS
from pawl.importers.imported import Draft, Problem, Reject, Target, moment, owner, settle
from pawl.importers.json_rows import rows
from pawl.lake.records import Feedback, Interaction

KNOWN = "chatcmpl-" + "a" * 32
IN_THE_LAKE = {KNOWN: "agent", "i1": "other"}


def find_agents(ids: set[str]) -> dict[str, str]:
    return {i: IN_THE_LAKE[i] for i in ids if i in IN_THE_LAKE}


TARGET = Target("agent", "key-1", find_agents)


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
    for data in (b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', b"<a", b"{}",
                 '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'.encode("utf-16")):  # fmt: skip
        path.write_bytes(data)
        with pytest.raises(SourceError):
            read("junit", path)


def test_a_report_of_any_size_is_read_without_holding_it(tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    case = f'<testcase name="{KNOWN}"><properties><property name="x" value="{"y" * 1000}"/></properties></testcase>'
    path.write_text(f'<testsuites><testsuite timestamp="2026-11-18">{case * 5000}</testsuite></testsuites>')
    tracemalloc.start()
    taken = sum(1 for row in FORMATS["junit"](path, TARGET) if not isinstance(row, Reject))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken == 5000 and peak < path.stat().st_size * 2


def test_owners_are_looked_up_for_many_rows_at_once_and_order_is_kept() -> None:
    asked: list[set[str]] = []

    def find(ids: set[str]) -> dict[str, str]:
        asked.append(ids)
        return {i: "a" for i in ids if i != "i3"}

    def draft(n: int) -> Draft:
        return Draft(n, (f"i{n}",), lambda agents: [said(owner(agents, f"i{n}"), n)])

    def said(agent: str, n: int) -> Feedback:
        return Feedback(id=str(n), at=1.0, interaction=f"i{n}", agent=agent, kind="rating")

    rows = [Reject(n, "no") if n == 5 else draft(n) for n in range(10)]
    found = list(settle(iter(rows), Target("", "k", find), batch=4))
    assert asked == [{"i0", "i1", "i2", "i3"}, {"i4", "i6", "i7"}, {"i8", "i9"}]
    assert [r.row if isinstance(r, Reject) else r[0].id for r in found] == [
        "0",
        "1",
        "2",
        3,
        "4",
        5,
        "6",
        "7",
        "8",
        "9",
    ]
    assert found[3] == Reject(3, "no interaction 'i3' in the lake")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_arrays_lines_and_pages_in_the_encodings_that_shells_write(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "x.json"
    three = [{"n": 1}, {"n": "é"}, {"n": [2]}]
    for text, numbers in (
        (json.dumps(three), [1, 2, 3]),
        (json.dumps(three, indent=2) + "\n", [1, 2, 3]),
        ("\n".join(map(json.dumps, three)), [1, 2, 3]),
        ("\n" + "\n\n".join(map(json.dumps, three)), [2, 4, 6]),
        (json.dumps(three[:1]) + json.dumps(three[1:]), [1, 2, 3]),  # `gh api --paginate`
        (json.dumps([three[:2], three[2:]]), [1, 2, 3]),  # with --slurp
        ("\n".join(json.dumps(r, indent=1) for r in three), [1, 2, 3]),  # `jq .[]`
        (json.dumps({"items": three}), [1, 2, 3]),
        (json.dumps({"total": 3, "items": three}, indent=1), [1, 2, 3]),
    ):
        path.write_text(text, encoding=encoding)
        assert list(rows(path, ("items",))) == list(zip(numbers, three, strict=True)), text


def test_broken_json_is_an_error_and_a_broken_line_a_reject(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for text in ("[1, 2", "[{}] x", "{", "nothing", '[{"a": tru}]', "[" * 100_000, '{"a":1}{'):
        path.write_text(text)
        with pytest.raises(SourceError, match="neither JSON nor"):
            list(rows(path))
    path.write_bytes(b'[{"a": "\xff"}]')
    with pytest.raises(SourceError, match="neither JSON nor"):
        list(rows(path))
    path.write_text('[{"a": "\\ud800"}, {"a": NaN}, 5]')
    half, number, five = list(rows(path))
    assert isinstance(half[1], Reject) and number == (2, {"a": None}) and five == (3, Reject(3, "no object"))


@given(st.lists(st.dictionaries(st.text(max_size=3), st.text(max_size=30) | st.integers() | st.none(), max_size=3)))
@settings(max_examples=40, deadline=None)
def test_entries_are_read_wherever_the_file_is_cut_into_chunks(
    tmp_path_factory: pytest.TempPathFactory, given: list[dict[str, Any]]
) -> None:
    path = tmp_path_factory.mktemp("cut") / "x.json"
    padded = [{"pad": " " * 400_000, **row} for row in given]
    path.write_text(json.dumps(padded, indent=1))
    assert [row for _, row in rows(path)] == padded


@pytest.mark.parametrize(
    ("given", "seconds"),
    [(1_795_000_000, 1.795e9), (1_795_000_000_000, 1.795e9), ("2026-11-18T11:06:40Z", 1.795e9),
     ("2026-11-18T13:06:40+02:00", 1.795e9), ("2026-11-18T11:06:40", 1.795e9),
     ("2026-11-18T11:06:40.000000123Z", 1.795e9), ("2026-11-18T11:06:40.000+0000", 1.795e9)],
)  # fmt: skip
def test_times_in_the_shapes_tools_write_them(given: Any, seconds: float) -> None:
    assert moment(given) == seconds


@pytest.mark.parametrize("given", [True, None, "", "soon", float("nan"), float("inf"), -1, 1e300, 10**400, []])
def test_what_is_no_time(given: Any) -> None:
    with pytest.raises(Problem):
        moment(given)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda c: st.lists(c, max_size=3)
    | st.dictionaries(
        st.sampled_from(["messages", "request", "response", "input", "output", "inputs", "outputs", "info", "data",
                         "choices", "scores", "feedback", "value", "startTime", "start_time", "created", "spans",
                         "issues", "fields", "labels", "comments", "comment", "body", "description", "content", "type",
                         "metrics", "metric", "tags", "names"]),
        c, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@pytest.mark.parametrize("form", ["openai", "langfuse", "langsmith", "mlflow", "github", "jira", "k6"])
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
