"""Verified variants: what the driver lets through, of the built-in task and of any."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from itertools import count
from typing import Any

import jsonschema
import msgspec
import orjson
import pytest

from pawl.curation.augment import augment
from pawl.curation.dataset import Example
from pawl.fleet.spec import TaskSourceSpec
from pawl.qe.functional_negative import oracle, reference
from pawl.qe.item import Grade, Messages
from pawl.qe.operations import sources
from pawl.qe.operations.operation import Operation
from pawl.qe.operations.prompt import parsed
from pawl.qe.operations.validator import signature
from pawl.qe.operations.variants import KINDS
from pawl.qe.task import GenericTask, Variant
from pawl.qe.tasks import task_of

task = task_of("functional-negative")


def example(op: Operation, completion: str, **more: Any) -> Example:
    base: dict[str, Any] = {"id": op.id, "messages": oracle.messages(op), "completion": completion, "quality": 1.0}
    return Example(**{**base, "source": op.source, "interactions": (f"from-{op.id}",), **more})


@pytest.fixture(scope="module")
def real() -> list[Example]:
    some = random.Random(3).sample(sources.load(TaskSourceSpec()), 80)
    return [example(o, reference.answer(o.schema, random.Random(o.id), 0.0)) for o in some]


def taken_apart(messages: Messages, completion: str) -> tuple[Operation, list[dict[str, Any]]]:
    return parsed(messages), orjson.loads(completion)["test_cases"]


# What is accepted


def test_what_is_accepted_holds_by_an_independent_look(real: list[Example]) -> None:
    parents = {e.interactions: e for e in real}
    made, counts = augment(real, 3.0, task, 1, 0.99)
    assert len(made) == 240
    for e in made:
        parent = parents[e.interactions]
        op, cases = taken_apart(e.messages, e.completion)
        jsonschema.Draft202012Validator.check_schema(op.schema, format_checker=None)  # patterns are Java's
        assert oracle.grade(parsed(e.messages).schema, e.completion).score == e.quality >= 0.99
        jsonschema.validate(orjson.loads(e.completion), oracle.response_schema())
        assert len({signature(op.schema, c["payload"]) for c in cases}) == 3
        assert op.source == e.source == parent.source
        assert e.scenario == task.scenario_of(parent.messages, parent.completion)
        assert (e.kind, e.split) == ("variant", "train") and e.id != parent.id
    prompts = {msgspec.json.encode(e.messages) for e in [*real, *made]}
    assert len(prompts) == len(real) + len(made) == len({e.id for e in [*real, *made]})
    assert set(counts) == set(KINDS)
    assert all(c["accepted"] >= 0.9 * c["tried"] for c in counts.values())
    assert max(c["accepted"] for c in counts.values()) - min(c["accepted"] for c in counts.values()) <= 2


def test_the_same_arguments_give_the_same_variants(real: list[Example]) -> None:
    once = augment(real, 0.7, task, 5, 0.99)
    assert once == augment(list(real), 0.7, task_of("functional-negative"), 5, 0.99)
    assert once[0] != augment(real, 0.7, task, 6, 0.99)[0]
    assert len(once[0]) == 56


def test_wrong_answers_have_no_accepted_variants(real: list[Example]) -> None:
    bad = [
        msgspec.structs.replace(e, completion=reference.corrupt(parsed(e.messages).schema, random.Random(e.id)))
        for e in real
    ]
    made, counts = augment(bad[:10], 1.0, task, 1, 0.99)
    assert made == [] and sum(c["tried"] for c in counts.values()) > 0


def test_variants_of_one_example_vary_by_seed(real: list[Example]) -> None:
    assert augment(real[:1], 2.0, task, 1, 0.99)[0] != augment(real[:1], 2.0, task, 2, 0.99)[0]


# The driver, by a task whose grade is written into its answers


class Numbered(GenericTask):
    """Offers variants of the kinds a, b and c in turns; an answer's grade is its text."""

    def __init__(self, grades: dict[str, float | None], source: str | None = None, most: int | None = None) -> None:
        self.grades, self.source, self.most, self.drawn = grades, source, most, 0

    def source_of(self, messages: Messages) -> str | None:
        return self.source

    def grade(self, messages: Messages, completion: str, truth: Any = None) -> Grade | None:
        score = self.grades[completion]
        return None if score is None else Grade(score=score, conforms=True)

    def variants(self, messages: Messages, completion: str, rng: random.Random) -> Iterator[Variant]:
        for n in count() if self.most is None else range(self.most):
            self.drawn += 1
            kind = "abc"[n % 3]
            asked = [{"role": "user", "content": f"{messages[0]['content']} {n}"}]
            yield Variant(kind=kind, messages=asked, completion=kind)


