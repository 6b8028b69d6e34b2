"""A comparison as a table: one row an item, the worst regressions first, both answers side by side (pure)."""

from __future__ import annotations

import math
from typing import Any

from pawl.evaluation.report import Comparison


def figures(comparison: Comparison) -> dict[str, float]:
    """What a comparison comes to, by the names that runs have them under; nothing that is not finite."""
    c = comparison
    found = {
        "champion_score": c.champion.score.mean,
        "challenger_score": c.challenger.score.mean,
        "challenger_score_lower": c.challenger.score.lower,
        "difference": c.difference.mean,
        "difference_lower": c.difference.lower,
        "difference_upper": c.difference.upper,
        "p_better": c.p_better,
        "p_worse": c.p_worse,
        "items": float(c.pairs),
    }
    for name, side in (("champion", c.champion), ("challenger", c.challenger)):
        if side.metrics is None:
            continue
        found[f"{name}_conforms"] = side.metrics.conforms
        for part, mean in side.metrics.means.items():
            found[f"{name}_{part}"] = mean.mean
        if side.metrics.token_accuracy is not None and side.metrics.token_accuracy.share is not None:
            found[f"{name}_token_accuracy"] = side.metrics.token_accuracy.share.mean
    return {name: value for name, value in found.items() if math.isfinite(value)}


def columns(comparison: Comparison) -> dict[str, list[Any]]:
    """By column: item, source, scenario, prompt, both answers, both scores, the change, and what is wrong now.

    Scores are 0..1; where one could not be graded the change is empty and the row comes last.
    """
    before = {i.item: i for i in comparison.champion.items}
    pairs = [(before[i.item], i) for i in comparison.challenger.items if i.item in before]

    def change(pair: Any) -> float | None:
        old, new = pair
        return None if old.score is None or new.score is None else new.score - old.score

    pairs.sort(key=lambda p: (change(p) is None, change(p) or 0.0, p[1].item))
    return {
        "item": [n.item for _, n in pairs],
        "source": [n.source for _, n in pairs],
        "scenario": [n.scenario for _, n in pairs],
        "prompt": [n.prompt for _, n in pairs],
        "champion_answer": [o.completion for o, _ in pairs],
        "challenger_answer": [n.completion for _, n in pairs],
        "champion_score": [o.score for o, _ in pairs],
        "challenger_score": [n.score for _, n in pairs],
        "change": [change(p) for p in pairs],
        "problem": [n.problem for _, n in pairs],
    }
