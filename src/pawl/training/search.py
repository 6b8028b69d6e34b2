"""The search for an agent's training settings, as far as it needs no library: the space, its trials, the verdict.

The objective of a trial is the validation loss: the mean over all completion tokens of the dataset's validation split,
in nats a token. The best of several trials looks better than it is, because it was chosen by the same examples; so
its difference to the present settings is taken at alpha divided by the number of trials it was chosen from
(Bonferroni), by a paired bootstrap that draws whole sources (Davison and Hinkley 1997, section 3.8).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from pydantic import ValidationError

from pawl.evaluation.report import Interval
from pawl.fleet.training import SearchSpec, TrainingSpec

ALPHA = 0.05
RESAMPLES = 10_000
_CHUNK = 1000
_NOT_IN_TRIALS = ("pretrain", "ewc", "preference", "merge")

State = Literal["complete", "pruned", "failed"]
Verdict = Literal["better", "within_noise", "present_is_best"]


class TrialStopped(Exception):
    """Raised inside a trial to end its training early; the text says why. Never seen outside a search."""


class ExampleLoss(msgspec.Struct, frozen=True):
    """One validation example: the sum over its completion's tokens, in nats."""

    id: str
    source: str
    nats: float
    tokens: int


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One trial. The first has the present settings."""

    number: int
    state: State
    spec: TrainingSpec
    present: bool = False
    loss: float | None = None  # validation, nats a token; None unless complete
    points: tuple[tuple[int, float], ...] = ()  # (percent of the run's steps, validation loss there)
    seconds: float = 0.0
    why: str = ""  # why it was stopped or failed


def values_of(spec: TrainingSpec) -> dict[str, Any]:
    """What the search varies, of a spec."""
    return {
        "rank": spec.rank,
        "learning_rate": spec.learning_rate,
        "method": spec.method,
        "epochs": spec.epochs,
    }


def inside(space: SearchSpec, values: Mapping[str, Any]) -> bool:
    """Whether the space holds these values."""
    return (
        values["rank"] in space.ranks
        and values["method"] in space.methods
        and space.learning_rates[0] <= values["learning_rate"] <= space.learning_rates[1]
        and space.epochs[0] <= values["epochs"] <= space.epochs[1]
    )


def with_values(present: TrainingSpec, values: Mapping[str, Any], *, continues: bool) -> TrainingSpec:
    """The present spec with other values, rounded to what a person would write.

    alpha keeps its ratio to the rank, so that the learning rate keeps its meaning. Where training continues an
    adapter (`continues`), another rank or method cannot go on from it and begins with the base model.
    Raises pydantic's ValidationError where they do not fit together.
    """
    rank, method = values["rank"], values["method"]
    changed: dict[str, Any] = {
        "rank": rank,
        "alpha": max(1, round(present.alpha * rank / present.rank)),
        "method": method,
        "learning_rate": float(f"{values['learning_rate']:.3g}"),
        "epochs": round(values["epochs"], 2),
    }
    if method == "adalora":
        wide = max(present.adalora.initial_rank, rank + max(1, rank // 2))
        changed["adalora"] = {**present.adalora.model_dump(), "initial_rank": wide}
        changed["start"] = "base"
    elif method == "full" or (continues and (rank, method) != (present.rank, present.method)):
        changed["start"] = "base"
    return TrainingSpec.model_validate({**present.model_dump(), **changed})


def trial_spec(spec: TrainingSpec) -> TrainingSpec:
    """What of a spec a trial trains: the examples alone. What comes before them is the same in all trials; what holds
    back or follows changes the loss for reasons of its own. Nothing of a trial is served, so nothing is merged."""
    return spec.model_copy(update={**dict.fromkeys(_NOT_IN_TRIALS), "merged": False})


def left_out(spec: TrainingSpec) -> tuple[str, ...]:
    """Stages of the spec that trials do without."""
    return tuple(name for name in _NOT_IN_TRIALS if getattr(spec, name) is not None)


def problems(present: TrainingSpec, space: SearchSpec, *, continues: bool) -> list[str]:
    """Everything about the space that would make trials fail, before the first one runs."""
    found = []
    for name in ("learning_rates", "epochs"):
        low, high = getattr(space, name)
        if not 0 < low <= high:
            found.append(f"search.{name}: ({low:g}, {high:g}) must rise and be above 0")
    found += [f"search.{name} is empty" for name in ("ranks", "methods") if not getattr(space, name)]
    if found:
        return found
    others = [(m, r) for m in space.methods for r in space.ranks if (r, m) != (present.rank, present.method)]
    if others and present.ewc is not None and continues:
        return [
            "training.ewc holds on to the adapter that training continues, and another rank or method cannot continue "
            f"it: set search.ranks: [{present.rank}] and search.methods: [{present.method}], or leave training.ewc out"
        ]
    for method, rank in others:
        values = {"rank": rank, "method": method, "learning_rate": space.learning_rates[0], "epochs": space.epochs[0]}
        try:
            with_values(present, values, continues=continues)
        except ValidationError as e:
            texts = {str(error["msg"]).removeprefix("Value error, ") for error in e.errors()}
            found.append(f"search: method {method} with rank {rank}: {'; '.join(sorted(texts))}")
    fixed = len(space.ranks) == len(space.methods) == 1
    fixed = fixed and space.learning_rates[0] == space.learning_rates[1] and space.epochs[0] == space.epochs[1]
    if fixed and inside(space, values_of(present)):
        found.append("search: every value is fixed at what training has, so there is nothing to try; widen a range")
    return found


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """The complete trial with the lowest loss; the earlier one of equals."""
    complete = [(t.loss, t.number, t) for t in trials if t.state == "complete" and t.loss is not None]
    return min(complete, key=lambda x: x[:2])[2] if complete else None


def mean_loss(losses: Sequence[ExampleLoss], alpha: float = ALPHA) -> Interval:
    """Nats a token over all examples, with its bounds at 1 - alpha."""
    return _ratio([(x.source, x.nats, x.tokens) for x in losses], alpha)


def difference(before: Sequence[ExampleLoss], after: Sequence[ExampleLoss], alpha: float = ALPHA) -> Interval:
    """`after` - `before` in nats a token, on the examples that both have, with its bounds at 1 - alpha."""
    known = {x.id: x for x in before}
    pairs = [(known[x.id], x) for x in after if x.id in known]
    return _ratio([(b.source, b.nats - a.nats, b.tokens) for a, b in pairs], alpha)


def corrected(trials: Sequence[Trial], alpha: float = ALPHA) -> float:
    """The level of the best trial's comparison: alpha shared among the complete trials that it was chosen from."""
    return alpha / max(1, sum(t.state == "complete" and not t.present for t in trials))


