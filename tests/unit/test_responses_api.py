"""The Responses API over chat completions: OpenAI's own client and types read what comes out."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterable
from typing import Any

import httpx2
import orjson
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from pawl.gateway.api.responses_events import Events, from_chat
from pawl.gateway.api.responses_request import NotTranslatable, to_chat

Object = dict[str, Any]
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
MESSAGES: TypeAdapter[Any] = TypeAdapter(list[ChatCompletionMessageParam])
TOOLS: TypeAdapter[Any] = TypeAdapter(list[ChatCompletionToolParam])
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "name": "weather", "description": "of a city", "parameters": SCHEMA, "strict": True}
CLOCK = {"type": "function", "name": "clock"}
USAGE = {
    "prompt_tokens": 7,
    "completion_tokens": 5,
    "total_tokens": 12,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
IDENTITY: Object = {"response_id": "resp_1f", "model": "agent", "created": 1700000000.5}


def called(name: str, arguments: str, call_id: str) -> Object:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def completion(message: Object, finish_reason: str = "stop", **more: Any) -> Object:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish_reason, **more}
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": USAGE}


def piece(delta: Object, finish_reason: str | None = None, **more: Any) -> Object:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason, **more}]}


def whole(message: Object, finish_reason: str = "stop", request: Object | None = None, **more: Any) -> Object:
    made = from_chat(completion(message, finish_reason, **more), request or {"input": "?"}, **IDENTITY)
    Response.model_validate_json(orjson.dumps(made), strict=True)
    return made


def streamed(chunks: Iterable[Object], request: Object | None = None) -> list[Object]:
    """All events of a stream; each was valid at the moment it was made, and their order is the client's law."""
    events = Events(request or {"input": "?"}, **IDENTITY)
    groups = [events.start(), *(events.chunk(chunk) for chunk in chunks), events.finish()]
    made = copy.deepcopy(list(itertools.chain(*groups)))
    check(made)
    return made


def check(made: list[Object]) -> None:
    """What every stream promises, read from the events alone."""
    assert [e["sequence_number"] for e in made] == list(range(len(made)))
    assert [e["type"] for e in made[:2]] == ["response.created", "response.in_progress"]
    texts: dict[tuple[str, int], str] = {}
    arguments: dict[str, str] = {}
    items: list[Object] = []
    for one in made:
        read = EVENT.validate_json(orjson.dumps(one), strict=True)
        assert read.type == one["type"]
        match one["type"]:
            case "response.output_item.added":
                assert one["output_index"] == len(items) and one["item"]["status"] == "in_progress"
                items.append(one["item"])
                if one["item"]["type"] == "function_call":
                    assert one["item"]["arguments"] == ""
                    arguments[one["item"]["id"]] = ""
            case "response.content_part.added":
                texts[one["item_id"], one["content_index"]] = ""
            case "response.output_text.delta" | "response.refusal.delta":
                assert items[one["output_index"]]["id"] == one["item_id"]
                texts[one["item_id"], one["content_index"]] += one["delta"]
            case "response.output_text.done":
                assert texts[one["item_id"], one["content_index"]] == one["text"]
            case "response.refusal.done":
                assert texts[one["item_id"], one["content_index"]] == one["refusal"]
            case "response.function_call_arguments.delta":
                assert items[one["output_index"]]["id"] == one["item_id"]
                arguments[one["item_id"]] += one["delta"]
            case "response.function_call_arguments.done":
                assert arguments[one["item_id"]] == one["arguments"]
            case "response.output_item.done":
                begun = items[one["output_index"]]
                assert {k: begun.get(k) for k in ("id", "type", "call_id", "name")} == {
                    k: one["item"].get(k) for k in ("id", "type", "call_id", "name")
                }
    final = made[-1]["response"]
    done = [e["item"] for e in made if e["type"] == "response.output_item.done"]
    if made[-1]["type"] != "response.failed":
        assert final["output"] == done
    assert [i["id"] for i in final["output"]] == [i["id"] for i in items]
    assert len({i["id"] for i in items}) == len(items)


