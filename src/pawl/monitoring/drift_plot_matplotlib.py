"""The evidence of drift over time, a line a kind, with the height at which a drift is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log10
from typing import Any

from pawl.monitoring.drift_watch import Point, Watch
from pawl.monitoring.plots_matplotlib import Draw, Theme, svg, time_unit

_LOWEST, _MOST = -2.0, 3.0  # decades of evidence that are drawn; after a drift is told nobody bets


def drawn(watch: Watch) -> str:
    """The picture of a watch, as an SVG file's text on white."""
    return svg(evidence(watch.history, watch.found, watch.threshold), height=3.4, background="#ffffff")


def evidence(history: Sequence[Point], found: Mapping[Any, float], threshold: float) -> Draw:
    """Kinds that drifted are coloured and named at their line's end; the others are grey."""

    def draw(figure: Any, theme: Theme) -> None:
        ax = figure.subplots()
        needed = log10(threshold)
        kinds = sorted({k for point in history for k in point.evidence})
        began = history[0].at if history else 0.0
        seconds, unit = time_unit(history[-1].at - began if history else 0.0)
        colours = iter((theme.bad, theme.challenger, theme.cloud, theme.ink) * 2)
        ax.axhline(needed, color=theme.ink, linewidth=1, linestyle=(0, (4, 3)))
        ax.annotate("told as a drift", (0, needed), (0, -11), textcoords="offset points", color=theme.ink, fontsize=9)
        named: list[tuple[float, str, str]] = []
        for kind in kinds:
            points = [(p.at, p.evidence[kind]) for p in history if kind in p.evidence]
            x = [(at - began) / seconds for at, _ in points]
            y = [min(_MOST, max(_LOWEST, e)) for _, e in points]
            told = kind in found or max(y) >= needed
            colour = next(colours) if told else theme.muted
            ax.plot(x, y, color=colour, linewidth=1.8 if told else 0.9, alpha=1.0 if told else 0.6)
            if told:
                first = next(n for n, each in enumerate(y) if each >= needed or n == len(y) - 1)
                named.append((x[first], kind, colour))
        for n, (at, kind, colour) in enumerate(sorted(named)):
            ax.annotate(
                kind.replace("_", " "), (at, needed), (-6, 6 + 11 * n), textcoords="offset points", ha="right",
                color=colour, fontsize=9,
            )  # fmt: skip
        ax.set_ylim(_LOWEST - 0.2, needed + 1.6)
        ax.set_yticks(range(-2, 4), ["0.01", "0.1", "1", "10", "100", "1,000"])
        ax.set_xlabel(unit)
        ax.set_ylabel("evidence against “as before”")
        ax.grid(axis="y")

    return draw
