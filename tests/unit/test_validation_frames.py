"""What SQL measures of a window is what a plain reading of its records says, and no text comes along."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import duckdb
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pawl.lake import tables_pyarrow as tables
from pawl.lake.records import Feedback, Interaction
from pawl.validation import frames_duckdb as frames
from pawl.validation.frames_examples import COLUMNS, examples, is_json
from pawl.validation.languages_langid import languages, prose

GERMAN = "Bitte schreibe mir negative Tests für diese Schnittstelle, mit falschen Werten für jedes der Felder."
ENGLISH = "Please write me some negative tests for this interface, with wrong values for each of the fields."


def interaction(n: int, **more: Any) -> Interaction:
    given = {
        "id": f"i{n}", "at": 1.79e9 + n, "agent": "a", "session": "s", "key_id": "k", "arm": "base",
        "arm_kind": "local", "messages": [{"role": "user", "content": f"Hi {n}"}], "completion": "{}",
    }  # fmt: skip
    return Interaction(**{**given, **more})


def feedback(n: int, about: str, **more: Any) -> Feedback:
    given = {"id": f"f{n}", "at": 1.8e9 + n, "interaction": about, "agent": "a", "kind": "outcome", "score": 1.0}
    return Feedback(**{**given, **more})


def window(seen: Sequence[Interaction], said: Sequence[Feedback] = ()) -> duckdb.DuckDBPyConnection:
    db = duckdb.connect(":memory:")
    db.register("interactions_given", tables.table(Interaction, list(seen)))
    db.register("feedback_given", tables.table(Feedback, list(said)))
    for table in ("interactions", "feedback"):
        db.execute(f"CREATE TABLE {table} AS SELECT * FROM {table}_given")
    return db


message = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "system", "", None]),
        "content": st.one_of(st.none(), st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=9)),
    },
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 5),
            st.integers(0, 3),
            st.lists(message, max_size=2),
            st.sampled_from(["", "{}", "yes ünï"]),
            st.sampled_from(["base", "cloud"]),
        ),
        max_size=8,
    )
)
def test_the_measured_columns_agree_with_a_plain_reading(drawn: list[tuple[int, int, list[Any], str, str]]) -> None:
    seen = [
        interaction(name, at=1.79e9 + place, session=f"s{session}", messages=messages, completion=completion, arm=arm)
        for place, (name, session, messages, completion, arm) in enumerate(drawn)
    ]
    frame = frames.interactions(window(seen))
    assert frame["id"].tolist() == [i.id for i in seen]
    assert frame["repeated"].tolist() == [i.id in {j.id for j in seen[:n]} for n, i in enumerate(seen)]
    content = [json.dumps([i.session, i.messages, i.completion, i.arm]) for i in seen]
    copies = Counter(content)
    bare = [not i.completion and not i.messages for i in seen]
    assert frame["copies"].tolist() == [1 if b else copies[c] for b, c in zip(bare, content, strict=True)]
    assert frame["messages_valid"].tolist() == [all(m.get("role") for m in i.messages) for i in seen]
    assert frame["prompt_chars"].tolist() == [sum(len(m.get("content") or "") for m in i.messages) for i in seen]
    assert frame["completion_chars"].tolist() == [len(i.completion) for i in seen]


def test_copies_are_alike_in_session_messages_completion_and_arm() -> None:
    same: dict[str, Any] = {"messages": [{"role": "user", "content": "Go"}], "completion": "{}"}
    seen = [
        interaction(0, **same), interaction(1, **same, at=1.0), interaction(2, **same, session="t"),
        interaction(3, **same, arm="cloud"), interaction(4, **{**same, "completion": "[]"}), interaction(5),
        interaction(6, messages=[], completion=""), interaction(7, messages=[], completion=""),
    ]  # fmt: skip
    frame = frames.interactions(window(seen)).set_index("id")
    assert frame.index[frame["copies"] > 1].tolist() == ["i1", "i0"], "what retention took the text of is no copy"


@pytest.mark.parametrize(
    ("stored", "valid"),
    [
        ('[{"role":"user","content":[{"type":"text","text":"parts"}]}]', True),
        ("[]", True),
        ('["text"]', False),
        ("[null]", False),
        ('{"role":"user"}', False),
        ("null", False),
        ("[{", False),
        ("", False),
        (None, False),
    ],
)
def test_messages_that_are_no_messages_are_told(stored: str | None, valid: bool) -> None:
    db = window([interaction(0)])
    db.execute("UPDATE interactions SET messages = ?", [stored])
    frame = frames.interactions(db)
    assert frame["messages_valid"].tolist() == [valid]


def test_figures_that_fit_no_small_number_stay_wrong() -> None:
    db = window([interaction(0, status=10**12, prompt_tokens=-(10**12), cost_usd=-0.25)])
    row = frames.interactions(db).iloc[0]
    assert (row["status"], row["prompt_tokens"], row["cost_usd"]) == (2**31 - 1, -(2**31), -0.25)


def test_the_frame_is_narrow_and_holds_no_text() -> None:
    seen = [interaction(n, messages=[{"role": "user", "content": ENGLISH}], completion=GERMAN) for n in range(50)]
    db = window(seen, [feedback(0, "i0", detail={"comment": "S3CRET words"})])
    made = [frames.interactions(db), frames.feedback(db)]
    for frame in made:
        told = frame.to_csv()
        assert "Please" not in told and "Bitte" not in told and "S3CRET" not in told
    assert made[0].drop(columns=["id", "session"]).memory_usage(deep=True, index=False).sum() / 50 < 100
    assert db.execute("SELECT count(*) FROM duckdb_tables() WHERE temporary").fetchall() == [(0,)], "nothing is left"


def test_languages_of_a_bounded_sample_that_stays_the_same() -> None:
    seen = [
        interaction(
            n, messages=[{"role": "system", "content": ENGLISH}, {"role": "user", "content": text}], completion=""
        )
        for n, text in enumerate(
            [ENGLISH, GERMAN, '{"only": "json that is no prose at all, whatever it may say here"}'] * 30
        )
    ]
    whole = frames.interactions(window(seen))["language"]
    assert Counter(whole.dropna()) == {"en": 30, "de": 30} and whole.isna().sum() == 30
    few = [frames.interactions(window(order), sample=12)["language"] for order in (seen, seen[::-1])]
    assert few[0].equals(few[1]) and 0 < few[0].notna().sum() <= 12
    assert not few[0].equals(frames.interactions(window(seen), sample=12, seed=4)["language"])
    assert frames.interactions(window(seen), budget_s=0.0)["language"].isna().all()


def test_parts_of_a_message_are_read_for_their_language() -> None:
    parts = [{"type": "text", "text": GERMAN}, {"type": "image_url", "image_url": {"url": "x"}}]
    seen = [interaction(0, messages=[{"role": "user", "content": parts}], completion="")]
    assert frames.interactions(window(seen))["language"].tolist() == ["de"]


def test_feedback_is_measured_against_its_interaction() -> None:
    seen = [interaction(0, at=1.8e9), interaction(1, at=1.8e9)]
    said = [
        feedback(0, "i0", at=1.8e9 - 59), feedback(1, "i0", at=1.8e9 - 61, kind="rating"),
        feedback(2, "gone", score=0.2), feedback(3, "i1", score=None), feedback(4, "i1", score=0.4, key_id="other"),
        feedback(5, "i1", score=0.5, at=1.9e9), feedback(5, "i1", score=0.5, at=1.9e9 + 1),
    ]  # fmt: skip
    frame = frames.feedback(window(seen, said)).set_index("id")
    assert frame["known"].groupby(level=0).first().to_dict() == {f"f{n}": n != 2 for n in range(6)}
    assert frame.index[frame["before"]].tolist() == ["f1"]
    assert frame.index[frame["merged_over"]].tolist() == ["f3", "f5"], "said again by the same key, and twice by one id"
    assert frame["repeated"].tolist() == [False] * 6 + [True]
    assert frame["good"].dropna().to_dict() == {"f0": 1.0, "f2": 0.0, "f4": 0.0, "f5": 1.0}


def test_feedback_may_be_about_an_older_interaction_of_the_whole_lake() -> None:
    db = window([interaction(1)], [feedback(0, "old"), feedback(1, "i1")])
    db.execute(
        'CREATE VIEW "the lake" AS SELECT \'old\' AS id, 1.0 AS "at" UNION ALL SELECT id, "at" FROM interactions'
    )
    assert frames.feedback(db)["known"].tolist() == [False, True]
    assert frames.feedback(db, lake="the lake")["known"].tolist() == [True, True]


def test_empty_windows_make_empty_frames_with_all_columns() -> None:
    db = window([])
    for made in (frames.interactions(db), frames.feedback(db)):
        assert len(made) == 0 and {"id", "at", "repeated"} <= set(made.columns)
    assert list(examples([]).columns) == list(COLUMNS)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (ENGLISH, "en"),
        (GERMAN, "de"),
        ("```json\n" + GERMAN + "\n```", None),
        (f'{{"text": "{GERMAN}"}} ok', None),
        (f'{{"text": "{GERMAN}"}} {ENGLISH}', "en"),
        (f'{{"cut": "off {GERMAN}', None),
        ("Flaky test timed out", None),
        ("请为这个接口编写负面测试用例,使用错误的参数值,并检查返回的错误代码。", "zh"),
        ("", None),
    ],
)
def test_only_prose_is_judged(text: str, language: str | None) -> None:
    assert languages([text]) == [language]


@given(st.text(max_size=300))
def test_prose_of_anything_is_short_and_has_no_braces(text: str) -> None:
    found = prose(text)
    assert len(found) <= 2_000 and not set(found) & set("{[") and prose(found * 50) is not None


@given(st.text(max_size=50))
def test_json_is_what_parses(text: str) -> None:
    try:
        parsed = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        assert not is_json(text)
    else:
        assert is_json(text) and msgspec.json.decode(msgspec.json.encode(parsed)) == parsed
