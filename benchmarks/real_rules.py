"""What a trivial answer and a plain baseline say to real items. None of them is told an item's truth but to learn from
other sources; where a rule is the same for made-up items, it is that of `fleet_rules`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from benchmarks.fleet_rules import RULES, Answers, by_words
from pawl.qe.code_review.prompt import module_of
from pawl.qe.coverage_gaps.prompt import parsed as parsed_gaps
from pawl.qe.item import Item
from pawl.qe.judged_task import compact
from pawl.qe.operations.prompt import operation_of
from pawl.qe.task import Task, user_text
from pawl.qe.unit_tests.prompt import parsed as parsed_code

_BY_TYPE: dict[str, Any] = {
    "string": "a", "integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}, "null": None,
}  # fmt: skip


class Rule(NamedTuple):
    """A rule with the name that the table has."""

    name: str
    answers: Answers


def _schema(item: Item) -> Mapping[str, Any]:
    operation = operation_of(item.messages)
    assert operation is not None, item.id
    return operation.schema


def _members(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A value for each member by its type alone."""
    found = {}
    for name, member in (schema.get("properties") or {}).items():
        kind = member.get("type") if isinstance(member, dict) else None
        found[name] = _BY_TYPE.get(kind[0] if isinstance(kind, list) and kind else str(kind), "a")
    return found


def _cases(payloads: Sequence[Any], status: int | None) -> str:
    expected = {} if status is None else {"expected_status": status}
    return compact({"test_cases": [{"name": f"case {n}", "payload": p} | expected for n, p in enumerate(payloads, 1)]})


def empty_bodies(status: int | None) -> Answers:
    """The empty body three times."""
    return lambda items: [_cases([{}] * 3, status) for _ in items]


def negative_by_type(items: Sequence[Item]) -> list[str]:
    """One member after the other as a list of lists, the others by their types: limits are not looked at."""
    made = []
    for item in items:
        whole = _members(_schema(item))
        broken: list[Any] = [whole | {name: [[0]]} for name in whole][:3]
        made.append(_cases([*broken, [], None, "a"][:3], 400))
    return made


def positive_by_type(items: Sequence[Item]) -> list[str]:
    """What is required, all members, and all but the last optional one, by their types alone."""
    made = []
    for item in items:
        schema = _schema(item)
        whole, needed = _members(schema), set(schema.get("required") or ())
        optional = [n for n in whole if n not in needed]
        fewer = {n: v for n, v in whole.items() if n not in optional[-1:]}
        made.append(_cases([{n: v for n, v in whole.items() if n in needed}, whole, fewer], None))
    return made


def all_strings(items: Sequence[Item]) -> list[str]:
    """Each member is a string, and nothing else is asked."""
    return [compact({"rules": [_rule(n, "type", "string") for n in _schema(i).get("properties") or {}]}) for i in items]


def top_types(items: Sequence[Item]) -> list[str]:
    """Types of the members at the top, and which are required."""
    made = []
    for schema in map(_schema, items):
        members = (schema.get("properties") or {}).items()
        rules = [_rule(n, "required", True) for n in schema.get("required") or ()]
        rules += [_rule(n, "type", m["type"]) for n, m in members if isinstance(m, dict) and "type" in m]
        made.append(compact({"rules": rules}))
    return made


def _rule(at: str, rule: str, value: Any) -> dict[str, Any]:
    return {"at": at, "rule": rule, "value": value}


def _listed(item: Item) -> list[Any]:
    found: list[Any] = orjson.loads(user_text(item.messages).strip().rpartition("\n")[2])["test_cases"]
    return found


def keep_all(items: Sequence[Item]) -> list[str]:
    """Every case is right."""
    return [compact({"keep": list(range(len(_listed(i))))}) for i in items]


def keep_by_words(task: Task) -> Answers:
    """Cases right by their words, in operations of providers that were not learnt from."""

    def answers(items: Sequence[Item]) -> list[str]:
        texts, labels, sources, whose = [], [], [], []
        for at, item in enumerate(items):
            right = set(orjson.loads(known_answer(task, item) or '{"keep":[]}')["keep"])
            for n, case in enumerate(_listed(item)):
                texts.append(f"{compact(case)} {compact(dict(_schema(item)))}")
                labels.append("right" if n in right else "wrong")
                sources.append(item.source)
                whose.append((at, n))
        kept: list[list[int]] = [[] for _ in items]
        for (at, n), (label, _) in zip(whose, by_words(texts, labels, sources), strict=True):
            kept[at] += [n] if label == "right" else []
        return [compact({"keep": k}) for k in kept]

    return answers


