"""Whether a training is allowed: the base model's licence, and what each row of the dataset may be used for (pure)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from pawl.curation.dataset import DatasetVersion, Example, Pair
from pawl.curation.permission import MODES, refusal
from pawl.errors import PolicyViolation
from pawl.fleet.policy import PolicySpec
from pawl.fleet.spec import AgentSpec

SHOWN = 20  # rows that a violation names; the others are counted
TELLS_PRIVACY = 3  # version of datasets from which examples do


class Violation(msgspec.Struct, frozen=True):
    """One rule that is broken, and by what."""

    rule: str  # licence, data licence, privacy, consent
    text: str  # what is wrong and what to do
    rows: tuple[str, ...] = ()  # "example id (interaction ids)", the first SHOWN
    count: int = 0  # of all such rows

    def __str__(self) -> str:
        more = f" and {self.count - len(self.rows):,} more" if self.count > len(self.rows) else ""
        return self.text + (f": {', '.join(self.rows)}{more}" if self.rows else "")


def check(
    policy: PolicySpec, agent: AgentSpec, model: str, licence: str | None, dataset: DatasetVersion | None
) -> list[Violation]:
    """Everything that forbids this training; empty where it may begin.

    `model`: the base model as fleet.yaml names it. `licence`: its licence, empty where nobody says it; None: not known
    before the model is here, so not looked at yet. `dataset`: None where there is none yet.
    """
    found = [] if licence is None else _licence(policy, model, licence)
    if dataset is not None:
        found += _data(policy, agent, dataset)
    return found


def demand(violations: Sequence[Violation]) -> None:
    """PolicyViolation naming all of them, where there is any."""
    if violations:
        listed = "\n".join(f"  - {v}" for v in violations)
        raise PolicyViolation(f"policy forbids this training:\n{listed}")


def _licence(policy: PolicySpec, model: str, licence: str) -> list[Violation]:
    allowed = ", ".join(policy.licences)
    if not licence:
        return [
            Violation(
                "licence",
                f"the licence of the base model {model} is not known; state it in fleet.yaml, as its card says it "
                f"(base_model: {{licence: ...}}); allowed are: {allowed}",
            )
        ]
    if _in(licence, policy.licences):
        return []
    return [
        Violation(
            "licence",
            f"the base model {model} is under {licence}, allowed are: {allowed}; take another model, or add it to "
            "policy.licences in fleet.yaml once somebody has read it",
        )
    ]


def _data(policy: PolicySpec, agent: AgentSpec, dataset: DatasetVersion) -> list[Violation]:
    spec = agent.data
    found: list[Violation] = []
    allowed = policy.data_licences
    if allowed is not None and not _in(dataset.licence, allowed):
        said = f"states the licence {dataset.licence}" if dataset.licence else "states no licence (data.licence)"
        found.append(Violation("data licence", f"the dataset {said}, allowed are: {', '.join(allowed)}"))
    if dataset.v < TELLS_PRIVACY and set(spec.privacy) != set(MODES):
        text = "the dataset is from before examples told their privacy, and data.privacy demands it; prepare it anew"
        return [*found, Violation("privacy", text)]
    # What is held out is not learnt from, but it chooses settings and is in the same file: the same rules.
    items: list[Example | Pair] = [*dataset.examples, *dataset.pairs]
    rules: dict[str, Callable[[Example | Pair], str]] = {
        # Each by itself, so that a row that breaks both is named under both.
        "consent": lambda e: refusal(spec.model_copy(update={"privacy": MODES}), "open", e.consent),
        "privacy": lambda e: refusal(spec.model_copy(update={"consent": "assumed"}), e.privacy, ""),
    }
    for rule, refused in rules.items():
        told: dict[str, list[Example | Pair]] = {}
        for e in items:
            if why := refused(e):
                told.setdefault(why, []).append(e)
        for why, rows in told.items():
            named = tuple(f"{e.id} ({', '.join(e.interactions)})" for e in rows[:SHOWN])
            text = f"{len(rows):,} rows of the dataset: {why}; prepare it anew"
            found.append(Violation(rule, text, named, len(rows)))
    return found


def _in(licence: str, allowed: Sequence[str]) -> bool:
    return licence.lower() in {a.lower() for a in allowed}