# ---- requests


def test_a_plain_question() -> None:
    body = {"model": "a", "input": "hi", "instructions": "be kind", "max_output_tokens": 9, "temperature": 0.5,
            "top_p": 0.9, "stream": True, "metadata": {"session": "s"}, "user": "u", "seed": 3, "service_tier": "flex",
            "reasoning": {"effort": "low", "summary": "auto"}, "my_own": {"x": 1}}  # fmt: skip
    assert to_chat(body) == {
        "model": "a",
        "messages": [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}],
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "stream": True,
        "metadata": {"session": "s"},
        "user": "u",
        "seed": 3,
        "service_tier": "flex",
        "reasoning_effort": "low",
        "my_own": {"x": 1},
    }


def test_what_chat_has_no_word_for_is_left_out() -> None:
    body = {"input": "hi", "store": True, "include": ["reasoning.encrypted_content"], "truncation": "auto",
            "background": False, "previous_response_id": None, "conversation": None, "max_output_tokens": None,
            "instructions": None, "tools": None, "text": None, "reasoning": None, "prompt": None}  # fmt: skip
    assert to_chat(body) == {"messages": [{"role": "user", "content": "hi"}]}


def test_a_conversation_with_all_roles_parts_and_tools() -> None:
    items = [
        {"role": "developer", "content": "short"},
        {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "polite"}]},
        {"role": "user", "content": [
            {"type": "input_text", "text": "what is it?"},
            {"type": "input_image", "image_url": "https://x/y.png", "detail": "low"},
            {"type": "input_image", "image_url": "data:image/png;base64,AA", "file_id": None},
        ]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city": "Bern"}'},
        {"type": "reasoning", "id": "rs_2", "summary": []},
        {"type": "function_call", "call_id": "c2", "name": "clock", "arguments": ""},
        {"type": "function_call_output", "call_id": "c1", "output": "rain"},
        {"type": "function_call_output", "call_id": "c2", "output": [
            {"type": "input_text", "text": "no"}, {"type": "input_text", "text": "on"},
        ]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "I will not"}]},
        {"role": "user", "content": []},
    ]  # fmt: skip
    messages = to_chat({"input": items})["messages"]
    MESSAGES.validate_python(messages)
    assert messages == [
        {"role": "system", "content": "short"},
        {"role": "system", "content": "polite"},
        {"role": "user", "content": [
            {"type": "text", "text": "what is it?"},
            {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
        ]},
        {"role": "assistant", "content": None, "tool_calls": [
            called("weather", '{"city": "Bern"}', "c1"), called("clock", "{}", "c2"),
        ]},
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
        {"role": "tool", "tool_call_id": "c2", "content": [
            {"type": "text", "text": "no"}, {"type": "text", "text": "on"},
        ]},
        {"role": "assistant", "content": "I will not"},
        {"role": "user", "content": ""},
    ]  # fmt: skip


def test_two_answers_in_a_row_stay_two_and_text_behind_a_call_joins_it() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "clock", "arguments": "{}"}
    one, two = ({"role": "assistant", "content": text} for text in ("one", "two"))
    result = {"type": "function_call_output", "call_id": "c", "output": "noon"}
    assert [m["content"] for m in to_chat({"input": [one, two]})["messages"]] == ["one", "two"]
    joined, tool = to_chat({"input": [call, one, result]})["messages"]
    assert joined == {"role": "assistant", "content": "one", "tool_calls": [called("clock", "{}", "c")]}
    assert tool["role"] == "tool"


