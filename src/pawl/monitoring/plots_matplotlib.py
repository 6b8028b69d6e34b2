"""The page's plots: drawn without a display, as SVG in data: URIs, one for light and one for dark."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from pawl.evaluation.report import Comparison, Interval
from pawl.monitoring.economics import CostPoint
from pawl.monitoring.loop_data import OnlinePoint, TimeSplit, Week
from pawl.rollout.state import Rollout


class Theme(msgspec.Struct, frozen=True):
    """Colours that stay apart for colour-blind readers; shape or place always says the same."""

    ink: str
    muted: str
    grid: str
    champion: str
    challenger: str
    cloud: str
    bad: str


LIGHT = Theme("#1d2733", "#66727f", "#e3e7ec", "#7b8794", "#0b7a75", "#b7791f", "#c2410c")
DARK = Theme("#e6eaef", "#98a4b1", "#2b343f", "#94a1af", "#35c2b8", "#e0a83e", "#f0774a")
Draw = Callable[[Any, Theme], None]  # (figure, theme)


class Picture(msgspec.Struct, frozen=True):
    """One plot twice, with what it says in words."""

    light: str
    dark: str
    alt: str


def picture(draw: Draw, alt: str, *, width: float = 7.0, height: float = 2.6) -> Picture:
    """Draw a figure (inches) in both themes."""
    return Picture(_uri(draw, LIGHT, width, height), _uri(draw, DARK, width, height), alt)


def svg(draw: Draw, *, width: float = 7.0, height: float = 2.6, background: str = "none") -> str:
    """A figure (inches) for a light page, as a file of its own."""
    return _svg(draw, LIGHT, width, height, background)


def _uri(draw: Draw, theme: Theme, width: float, height: float) -> str:
    made = _svg(draw, theme, width, height, "none")
    return "data:image/svg+xml;base64," + base64.b64encode(made.encode()).decode()


def _svg(draw: Draw, theme: Theme, width: float, height: float, background: str) -> str:
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style = {
        "text.parse_math": False,  # names and weeks come from outside; "$" must not be a formula
        "svg.fonttype": "none",  # text stays text: sharp, small, in the reader's own font
        "svg.hashsalt": "pawl",
        "font.family": "sans-serif",
        "font.sans-serif": ["Helvetica", "Arial", "Liberation Sans", "DejaVu Sans"],
        "font.size": 10,
        "text.color": theme.ink,
        "axes.labelcolor": theme.muted,
        "axes.edgecolor": theme.grid,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "grid.color": theme.grid,
        "grid.linewidth": 0.8,
        "legend.frameon": False,
        "legend.fontsize": 9,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure, theme)
        out = io.StringIO()
        figure.savefig(
            out, format="svg", transparent=background == "none", facecolor=background, metadata={"Date": None}
        )
    # The prologue and the metadata name outside addresses, which nothing here needs.
    made = re.sub(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>", "", out.getvalue(), flags=re.DOTALL)
    return made.strip()


def finite(interval: Interval) -> bool:
    """Whether all three numbers of an interval can be drawn."""
    return all(math.isfinite(x) for x in (interval.mean, interval.lower, interval.upper))


def intervals(rows: Sequence[tuple[str, Interval, str]], xlabel: str) -> Draw:
    """Rows (label, interval on 0..1, theme colour name) as dots with whiskers on a scale of 0..100."""

    def draw(figure: Any, theme: Theme) -> None:
        ax = figure.subplots()
        for y, (_, value, colour) in enumerate(rows):
            paint = getattr(theme, colour)
            if finite(value):
                ax.plot([100 * value.lower, 100 * value.upper], [y, y], color=paint, lw=9, alpha=0.28)
                ax.plot(100 * value.mean, y, "o", color=paint, ms=10)
                ax.annotate(
                    f"{100 * value.mean:.1f}",
                    (100 * value.mean, y),
                    (0, 11),
                    textcoords="offset points",
                    ha="center",
                    weight="bold",
                )
        ax.set_yticks(range(len(rows)), [label for label, _, _ in rows], color=theme.ink, fontsize=10.5)
        ax.set_ylim(len(rows) - 0.4, -0.75)
        ax.set_xlim(0, 100)
        ax.set_xlabel(xlabel)
        ax.grid(axis="x")
        ax.spines["left"].set_visible(False)

    return draw


def paired(comparison: Comparison) -> Draw:
    """Each item's difference, sorted: losses on the left, gains on the right, and the mean with its bounds."""
    before = {i.item: i.score for i in comparison.champion.items}
    changes = sorted(
        100 * (i.score - old)
        for i in comparison.challenger.items
        if i.score is not None and (old := before.get(i.item)) is not None
    )

    def draw(figure: Any, theme: Theme) -> None:
        ax = figure.subplots()
        paints = [theme.bad if c < 0 else theme.challenger for c in changes]
        ax.bar(range(len(changes)), changes, color=paints, width=0.85)
        ax.axhline(0, color=theme.muted, lw=0.8)
        d = comparison.difference
        if finite(d) and changes:
            ax.axhspan(100 * d.lower, 100 * d.upper, color=theme.ink, alpha=0.12, lw=0)
            ax.axhline(100 * d.mean, color=theme.ink, lw=1.4, label=f"mean {100 * d.mean:+.1f}, with its bounds")
        ax.axhline(-100 * comparison.margin, color=theme.bad, lw=1.2, ls=(0, (4, 3)), label="a loss that would matter")
        ax.set_xticks([])
        ax.set_xlabel("tasks, from the worst loss to the best gain")
        ax.set_ylabel("change in score")
        ax.grid(axis="y")
        ax.legend(loc="upper left")

    return draw


