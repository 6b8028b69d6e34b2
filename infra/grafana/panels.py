"""What a dashboard is made of, and the JSON that Grafana (10 or later, schema 39) reads (pure)."""

from __future__ import annotations

import json
from typing import Any, Literal, NamedTuple

Unit = Literal["percentunit", "percent", "s", "short", "currencyUSD", "reqps", "bytes", "dtdurations", "none"]
_SOURCE = {"type": "prometheus", "uid": "pawl"}
_WIDTH = 24  # of Grafana's grid
_AGENTS = "label_values(pawl_champion, agent)"


class Query(NamedTuple):
    """One series of a panel; `$agent` is the dashboard's choice of agents, as a regular expression."""

    expr: str
    legend: str = "{{agent}}"


class Panel(NamedTuple):
    """One picture."""

    title: str
    queries: tuple[Query, ...]
    unit: Unit = "short"
    kind: Literal["timeseries", "stat", "table"] = "timeseries"
    width: int = 8
    about: str = ""
    below: float | None = None  # red under this value
    above: float | None = None  # red over this value


class Row(NamedTuple):
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


class Board(NamedTuple):
    """One dashboard; its name is its file's and its uid's."""

    name: str
    title: str
    span: str  # what it shows when it opens, e.g. 24h
    rows: tuple[Row, ...]


def queries(board: Board) -> list[tuple[str, str]]:
    """(panel's title, expression) of everything that a dashboard asks Prometheus."""
    return [(p.title, q.expr) for row in board.rows for p in row.panels for q in p.queries]


def rendered(board: Board) -> str:
    """The dashboard's JSON, the same for the same board."""
    panels: list[dict[str, Any]] = []
    top = 0
    for row in board.rows:
        panels.append({"id": len(panels) + 1, "type": "row", "title": row.title, "collapsed": False, "panels": [],
                       "gridPos": {"x": 0, "y": top, "w": _WIDTH, "h": 1}})  # fmt: skip
        top, left, lowest = top + 1, 0, 0
        for panel in row.panels:
            height = 4 if panel.kind == "stat" else 8
            if left + panel.width > _WIDTH:
                top, left, lowest = top + lowest, 0, 0
            at = {"x": left, "y": top, "w": panel.width, "h": height}
            panels.append({"id": len(panels) + 1, "gridPos": at} | _panel(panel))
            left, lowest = left + panel.width, max(lowest, height)
        top += lowest
    made = {
        "uid": f"pawl-{board.name}",
        "title": board.title,
        "tags": ["pawl"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "refresh": "30s",
        "time": {"from": f"now-{board.span}", "to": "now"},
        "links": [{"type": "dashboards", "tags": ["pawl"], "title": "Pawl", "asDropdown": True, "keepTime": True}],
        "templating": {"list": [_agents()]},
        "panels": panels,
    }
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


def _agents() -> dict[str, Any]:
    return {
        "name": "agent", "label": "Agent", "type": "query", "datasource": _SOURCE, "definition": _AGENTS,
        "query": {"query": _AGENTS, "refId": "agents"}, "refresh": 2, "sort": 1, "multi": True, "includeAll": True,
        "allValue": ".*", "current": {"text": ["All"], "value": ["$__all"]},
    }  # fmt: skip


def _panel(panel: Panel) -> dict[str, Any]:
    table = panel.kind == "table"
    targets = [
        {"refId": chr(ord("A") + n), "datasource": _SOURCE, "expr": q.expr, "legendFormat": q.legend,
         "instant": panel.kind != "timeseries", "range": panel.kind == "timeseries",
         **({"format": "table"} if table else {})}
        for n, q in enumerate(panel.queries)
    ]  # fmt: skip
    defaults: dict[str, Any] = {"unit": panel.unit, "noValue": "not measured"}
    if (steps := _steps(panel)) is not None:
        defaults |= {"color": {"mode": "thresholds"}, "thresholds": {"mode": "absolute", "steps": steps}}
    found: dict[str, Any] = {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "targets": targets,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _options(panel),
    }
    if table:
        found["transformations"] = [{"id": "organize", "options": {"excludeByName": {"Time": True, "Value": True}}}]
    return found


def _steps(panel: Panel) -> list[dict[str, Any]] | None:
    if panel.below is not None:
        return [{"color": "red", "value": None}, {"color": "green", "value": panel.below}]
    if panel.above is not None:
        return [{"color": "green", "value": None}, {"color": "red", "value": panel.above}]
    return None


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "stat":
        return {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "textMode": "auto"}
    if panel.kind == "table":
        return {"showHeader": True}
    return {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}