@pytest.mark.parametrize(
    ("choice", "wanted", "names"),
    [
        (None, None, ["weather", "clock"]),
        ("none", "none", ["weather", "clock"]),
        ("auto", "auto", ["weather", "clock"]),
        ("required", "required", ["weather", "clock"]),
        (
            {"type": "function", "name": "clock"},
            {"type": "function", "function": {"name": "clock"}},
            ["weather", "clock"],
        ),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "clock"}]},
            "required",
            ["clock"],
        ),
    ],
)
def test_tools_and_their_choice(choice: Any, wanted: Any, names: list[str]) -> None:
    chat = to_chat({"input": "?", "tools": [WEATHER, CLOCK], "tool_choice": choice, "parallel_tool_calls": False})
    assert (chat.get("tool_choice"), chat["parallel_tool_calls"]) == (wanted, False)
    assert [tool["function"]["name"] for tool in chat["tools"]] == names
    TOOLS.validate_python(chat["tools"])
    if "weather" in names:
        assert chat["tools"][0] == {"type": "function", "function": {k: v for k, v in WEATHER.items() if k != "type"}}


@pytest.mark.parametrize("choice", [None, "auto", "none"])
def test_without_tools_nothing_is_said_about_them(choice: Any) -> None:
    chat = to_chat({"input": "?", "tools": [], "tool_choice": choice, "parallel_tool_calls": True})
    assert chat.keys() == {"messages"}


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ({"format": {"type": "text"}}, {"response_format": {"type": "text"}}),
        ({"format": {"type": "json_object"}}, {"response_format": {"type": "json_object"}}),
        (
            {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True, "description": None}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": SCHEMA, "strict": True},
                }
            },
        ),
        ({"verbosity": "low"}, {"verbosity": "low"}),
    ],
)
def test_forms_of_text(text: Object, more: Object) -> None:
    assert to_chat({"input": "?", "text": text}) == {"messages": [{"role": "user", "content": "?"}], **more}


def test_logprobs_are_asked_for_the_way_chat_wants() -> None:
    assert to_chat({"input": "?", "top_logprobs": 2}).items() >= {"logprobs": True, "top_logprobs": 2}.items()
    asked = to_chat({"input": "?", "include": ["message.output_text.logprobs"], "top_logprobs": 0})
    assert asked["logprobs"] is True and "top_logprobs" not in asked
    assert "logprobs" not in to_chat({"input": "?", "top_logprobs": 0})


def user(*parts: Any) -> Object:
    return {"input": [{"role": "user", "content": list(parts)}]}


