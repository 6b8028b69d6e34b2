"""The matrix of scores by task class and week."""

from __future__ import annotations

import math
from typing import Any

from pawl.evaluation.forgetting import Forgetting
from pawl.monitoring.plots_matplotlib import Draw, Theme


def heat_map(found: Forgetting) -> Draw:
    """A row a class, a column a week; the figure stands in the cell, so that colour alone says nothing."""

    def draw(figure: Any, theme: Theme) -> None:
        ax = figure.subplots()
        for y, row in enumerate(found.classes):
            for x, score in enumerate(row.scores):
                known = math.isfinite(score.mean)
                depth = 0.06 + 0.6 * min(1.0, max(0.0, score.mean)) if known else 0.0
                # Bars and not an image: the page's plots hold nothing but shapes and text.
                ax.bar(x, 0.94, width=0.96, bottom=y - 0.47, color=theme.challenger, alpha=depth, lw=0)
                shown = f"{100 * score.mean:.0f}" if known else "not known"
                ax.text(x, y, shown, ha="center", va="center", color=theme.ink, weight="bold")
        ax.set_xticks(range(len(found.weeks)), [w[:24] for w in found.weeks])
        names = [c.name[:24] for c in found.classes]
        ax.set_yticks(range(len(names)), names, color=theme.ink)
        ax.set_xlim(-0.5, len(found.weeks) - 0.5)
        ax.set_ylim(len(names) - 0.5, -0.5)
        for side in ("left", "bottom"):
            ax.spines[side].set_visible(False)

    return draw