def verdict_of(best: Trial, change: Interval) -> Verdict:
    """Whether the best trial is better than the present settings beyond noise."""
    if best.present:
        return "present_is_best"
    return "better" if change.upper < 0 else "within_noise"


def _ratio(rows: Sequence[tuple[str, float, int]], alpha: float, seed: int = 0) -> Interval:
    """sum(values) / sum(tokens) of (source, value, tokens) rows, with a percentile bootstrap over sources.

    Widened by sqrt(n / (n - 1)): percentile intervals of few clusters are too narrow. With one source the bounds are
    infinite.
    """
    import numpy as np

    by_source: dict[str, tuple[float, int]] = {}
    for source, value, tokens in rows:
        total, count = by_source.get(source, (0.0, 0))
        by_source[source] = (total + value, count + tokens)
    ordered = [by_source[s] for s in sorted(by_source)]
    sums = np.array([s for s, _ in ordered], dtype=float)
    counts = np.array([c for _, c in ordered], dtype=float)
    n = len(sums)
    if n == 0 or not counts.sum():
        return Interval(float("nan"), float("-inf"), float("inf"))
    mean = float(sums.sum() / counts.sum())
    if n < 2:
        return Interval(mean, float("-inf"), float("inf"))
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(RESAMPLES // _CHUNK):  # in parts: all draws at once would take hundreds of megabytes
        drawn = rng.integers(0, n, size=(_CHUNK, n))
        found.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    lower, upper = np.quantile(np.concatenate(found), [alpha / 2, 1 - alpha / 2])
    widen = float(np.sqrt(n / (n - 1)))
    return Interval(mean, mean - (mean - float(lower)) * widen, mean + (float(upper) - mean) * widen)
