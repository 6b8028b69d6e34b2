"""What is kept against its limits, and whether erasures were done (pure)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from pawl.compliance.facts import Erasure, Kept
from pawl.lake.manifest import Object

_DAY_S = 86_400.0


def limits(entries: Iterable[Mapping[str, Any]], usual: tuple[float, float]) -> tuple[float, float, str, float | None]:
    """(days texts are kept, days rows are kept, where that comes from, when it was last applied).

    Limits are given to `pawl lake expire`, so those of its last run hold; `usual` where it never ran.
    """
    runs = [e for e in entries if e["event"] == "retention"]
    if not runs:
        return *usual, "the defaults of `pawl lake expire`, which has never run", None
    last = runs[-1]
    d = last["detail"]
    return float(d["payload_days"]), float(d["audit_days"]), "the last run of `pawl lake expire`", float(last["at"])


def kept(objects: Iterable[Object], now: float, payload_days: float, audit_days: float, agent: str) -> tuple[Kept, ...]:
    """By table and agent. A partition is overdue when all of it is past its limit, as `pawl lake expire` counts."""
    groups: dict[tuple[str, str], list[Object]] = {}
    for o in objects:
        if agent in ("", o.agent):
            groups.setdefault((o.table, o.agent), []).append(o)
    found = []
    for (table, name), mine in sorted(groups.items()):
        texts = [o for o in mine if not o.bare]
        text_due = [o for o in texts if o.last < now - payload_days * _DAY_S]
        row_due = [o for o in mine if o.last < now - audit_days * _DAY_S]
        due = {o.path.split("/")[1].removeprefix("date=") for o in (*text_due, *row_due)}
        found.append(
            Kept(table=table, agent=name, rows=sum(o.rows for o in mine), oldest=min(o.first for o in mine),
                 oldest_text=min((o.first for o in texts), default=None), text_overdue=sum(o.rows for o in text_due),
                 row_overdue=sum(o.rows for o in row_due), partitions=tuple(sorted(due)))
        )  # fmt: skip
    return tuple(found)


def erasures(entries: Sequence[Mapping[str, Any]], there: Collection[str]) -> tuple[Erasure, ...]:
    """Every erasure in these entries. `there`: datasets and candidates that exist; those an erasure named and that
    still do hold what was learnt from the person.

    A place that did not answer is made up for by the next erasure, of whomever: only what the last one left counts.
    """
    done = [e for e in entries if e["event"] == "subject erased"]
    return tuple(
        Erasure(
            seq=e["seq"],
            at=e["at"],
            by=e["by"],
            interactions=int(d.get("interactions", 0)),
            unreached=len(d.get("unreached", ())) if e is done[-1] else 0,
            still=tuple(n for n in (*d.get("datasets", ()), *d.get("adapters", ())) if n in there),
        )
        for e in done
        for d in (e["detail"],)
    )
