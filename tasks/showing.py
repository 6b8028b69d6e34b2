"""What people read of a run in Prefect's UI: its name, tables, and links to where the rest is kept."""

from __future__ import annotations

import logging
from typing import Any
from uuid import UUID

from httpx import HTTPError
from prefect import runtime
from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectException

from pawl.curation.dataset import DatasetVersion
from pawl.evaluation.report import Comparison, GateDecision, Interval

log = logging.getLogger("pawl.showing")
Row = dict[str, Any]


def rename(name: str, *, above: bool = False) -> None:
    """Give the flow run of this task, or with `above` the one that called it, a name that says what it came to.

    A server that does not take it stops nothing: the run keeps the name it began with.
    """
    run = runtime.flow_run.parent_flow_run_id if above else runtime.flow_run.id
    if not run:
        return
    try:
        with get_client(sync_client=True) as client:
            client.update_flow_run(UUID(str(run)), name=name)
    except (HTTPError, PrefectException) as e:
        log.warning("the run could not be named %r: %s", name, e)


def table(key: str, rows: list[Row], description: str) -> None:
    """A table in Prefect's UI, with its earlier ones under the same key."""
    create_table_artifact(key=key, table=rows, description=description)


def link(key: str, address: str, text: str, description: str) -> None:
    """A link in Prefect's UI."""
    create_link_artifact(key=key, link=address, link_text=text, description=description)


def gate_rows(comparison: Comparison, gate: GateDecision) -> list[Row]:
    """What the gate went by, a line a figure, and last its decision (pure)."""
    champion, challenger = comparison.champion.score, comparison.challenger.score
    rows = [
        _row("champion's mean score", champion.mean, _bounds(champion)),
        _row("challenger's mean score", challenger.mean, _bounds(challenger)),
        _row("difference, paired", comparison.difference.mean, _bounds(comparison.difference)),
        _row("p(better)", comparison.p_better, f"alpha {comparison.alpha:g}"),
        _row("p(worse)", comparison.p_worse, f"alpha {comparison.alpha:g}"),
        _row("true loss at most", comparison.loss_at_most, f"margin {comparison.margin:g}"),
        _row("items", comparison.pairs, f"of {comparison.sources} sources, {comparison.invalid} could not be graded"),
    ]
    for piece in comparison.slices:
        if piece.protected or piece.name in gate.slices:
            kind = "protected slice" if piece.protected else "slice"
            told = f"{piece.champion:.3f} -> {piece.challenger:.3f} on {piece.items} items"
            rows.append(_row(f"{kind} {piece.name}", piece.difference.mean, told))
    if comparison.suite is not None:
        told = ", ".join(comparison.suite.lost[:5]) or "none"
        rows.append(_row("regression items lost", len(comparison.suite.lost), told))
    return [*rows, {"what": "decision", "value": gate.decision, "measured against": "; ".join(gate.reasons)}]


def dataset_rows(made: DatasetVersion) -> list[Row]:
    """What each step of the preparation left, then the splits (pure)."""
    steps = [{"step": s.name, "left": s.left, "dropped": s.dropped, "why": s.why} for s in made.steps]
    splits = [
        {"step": f"split: {name}", "left": count, "dropped": "", "why": ""} for name, count in made.by_split.items()
    ]
    return [*steps, *splits, {"step": "preference pairs", "left": len(made.pairs), "dropped": "", "why": ""}]


def _row(what: str, value: float, against: str) -> Row:
    return {"what": what, "value": value if isinstance(value, int) else round(value, 4), "measured against": against}


def _bounds(found: Interval) -> str:
    return f"[{found.lower:.3f}, {found.upper:.3f}]"
