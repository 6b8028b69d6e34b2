"""A Responses request told as a chat completions request (pure). Shapes: OpenAI API reference, Responses, create."""

from __future__ import annotations

from typing import Any, TypeVar

Object = dict[str, Any]
Kind = TypeVar("Kind")

# Read below, or without a meaning in chat. `messages` is among them because it is what we write.
_OURS = frozenset(
    (
        "input", "instructions", "messages", "max_output_tokens", "tools", "tool_choice", "parallel_tool_calls", "text",
        "reasoning", "top_logprobs", "store", "include", "truncation", "background", "previous_response_id",
        "conversation", "prompt", "max_tool_calls",
    )
)  # fmt: skip
_NAMES = {str: "a string", list: "a list", dict: "an object", type(None): "null", bool: "a boolean"}


class NotTranslatable(ValueError):
    """A request that chat completions cannot express; the text says what to send instead."""


def to_chat(body: Object) -> Object:
    """The chat completions request that asks the same. The body stays as it is; values are shared with it.

    NotTranslatable where there is none. What this does not know passes through, for the upstream to judge.
    Source: OpenAI API reference, Responses, create.
    """
    _refuse_what_needs_a_store(body)
    chat = {key: value for key, value in body.items() if key not in _OURS}
    chat["messages"] = _messages(body)
    if body.get("max_output_tokens") is not None:
        chat["max_tokens"] = body["max_output_tokens"]
    effort = (_optional(body, "reasoning", dict) or {}).get("effort")
    if effort is not None:
        chat["reasoning_effort"] = effort
    include = body.get("include")
    if body.get("top_logprobs") or (isinstance(include, list) and "message.output_text.logprobs" in include):
        chat["logprobs"] = True  # chat gives none, however many are asked for, without this
    if body.get("top_logprobs"):
        chat["top_logprobs"] = body["top_logprobs"]
    return chat | _tools(body) | _text_settings(body)


def _refuse_what_needs_a_store(body: Object) -> None:
    for key in ("previous_response_id", "conversation"):
        if body.get(key):
            raise NotTranslatable(f"{key}: no former response is kept here; send the whole conversation as input")
    if body.get("prompt"):
        raise NotTranslatable("prompt: no templates are kept here; send their text as instructions and input")
    if body.get("background"):
        raise NotTranslatable("background: answers are given at once or streamed; leave it out, or send stream: true")


def _need(value: Any, kind: type[Kind], where: str) -> Kind:
    if not isinstance(value, kind):
        # Names the type alone: a value may be long, secret, or nested deeper than repr can go.
        said = _NAMES.get(type(value), "a number")
        raise NotTranslatable(f"{where}: send {_NAMES[kind]} instead of {said}")
    return value


def _optional(body: Object, key: str, kind: type[Kind]) -> Kind | None:
    return None if body.get(key) is None else _need(body[key], kind, key)


def _messages(body: Object) -> list[Object]:
    leading: list[Object] = []
    instructions = _optional(body, "instructions", str)
    if instructions:
        leading.append({"role": "system", "content": instructions})
    given = body.get("input")
    if isinstance(given, str):
        return [*leading, {"role": "user", "content": given}]
    if not isinstance(given, list):
        raise NotTranslatable("input: send a string, or a list of items")
    found: list[Object] = []
    for n, item in enumerate(given):
        where = f"input[{n}]"
        _add_item(found, _need(item, dict, where), where)
    if not found:
        raise NotTranslatable("input: there is no message in it; send at least one")
    return leading + found


def _add_item(messages: list[Object], item: Object, where: str) -> None:
    kind = item.get("type")
    if kind is None:
        # Both kinds may leave their type out; only a message has a role.
        kind = "message" if "role" in item else "item_reference"
    match kind:
        case "message":
            _add_message(messages, item, where)
        case "function_call":
            _add_call(messages, item, where)
        case "function_call_output":
            content = _content(item.get("output"), f"{where}.output")
            messages.append({"role": "tool", "tool_call_id": _string(item, "call_id", where), "content": content})
        case "reasoning":
            pass  # chat has no place for it
        case "item_reference":
            raise NotTranslatable(f"{where}: no items are kept here; send the item itself instead of a reference")
        case _:
            raise NotTranslatable(
                f"{where}: chat completions have no items of type {_short(kind)}; send messages, function_call, "
                "function_call_output"
            )


def _add_message(messages: list[Object], item: Object, where: str) -> None:
    role = item.get("role")
    if role not in ("user", "assistant", "system", "developer"):
        raise NotTranslatable(f"{where}.role: send user, assistant, system or developer")
    content = _content(item.get("content"), f"{where}.content")
    last = messages[-1] if messages else None
    if role == "assistant" and last and last["role"] == "assistant" and last["content"] is None:
        last["content"] = content  # chat wants the tools' results right behind the calls, with no message between
        return
    # Chat templates of open models know no developer and would leave out what it says.
    messages.append({"role": "system" if role == "developer" else role, "content": content})


