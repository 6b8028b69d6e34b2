"""The plots of the month's report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pawl.monitoring.break_even import BreakEven
from pawl.monitoring.independence import Figure
from pawl.monitoring.month_facts import Day
from pawl.monitoring.plots_matplotlib import Draw, Theme


def money_by_day(days: Sequence[Day], machines_a_day: float, stand_in: bool) -> Draw:
    """What each day would have cost in the cloud, beside what it did."""

    def draw(figure: Any, theme: Theme) -> None:
        ax = figure.subplots()
        xs = range(len(days))
        cloud = "all in the cloud (STAND-IN)" if stand_in else "all in the cloud"
        ax.bar([x - 0.2 for x in xs], [d.all_cloud for d in days], 0.38, color=theme.cloud, label=cloud)
        paid = [d.paid for d in days]
        ax.bar([x + 0.2 for x in xs], paid, 0.38, color=theme.challenger, label="answers, by the token")
        ax.bar([x + 0.2 for x in xs], [d.shadow_paid for d in days], 0.38, bottom=paid, color=theme.champion,
               label="shadow traffic")  # fmt: skip
        if machines_a_day > 0:
            ax.axhline(machines_a_day, color=theme.bad, lw=1.2, ls=(0, (4, 3)), label="machines, a day")
        _dates(ax, days)
        ax.set_ylabel("US dollars")
        ax.set_ylim(0, 1.45 * max([machines_a_day, 1e-9, *(d.all_cloud for d in days),
                                   *(d.paid + d.shadow_paid for d in days)]))  # fmt: skip
        ax.grid(axis="y")
        ax.legend(loc="upper left", ncols=2, fontsize=8)

    return draw


def shares_by_day(days: Sequence[Day]) -> Draw:
    """The share that local models answered, cloud fallback, and what was served of what was asked."""

    def draw(figure: Any, theme: Theme) -> None:
        ax = figure.subplots()
        rows = [
            ("answered by local models", [(d.local, d.answered) for d in days], theme.challenger, "o-"),
            ("cloud fallback", [(d.fallback, d.answered) for d in days], theme.cloud, "s--"),
            ("served", [(d.served, d.due) for d in days], theme.champion, "^:"),
        ]
        for label, pairs, paint, mark in rows:
            values = [100 * hit / of if of else math.nan for hit, of in pairs]
            ax.plot(range(len(days)), values, mark, color=paint, ms=4, lw=1.6, label=label)
        _dates(ax, days)
        ax.set_ylim(-4, 134)
        ax.set_yticks([0, 25, 50, 75, 100])
        ax.set_ylabel("%")
        ax.grid(axis="y")
        ax.legend(loc="upper left", ncols=2, fontsize=8)

    return draw


def quality(rows: Sequence[tuple[str, Figure]]) -> Draw:
    """Local's quality of the cloud's, with the bounds that the phases ask for."""

    def draw(figure: Any, theme: Theme) -> None:
        ax = figure.subplots()
        for y, (_, f) in enumerate(rows):
            low, high = 100 * f.lower, 100 * min(f.upper, 2.0)
            ax.plot([low, high], [y, y], color=theme.challenger, lw=8, alpha=0.28)
            ax.plot(100 * f.value, y, "o", color=theme.challenger, ms=8)
            ax.annotate(f"{100 * f.value:.1f}", (100 * f.value, y), (0, 8), textcoords="offset points", ha="center",
                        weight="bold", fontsize=9)  # fmt: skip
        for bound, word in ((85, "85"), (90, "90"), (95, "95")):
            ax.axvline(bound, color=theme.bad, lw=1, ls=(0, (4, 3)), alpha=0.8)
            ax.text(bound, -0.72, word, color=theme.bad, fontsize=8, ha="center", va="bottom")
        ax.set_yticks(range(len(rows)), [n for n, _ in rows], color=theme.ink)
        ax.set_ylim(len(rows) - 0.4, -0.7)
        ax.set_xlim(
            min(80.0, *(100 * f.lower - 3 for _, f in rows)),
            max(102.0, *(100 * min(f.upper, 2.0) + 3 for _, f in rows)),
        )
        ax.set_xlabel("% of the cloud's score; dashed: what the phases ask for")
        ax.grid(axis="x")
        ax.spines["left"].set_visible(False)

    return draw


def coming_back(e: BreakEven) -> Draw:
    """Money in hand over the months to come, were each like this one, with its bounds."""
    end = max(12.0, min(60.0, 1.5 * (e.months or 12.0)))
    xs = [end * n / 60 for n in range(61)]

    def draw(figure: Any, theme: Theme) -> None:
        ax = figure.subplots()
        lines = [[n * x - e.fixed for x in xs] for n in (e.net, e.net_lower, e.net_upper)]
        if all(math.isfinite(v) for line in lines for v in line):
            ax.fill_between(xs, lines[1], lines[2], color=theme.challenger, alpha=0.18, lw=0)
        ax.plot(xs, lines[0], color=theme.challenger, lw=2, label="in hand, were each month like this")
        ax.axhline(0, color=theme.muted, lw=1)
        if e.months is not None and 0 < e.months <= end:
            ax.axvline(e.months, color=theme.bad, lw=1.2, ls=(0, (4, 3)), label=f"break-even, {e.months:.1f} months")
        ax.set_xlim(0, end)
        ax.set_xlabel("months from now")
        ax.set_ylabel("US dollars")
        ax.grid(axis="y")
        ax.legend(loc="best", fontsize=8)

    return draw


def _dates(ax: Any, days: Sequence[Day]) -> None:
    step = max(1, math.ceil(len(days) / 8))
    ax.set_xticks(range(0, len(days), step), [d.day[8:].lstrip("0") for d in days[::step]])
    ax.set_xlabel(f"day of {days[0].day[:7]}")
