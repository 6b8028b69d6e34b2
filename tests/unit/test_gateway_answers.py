"""What comes back from an arm: text, tool calls and usage, whole or in pieces; what a cascade's check thinks of it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawl.fleet.routing import CascadeSpec
from pawl.gateway.cascade import fits, refusal
from pawl.gateway.deadlines import Deadlines
from pawl.gateway.exchange import Asked, Heard, new_id, said

CALLS = st.lists(
    st.tuples(st.text(min_size=1, max_size=6), st.text(max_size=12)), min_size=1, max_size=3
)  # (name, arguments)


@given(st.text(max_size=30), CALLS, st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_a_stream_adds_up_to_the_whole_answer(text: str, calls: list[tuple[str, str]], cuts: list[int]) -> None:
    streamed, whole = Heard(), Heard()
    place, n = 0, 0
    while place < len(text):
        step = cuts[n % len(cuts)]
        streamed.chunk({"choices": [{"index": 0, "delta": {"content": text[place : place + step]}}]}, 0.0)
        place, n = place + step, n + 1
    made = []
    for index, (name, arguments) in enumerate(calls):
        begun = {"index": index, "id": f"c{index}", "type": "function", "function": {"name": name, "arguments": ""}}
        streamed.chunk({"choices": [{"delta": {"tool_calls": [begun]}}]}, 0.0)
        for start in range(0, len(arguments), 4):
            bit = {"index": index, "function": {"arguments": arguments[start : start + 4]}}
            streamed.chunk({"choices": [{"delta": {"tool_calls": [bit]}}]}, 0.0)
        made.append({"id": f"c{index}", "type": "function", "function": {"name": name, "arguments": arguments}})
    streamed.chunk({"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}, 0.0)
    message = {"content": text, "tool_calls": made}
    whole.whole({"choices": [{"message": message, "finish_reason": "tool_calls"}]})
    assert (streamed.text, streamed.tool_calls, streamed.finish_reason) == (
        whole.text, whole.tool_calls, whole.finish_reason,
    )  # fmt: skip


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda c: st.lists(c) | st.dictionaries(st.sampled_from(["index", "id", "function", "name", "arguments"]), c),
    )
)
def test_odd_tool_calls_harm_nobody(odd: Any) -> None:
    heard = Heard()
    heard.chunk({"choices": [{"delta": {"tool_calls": odd if isinstance(odd, list) else [odd]}}]}, 0.0)
    assert len(heard.tool_calls) <= 128


def test_cached_tokens_are_never_more_than_the_prompts() -> None:
    heard = Heard()
    heard.whole({"choices": [], "usage": {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 9}}})
    assert (heard.prompt_tokens, heard.cached_tokens) == (5, 5)


def test_what_is_no_text_and_no_count_is_not_recorded_as_one() -> None:
    heard = Heard()
    heard.whole({"choices": [{"message": {"content": "a"}, "finish_reason": 7}], "usage": {"prompt_tokens": True}})
    assert (heard.finish_reason, heard.prompt_tokens) == (None, 0)


def test_ids_are_in_the_endpoints_shape_and_differ() -> None:
    assert new_id().startswith("chatcmpl-") and new_id("responses").startswith("resp_")
    assert len({new_id() for _ in range(10_000)}) == 10_000


SCHEMA = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("shape", "text", "good"),
    [
        (None, "anything", True),
        ({"type": "text"}, "anything", True),
        ({"type": "json_object"}, "{}", True),
        ({"type": "json_object"}, "[]", False),
        ({"type": "json_object"}, "{", False),
        ({"type": "json_schema", "json_schema": {"schema": SCHEMA}}, '{"n": 1}', True),
        ({"type": "json_schema", "json_schema": {"schema": SCHEMA}}, '{"n": "1"}', False),
        ({"type": "json_schema", "json_schema": {"schema": SCHEMA}}, "n = 1", False),
        ({"type": "json_schema", "json_schema": {"schema": {"type": 7}}}, "{}", True),
        ({"type": "json_schema"}, "{}", True),
        ({"type": "json_schema", "json_schema": {"schema": {"$ref": "http://127.0.0.1:9/x"}}}, "{}", True),
        ({"type": "json_schema", "json_schema": {"schema": {"$ref": "file:///etc/passwd"}}}, "{}", True),
    ],
)
def test_a_schema_check_refuses_what_does_not_fit_and_nothing_else(shape: Any, text: str, good: bool) -> None:
    assert fits(shape, text) is good


def test_a_schema_that_points_elsewhere_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "else.json").write_text('{"type": "string"}')  # followed, it would refuse the answer
    shape = {"type": "json_schema", "json_schema": {"schema": {"$ref": (tmp_path / "else.json").as_uri()}}}
    assert fits(shape, "{}")


async def test_a_grader_decides_by_its_bound_and_one_that_fails_lets_through() -> None:
    asked = Asked(id="i", agent="a", session="s", key_id="k", at=0.0, body={"messages": [{"role": "user"}]})
    rule = CascadeSpec(check="grader", min_score=0.5, upstream="x")

    def broken(messages: list[dict[str, Any]], text: str) -> float:
        raise ValueError(text)

    graders: list[Any] = [lambda m, t: 0.5, lambda m, t: 0.49, broken, None]
    assert [await refusal(rule, asked, Heard(text="t"), g) for g in graders] == [None, 0.49, None, None]


def test_prompts_and_inputs_are_recorded_as_messages() -> None:
    odd = {"input": "x", "messages": ["a"]}  # what no reader of the lake could take for messages
    for body, content in (({"prompt": "p"}, "p"), ({"input": ["a", "b"]}, ["a", "b"]), ({}, ""), (odd, "x")):
        asked = Asked(id="i", agent="a", session="s", key_id="k", at=0.0, body=body, endpoint="embeddings")
        assert said(asked) == [{"role": "user", "content": content}]
    assert json.dumps(said(Asked(id="i", agent="a", session="s", key_id="k", at=0.0, body={"messages": []}))) == "[]"


# -- deadlines


async def test_deadlines_come_late_by_little_and_never_early() -> None:
    loop = asyncio.get_running_loop()
    deadlines, late = Deadlines(loop, 0.1), dict[int, float]()
    began: dict[int, float] = {}
    for n in range(20):
        began[n] = loop.time()
        deadlines.start(n, lambda n=n: late.setdefault(n, loop.time()))  # type: ignore[misc]
        await asyncio.sleep(0.01)
        if n % 2:
            deadlines.stop(n)
    await asyncio.sleep(0.3)
    assert sorted(late) == list(range(0, 20, 2))
    assert all(0.1 <= late[n] - began[n] < 0.25 for n in late)
    deadlines.stop("nobody's")


async def test_a_deadline_may_start_another() -> None:
    loop = asyncio.get_running_loop()
    deadlines, done = Deadlines(loop, 0.02), asyncio.Event()
    deadlines.start("a", lambda: deadlines.start("b", done.set))
    await asyncio.wait_for(done.wait(), 2)
