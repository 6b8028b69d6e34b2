"""How hard a request looks, from features that cost microseconds (pure).

No model is asked: counting characters, braces and tools is enough to tell a one-line question from a page of nested
schemas, and a classifier would itself be a place that prompts leak to.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import msgspec

from pawl.fleet.routing import COMPLEXITIES, Complexity

CHARS_A_TOKEN = 4  # English and JSON; an estimate for routing, never for the bill
# Each bound that is reached adds a point.
_PROMPT_TOKENS = (500, 2000, 8000)
_BRACES = (20, 80)
_SCHEMA_DEPTH = (2, 4, 7)
_TOOLS = (1, 6)
_TURNS = 8
_WANTED_TOKENS = 2000
_NODES = 300  # of a JSON schema; deeper parts of a larger one are not looked at


class Features(msgspec.Struct, frozen=True):
    """What a request looks like."""

    prompt_tokens: int = 0  # estimated
    turns: int = 0
    braces: int = 0  # in the text: how much schema or code a prompt carries
    schema_depth: int = 0  # of `response_format`
    tools: int = 0
    wanted_tokens: int = 0  # max_tokens, 0 where the client names none
    images: bool = False
    json_schema: bool = False
    logprobs: bool = False

    @property
    def total_tokens(self) -> int:
        """Room that the context needs at most."""
        return self.prompt_tokens + self.wanted_tokens


def features(body: dict[str, Any]) -> Features:
    """The features of a chat or text completion's body; odd shapes count as nothing."""
    chars = braces = 0
    images = False
    messages = body.get("messages")
    if not isinstance(messages, list):
        messages = [{"content": body.get("prompt")}]
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, str):
            chars += len(content)
            braces += content.count("{")
        elif isinstance(content, list):
            for part in content:
                if isinstance(part, str):
                    chars += len(part)
                elif isinstance(part, dict):
                    text = part.get("text")
                    chars += len(text) if isinstance(text, str) else 0
                    images = images or part.get("type") in ("image_url", "input_image")
    tools = body.get("tools")
    wanted = body.get("max_completion_tokens") or body.get("max_tokens")
    shape = body.get("response_format")
    is_schema = isinstance(shape, dict) and shape.get("type") == "json_schema"
    return Features(
        prompt_tokens=chars // CHARS_A_TOKEN,
        turns=len(messages),
        braces=braces,
        schema_depth=_depth(shape) if is_schema else 0,
        tools=len(tools) if isinstance(tools, list) else 0,
        wanted_tokens=wanted if isinstance(wanted, int) and wanted > 0 else 0,
        images=images,
        json_schema=is_schema,
        logprobs=bool(body.get("logprobs")),
    )


def complexity(f: Features, base: int = 0) -> tuple[Complexity, int]:
    """The class and its points. `base`: what every request of the agent starts with.

    Points rise with prompt length, schema in the prompt, schema asked for, tools, turns and the length asked for:
    0-1 simple, 2-3 moderate, 4-5 complex, 6 and more very complex. More of anything never makes it simpler.
    """
    points = (
        base
        + bisect_right(_PROMPT_TOKENS, f.prompt_tokens)
        + bisect_right(_BRACES, f.braces)
        + bisect_right(_SCHEMA_DEPTH, f.schema_depth)
        + bisect_right(_TOOLS, f.tools)
        + (f.turns >= _TURNS)
        + (f.wanted_tokens >= _WANTED_TOKENS)
        + (1 if f.images else 0)
    )
    return COMPLEXITIES[min(points // 2, len(COMPLEXITIES) - 1)], points


def _depth(node: Any) -> int:
    """Nesting of a JSON schema's objects, by level, over at most `_NODES` nodes."""
    level, depth, seen = [node], 0, 0
    while level and seen < _NODES:
        seen += len(level)
        deeper: list[Any] = []
        for n in level[:_NODES]:
            if isinstance(n, dict):
                deeper += [c for c in n.values() if isinstance(c, dict | list)]
            elif isinstance(n, list):
                deeper += [c for c in n if isinstance(c, dict)]
        depth += any(isinstance(n, dict) and "properties" in n for n in level)
        level = deeper
    return depth