def plain(n: int, **more: Any) -> Example:
    base: dict[str, Any] = {"id": f"e{n}", "messages": [{"role": "user", "content": f"q{n}"}], "completion": "x"}
    return Example(**{**base, "quality": 0.5, "source": "shop", "interactions": (f"i{n}",), **more})


GOOD = {"a": 1.0, "b": 1.0, "c": 1.0}


@pytest.mark.parametrize(("factor", "made"), [(0.0, 0), (0.1, 1), (0.3, 3), (1.0, 10), (2.5, 25)])
def test_as_many_as_asked_for_on_average(factor: float, made: int) -> None:
    found, counts = augment([plain(n) for n in range(10)], factor, Numbered(GOOD), 1, 0.9)
    assert len(found) == made == sum(c["accepted"] for c in counts.values())
    per_example = Counter(e.interactions for e in found)
    assert max(per_example.values(), default=0) <= factor + 1
    assert max(per_example.values(), default=0) - min((per_example[(f"i{n}",)] for n in range(10)), default=0) <= 1


def test_kinds_have_their_turns_even_where_one_mostly_fails() -> None:
    _, counts = augment([plain(n) for n in range(30)], 1.0, Numbered(GOOD), 1, 0.9)
    assert {k: c["accepted"] for k, c in counts.items()} == {"a": 10, "b": 10, "c": 10}
    _, counts = augment([plain(n) for n in range(30)], 1.0, Numbered({**GOOD, "b": 0.5}), 1, 0.9)
    assert {k: c["accepted"] for k, c in counts.items()} == {"a": 15, "b": 0, "c": 15}
    assert counts["b"]["tried"] > 0 == counts["b"]["accepted"]


@pytest.mark.parametrize("grade", [None, 0.0, 0.89])
def test_what_the_oracle_does_not_pass_is_not_taken_and_trying_ends(grade: float | None) -> None:
    numbered = Numbered(dict.fromkeys("abc", grade))
    found, counts = augment([plain(n) for n in range(10)], 1.0, numbered, 1, 0.9)
    assert found == [] and numbered.drawn < 10 * 40
    assert all(c["accepted"] == 0 < c["tried"] for c in counts.values())


def test_what_one_cannot_give_others_make_up_for() -> None:
    class Barren(Numbered):
        def variants(self, messages: Messages, completion: str, rng: random.Random) -> Iterator[Variant]:
            known = int(messages[0]["content"][1:])
            return iter(()) if known % 2 else super().variants(messages, completion, rng)

    found, _ = augment([plain(n) for n in range(40)], 1.0, Barren(GOOD), 1, 0.9)
    assert 36 <= len(found) <= 40 and max(Counter(e.interactions for e in found).values()) == 2


def test_another_source_form_a_veto_and_a_known_prompt_are_refused() -> None:
    examples = [plain(n) for n in range(5)]
    assert augment(examples, 1.0, Numbered(GOOD, source="bank"), 1, 0.9)[0] == []
    assert len(augment(examples, 1.0, Numbered(GOOD, source="shop"), 1, 0.9)[0]) == 5

    class Formless(Numbered):
        def conforms(self, completion: str) -> bool:
            return completion == "b"

    found, _ = augment(examples, 1.0, Formless(GOOD), 1, 0.9)
    assert {e.completion for e in found} == {"b"} and len(found) == 5
    found, _ = augment(examples, 1.0, Numbered(GOOD), 1, 0.9, accept=lambda e: e.completion == "c")
    assert {e.completion for e in found} == {"c"}
    known = [
        plain(99, messages=[{"role": "user", "content": f"q{n} {m}"}], split="test") for n in range(5) for m in (0, 1)
    ]
    found, _ = augment([*examples, *known], 1.0, Numbered(GOOD, most=3), 1, 0.9)
    assert sorted(e.messages[0]["content"] for e in found) == [f"q{n} 2" for n in range(5)]


def test_held_out_examples_and_variants_have_no_variants() -> None:
    examples = [plain(0, split="validation"), plain(1, split="test"), plain(2, kind="variant"), plain(3)]
    found, _ = augment(examples, 2.0, Numbered(GOOD), 1, 0.9)
    assert {e.interactions for e in found} == {("i3",)}
    assert {(e.kind, e.quality, e.split) for e in found} == {("variant", 1.0, "train")}