@pytest.mark.parametrize(
    ("body", "advice"),
    [
        ({"input": "?", "previous_response_id": "resp_1"}, "send the whole conversation as input"),
        ({"input": "?", "conversation": "conv_1"}, "send the whole conversation as input"),
        ({"input": "?", "conversation": {"id": "conv_1"}}, "send the whole conversation as input"),
        ({"input": "?", "background": True}, "stream: true"),
        ({"prompt": {"id": "pmpt_1"}}, "instructions and input"),
        ({}, "send a string, or a list"),
        ({"input": None}, "send a string, or a list"),
        ({"input": {"role": "user"}}, "send a string, or a list"),
        ({"input": []}, "at least one"),
        ({"input": [{"type": "reasoning", "summary": []}]}, "at least one"),
        ({"input": ["hi"]}, r"input\[0\]: send an object instead of a string"),
        ({"input": "?", "instructions": ["x"]}, "instructions: send a string instead of a list"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "send the item itself"),
        ({"input": [{"id": "msg_1"}]}, "send the item itself"),
        ({"input": [{"type": "web_search_call", "id": "ws_1"}]}, "'web_search_call'"),
        ({"input": [{"role": "tool", "content": "x"}]}, "send user, assistant, system or developer"),
        ({"input": [{"role": ["user"], "content": "x"}]}, "send user, assistant, system or developer"),
        ({"input": [{"role": "user"}]}, "content: send a list"),
        ({"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, "call_id: send a string"),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": {}}]}, "arguments: send a str"),
        ({"input": [{"type": "function_call_output", "call_id": None, "output": "x"}]}, "call_id: send a string"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": {}}]}, "output: send a list"),
        (user({"type": "input_file", "file_id": "f"}), "send their text as input_text"),
        (user({"type": "input_image", "file_id": "f"}), "send image_url"),
        (user({"type": "input_image", "image_url": {"url": "x"}}), "image_url: send a string"),
        (user({"type": "text", "text": "chat's own"}), "send input_text"),
        (user({"type": "input_text"}), "text: send a string"),
        (user(3), "send an object instead of a number"),
        ({"input": "?", "tools": {}}, "tools: send a list"),
        ({"input": "?", "tools": [{"type": "function", "function": {"name": "f"}}]}, "name: send a string"),
        *(
            ({"input": "?", "tools": [WEATHER, {"type": kind}]}, r"tools\[1\].*declare a function")
            for kind in ("web_search", "web_search_preview", "file_search", "computer_use", "computer_use_preview",
                         "code_interpreter", "mcp", "image_generation", "custom", None)
        ),
        ({"input": "?", "tool_choice": "required"}, "no tools to choose from"),
        ({"input": "?", "tools": [WEATHER], "tool_choice": "any"}, "by its name"),
        ({"input": "?", "tools": [WEATHER], "tool_choice": {"type": "web_search"}}, "by its name"),
        ({"input": "?", "tools": [WEATHER], "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []}},
         "allows none"),
        ({"input": "?", "text": "json"}, "text: send an object"),
        ({"input": "?", "text": {"format": {"type": "grammar"}}}, "json_schema with a name"),
        ({"input": "?", "text": {"format": {"type": "json_schema", "schema": {}}}}, "json_schema with a name"),
        ({"input": "?", "reasoning": "high"}, "reasoning: send an object"),
    ],
)  # fmt: skip
def test_what_cannot_be_said_in_chat_is_refused_with_advice(body: Object, advice: str) -> None:
    with pytest.raises(NotTranslatable, match=advice):
        to_chat(body)


def one_of(listed: str) -> st.SearchStrategy[str]:
    return st.sampled_from(listed.split())


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
words = one_of(
    """message reasoning function_call function_call_output item_reference input_text output_text input_image input_file
    refusal user assistant system developer function allowed_tools required auto none json_schema json_object text
    web_search"""
)
keys = one_of(
    """type role content text refusal image_url detail call_id name arguments output tools mode format schema strict
    effort verbosity id parameters"""
)
anything = st.recursive(
    scalars | words, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=5), max_leaves=25
)
bodies = st.dictionaries(
    one_of("""input instructions tools tool_choice text reasoning previous_response_id conversation background include
        top_logprobs max_output_tokens parallel_tool_calls prompt store metadata messages""")
    | st.text(max_size=5),
    anything,
)


@st.composite
def items(draw: st.DrawFn) -> Object:
    """Items that are right or nearly so, so that the search gets past the first check."""
    rare = draw(st.integers(0, 7)) == 0
    some: Any = draw(anything) if rare else draw(st.text(max_size=5))
    part_kind = words if rare else one_of("input_text output_text input_image refusal")
    parts = [
        {"type": draw(part_kind), "text": some, "refusal": some, "image_url": some}
        for _ in range(draw(st.integers(0, 2)))
    ]
    content = draw(st.sampled_from([some, parts]))
    kind = draw(words if rare else one_of("message function_call function_call_output reasoning"))
    role = draw(words if rare else one_of("user assistant system developer"))
    made = {"type": kind, "role": role, "content": content, "output": content, "call_id": some, "name": some,
            "arguments": some}  # fmt: skip
    if rare:
        made.pop(draw(st.sampled_from(sorted(made))))
    return made


