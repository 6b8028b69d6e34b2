"""The plot of a search: what each trial reached, and where in the space the good ones lie."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from pawl.curation.files import write_whole
from pawl.monitoring.plots_matplotlib import LIGHT as THEME
from pawl.training.search import Trial
from pawl.training.search_report import SearchReport

_MARKS = "osD^vP*X"


def draw(report: SearchReport, path: Path) -> None:
    """Write a PNG: on the left the trials in order with the best so far, on the right learning rate against loss, a
    mark for each method and rank. Trials that were stopped are crosses at the last loss they reported."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style = {"text.parse_math": False, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(9, 3.4), layout="constrained", dpi=150)
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2, sharey=True)
        _in_order(left, report)
        _in_space(right, report)
        out = io.BytesIO()
        figure.savefig(out, format="png", metadata={"Software": None})
    write_whole(path, out.getvalue())


def _reached(t: Trial) -> float | None:
    return t.loss if t.loss is not None else t.points[-1][1] if t.points else None


def _in_order(ax: Any, report: SearchReport) -> None:
    best, line = float("inf"), []
    for at, t in enumerate(report.trials):
        y = _reached(t)
        if y is not None and t.loss is None:
            ax.plot(at, y, "x", color=THEME.muted)
        elif y is not None:
            best = min(best, y)
            ax.plot(at, y, "s" if t.present else "o", color=THEME.champion if t.present else THEME.challenger)
        line.append(best)
    ax.plot(range(len(line)), line, color=THEME.challenger, lw=1.2, label="best so far")
    p = report.present
    ax.axhline(p.mean, color=THEME.champion, lw=1, ls=(0, (4, 3)), label="present settings")
    ax.set_xticks(range(len(report.trials)), [str(t.number) for t in report.trials])
    ax.set_xlabel("trial")
    ax.set_ylabel("validation loss, nats a token")
    ax.grid(axis="y", color=THEME.grid)
    ax.legend(frameon=False, fontsize=8)


def _in_space(ax: Any, report: SearchReport) -> None:
    kinds = sorted({(t.spec.method, t.spec.rank) for t in report.trials})
    colours = (THEME.challenger, THEME.cloud, THEME.bad, THEME.champion, THEME.ink)
    for i, (method, rank) in enumerate(kinds):
        mine = [t for t in report.trials if (t.spec.method, t.spec.rank) == (method, rank)]
        rows = [(t.spec.learning_rate, y, t.loss is None) for t in mine if (y := _reached(t)) is not None]
        paint, mark = colours[i % len(colours)], _MARKS[i % len(_MARKS)]
        done = [(x, y) for x, y, stopped in rows if not stopped]
        ax.plot([x for x, _ in done], [y for _, y in done], mark, color=paint, label=f"{method}, rank {rank}")
        ax.plot([x for x, _, s in rows if s], [y for _, y, s in rows if s], "x", color=paint)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.xaxis.set_minor_formatter(lambda *_: "")
    ax.set_xlabel("learning rate")
    ax.grid(color=THEME.grid)
    ax.legend(frameon=False, fontsize=8)
