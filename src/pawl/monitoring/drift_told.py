"""What a look found, in words (pure)."""

from __future__ import annotations

import datetime as dt

from pawl.monitoring.drift_betting import LEAST
from pawl.monitoring.drift_record import DriftRecord, KindNow
from pawl.monitoring.drift_values import KINDS

_CHARACTERS = {"input_length", "output_length"}


def headline(record: DriftRecord, watched: bool = True) -> str:
    """One sentence. Not `watched`: nobody has looked before, so that nothing is new yet."""
    serves = f"({record.champion} serves)"
    if not watched:
        return f"{record.agent}: nobody watches yet {serves}: the flow watch_quality does, every quarter of an hour"
    if not record.known:
        return f"{record.agent}: not known yet whether there is drift {serves}: {_lacking(record)}"
    if not record.drifting:
        tested = max(now.bets for now in record.kinds.values())
        return f"{record.agent}: no drift since {moment(record.anchor)}, {tested:,} session(s) tested {serves}"
    began = min(now.since for now in record.kinds.values() if now.since is not None)
    return f"{record.agent}: DRIFT of {', '.join(record.drifting)}, shown at {moment(began)} {serves}"


def rows(record: DriftRecord) -> list[tuple[str, str, str, str, str, str]]:
    """(kind, state, evidence of what is needed, before, now, what it is), drifted kinds first, then by evidence."""
    found = []
    for kind, about in KINDS.items():
        now = record.kinds.get(kind)
        if now is None:
            found.append((0.0, (kind, "not measured yet", "", "", "", about)))
            continue
        state = f"drift since {moment(now.since)}" if now.since is not None else _standing(now)
        evidence = f"{now.peak if now.since is not None else now.evidence:,.3g} of {record.threshold:,.0f}"
        rank = 1e40 if now.since is not None else now.evidence
        found.append((rank, (kind, state, evidence, _mean(kind, now.before), _mean(kind, now.now), about)))
    return [row for _, row in sorted(found, key=lambda each: -each[0])]


def markdown(record: DriftRecord) -> str:
    """A page for Prefect's UI."""
    head = "| kind | state | evidence | before | now | |\n|---|---|---|---|---|---|\n"
    lines = "".join(f"| {' | '.join(row)} |\n" for row in rows(record))
    return f"**{headline(record)}**\n\nSeen up to {moment(record.through)}.\n\n{head}{lines}"


def moment(at: float) -> str:
    """A time for people, in UTC."""
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%d %H:%M")


def _standing(now: KindNow) -> str:
    if now.bets > 0:
        return "as before"
    return f"waits: {now.sessions} of {LEAST}" if now.sessions < LEAST else "nothing new yet"


def _lacking(record: DriftRecord) -> str:
    most = max((now.sessions for now in record.kinds.values()), default=0)
    if most >= LEAST:
        return f"{most:,} sessions to compare with, none since {moment(record.anchor)}"
    since = "" if record.compared_since is None else f" since {moment(record.compared_since)}"
    return f"{most} of {LEAST} sessions to compare with{since}"


def _mean(kind: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if kind in _CHARACTERS else f"{value:.3f}"