def rollout_timeline(rollout: Rollout, online: Sequence[OnlinePoint], harm: Sequence[tuple[float, float]] = ()) -> Draw:
    """Stage bands with scored sessions above; below, the e-value against its limit, on a log scale."""
    end = max([rollout.stage_since, *(t.at for t in rollout.history), *(p.at for p in online)])
    unit, name = time_unit(end - rollout.opened_at)

    def x(at: float) -> float:
        return (at - rollout.opened_at) / unit

    def draw(figure: Any, theme: Theme) -> None:
        top, low = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        at, shade = rollout.opened_at, False
        moves = [t for t in rollout.history if t.stage_from != t.stage_to]
        for stage, until in [*((t.stage_from, t.at) for t in moves), (rollout.stage, end)]:
            if until <= at:
                continue
            for ax in (top, low):
                ax.axvspan(x(at), x(until), color=theme.muted, alpha=0.15 if shade else 0.05, lw=0)
            if x(until) - x(at) > 0.04 * x(end):
                label = f"{stage} %" if stage.isdigit() else stage.replace("_", " ")
                top.text((x(at) + x(until)) / 2, 108, label, ha="center", va="bottom", fontsize=9, color=theme.muted)
            at, shade = until, not shade
        for t in rollout.history:  # what happened within a stage: held, halved, resumed
            if t.stage_from == t.stage_to:
                for ax in (top, low):
                    ax.axvline(x(t.at), color=theme.muted, lw=1, ls=(0, (1, 2)))
                said = {"wait": "resumed", "hold": "held", "halve": "halved"}.get(t.decision.action, t.decision.action)
                top.text(x(t.at), 102, said, ha="center", va="top", fontsize=8, color=theme.ink)
        for arm, paint, mark in (("champion", theme.champion, "o"), ("challenger", theme.challenger, "D")):
            mine = sorted((p for p in online if p.arm == arm), key=lambda p: p.at)
            if mine:
                xs = [x(p.at) for p in mine]
                scores = [100 * p.score for p in mine]
                top.plot(xs, scores, mark, color=paint, ms=3.5, alpha=0.35, mew=0)
                top.plot(xs, _rolling(scores, 15), color=paint, lw=2, label=f"{arm}, mean of 15")
        top.set_ylim(-4, 106)
        top.set_ylabel("score")
        if online:
            top.legend(loc="lower right", ncols=2)
        limit = 1 / rollout.spec.alpha
        # Moves keep the largest so far, the path says how it got there.
        known = list(harm) or [(t.at, t.decision.e_value) for t in rollout.history]
        values = [(x(a), min(max(e, 1e-3), 1e6)) for a, e in sorted(known) if not math.isnan(e)]
        low.plot([v[0] for v in values], [v[1] for v in values], color=theme.ink, lw=1.3, marker=".", ms=3)
        low.axhline(limit, color=theme.bad, lw=1.2, ls=(0, (4, 3)), label=f"rolls back at {limit:g}")
        low.set_yscale("log")
        low.set_ylim(min([0.1, *(v[1] for v in values)]) / 1.5, max([limit, *(v[1] for v in values)]) * 15)
        low.yaxis.set_major_formatter(lambda v, _: f"{v:g}")
        low.minorticks_off()
        low.set_ylabel("evidence of harm")
        low.set_xlabel(f"{name} since the rollout was opened")
        low.legend(loc="upper left")
        for ax in (top, low):
            ax.grid(axis="y")
        low.set_xlim(0, max(x(end), 1e-6))

    return draw


