"""Candidates for augmentation of the API-testing tasks: one change of the operation each, carried through the answer.

A candidate breaks, case by case, the same kinds of rule as the answer that it was made from; what came out otherwise
is not offered. Whether it is good enough to be learnt from the grader says, of the candidate as a whole.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import orjson

from pawl.errors import SourceError
from pawl.qe.item import Messages
from pawl.qe.operations.answers import MAX_COMPLETION_BYTES
from pawl.qe.operations.constraints import edited
from pawl.qe.operations.operation import Operation
from pawl.qe.operations.prompt import parsed
from pawl.qe.operations.schema_walk import keywords, member_names, rebuilt, reshaped
from pawl.qe.operations.validator import Undecided, signature
from pawl.qe.operations.wording import HEADS, new_names, new_operation
from pawl.qe.task import Variant

_TRIES = 4  # for one candidate of a kind, before the next kind has its turn
_MAX_CASES = 12
_GROWTH = 200  # characters that an answer may grow by: a longer one costs tokens and teaches nothing more
# Members stand where these say; a schema with any other keyword that names members keeps its names.
_NAMES_ELSEWHERE = frozenset(
    ("$ref", "$dynamicRef", "patternProperties", "propertyNames", "dependentRequired", "dependentSchemas", "if",
     "unevaluatedProperties", "const")
)  # fmt: skip
Case = dict[str, Any]


class _Item(msgspec.Struct, frozen=True, kw_only=True):
    """An example, taken apart. `broken` are the signatures of its cases, `sentences` ask for the same each."""

    messages: Messages
    completion: str
    op: Operation
    cases: list[Case]
    broken: list[str]
    sentences: tuple[str, ...]


def variants(messages: Messages, completion: str, rng: random.Random, sentences: tuple[str, ...]) -> Iterator[Variant]:
    """Candidates, kinds in turns, in an order that `rng` draws; endless, or none where the example is of another task.

    A candidate's operation has its example's source. `sentences` are the system messages that ask for the same.
    """
    item = _item(messages, completion, sentences)
    if item is None:
        return
    kinds = list(KINDS)
    rng.shuffle(kinds)
    while True:
        offered = False
        for kind in kinds:
            for _ in range(_TRIES):
                made = _MAKERS[kind](item, rng)
                if made is not None and made[0] != messages:
                    offered = True
                    yield Variant(kind=kind, messages=made[0], completion=made[1])
                    break
        if not offered:
            return


def _renamed(item: _Item, rng: random.Random) -> tuple[Messages, str] | None:
    schema = item.op.schema
    if keywords(schema) & _NAMES_ELSEWHERE:
        return None
    # A key of a payload that is no member (of a map, or misspelt on purpose) must not meet a new name.
    names = new_names(member_names(schema), set(_KEYS.findall(item.completion)), rng)
    if not names:
        return None

    def change(sub: dict[str, Any]) -> dict[str, Any]:
        if isinstance(sub.get("properties"), dict):
            sub = {**sub, "properties": {names.get(k, k): v for k, v in sub["properties"].items()}}
        if isinstance(sub.get("required"), list):
            sub = {**sub, "required": [names.get(r, r) if isinstance(r, str) else r for r in sub["required"]]}
        return sub

    path = _PLACEHOLDER.sub(lambda m: "{" + names.get(m[1], m[1]) + m[2], item.op.path)
    op = msgspec.structs.replace(item.op, schema=rebuilt(schema, change), path=path)
    cases = [
        {
            **case,
            "name": _retold(case["name"], broken, names)[:80],
            "payload": reshaped(case["payload"], schema, names),
        }
        for case, broken in zip(item.cases, item.broken, strict=True)
    ]
    return _written(item, op, cases)


def _reordered(item: _Item, rng: random.Random) -> tuple[Messages, str] | None:
    def change(sub: dict[str, Any]) -> dict[str, Any]:
        if isinstance(sub.get("properties"), dict):
            members = list(sub["properties"].items())
            sub = {**sub, "properties": dict(rng.sample(members, len(members)))}
        if isinstance(sub.get("required"), list):
            sub = {**sub, "required": rng.sample(sub["required"], len(sub["required"]))}
        return sub

    schema = rebuilt(item.op.schema, change)
    cases = [{**case, "payload": reshaped(case["payload"], schema, {}, ordered=True)} for case in item.cases]
    before, after = (_places(item.broken, list(s.get("properties") or ())) for s in (item.op.schema, schema))
    # Answers that go through the members in their order go through them in the new order too.
    if before == sorted(before):
        cases = [case for _, _, case in sorted(zip(after, range(len(cases)), cases, strict=True), key=lambda c: c[:2])]
        return _written(item, msgspec.structs.replace(item.op, schema=schema), cases, in_order=False)
    return _written(item, msgspec.structs.replace(item.op, schema=schema), cases)


def _constrained(item: _Item, rng: random.Random) -> tuple[Messages, str] | None:
    if any(_NUMBER.search(case["name"]) for case in item.cases):
        return None  # it could name the bound: "longer than 64"
    schema, payloads = item.op.schema, [case["payload"] for case in item.cases]
    for _ in range(rng.choice((1, 1, 2))):
        schema, payloads = edited(schema, payloads, rng)
    cases = [{**case, "payload": p} for case, p in zip(item.cases, payloads, strict=True)]
    made = _written(item, msgspec.structs.replace(item.op, schema=schema), cases)
    return made if made and len(made[1]) <= len(item.completion) + _GROWTH else None


def _reworded(item: _Item, rng: random.Random) -> tuple[Messages, str] | None:
    told = rng.choice(item.sentences)
    messages = [
        {**m, "content": told} if m.get("role") == "system" and m.get("content") in item.sentences else m
        for m in item.messages
    ]
    return _asked(messages, item.op, rng.choice(HEADS), spaced=rng.random() < 0.3), item.completion


def _renamed_operation(item: _Item, rng: random.Random) -> tuple[Messages, str] | None:
    source, dot, name = item.op.id.partition(".")
    new, path = new_operation(name, item.op.path, rng)
    op = msgspec.structs.replace(item.op, id=source + dot + new, path=path)
    return _asked(item.messages, op), item.completion


_MAKERS: dict[str, Callable[[_Item, random.Random], tuple[Messages, str] | None]] = {
    "renamed_members": _renamed,
    "reordered": _reordered,
    "constraints": _constrained,
    "reworded": _reworded,
    "renamed_operation": _renamed_operation,
}
KINDS = tuple(_MAKERS)
_KEYS = re.compile(r'"([^"\\]*)"\s*:')
_NUMBER = re.compile(r"(?<![\w-])\d+(?![\w-])")
_PLACEHOLDER = re.compile(r"\{([^}+]+)(\+?\})")


def _item(messages: Messages, completion: str, sentences: tuple[str, ...]) -> _Item | None:
    """The example, taken apart; None where it is not one question and a list of cases of this task."""
    # Earlier turns would still speak of what was renamed.
    if [m.get("role") for m in messages] not in (["user"], ["system", "user"]):
        return None
    if len(completion) > MAX_COMPLETION_BYTES:
        return None
    try:
        op = parsed(messages)
        answer = orjson.loads(completion)
        cases = answer.get("test_cases") if isinstance(answer, dict) else None
        if not isinstance(cases, list) or not 0 < len(cases) <= _MAX_CASES or not all(map(_whole, cases)):
            return None
        broken = [signature(op.schema, case["payload"]) for case in cases]
    except (SourceError, Undecided, ValueError):
        return None
    return _Item(messages=messages, completion=completion, op=op, cases=cases, broken=broken, sentences=sentences)


def _whole(case: Any) -> bool:
    return isinstance(case, dict) and isinstance(case.get("name"), str) and "payload" in case


def _written(item: _Item, op: Operation, cases: list[Case], *, in_order: bool = True) -> tuple[Messages, str] | None:
    """Prompt and answer of the new operation; None where a case breaks other kinds of rule than it did."""
    try:
        now = [_kinds(signature(op.schema, case["payload"])) for case in cases]
    except (SourceError, Undecided, ValueError):
        return None
    were = [_kinds(s) for s in item.broken]
    if now != were if in_order else sorted(now) != sorted(were):
        return None
    return _asked(item.messages, op), orjson.dumps({"test_cases": cases}).decode()


def _asked(messages: Messages, op: Operation, head: str = HEADS[0], *, spaced: bool = False) -> Messages:
    schema = json.dumps(op.schema, ensure_ascii=False) if spaced else orjson.dumps(op.schema).decode()
    text = f"{head.format(method=op.method, path=op.path, id=op.id)}\n{schema}"
    return [{**m, "content": text} if m.get("role") == "user" else m for m in messages]


def _kinds(broken: str) -> list[str]:
    return sorted(rule.partition("@")[0] for rule in broken.split(";"))


def _members(broken: str) -> list[str]:
    """Names of the members that a signature speaks of, outermost first."""
    found = []
    for rule in broken.split(";"):
        place, _, which = rule.partition("@")[2].partition(":")
        found += [part for part in (*place.split("/"), which) if part]
    return found


def _places(broken: list[str], members: list[str]) -> list[int]:
    """Position of the member that each case breaks; those of the body as a whole come last."""
    first = [next(iter(_members(b)), "") for b in broken]
    return [members.index(m) if m in members else len(members) for m in first]


def _retold(name: str, broken: str, names: dict[str, str]) -> str:
    """A case's name with the new names of what it breaks; each once, since a member may be called `type` or `list`."""
    old = sorted({m for m in _members(broken) if m in names}, key=len, reverse=True)
    if not old:
        return name
    told: set[str] = set()

    def new(match: re.Match[str]) -> str:
        word = match.group()
        if word in told:
            return word
        told.add(word)
        return names[word]

    return re.sub(r"(?<![\w-])(?:" + "|".join(map(re.escape, old)) + r")(?![\w-])", new, name)