def _add_call(messages: list[Object], item: Object, where: str) -> None:
    # Not every chat template can read empty arguments as JSON.
    function = {"name": _string(item, "name", where), "arguments": _string(item, "arguments", where) or "{}"}
    call = {"id": _string(item, "call_id", where), "type": "function", "function": function}
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": None})
    # Text and calls of one answer are several items here and one message in chat.
    messages[-1].setdefault("tool_calls", []).append(call)


def _string(item: Object, key: str, where: str) -> str:
    return _need(item.get(key), str, f"{where}.{key}")


def _content(given: Any, where: str) -> str | list[Object]:
    if isinstance(given, str):
        return given
    parts = [_part(part, f"{where}[{n}]") for n, part in enumerate(_need(given, list, where))]
    if not parts:
        return ""
    if len(parts) == 1 and parts[0]["type"] == "text":
        return str(parts[0]["text"])  # the form that every upstream takes
    return parts


def _part(given: Any, where: str) -> Object:
    part = _need(given, dict, where)
    match part.get("type"):
        case "input_text" | "output_text":
            return {"type": "text", "text": _string(part, "text", where)}
        case "refusal":
            # Chat has a field of its own for it, which few upstreams show to their model.
            return {"type": "text", "text": _string(part, "refusal", where)}
        case "input_image":
            if part.get("image_url") is None:
                raise NotTranslatable(f"{where}: no files are kept here; send image_url, an address or a data URL")
            image = {"url": _string(part, "image_url", where)}
            if part.get("detail") is not None:
                image["detail"] = _string(part, "detail", where)
            return {"type": "image_url", "image_url": image}
        case "input_file":
            raise NotTranslatable(f"{where}: files cannot be read here; send their text as input_text")
        case kind:
            raise NotTranslatable(f"{where}: a part of type {_short(kind)}; send input_text, input_image, output_text")


def _short(kind: Any) -> str:
    return repr(kind[:40]) if isinstance(kind, str) else _NAMES.get(type(kind), "a number")


def _tools(body: Object) -> Object:
    tools = [_tool(tool, f"tools[{n}]") for n, tool in enumerate(_optional(body, "tools", list) or ())]
    choice = body.get("tool_choice")
    if not tools:
        # Chat refuses an empty list, and every setting about tools without tools; here both are ordinary.
        if choice in (None, "none", "auto"):
            return {}
        raise NotTranslatable("tool_choice: there are no tools to choose from; send tools, or leave it out")
    chat: Object = {}
    match choice:
        case None:
            pass
        case "none" | "auto" | "required":
            chat["tool_choice"] = choice
        case {"type": "function", "name": str(name)}:
            chat["tool_choice"] = {"type": "function", "function": {"name": name}}
        case {"type": "allowed_tools", "mode": "auto" | "required" as mode, "tools": list(allowed)}:
            # Few upstreams know this setting; to a model, tools it never sees are tools it may not call.
            names = [tool.get("name") for tool in allowed if isinstance(tool, dict)]
            tools = [tool for tool in tools if tool["function"]["name"] in names]
            if not tools:
                raise NotTranslatable("tool_choice: it allows none of the tools; name some of them")
            chat["tool_choice"] = mode
        case _:
            raise NotTranslatable("tool_choice: send none, auto, required, or one function of tools by its name")
    if body.get("parallel_tool_calls") is not None:
        chat["parallel_tool_calls"] = body["parallel_tool_calls"]
    return chat | {"tools": tools}


def _tool(given: Any, where: str) -> Object:
    tool = _need(given, dict, where)
    if tool.get("type") != "function":
        raise NotTranslatable(
            f"{where}: a tool of type {_short(tool.get('type'))} is not run here; declare a function, run it yourself"
        )
    _string(tool, "name", where)  # chat's nested form ends here
    return {"type": "function", "function": _picked(tool, "name", "description", "parameters", "strict")}


def _text_settings(body: Object) -> Object:
    text: Object = _optional(body, "text", dict) or {}
    chat = _picked(text, "verbosity")
    match text.get("format"):
        case None:
            pass
        case {"type": "text" | "json_object" as kind}:
            chat["response_format"] = {"type": kind}
        case {"type": "json_schema", "name": str(), "schema": dict()} as wanted:
            schema = _picked(wanted, "name", "description", "schema", "strict")
            chat["response_format"] = {"type": "json_schema", "json_schema": schema}
        case _:
            raise NotTranslatable("text.format: send type text, json_object, or json_schema with a name and a schema")
    return chat


def _picked(given: Object, *keys: str) -> Object:
    return {key: given[key] for key in keys if given.get(key) is not None}