def cost(points: Sequence[CostPoint]) -> Draw:
    """Cumulative dollars: everything in the cloud, and what was paid, without and with shadow traffic."""
    unit, name = time_unit(points[-1].at - points[0].at)

    def draw(figure: Any, theme: Theme) -> None:
        ax = figure.subplots()
        xs = [(p.at - points[0].at) / unit for p in points]
        paid, cloud = [p.spent for p in points], [p.all_cloud for p in points]
        ax.fill_between(xs, paid, cloud, color=theme.challenger, alpha=0.14, lw=0)
        ax.plot(xs, cloud, color=theme.cloud, lw=2, label="had everything gone to the cloud")
        ax.plot(xs, paid, color=theme.challenger, lw=2, label="paid for answers")
        both = [p.spent + p.shadow for p in points]
        ax.plot(xs, both, color=theme.muted, lw=1.3, ls=(0, (4, 3)), label="paid with shadow traffic")
        ax.set_ylim(bottom=0)
        ax.set_xlim(0, max(xs[-1], 1e-6))
        ax.set_ylabel("US dollars, summed up")
        ax.set_xlabel(f"{name} since the first request")
        ax.grid(axis="y")
        ax.legend(loc="upper left")

    return draw


def weeks(history: Sequence[Week]) -> Draw:
    """The serving model's score, week by week."""

    def draw(figure: Any, theme: Theme) -> None:
        ax = figure.subplots()
        means = [100 * w.score.mean for w in history]
        for i, w in enumerate(history):
            if finite(w.score):
                ax.plot([i, i], [100 * w.score.lower, 100 * w.score.upper], color=theme.challenger, lw=9, alpha=0.28)
        ax.plot(range(len(history)), means, "o-", color=theme.challenger, ms=8, lw=1.6)
        for i, mean in enumerate(means):
            if math.isfinite(mean):
                ax.annotate(f"{mean:.0f}", (i, mean), (9, 8), textcoords="offset points", weight="bold")
        ax.set_xticks(range(len(history)), [w.week[:24] for w in history])
        ax.set_xlim(-0.5, len(history) - 0.5)
        ax.set_ylim(0, 100)
        ax.set_ylabel("score of 100")
        ax.grid(axis="y")

    return draw


def loss(losses: Sequence[float]) -> Draw:
    """Training loss by step."""
    known = [(i + 1, v) for i, v in enumerate(losses) if math.isfinite(v)]

    def draw(figure: Any, theme: Theme) -> None:
        ax = figure.subplots()
        xs, ys = [k[0] for k in known], [k[1] for k in known]
        ax.plot(xs, ys, color=theme.champion, lw=1, alpha=0.6)
        ax.plot(xs, _rolling(ys, 8), color=theme.challenger, lw=2)
        ax.set_ylim(bottom=0)
        ax.set_xlabel("training step")
        ax.set_ylabel("loss")
        ax.grid(axis="y")

    return draw


def time_split(split: TimeSplit) -> Draw:
    """One bar of the loop's time."""
    parts = [
        ("models", split.model_s, "challenger"),
        ("evidence", split.evidence_s, "cloud"),
        ("orchestration", split.orchestration_s, "champion"),
    ]

    def draw(figure: Any, theme: Theme) -> None:
        ax = figure.subplots()
        left, total = 0.0, max(sum(p[1] for p in parts), 1e-9)
        for label, seconds, colour in parts:
            paint, share = getattr(theme, colour), 100 * seconds / total
            ax.barh(0, share, left=left, color=paint, height=0.55, label=f"{label} {share:.0f} %")
            left += share
        ax.set_xlim(0, 100)
        ax.axis("off")
        ax.legend(loc="lower left", bbox_to_anchor=(-0.01, 0.95), ncols=3, columnspacing=1.2, handlelength=0.9)

    return draw


def time_unit(span_s: float) -> tuple[float, str]:
    """Seconds in the unit that suits a span, and its name."""
    for seconds, name, least in ((86400.0, "days", 3.0), (3600.0, "hours", 3.0), (60.0, "minutes", 3.0)):
        if span_s >= least * seconds:
            return seconds, name
    return 1.0, "seconds"


def _rolling(values: Sequence[float], window: int) -> list[float]:
    """Mean of the last `window` values at each place."""
    return [sum(values[max(0, i - window + 1) : i + 1]) / min(i + 1, window) for i in range(len(values))]
