"""The plots of one comparison: on the loop's page, and as files beside it."""

from __future__ import annotations

import base64
import math
from pathlib import Path

from pawl.evaluation.report import Comparison, Interval
from pawl.monitoring.plots_matplotlib import Picture


def points(score: float | None, signed: bool = False) -> str:
    """A score of 0..1 as points of 100."""
    if score is None or not math.isfinite(score):
        return "not known"
    shown = f"{100 * score:+.1f}" if signed else f"{100 * score:.1f}"
    return shown.replace("-", "\N{MINUS SIGN}")


def interval(i: Interval | None, signed: bool = False) -> str:
    """Mean and bounds as points."""
    if i is None:
        return "not known"
    return f"{points(i.mean, signed)} ({points(i.lower, signed)} to {points(i.upper, signed)})"


def pictures(c: Comparison) -> dict[str, Picture]:
    """By name: both scores, the difference of each task, and the slices where there are any."""
    from pawl.monitoring import plots_matplotlib as plot

    rows = [("before", c.champion.score, "champion"), ("after", c.challenger.score, "challenger")]
    found = {
        "quality": plot.picture(
            plot.intervals(rows, f"score of 100; bars: {100 * (1 - c.alpha):.0f} % confidence"),
            f"Before {interval(c.champion.score)}; after {interval(c.challenger.score)}.",
            width=5.2,
            height=1.9,
        ),
        "paired": plot.picture(
            plot.paired(c), f"Difference of each task, sorted. Mean {interval(c.difference)}.", width=5.2, height=2.3
        ),
    }
    if c.slices:
        from pawl.monitoring.slices_matplotlib import forest

        alt = "; ".join(f"{s.name}: {interval(s.difference, True)}" for s in c.slices)
        height = 1.0 + 0.34 * len(c.slices)
        found["slices"] = plot.picture(forest(c.slices, c.margin), f"Changes. {alt}.", width=7.5, height=height)
    return found


def save(c: Comparison, folder: Path) -> dict[str, Path]:
    """The same as SVG files for a light background, by the names they have elsewhere: `plot-quality.svg`."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for name, picture in pictures(c).items():
        path = folder / f"plot-{name}.svg"
        path.write_bytes(base64.b64decode(picture.light.partition("base64,")[2]))
        files[path.name] = path
    return files