def known_answer(task: Task, item: Item) -> str | None:
    """The task's own right answer, always the same one."""
    import random

    return task.reference(item, random.Random(item.id))


def nothing_tested(items: Sequence[Item]) -> list[str]:
    """One test, that asserts nothing."""
    return ["def test_nothing():\n    assert True\n"] * len(items)


def given_tests(items: Sequence[Item]) -> list[str]:
    """The assertions that people wrote for the problem, as they are."""
    made = []
    for item in items:
        snippet = parsed_code(item.messages, item.truth)
        assert snippet is not None
        made.append("".join(f"def test_{n}():\n    {a}\n\n" for n, a in enumerate(snippet.assertions)))
    return made


def no_gaps(items: Sequence[Item]) -> list[str]:
    """Nothing is left out."""
    return [compact({"lines": [], "branches": [], "calls": []})] * len(items)


def unlisted_lines(items: Sequence[Item]) -> list[str]:
    """Each line that holds code and is not among those that ran; no decisions, no calls."""
    made = []
    for item in items:
        asked = parsed_gaps(item.messages, item.truth)
        assert asked is not None
        report = user_text(item.messages).rpartition("# lines that ran: ")[2]
        spans = [(int(a), int(b or a)) for a, b in re.findall(r"(\d+)(?:-(\d+))?", report)]
        ran = {n for a, b in spans for n in range(a, b + 1)}
        code = enumerate(asked.snippet.code.split("\n"), start=1)
        left = [n for n, line in code if line.strip() and not line.strip().startswith("#") and n not in ran]
        made.append(compact({"lines": left, "branches": [], "calls": []}))
    return made


def faulty_by_words(items: Sequence[Item]) -> list[str]:
    """The first changed line where the words of the change are those of faults, in projects not learnt from."""
    labels = ["faulty" if i.truth["findings"] else "clean" for i in items]
    texts = [user_text(i.messages) for i in items]
    made = []
    for item, (label, _) in zip(items, by_words(texts, labels, [i.source for i in items]), strict=True):
        assert module_of(item.messages) is not None
        line = re.search(r"^(\d+) [+-]", user_text(item.messages), re.MULTILINE)
        named = [{"line": int(line[1]), "kind": "other", "why": "as in others"}] if line and label == "faulty" else []
        made.append(compact({"findings": named}))
    return made


def _fleet(task: str, rule: str, name: str) -> Rule:
    return Rule(name, RULES[task][rule])


_OF: dict[str, Callable[[Task], tuple[Rule, ...]]] = {
    "functional-negative": lambda _: (
        Rule("empty bodies", empty_bodies(400)),
        Rule("wrong types, one by one", negative_by_type),
    ),
    "functional-positive": lambda _: (Rule("empty bodies", empty_bodies(None)), Rule("by types", positive_by_type)),
    "spec-analyzer": lambda _: (Rule("all are strings", all_strings), Rule("types at the top", top_types)),
    "test-validator": lambda task: (Rule("all are right", keep_all), Rule("words", keep_by_words(task))),
    "unit-test-generation": lambda _: (Rule("asserts nothing", nothing_tested), Rule("MBPP's own tests", given_tests)),
    "coverage-analysis": lambda _: (Rule("no gaps", no_gaps), Rule("lines that did not run", unlisted_lines)),
    "flaky-detection": lambda t: (
        _fleet(t.name, "majority", "always stable"),
        _fleet(t.name, "words of the code", "words"),
        _fleet(t.name, "history", "history"),
    ),
    "security-review": lambda t: (
        _fleet(t.name, "secure", "always secure"),
        _fleet(t.name, "words of the code", "words"),
    ),
    "security-auth": lambda t: (
        _fleet(t.name, "secure", "always secure"),
        _fleet(t.name, "words of the code", "words"),
    ),
    "performance-analyzer": lambda t: (_fleet(t.name, "ok", "always ok"), _fleet(t.name, "outliers", "outliers")),
    "code-review": lambda _: (_fleet("code-review", "clean", "always clean"), Rule("words", faulty_by_words)),
}


def rules(task: Task) -> tuple[Rule, ...]:
    """The trivial answer of a task, and one or two plain baselines."""
    return _OF[task.name](task)