@settings(deadline=None)
@given(
    bodies
    | st.builds(
        lambda body, given: {**body, "input": given},
        bodies | st.dictionaries(st.text(max_size=5), anything, max_size=2),
        st.lists(items(), max_size=4) | st.text(max_size=3),
    )
)
def test_any_object_is_translated_or_refused_and_never_changed(body: Object) -> None:
    before = copy.deepcopy(body)
    try:
        chat = to_chat(body)
    except NotTranslatable as e:
        event("refused")
        assert str(e)
    else:
        event("translated")
        assert chat["messages"] and {"user", "assistant", "system", "tool"} >= {m["role"] for m in chat["messages"]}
        assert json.loads(json.dumps(chat)) == chat
    assert body == before


def test_depth_does_not_matter() -> None:
    deep: Any = "x"
    for _ in range(50_000):
        deep = [deep]
    assert to_chat({"input": "?", "metadata": deep, "include": deep})["metadata"] is deep
    for key in ("input", "instructions", "tools", "tool_choice", "text", "reasoning"):
        with pytest.raises(NotTranslatable):
            to_chat({"input": "?", key: deep})


# ---- whole answers


def test_a_whole_answer() -> None:
    request = {"input": "?", "instructions": "be kind", "tools": [WEATHER], "tool_choice": "required", "top_p": 0.3,
               "temperature": 0.2, "text": {"format": {"type": "json_object"}}, "metadata": {"a": "b"},
               "parallel_tool_calls": False, "max_output_tokens": 50, "reasoning": {"effort": "low"}}  # fmt: skip
    made = whole({"content": "hello"}, request=request)
    echoed = [k for k in request if k != "input"]
    assert {k: made[k] for k in echoed} == {k: request[k] for k in echoed}
    assert {k: made[k] for k in ("id", "object", "created_at", "model", "status")} == {
        "id": "resp_1f", "object": "response", "created_at": 1700000000.5, "model": "agent", "status": "completed",
    }  # fmt: skip
    assert made["error"] is made["incomplete_details"] is made["previous_response_id"] is None
    assert made["output"] == [
        {"id": "msg_1f", "type": "message", "role": "assistant", "status": "completed",
         "content": [{"type": "output_text", "text": "hello", "annotations": [], "logprobs": []}]}
    ]  # fmt: skip
    assert made["usage"] == {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 12,
    }


def test_text_refusal_and_calls_become_items() -> None:
    calls = [called("weather", '{"city": "Bern"}', "c1"), called("clock", "{}", "c2")]
    message, *others = whole({"content": "so", "refusal": "no", "tool_calls": calls}, "tool_calls")["output"]
    assert [part["type"] for part in message["content"]] == ["output_text", "refusal"]
    assert [(i["id"], i["call_id"], i["name"], i["arguments"], i["status"]) for i in others] == [
        ("fc_1f_0", "c1", "weather", '{"city": "Bern"}', "completed"),
        ("fc_1f_1", "c2", "clock", "{}", "completed"),
    ]


@pytest.mark.parametrize(
    ("finish_reason", "status", "details"),
    [
        ("stop", "completed", None),
        ("tool_calls", "completed", None),
        ("length", "incomplete", {"reason": "max_output_tokens"}),
        ("content_filter", "incomplete", {"reason": "content_filter"}),
    ],
)
def test_how_an_answer_ended(finish_reason: str, status: str, details: Any) -> None:
    message = {"content": "so", "tool_calls": [called("clock", "{", "c")]}
    made = whole(message, finish_reason)
    assert (made["status"], made["incomplete_details"]) == (status, details)
    assert [item["status"] for item in made["output"]] == ["completed", status]
    events = streamed([piece({"content": "so"}), piece(message | {"content": None}, finish_reason)])
    assert events[-1]["type"] == f"response.{status}"


@pytest.mark.parametrize("message", [{"content": None}, {"content": ""}, {}, {"content": None, "tool_calls": None}])
def test_an_empty_answer_is_an_empty_message(message: Object) -> None:
    made = whole(message)
    assert [part["text"] for part in made["output"][0]["content"]] == [""]
    assert streamed([piece(message), piece({}, "stop"), {"choices": [], "usage": USAGE}])[-1]["response"] == made


