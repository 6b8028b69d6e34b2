"""The forgetting matrix: by hand, its intervals, from comparisons, and on the page."""

from __future__ import annotations

import base64
import random
import re
from xml.etree import ElementTree

import msgspec
import pytest

from pawl.curation.dataset import Example
from pawl.evaluation.forgetting import Forgetting, forgetting
from pawl.evaluation.report import Comparison, ItemResult
from pawl.improvement.continuing import matrix, spread
from pawl.monitoring.loop_report import render
from pawl.qe.functional_negative import oracle as task
from pawl.qe.item import Item
from pawl.qe.operations.operation import Operation
from pawl.qe.task import GenericTask
from pawl.qe.tasks import task_of
from tests.loop_page_data import at_the_end, comparison

HOSTILE = "<script>alert(1)</script>$\\frac{1}{0}$\u202e"


def result(item: str, score: float | None, source: str = "") -> ItemResult:
    return ItemResult(item=item, source=source or item, score=score)


def week(name: str, scores: dict[str, float | None]) -> tuple[str, list[ItemResult]]:
    """Items are called `<class>-<source>-<number>`."""
    return name, [result(item, s, item.split("-")[1]) for item, s in scores.items()]


def class_of(item: str) -> str:
    return item.split("-")[0]


def test_by_hand() -> None:
    weeks = [
        week("one", {"a-s-1": 0.8, "a-t-2": 0.6, "b-s-3": 0.1, "b-t-4": 0.1}),
        week("two", {"a-s-1": 0.9, "a-t-2": 0.7, "b-s-3": 0.7, "b-t-4": 0.5}),
        week("three", {"a-s-1": 0.4, "a-t-2": 0.2, "b-s-3": 0.8, "b-t-4": 0.6}),
    ]
    found = forgetting(weeks, class_of, alpha=0.05, learnt={"a": 0, "b": 1})
    assert found is not None
    a, b = found.classes
    assert (a.name, a.items, a.sources) == ("a", 2, 2)
    assert [s.mean for s in a.scores] == pytest.approx([0.7, 0.8, 0.3])
    assert a.forgetting.mean == pytest.approx(0.8 - 0.3)  # the best was in the second week
    assert b.forgetting.mean == pytest.approx(0.6 - 0.7)  # negative: better than ever
    assert found.forgetting.mean == pytest.approx((0.5 - 0.1) / 2)
    assert [s.mean for s in found.average] == pytest.approx([0.4, 0.7, 0.5])
    assert found.backward is not None and found.backward.mean == pytest.approx(((0.3 - 0.7) + (0.7 - 0.6)) / 2)
    assert (found.items, found.left_out) == (4, 0)


def test_only_items_that_every_week_was_graded_on_count() -> None:
    weeks = [
        week("one", {"a-s-1": 1.0, "a-t-2": 0.0, "a-t-3": 1.0}),
        week("two", {"a-s-1": 1.0, "a-t-2": 0.0, "a-t-3": None, "a-t-9": 0.0}),
    ]
    found = forgetting(weeks, class_of, alpha=0.05)
    assert found is not None and (found.items, found.left_out) == (2, 2)
    assert found.classes[0].scores[0].mean == 0.5 and found.backward is None
    assert forgetting(weeks[:1], class_of, alpha=0.05) is None
    assert forgetting([weeks[0], week("two", {"b-s-1": 1.0})], class_of, alpha=0.05) is None


def test_small_classes_are_put_together_and_one_source_says_nothing() -> None:
    scores: dict[str, float | None] = {f"a-s-{n}": 0.5 for n in range(6)} | {"b-s-1": 1.0, "c-s-1": 0.0, "-s-2": 0.0}
    found = forgetting([week("one", scores), week("two", scores)], class_of, alpha=0.05, least=2)
    assert found is not None and [(c.name, c.items) for c in found.classes] == [("a", 6), ("other", 3)]
    assert found.forgetting.lower == float("-inf") and found.forgetting.upper == float("inf")


def test_last_weeks_own_classes_transfer_nothing_backward() -> None:
    weeks = [week("one", {"a-s-1": 0.5, "b-t-1": 0.0}), week("two", {"a-s-1": 0.4, "b-t-1": 1.0})]
    found = forgetting(weeks, class_of, alpha=0.05, learnt={"a": 0, "b": 1})
    assert found is not None and found.backward is not None and found.backward.mean == pytest.approx(-0.1)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """Item scores scatter around 0.8 and then 0.5, with an effect of their source that both weeks share."""
    rng, held, runs = random.Random(5), 0, 60
    for _ in range(runs):
        one: dict[str, float | None] = {}
        two: dict[str, float | None] = {}
        for s in range(20):
            shared, change = rng.gauss(0, 0.2), rng.gauss(0, 0.1)
            for n in range(3):
                one[f"a-s{s}-{n}"] = 0.8 + shared + rng.gauss(0, 0.1)
                two[f"a-s{s}-{n}"] = 0.5 + shared + change + rng.gauss(0, 0.1)
        found = forgetting([week("one", one), week("two", two)], class_of, alpha=0.1)
        assert found is not None
        f = found.forgetting
        assert f == found.classes[0].forgetting and f.lower <= f.mean <= f.upper
        assert f.upper - f.lower < 0.2  # paired: the sources' own effect is not in it
        held += f.lower <= 0.3 <= f.upper
    assert 0.78 * runs <= held <= runs


