"""What a search found, and how it is told (pure)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pawl.evaluation.report import Interval
from pawl.fleet.training import TrainingSpec
from pawl.training.search import (
    ALPHA,
    ExampleLoss,
    Trial,
    Verdict,
    best_of,
    corrected,
    difference,
    left_out,
    mean_loss,
    values_of,
    verdict_of,
)


class SearchReport(msgspec.Struct, frozen=True, kw_only=True):
    """The evidence for a proposal. Losses in nats a completion token of the validation split, lower is better."""

    agent: str
    dataset: str
    fingerprint: str
    code_version: str
    trials: tuple[Trial, ...]
    best: Trial
    verdict: Verdict
    present: Interval
    proposed: Interval
    change: Interval  # proposed - present, paired, at 1 - level
    level: float
    examples: int
    sources: int
    tokens: int
    left_out: tuple[str, ...] = ()
    url: str = ""  # where the runs are shown

    @property
    def minutes(self) -> float:
        """Of all trials."""
        return sum(t.seconds for t in self.trials) / 60


def report_of(
    agent: str,
    dataset: str,
    fingerprint: str,
    code_version: str,
    present: TrainingSpec,
    trials: Sequence[Trial],
    before: Sequence[ExampleLoss],
    after: Sequence[ExampleLoss],
) -> SearchReport:
    """`before` and `after`: losses of the present settings and of the best trial. ValueError without a best one."""
    best = best_of(trials)
    if best is None:
        raise ValueError("no trial is complete")
    level = corrected(trials)
    change = difference(before, after, level)
    return SearchReport(
        agent=agent,
        dataset=dataset,
        fingerprint=fingerprint,
        code_version=code_version,
        trials=tuple(trials),
        best=best,
        verdict=verdict_of(best, change),
        present=mean_loss(before),
        proposed=mean_loss(after),
        change=change,
        level=level,
        examples=len(after),
        sources=len({x.source for x in after}),
        tokens=sum(x.tokens for x in after),
        left_out=left_out(present),
    )


def conclusion(report: SearchReport) -> str:
    """The verdict in a sentence or two."""
    if report.verdict == "present_is_best":
        return "The present settings are the best of those tried: keep them."
    found = (
        f"Trial {report.best.number} is at {report.proposed.mean:.4f} nats a token where the present settings are at "
        f"{report.present.mean:.4f} (difference {_interval(report.change)})."
    )
    if report.verdict == "better":
        return f"{found} That is better beyond noise."
    return f"{found} WARNING: that is within noise; nothing shows that it is better than what fleet.yaml has."


def limits(report: SearchReport) -> list[str]:
    """What a reader must know before using the result."""
    tried = sum(t.state == "complete" and not t.present for t in report.trials)
    found = [
        f"The difference's interval is at {100 * (1 - report.level):.2f} %: {100 * ALPHA:g} % shared among {tried} "
        f"complete trial(s), by a paired bootstrap over {report.sources} sources ({report.examples} examples, "
        f"{report.tokens:,} tokens).",
        "It covers which examples were drawn, not the seed of training. Validation loss chooses settings; whether the "
        "answers are better is for the comparison with the champion to say.",
    ]
    if report.left_out:
        found.append(f"Trials trained on the examples alone, without {', '.join(report.left_out)}.")
    if report.best.spec.rank > 16:
        found.append(f"The serving cluster must be started for rank {report.best.spec.rank} (--max-lora-rank).")
    return found


def table(report: SearchReport) -> list[tuple[str, ...]]:
    """One row a trial, the header first."""
    rows: list[tuple[str, ...]] = [("trial", "method", "rank", "learning rate", "epochs", "loss", "state", "minutes")]
    for t in report.trials:
        v = values_of(t.spec)
        last = t.points[-1][1] if t.points else None
        loss = f"{t.loss:.4f}" if t.loss is not None else f"({last:.4f})" if last is not None else ""
        state = t.state + (", present" if t.present else "") + (", best" if t.number == report.best.number else "")
        rows.append(
            (
                str(t.number),
                v["method"],
                str(v["rank"]),
                f"{v['learning_rate']:g}",
                f"{v['epochs']:g}",
                loss,
                state,
                f"{t.seconds / 60:.1f}",
            )
        )
    return rows


def markdown(report: SearchReport, diff: str) -> str:
    """The page of a search."""
    head, *rows = table(report)
    lines = [
        f"# Training settings of {report.agent}, searched on {report.dataset}",
        "",
        conclusion(report),
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        *(f"- {line}" for line in limits(report)),
        *([f"- Runs: {report.url}"] if report.url else []),
        "",
    ]
    if diff:
        lines += ["Nothing was changed. To take it over, change fleet.yaml:", "", "```diff", diff.rstrip(), "```", ""]
    return "\n".join(lines)


def _interval(x: Interval) -> str:
    return f"{x.mean:+.4f} [{x.lower:+.4f}, {x.upper:+.4f}]"