def test_calls_that_bear_no_id_or_the_same_get_one_of_their_own() -> None:
    calls = [called("clock", "{}", "c"), called("clock", "{}", "c"), called("clock", "{}", "")]
    ids = [item["call_id"] for item in whole({"tool_calls": calls})["output"]]
    assert ids == ["c", "call_1f_1", "call_1f_2"]


def test_content_in_parts_and_arguments_as_an_object_are_read_too() -> None:
    parts = [{"type": "text", "text": "he"}, {"type": "thinking"}, {"type": "text", "text": "y"}]
    call = {"id": "c", "function": {"name": "clock", "arguments": {"zone": 1}}}
    message, item = whole({"content": parts, "tool_calls": [call]})["output"]
    assert message["content"][0]["text"] == "hey" and json.loads(item["arguments"]) == {"zone": 1}


def test_logprobs_are_passed_on() -> None:
    token = {"token": "hi", "logprob": -0.5, "bytes": [104, 105], "top_logprobs": [{"token": "h", "logprob": -1.5}]}
    told = {**token, "top_logprobs": [{"token": "h", "logprob": -1.5, "bytes": []}]}
    asked: Object = {"logprobs": {"content": [token]}}
    made = whole({"content": "hi"}, **asked)
    assert made["output"][0]["content"][0]["logprobs"] == [told]
    events = streamed([piece({"content": "hi"}, "stop", **asked)])
    assert [e["logprobs"] for e in events if "logprobs" in e] == [[told], [told]]


@pytest.mark.parametrize("n", [1, 0])
def test_only_the_first_choice_counts(n: int) -> None:
    choices = [{"index": i, "message": {"content": f"answer {i}"}} for i in (n, 1 - n)]
    made = from_chat({"choices": choices}, {"input": "?"}, **IDENTITY)
    assert Response.model_validate(made).output_text == "answer 0"
    chunks = [{"choices": [{"index": i, "delta": {"content": f"answer {i}"}}]} for i in (n, 1 - n)]
    assert streamed(chunks)[-1]["response"] == made


def test_a_former_answer_is_understood_as_input() -> None:
    calls = [called("weather", '{"city": "Bern"}', "c1"), called("clock", "{}", "c2")]
    output = whole({"content": "I look", "tool_calls": calls}, "tool_calls")["output"]
    results = [{"type": "function_call_output", "call_id": c, "output": "done"} for c in ("c1", "c2")]
    messages = to_chat({"input": [{"role": "user", "content": "?"}, *output, *results], "tools": [WEATHER]})["messages"]
    assert messages[1] == {"role": "assistant", "content": "I look", "tool_calls": calls}
    assert [(m["role"], m["tool_call_id"]) for m in messages[2:]] == [("tool", "c1"), ("tool", "c2")]
    # As the SDK's users send it back: the models dumped, with every optional field as null.
    dumped = [item.model_dump() for item in Response.model_validate({**whole({}), "output": output}).output]
    assert to_chat({"input": [{"role": "user", "content": "?"}, *dumped, *results]})["messages"] == messages


# ---- streams


def cut(draw: st.DrawFn, text: str) -> list[str]:
    at = sorted(draw(st.lists(st.integers(0, len(text)), max_size=5)))
    return [text[a:b] for a, b in itertools.pairwise([0, *at, len(text)])]


