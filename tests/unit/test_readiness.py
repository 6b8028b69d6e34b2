"""The readiness card."""

from __future__ import annotations

import pytest

from pawl.curation.readiness import Accuracy, Card, Item, card, diversity
from pawl.fleet.data import RequirementsSpec

DAY = 86_400.0
NOW = 1000 * DAY
NEEDS = RequirementsSpec(production_examples=100, retrain_examples=50, collection_days=30, min_sources=5)


def items(n: int = 100, **more: object) -> list[Item]:
    base = [Item(f"s{k % 10}", f"c{k % 4}", k % 8, NOW - (k % 40) * DAY, k % 2 == 0) for k in range(n)]
    return [i._replace(**more) for i in base]


def light(made: Card, name: str) -> str:
    (found,) = [c for c in made.checks if c.name == name]
    return found.light


def test_all_green() -> None:
    made = card(items(), NEEDS, NOW, Accuracy(0.95, 0.9, 0.98, 40))
    assert {c.light for c in made.checks} == {"green"} and made.red == ()
    assert {c.name for c in made.checks} == {
        "volume for production", "volume for a retrain", "collection", "diversity", "sources", "accuracy", "recency",
        "balance",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("volume for production", items(99)),
        ("volume for a retrain", items(new=False)),
        ("collection", items(at=NOW)),
        ("diversity", [*items(8), *items(92, cluster=0)]),
        ("sources", items(source="one")),
        ("recency", items(at=NOW - 61 * DAY)),
        ("balance", items(scenario="type")),
    ],
)
def test_each_line_turns_red_by_itself(name: str, given: list[Item]) -> None:
    assert light(card(given, NEEDS, NOW, Accuracy(0.95, 0.9, 0.98, 40)), name) == "red"


def test_accuracy_is_unknown_before_anybody_has_looked_and_red_below_what_is_needed() -> None:
    assert light(card(items(), NEEDS, NOW), "accuracy") == "unknown"
    assert light(card(items(), NEEDS, NOW, Accuracy(0.5, 0.3, 0.7, 20)), "accuracy") == "red"


def test_no_scenario_classes_is_not_an_imbalance() -> None:
    assert light(card(items(scenario=""), NEEDS, NOW), "balance") == "unknown"


def test_no_examples_is_a_card_too() -> None:
    assert "volume for production" in {c.name for c in card([], NEEDS, NOW).red}


def test_diversity() -> None:
    assert diversity([0, 1, 2, 3]) == pytest.approx(1.0)
    assert diversity([3, 3, 3, 3]) == pytest.approx(0.25)
    assert diversity([]) == 0.0
