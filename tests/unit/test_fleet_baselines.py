"""The benchmark of the fleet's trivial rules: its figures, and the rules that look at a prompt."""

from __future__ import annotations

import json

import pytest

from benchmarks.fleet_baselines import Figure, claims, figures
from benchmarks.fleet_rules import RULES, by_words, first_change, outliers
from pawl.qe.code_review import prompt as diffs
from pawl.qe.item import Grade, Item
from pawl.qe.performance_analyzer import prompt as series
from pawl.qe.tasks import names


def graded(source: str, score: float, label: str, said: str) -> tuple[Item, Grade]:
    item = Item(id=source, source=source, messages=[])
    return item, Grade(score=score, conforms=True, metrics={"m": score / 2}, label=label, said=said)


def test_figures_are_means_and_shares() -> None:
    pairs = [
        graded("a", 1.0, "flaky", "flaky"),
        graded("a", 0.0, "stable", "flaky"),
        graded("b", 1.0, "stable", "stable"),
        graded("c", 0.0, "flaky", "stable"),
    ]
    items, grades = [i for i, _ in pairs], [g for _, g in pairs]
    none = [Grade(score=0.25, conforms=True)] * 4
    found = figures(items, grades, draws=500, earlier={"x": none})
    assert found["score"][0] == 0.5 and found["m"][0] == 0.25 and found["score over x"][0] == 0.25
    for name in ("precision of classes", "recall of classes", "f1 of classes"):
        assert found[name][0] == 0.5
    value, low, high = found["score"]
    assert low == 0.0 < value < high == 1.0  # of three sources each may be drawn three times


def test_items_of_one_source_are_no_independent_draws() -> None:
    pairs = [graded(s, float(s == "a"), "flaky", "flaky") for s in "ab" for _ in range(500)]
    value, low, high = figures([i for i, _ in pairs], [g for _, g in pairs], draws=300)["score"]
    assert (value, low, high) == (0.5, 0.0, 1.0)


def test_outliers_are_stretches() -> None:
    calm = [50.0, 51, 49, 50, 52, 48, 50, 51] * 3
    jump = [*calm[:10], 300, 310, 305, 290, *calm[14:]]
    blip = [*calm[:10], 300, *calm[11:]]
    asked = [
        Item(id=str(n), source="s", messages=series.messages("s", "1 s", {"ms": v}))
        for n, v in enumerate((calm, jump, blip))
    ]
    quiet, found, single = (json.loads(a) for a in outliers(asked))
    assert quiet["status"] == "ok" == single["status"]
    assert [(i["from"], i["to"]) for i in found["issues"]] == [(10, 13)]


def test_the_first_change_is_pointed_at() -> None:
    lines = diffs.diff("a\nb\nc\n", "a\nB\nc\n", 7)
    item = Item(
        id="1", source="m", messages=diffs.messages("m", lines), truth={"findings": [{"line": 8, "kind": "other"}]}
    )
    (answer,) = first_change([item])
    assert json.loads(answer)["findings"][0]["line"] == 8


def test_words_are_never_learnt_from_the_source_that_is_asked() -> None:
    # Each source has a word of its own for its label: known elsewhere it would give the label away, here it cannot.
    texts = [f"word{s} word{s} same" for s in range(10) for _ in range(4)]
    labels = [str(s % 2) for s in range(10) for _ in range(4)]
    sources = [str(s) for s in range(10) for _ in range(4)]
    found = by_words(texts, labels, sources)
    assert all(sure == pytest.approx(0.5, abs=0.2) for _, sure in found)
    telling = by_words([f"sign{label} same" for label in labels], labels, sources)
    assert [label for label, _ in telling] == labels


def test_every_rule_is_of_a_task() -> None:
    assert set(RULES) <= set(names())


def test_rules_are_claimed_beside_the_constant_answer() -> None:
    rows = [("always ok", "score", 0.5), ("always ok", "f1", 0.0), ("outliers", "score", 0.6), ("outliers", "f1", 0.7)]
    made = [Figure("t", "s", rule, 10, 5, figure, v, v - 0.1, v + 0.1) for rule, figure, v in rows]
    (claim,) = claims(made)
    assert (claim.claim, claim.ours, claim.peer, claim.ratio) == ("t, s: outliers", 0.6, 0.5, 1.2)
    assert claim.spread == pytest.approx((1.0, 1.4))