@st.composite
def answers(draw: st.DrawFn) -> tuple[Object, list[Object], str]:
    """A message, and chunks of any cut that add up to it."""
    text, refusal = draw(st.text(max_size=20)), draw(st.sampled_from(["", "I must not"]))
    calls = [
        called(draw(st.sampled_from(["f", "g"])), draw(st.text(max_size=20)), f"c{n}")
        for n in range(draw(st.integers(0, 3)))
    ]
    reason = draw(st.sampled_from(["stop", "length", "tool_calls", "content_filter"]))
    chunks = [piece({"role": "assistant", "content": ""})]
    chunks += [piece({"content": part}) for part in cut(draw, text)]
    chunks += [piece({"refusal": part}) for part in cut(draw, refusal)]
    for n, call in enumerate(calls):
        first, *rest = cut(draw, call["function"]["arguments"])
        head = {**call, "index": n, "function": {**call["function"], "arguments": first}}
        chunks.append(piece({"tool_calls": [head]}))
        chunks += [piece({"tool_calls": [{"index": n, "function": {"arguments": part}}]}) for part in rest]
    chunks += [piece({}, reason), {"choices": [], "usage": USAGE}]
    return {"content": text, "refusal": refusal, "tool_calls": calls}, chunks, reason


@settings(deadline=None)
@given(answers())
def test_a_stream_ends_in_the_response_of_the_whole_answer(made: tuple[Object, list[Object], str]) -> None:
    message, chunks, reason = made
    assert streamed(chunks)[-1]["response"] == whole(message, reason)


def test_the_events_of_a_text_in_order() -> None:
    events = streamed([piece({"content": "a"}), piece({"content": "b"})])
    assert [e["type"].removeprefix("response.") for e in events] == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip


def test_calls_side_by_side() -> None:
    def part(index: int, arguments: str, **more: Any) -> Object:
        name = more.pop("name", None)
        return {"index": index, "function": {"name": name, "arguments": arguments}, **more}

    events = streamed([
        piece({"tool_calls": [part(0, "", id="c0", name="weather"), part(1, "{", id="c1", name="clock")]}),
        piece({"tool_calls": [part(0, '{"city"')]}),
        piece({"tool_calls": [part(1, "}"), part(0, ': "Bern"}')]}),
        piece({"content": "just a moment"}),
        piece({}, "tool_calls"),
    ])  # fmt: skip
    zero, one, message = events[-1]["response"]["output"]
    assert (zero["call_id"], zero["arguments"]) == ("c0", '{"city": "Bern"}')
    assert (one["call_id"], one["arguments"], message["type"]) == ("c1", "{}", "message")


def test_a_call_waits_for_its_name_and_one_without_is_none() -> None:
    late = [{"index": 0, "id": "c", "function": {"arguments": "{"}}]
    named = [{"index": 0, "function": {"name": "clock", "arguments": "}"}}]
    events = streamed([piece({"tool_calls": late}), piece({"tool_calls": named})])
    assert [e["delta"] for e in events if "delta" in e] == ["{}"]
    assert events[-1]["response"]["output"][0]["call_id"] == "c"
    assert [i["type"] for i in streamed([piece({"tool_calls": late}, "length")])[-1]["response"]["output"]] == [
        "message"
    ]


def test_calls_without_an_index_are_told_apart_by_their_ids() -> None:
    def part(call_id: str | None, name: str | None, arguments: str) -> Object:
        return piece({"tool_calls": [{"id": call_id, "function": {"name": name, "arguments": arguments}}]})

    chunks = [
        part("a", "f", "1"),
        part(None, None, "2"),
        part("b", "g", "3"),
        part("b", None, "4"),
        part("a", None, "5"),
    ]
    output = streamed(chunks)[-1]["response"]["output"]
    assert [(i["call_id"], i["name"], i["arguments"]) for i in output] == [("a", "f", "125"), ("b", "g", "34")]


def test_an_index_outweighs_an_id_that_changes() -> None:
    chunks = [piece({"tool_calls": [{"index": 0, "id": f"random{n}", "function": {"name": "f", "arguments": str(n)}}]})
              for n in range(3)]  # fmt: skip
    (item,) = streamed(chunks)[-1]["response"]["output"]
    assert (item["call_id"], item["arguments"]) == ("random0", "012")


