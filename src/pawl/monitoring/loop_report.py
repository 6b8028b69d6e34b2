"""One self-contained page on one turn of the loop: what changed, whether it held, what it was worth.

An approver reads it at the gate and everybody reads it when the rollout has ended. Nothing in it can act (`html_page`).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import msgspec

from pawl.evaluation.report import Comparison
from pawl.monitoring.comparison_plots import interval, pictures, points
from pawl.monitoring.html_page import MAX_TEXT, money, rendered, written
from pawl.monitoring.loop_data import (
    MAX_SAMPLES,
    DatasetFacts,
    Distance,
    LoopReport,
    OnlinePoint,
    Sample,
    Setback,
    TimeSplit,
    TrainingFacts,
    Week,
    worst_first,
)
from pawl.monitoring.plots_matplotlib import Picture

__all__ = [
    "MAX_TEXT",
    "DatasetFacts",
    "Distance",
    "LoopReport",
    "OnlinePoint",
    "Sample",
    "Setback",
    "Status",
    "TimeSplit",
    "TrainingFacts",
    "Week",
    "render",
    "status",
    "verdict_sentence",
    "worst_first",
    "write",
]

Tone = Literal["good", "wait", "bad"]


class Status(msgspec.Struct, frozen=True):
    """Where the loop stands, in two words and a colour."""

    label: str
    tone: Tone


def status(data: LoopReport) -> Status:
    """The latest thing that is known decides."""
    r = data.rollout
    if r is not None:
        if r.stage == "rolled_back":
            return Status("Rolled back", "bad")
        if r.stage == "done":
            return Status("In service", "good")
        return Status("Rollout held", "wait") if r.held else Status("Rolling out", "wait")
    if data.approval is not None:
        return Status("Approved", "good") if data.approval.verdict == "approved" else Status("Turned down", "bad")
    if data.gate is None:
        return Status("In progress", "wait")
    return {
        "promote": Status("Waiting for approval", "wait"),
        "hold": Status("Not enough evidence", "wait"),
        "reject": Status("Refused by the gate", "bad"),
    }[data.gate.decision]


def verdict_sentence(data: LoopReport) -> str:
    """What happened, for a reader who knows no statistics. Says nothing that is not in `data`."""
    if data.verdict:
        return data.verdict
    return " ".join(part for part in (_quality(data.comparison), _standing(data)) if part)


def _quality(c: Comparison | None) -> str:
    if c is None:
        return "The new model has not been compared with the one it would replace yet."
    before, after = f"{100 * c.champion.score.mean:.0f}", f"{100 * c.challenger.score.mean:.0f}"
    scores = f"it scores {after} of 100 where the one before scores {before}, on {c.pairs} tasks neither learned from"
    return {
        "better": f"The new model is better: {scores}.",
        "not_worse": f"The new model is as good, within the margin agreed: {scores}.",
        "worse": f"The new model is worse: {scores}.",
        "not_enough_evidence": f"There is too little evidence to tell the two models apart: {scores}.",
    }[c.verdict]


def _standing(data: LoopReport) -> str:
    r = data.rollout
    if r is not None:
        if r.stage == "done":
            return "It was tried on real traffic step by step, quality held, and it now answers every request."
        if r.stage == "rolled_back":
            why = f": {r.history[-1].decision.reason.rstrip('. ')}" if r.history else ""
            by = f" by {r.history[-1].by}" if r.history else ""
            return f"On real traffic it was taken back out{by}, and the model before answers again{why}."
        part = (
            "in the shadow, where no client sees it"
            if r.stage == "shadow"
            else f"on {'100' if r.stage == 'watch' else r.stage} % of the sessions"
        )
        return f"It is being tried {part}{', and is on hold until somebody looks' if r.held else ''}."
    if data.approval is not None:
        yes = data.approval.verdict == "approved"
        return f"{data.approval.by} {'approved it; its rollout comes next' if yes else 'turned it down'}."
    if data.gate is None:
        return ""
    return {
        "promote": "It waits for a person's yes before any client gets its answers.",
        "hold": "It does not go out until there is more evidence; nothing changes for clients.",
        "reject": "It does not go out; nothing changes for clients.",
    }[data.gate.decision]


def render(data: LoopReport) -> str:
    """The page as HTML, about a quarter of a megabyte, complete in itself."""
    samples = worst_first(data.comparison) if data.samples is None and data.comparison is not None else data.samples
    return rendered(
        "page.html.j2",
        d=data,
        status=status(data),
        verdict=verdict_sentence(data),
        plots=_plots(data),
        samples=(samples or ())[:MAX_SAMPLES],
        digest=data.comparison.digest() if data.comparison is not None else None,
        max_text=MAX_TEXT,
    )


def write(data: LoopReport, path: Path) -> Path:
    """Render to a file, which appears whole or not at all."""
    return written(render(data), path)


def _plots(d: LoopReport) -> dict[str, Picture]:
    from pawl.monitoring import plots_matplotlib as plot

    out: dict[str, Picture] = {}
    if d.comparison is not None:
        out |= pictures(d.comparison)
    if (r := d.rollout) is not None:
        alt = f"Scores of sessions and evidence of harm through the stages; the rollout stands at {r.stage}."
        out["rollout"] = plot.picture(plot.rollout_timeline(r, d.online, d.harm), alt, width=10, height=4.2)
    if (e := d.economics) is not None and len(e.points) > 1:
        alt = f"Paid {money(e.spent_usd)} for answers; all in the cloud {money(e.all_cloud_usd)}."
        out["cost"] = plot.picture(plot.cost(e.points), alt, width=5.2, height=2.5)
    if (far := d.distance) is not None:
        pairs = [(("stand-in" if far.stand_in else "cloud"), far.score, "cloud")]
        if far.local is not None:
            pairs.append(("local", far.local, "challenger"))
        alt = f"{far.upstream} {interval(far.score)}; local {interval(far.local)}."
        out["distance"] = plot.picture(plot.intervals(pairs, "score of 100"), alt, width=5.2, height=2.0)
    if len(d.weeks) > 1:
        alt = "; ".join(f"{w.week}: {interval(w.score)}" for w in d.weeks)
        out["weeks"] = plot.picture(plot.weeks(d.weeks), alt, width=5.2, height=2.3)
    if (f := d.forgetting) is not None:
        from pawl.monitoring.heat_map_matplotlib import heat_map

        alt = "; ".join(f"{c.name}: {', '.join(points(s.mean) for s in c.scores)}" for c in f.classes)
        height = 0.9 + 0.42 * len(f.classes)
        out["forgetting"] = plot.picture(heat_map(f), f"Scores week by week. {alt}.", width=5.2, height=height)
    if (t := d.training) is not None and sum(map(math.isfinite, t.losses)) > 1:
        alt = f"Training loss over {t.steps} steps, from {t.losses[0]:.2f} to {t.losses[-1]:.2f}."
        out["loss"] = plot.picture(plot.loss(t.losses), alt, width=5.2, height=2.3)
    if (split := d.time_split) is not None:
        out["time"] = plot.picture(plot.time_split(split), "Where the time went.", width=10, height=0.75)
    return out
