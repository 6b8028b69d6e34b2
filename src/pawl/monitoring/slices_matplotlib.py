"""How much each part of the tasks changed, as a forest of intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pawl.evaluation.report import Slice
from pawl.monitoring.plots_matplotlib import Draw, Theme, finite


def forest(slices: Sequence[Slice], margin: float) -> Draw:
    """A row a slice, the change in points with its bounds; the dashed line is the loss that would matter."""

    def draw(figure: Any, theme: Theme) -> None:
        ax = figure.subplots()
        ax.axvline(0, color=theme.muted, lw=1)
        ax.axvline(-100 * margin, color=theme.muted, lw=1, ls="--")
        for y, s in enumerate(slices):
            if finite(s.difference):
                paint = theme.challenger if s.difference.mean >= 0 else theme.champion
                ax.plot([100 * s.difference.lower, 100 * s.difference.upper], [y, y], color=paint, lw=7, alpha=0.3)
                ax.plot(100 * s.difference.mean, y, "o", color=paint, ms=7)
        names = [s.name.replace("_", " ")[:24] for s in slices]
        ax.set_yticks(range(len(names)), names, color=theme.ink)
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.set_xlabel("change in points; bars: where it most likely lies")
        ax.grid(axis="x")
        ax.spines["left"].set_visible(False)

    return draw