@pytest.mark.parametrize("chunks", [[], [piece({"content": "half an ans"})]])
def test_a_broken_stream_fails_with_what_has_come(chunks: list[Object]) -> None:
    events = Events({"input": "?"}, **IDENTITY)
    made = [*events.start(), *itertools.chain(*map(events.chunk, chunks)), *events.fail("the upstream broke off")]
    check(made)
    last = made[-1]["response"]
    assert made[-1]["type"] == "response.failed" and last["status"] == "failed"
    assert last["error"] == {"code": "server_error", "message": "the upstream broke off"}
    assert [item["status"] for item in last["output"]] == ["incomplete"] * len(chunks)


fields = one_of(
    """index delta content refusal tool_calls function name arguments id finish_reason logprobs token logprob bytes
    top_logprobs text message prompt_tokens prompt_tokens_details cached_tokens"""
)
said = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(fields, inner, max_size=5),
    max_leaves=15,
)
pieces = st.fixed_dictionaries(
    {},
    optional={
        "content": said,
        "refusal": said,
        "tool_calls": st.lists(
            st.fixed_dictionaries(
                {},
                optional={"index": st.integers(-1, 2) | said, "id": st.text(max_size=2) | said,
                          "function": st.fixed_dictionaries({}, optional={"name": said, "arguments": said}) | said},
            )
        )
        | said,
    },
)  # fmt: skip
garbled = st.fixed_dictionaries(
    {},
    optional={
        "choices": st.lists(
            st.fixed_dictionaries(
                {},
                optional={"index": st.just(0) | said, "delta": pieces | said, "message": pieces | said,
                          "finish_reason": st.sampled_from(["stop", "length"]) | said,
                          "logprobs": st.fixed_dictionaries({"content": said}) | said},
            ),
            max_size=3,
        )
        | said,
        "usage": said,
    },
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(garbled, max_size=4))
def test_whatever_an_upstream_says_the_client_hears_valid_events(chunks: list[Object]) -> None:
    streamed(chunks)
    for answer in chunks:
        made = from_chat(answer, {"input": "?"}, **IDENTITY)
        Response.model_validate_json(orjson.dumps(made), strict=True)


# ---- OpenAI's own client at the other end


class City(BaseModel):
    city: str


def client(events: list[Object] | None = None, response: Object | None = None) -> tuple[OpenAI, list[Object]]:
    heard: list[Object] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        heard.append(json.loads(request.content))
        if events is None:
            return httpx2.Response(200, json=response)
        lines = "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in events)
        return httpx2.Response(200, text=lines, headers={"content-type": "text/event-stream"})

    transport = httpx2.MockTransport(answer)
    return OpenAI(api_key="k", base_url="http://gateway/v1", http_client=httpx2.Client(transport=transport)), heard


def test_the_sdk_reads_a_stream_and_its_request_is_understood() -> None:
    body = ['{"city"', ': "Bern"}']
    call = {"index": 0, "id": "c", "function": {"name": "clock", "arguments": "{}"}}
    events = streamed([*(piece({"content": part}) for part in body), piece({"tool_calls": [call]}, "tool_calls")])
    sdk, heard = client(events)
    with sdk.responses.stream(model="agent", input="where?", text_format=City, instructions="be kind") as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert deltas == body and final.output_parsed == City(city="Bern")
    assert final.output[1].type == "function_call" and final.output[1].call_id == "c"
    chat = to_chat(heard[0])
    assert chat["response_format"]["json_schema"]["name"] == "City" and chat["stream"] is True


def test_the_sdk_reads_a_whole_answer() -> None:
    sdk, heard = client(response=whole({"content": "hello"}))
    got = sdk.responses.create(model="agent", input=[{"role": "user", "content": "hi"}], max_output_tokens=20)
    assert got.output_text == "hello" and got.usage is not None and got.usage.total_tokens == 12
    assert to_chat(heard[0]) == {
        "model": "agent", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 20,
    }  # fmt: skip
