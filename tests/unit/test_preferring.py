"""A judge's preferences: both orders, people's agreement, and what follows for the gate."""

from __future__ import annotations

import itertools
from typing import Any, get_args

import pytest

from pawl.curation.dataset import DatasetVersion, Pair
from pawl.errors import ServerNotUp
from pawl.evaluation.gate import gate
from pawl.evaluation.metrics import Prices
from pawl.evaluation.paired import compare
from pawl.evaluation.preferring import Known, Preference, Word, both_orders, card, preferred
from pawl.evaluation.report import ItemResult
from pawl.evaluation.runner import UNGRADED
from pawl.fleet.evaluation import EvaluationSpec
from pawl.improvement.preferring import _asked, _scores, could_cost, peoples_pairs

WORDS: tuple[Any, ...] = get_args(Word)


def test_a_preference_that_turns_with_the_order_is_none() -> None:
    said = {pair: both_orders(*pair) for pair in itertools.product(WORDS, WORDS)}
    assert said["first", "second"] == Preference(value=0.0) and said["second", "first"] == Preference(value=1.0)
    assert said["tie", "tie"] == Preference(value=0.5)
    assert said["first", "first"] == said["second", "second"] == Preference(value=0.5, turned=True)
    assert said["first", "tie"].value == said["tie", "second"].value == 0.25
    assert said["second", "tie"].value == said["tie", "first"].value == 0.75


@pytest.mark.parametrize("pair", list(itertools.product(WORDS, WORDS)))
def test_exchanging_the_answers_exchanges_the_preference(pair: tuple[Any, Any]) -> None:
    assert both_orders(*pair).value == 1 - both_orders(*pair[::-1]).value


def test_equal_answers_are_not_asked_about_and_a_failing_judge_says_nothing() -> None:
    def never(*_: str) -> Any:
        raise RuntimeError("it is down")

    assert preferred(never, "p", "same ", " same") == Preference(value=0.5)
    assert "it is down" in preferred(never, "p", "one", "two").problem
    longer = preferred(lambda p, a, b: "first" if len(a) > len(b) else "second", "p", "one", "three")
    assert longer == Preference(value=1.0)


def known(n: int) -> list[Known]:
    return [Known(source=f"s{i % 10}", prompt="p", chosen="yes", rejected="no") for i in range(n)]


def test_people_must_agree_at_the_lower_bound_and_on_enough_pairs() -> None:
    good, none = Preference(value=1.0), Preference(value=0.5, turned=True)
    assert card("j", known(40), [good] * 40, 0.05, 0.7, 20).trusted
    assert not card("j", known(19), [good] * 19, 0.05, 0.7, 20).trusted, "too few"
    few = card("j", known(20), [good] * 20, 0.05, 0.95, 20)
    assert few.agreement.mean == 1.0 and not few.trusted, "all of a few are not all"
    guessing = card("j", known(40), [none] * 40, 0.05, 0.7, 20)
    assert not guessing.trusted and guessing.agreement.mean == 0.5 and guessing.turned == 1.0
    failing = card("j", known(40), [good] * 10 + [Preference(value=0.5, problem="down")] * 30, 0.05, 0.7, 20)
    assert (failing.pairs, failing.failed, failing.trusted) == (10, 30, False)


def test_a_judge_that_nobody_trusts_promotes_nothing() -> None:
    rows = [ItemResult(item=f"i{n}", source=f"s{n % 30}", score=0.1) for n in range(120)]
    better = [ItemResult(item=r.item, source=r.source, score=0.9) for r in rows]
    found = compare("a", ("old", rows), ("new", better), margin=0.05, alpha=0.05, dataset="d", training_sources=set())
    import msgspec

    good, bad = ([Preference(value=v)] * 40 for v in (1.0, 0.5))
    trusted = msgspec.structs.replace(found, judge=card("j", known(40), good, 0.05, 0.7, 20))
    doubted = msgspec.structs.replace(found, judge=card("j", known(40), bad, 0.05, 0.7, 20))
    assert gate(trusted, EvaluationSpec(), None).decision == "promote"
    held = gate(doubted, EvaluationSpec(), None)
    assert held.decision == "hold" and "not known to judge as people do" in held.reasons[0]
    assert trusted.digest() != doubted.digest()


def result(text: str) -> ItemResult:
    return ItemResult(item="i", source="s", score=None, problem=UNGRADED, completion=text)


def test_a_model_that_says_nothing_loses_and_a_judge_that_says_nothing_counts_for_nobody() -> None:
    def scores(a: str, b: str, said: Preference) -> tuple[float | None, float | None]:
        one, two = _scores(result(a), result(b), said)
        return one.score, two.score

    assert scores("x", "y", Preference(value=0.75)) == (0.25, 0.75)
    failed = Preference(value=0.5, problem="the judge failed")
    assert scores("x", "y", failed) == (None, None)
    assert scores("", "y", failed) == (0.0, 1.0) and scores("x", " ", failed) == (1.0, 0.0)
    assert scores("", "", failed) == (0.5, 0.5)
    busy = ItemResult(item="i", source="s", score=None, problem="status 429: it was busy each of 6 times")
    for pair in ((busy, result("y")), (result("x"), busy)):
        one, two = _scores(*pair, Preference(value=0.5))
        assert (one.score, two.score) == (None, None) and "busy" in two.problem, "a busy server is nobody's failure"


def test_a_judge_that_is_down_ends_the_evaluation_soon() -> None:
    asked: list[str] = []

    def down(prompt: str, *_: str) -> Any:
        asked.append(prompt)
        raise OSError("no route")

    with pytest.raises(ServerNotUp, match=r"the judge answers nothing \(the judge failed: OSError: no route\)"):
        _asked(down, [(f"p{n}", "a", "b") for n in range(200)], lambda done, total: None)


def test_only_peoples_words_calibrate_and_what_it_costs_is_known_before() -> None:
    pairs = [
        Pair(
            id=f"p{n}", messages=[{"role": "user", "content": "q"}], chosen="c", rejected="r", gap=0.5, origin=origin,
            source="s", split="train", interactions=(), privacy="strict" if n == 0 else "open",
        )
        for n, origin in enumerate(["correction", "shadow", "answers"] * 10)
    ]  # fmt: skip
    version = DatasetVersion(agent="a", examples=(), sources=(), pairs=tuple(pairs))
    found = peoples_pairs(version, 100, away=False)
    assert len(found) == 20 and len(peoples_pairs(version, 100, away=True)) == 19, "one pair is not for clouds"
    assert found[0] == Known(source="s", prompt="user: q", chosen="c", rejected="r")
    assert peoples_pairs(version, 5, away=False) == found[:5]
    texts = [("p" * 900, "a" * 300, "b" * 300)]
    assert could_cost(texts, Prices(3.0, 10.0)) == pytest.approx(2 * (1000 * 3 + 300 * 10) / 1e6)
    assert could_cost(texts, None) == 0.0
