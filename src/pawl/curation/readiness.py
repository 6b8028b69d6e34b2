"""The readiness card: is this dataset enough to learn from, and enough to trust (pure)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import Literal, NamedTuple

import msgspec

from pawl.fleet.data import RequirementsSpec

Light = Literal["green", "red", "unknown"]


class Check(msgspec.Struct, frozen=True):
    """One line of the card."""

    name: str
    light: Light
    value: str
    needed: str


class Card(msgspec.Struct, frozen=True):
    """All lines."""

    checks: tuple[Check, ...]

    @property
    def red(self) -> tuple[Check, ...]:
        """What is not as the spec demands."""
        return tuple(c for c in self.checks if c.light == "red")


class Item(NamedTuple):
    """What the card looks at of one example. `at`: epoch seconds."""

    source: str
    scenario: str
    cluster: int  # -1 where it was not looked at
    at: float
    new: bool


class Accuracy(NamedTuple):
    """Share of reviewed examples that raters called right, with its interval."""

    share: float
    lower: float
    upper: float
    items: int


def card(items: Sequence[Item], needs: RequirementsSpec, now: float, accuracy: Accuracy | None = None) -> Card:
    """The card of a training split. `now`: epoch seconds."""
    fresh = sum(i.new for i in items)
    days = (max(i.at for i in items) - min(i.at for i in items)) / 86_400 if items else 0.0
    age = median((now - i.at) / 86_400 for i in items) if items else math.inf
    spread = diversity([i.cluster for i in items if i.cluster >= 0])
    classes = Counter(i.scenario for i in items)
    largest, most = classes.most_common(1)[0] if classes else ("", 0)
    share = most / len(items) if items else 1.0
    sources = len({i.source for i in items})
    told = (
        Check("accuracy", "unknown", "nobody has reviewed a sample", f"at least {needs.min_accuracy:.0%}")
        if accuracy is None
        else Check(
            "accuracy",
            _light(accuracy.share >= needs.min_accuracy),
            f"{accuracy.share:.0%} [{accuracy.lower:.0%}, {accuracy.upper:.0%}] of {accuracy.items} reviewed",
            f"at least {needs.min_accuracy:.0%}",
        )
    )
    balanced = (
        Check("balance", "unknown", "the task names no scenario classes", f"at most {needs.max_class_share:.0%}")
        if set(classes) <= {""}
        else Check(
            "balance",
            _light(share <= needs.max_class_share),
            f"{share:.0%} are {largest or 'unnamed'}, {len(classes)} classes",
            f"at most {needs.max_class_share:.0%} of one class",
        )
    )
    return Card(
        (
            _count("volume for production", len(items), needs.production_examples, "examples"),
            _count("volume for a retrain", fresh, needs.retrain_examples, "new examples"),
            Check(
                "collection",
                _light(days >= needs.collection_days),
                f"{days:.1f} days",
                f"{needs.collection_days:g} days",
            ),
            Check("diversity", _light(spread >= needs.min_diversity), f"{spread:.2f}", f"{needs.min_diversity:.2f}"),
            _count("sources", sources, needs.min_sources, "sources"),
            told,
            Check(
                "recency",
                _light(age <= needs.max_median_age_days),
                f"median age {age:.1f} days" if items else "no examples",
                f"at most {needs.max_median_age_days:g} days",
            ),
            balanced,
        )
    )


def diversity(clusters: Sequence[int]) -> float:
    """How evenly the clusters are covered: exp(Shannon entropy) / number of clusters, 0..1 (Hill 1973, order 1)."""
    if not clusters:
        return 0.0
    shares = [n / len(clusters) for n in Counter(clusters).values()]
    return math.exp(-sum(p * math.log(p) for p in shares)) / max(1, *(c + 1 for c in clusters))


def _count(name: str, value: int, needed: int, unit: str) -> Check:
    return Check(name, _light(value >= needed), f"{value:,} {unit}", f"{needed:,}")


def _light(good: bool) -> Light:
    return "green" if good else "red"