OPERATIONS = {
    "enum": {"mode": {"type": "string", "enum": ["A", "B"]}, "name": {"type": "string", "pattern": "^[a-z]+$"}},
    "range": {"size": {"type": "integer", "minimum": 1}},
    "length": {"name": {"type": "string", "minLength": 3}},
    "pattern": {"name": {"type": "string", "pattern": "^[a-z]+$"}},
    "type": {"name": {"type": "string"}},
}


def judged_item(kind: str, n: int, score: float) -> ItemResult:
    schema = {"type": "object", "properties": OPERATIONS[kind]}
    op = Operation(id=f"svc{n % 4}.Do{kind}{n}", source=f"svc{n % 4}", method="POST", path="/x", schema=schema)
    item = Item(id=op.id, source=op.source, messages=task.messages(op))
    scenario = task_of("functional-negative").class_of(item)
    return ItemResult(item=op.id, source=op.source, scenario=scenario, score=score)


def test_the_class_of_an_item_is_that_of_the_task_and_not_of_an_answer() -> None:
    for kind in OPERATIONS:
        assert judged_item(kind, 1, 0.0).scenario == kind
    poem = Item(id="x", source="s", messages=[{"role": "user", "content": "Write a poem."}])
    assert task_of("functional-negative").class_of(poem) == "" == GenericTask().class_of(poem)


def judged_week(before: tuple[float, float], after: tuple[float, float]) -> Comparison:
    def side(scores: tuple[float, float]) -> tuple[ItemResult, ...]:
        return tuple(judged_item(k, n, s) for k, s in zip(("range", "enum"), scores, strict=True) for n in range(8))

    c = comparison()
    return msgspec.structs.replace(
        c,
        champion=msgspec.structs.replace(c.champion, items=side(before)),
        challenger=msgspec.structs.replace(c.challenger, items=side(after)),
    )


def three_weeks() -> Forgetting:
    found = matrix(
        [("week 1", judged_week((0.1, 0.1), (0.9, 0.2))), ("week 2", judged_week((0.9, 0.2), (0.5, 0.8)))],
        0.05,
    )
    assert found is not None
    return found


def test_the_matrix_begins_with_the_first_champion() -> None:
    found = three_weeks()
    assert found.weeks == ("before", "week 1", "week 2")
    assert {c.name: round(c.forgetting.mean, 9) for c in found.classes} == {"enum": -0.6, "range": 0.4}
    assert found.backward is not None and found.backward.mean == pytest.approx((-0.4 + 0.6) / 2)
    assert matrix([], 0.05) is None


def test_the_page_shows_it_and_nothing_in_it_acts() -> None:
    page = render(msgspec.structs.replace(at_the_end(), forgetting=three_weeks()))
    assert "What was kept and what was forgotten" in page
    assert "same 16 held-out tasks" in page
    assert "+40.0 (+40.0 to +40.0)" in page
    assert "What was kept and what was forgotten" not in render(at_the_end())
    found = three_weeks()
    evil = msgspec.structs.replace(
        found,
        weeks=(HOSTILE, *found.weeks[1:]),
        classes=(msgspec.structs.replace(found.classes[0], name=HOSTILE), *found.classes[1:]),
    )
    page = render(msgspec.structs.replace(at_the_end(), forgetting=evil))
    assert "<script" not in page and "\u202e" not in page
    drawn = [base64.b64decode(s).decode() for s in re.findall(r"data:image/svg\+xml;base64,([\w+/=]+)", page)]
    assert len(drawn) == 20  # one plot more than without, light and dark
    for svg in drawn:
        names = {e.tag.rsplit("}", 1)[-1] for e in ElementTree.fromstring(svg).iter()}
        assert not names & {"script", "foreignObject", "image", "a", "metadata"}


def example(n: int, scenario: str) -> Example:
    return Example(id=f"p{n}", messages=[], completion="x", quality=1.0, source="s", interactions=(), scenario=scenario)


def test_earlier_examples_are_spread_and_do_not_depend_on_the_order() -> None:
    old = [example(n, "enum" if n < 90 else "range") for n in range(100)]
    older = [example(n, "type") for n in range(200, 210)]
    found = spread([old, older], 12)
    assert sorted(e.scenario for e in found) == ["enum"] * 4 + ["range"] * 4 + ["type"] * 4
    mixed = random.Random(1).sample(old, len(old))
    assert spread([mixed, older], 12) == found
    assert len(spread([old, old], 500)) == 100 and spread([[], []], 5) == []
    twice = msgspec.structs.replace(old[0], id=f"{old[0].id}-correction")
    assert len(spread([[old[0], twice]], 5)) == 1  # a prompt counts once, whoever answered it
