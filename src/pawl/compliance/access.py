"""Who may do what, who did, and on whose word versions changed: from the audit log, keys and rollouts (pure)."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from pawl.compliance.facts import Access, Asked, Blocked, Change, Event, Exceptional, KeyFact
from pawl.rollout.control import Approval, Key, Request
from pawl.rollout.state import Rollout

Entry = Mapping[str, Any]
CLOUD_CALLS = {"cloud call": "request", "cloud shadow": "shadow"}  # audit event -> kind
BLOCKS = {"upstream blocked by privacy": "request", "shadow blocked by privacy": "shadow"}
EVALUATION = "cloud evaluation"
REPORT = "compliance report"
FORCED = ("override", "rollout force", "alias moved by something else", "alias taken for right")
# What a reviewer asks about. Free text that people gave with it stays in the audit log.
_EXCEPTIONAL = (
    *FORCED, "version approved", "version rejected", "approvals void: other evidence", "approval code refused",
    "rejected adapter came back", "gate rejected", "restored", "champion served otherwise", "quarantine released",
    "lake query", "import", "retention", "subject erased", "key created", "key rotated", "key revoked", "review drawn",
    "regression items marked",
)  # fmt: skip
_BY_HAND = " by hand"
# Names, numbers and digests alone: reasons and queries are free text, and may hold what must not be here.
_SAFE = ("agent", "version", "rollout", "key", "role", "via", "verdict", "format", "records", "rows", "payloads",
         "interactions", "payload_days", "audit_days")  # fmt: skip
# What signs without a key: flows and the gateway's own parts.
PARTS = frozenset(
    {"roll_out", "watchdog", "improve_agent", "gateway", "evaluation", "mlflow", "prefect", "pawl database copy"}
)


def told_of(entry: Entry) -> str:
    """What an entry is about, without any free text."""
    detail = entry["detail"]
    said = [f"{k} {detail[k]}" for k in _SAFE if k in detail and isinstance(detail[k], str | int | float)]
    return ", ".join(said)


def day_of(at: float) -> str:
    """The UTC day of a moment."""
    return dt.datetime.fromtimestamp(at, dt.UTC).date().isoformat()


def within(entries: Iterable[Entry], since: float, until: float) -> list[Entry]:
    """Those of the window."""
    return [e for e in entries if since <= e["at"] < until]


def blocked(
    entries: Iterable[Entry], names: Mapping[str, str], agent: str
) -> tuple[tuple[Blocked, ...], dict[str, int]]:
    """(what privacy kept in, by agent, caller, upstream and mode; how much a UTC day)."""
    groups: Counter[tuple[str, str, str, str, str]] = Counter()
    days: Counter[str] = Counter()
    for e in entries:
        if (kind := BLOCKS.get(e["event"])) and agent in ("", e["detail"].get("agent")):
            d = e["detail"]
            by = names.get(e["by"], e["by"])
            groups[d.get("agent", ""), by, d.get("upstream", ""), d.get("mode", ""), kind] += 1
            days[day_of(e["at"])] += 1
    found = tuple(
        Blocked(agent=g[0], by=g[1], upstream=g[2], mode=g[3], kind=g[4], requests=n)  # type: ignore[arg-type]
        for g, n in groups.most_common()
    )
    return found, dict(days)


def evaluations(entries: Iterable[Entry], agent: str) -> tuple[Asked, ...]:
    """Evaluations that asked a cloud."""
    return tuple(
        Asked(seq=e["seq"], at=e["at"], agent=d.get("agent", ""), by=e["by"], upstream=d.get("upstream", ""),
              host=d.get("host", ""), items=int(d.get("items", 0)))
        for e in entries if e["event"] == EVALUATION for d in (e["detail"],) if agent in ("", d.get("agent"))
    )  # fmt: skip


def key_facts(keys: Sequence[Key], entries: Sequence[Entry], used: Mapping[str, float]) -> tuple[KeyFact, ...]:
    """Each key with its dates. `used`: last asked or said something, by id; what it signed in the log counts too."""
    signed: dict[str, float] = {}
    dates: dict[tuple[str, str], float] = {}
    for e in entries:
        if e["event"].startswith("key "):  # that it was made, rotated or revoked is no use of it
            dates[e["event"], str(e["detail"].get("key"))] = e["at"]
        else:
            signed[e["by"]] = e["at"]
    return tuple(
        KeyFact(
            id=k.id,
            name=k.name,
            role=k.role,
            revoked=k.revoked,
            agents=k.terms.agents,
            privacy=k.terms.privacy,
            made=dates.get(("key created", k.id)),
            rotated=dates.get(("key rotated", k.id)),
            revoked_at=dates.get(("key revoked", k.id)),
            used=_latest(used.get(k.id), signed.get(k.id), signed.get(k.name)),
        )
        for k in keys
    )


def _latest(*times: float | None) -> float | None:
    known = [t for t in times if t is not None]
    return max(known) if known else None


def changes(
    rollouts: Iterable[Rollout],
    requests: Iterable[Request],
    approvals: Mapping[tuple[str, str], Sequence[Approval]],
    since: float,
    until: float,
    agent: str,
) -> Iterator[Change]:
    """Every version put before clients in the window, with who approved or forced it before it was."""
    asked = {(r.agent, r.version): r for r in requests}
    for r in rollouts:
        if not (since <= r.opened_at < until and agent in ("", r.agent)):
            continue
        given = approvals.get((r.agent, r.version), ())
        yes = {a.by for a in given if a.verdict == "approved" and a.at <= r.opened_at}
        request = asked.get((r.agent, r.version))
        forced = r.override.by if r.override is not None else ""
        yield Change(agent=r.agent, version=r.version, rollout=r.id, opened=r.opened_at, stage=r.stage,
                     approved_by=tuple(sorted(yes)), forced_by=forced,
                     starter=request.starter if request else "")  # fmt: skip


def access(
    entries: Sequence[Entry],
    broken: str | None,
    keys: Sequence[Key],
    used: Mapping[str, float],
    made: Iterable[Change],
    since: float,
    until: float,
) -> Access:
    """The section. `entries`: the whole log, oldest first; what is counted and shown is of the window."""
    mine = within(entries, since, until)
    known = {k.id for k in keys} | {k.name for k in keys} | PARTS
    events: dict[str, Event] = {}
    for e in mine:
        was = events.get(e["event"])
        events[e["event"]] = Event(e["event"], was.times + 1 if was else 1, was.first if was else e["at"], e["at"])
    return Access(
        entries=len(entries),
        last=entries[-1]["at"] if entries else None,
        broken=broken or "",
        events=tuple(sorted(events.values(), key=lambda e: (-e.times, e.name))),
        exceptional=tuple(
            Exceptional(seq=e["seq"], at=e["at"], event=e["event"], by=e["by"], about=told_of(e),
                        forced=is_forced(e["event"]))
            for e in mine if e["event"] in _EXCEPTIONAL or e["event"].endswith(_BY_HAND)
        ),
        strangers=tuple(sorted(strangers(mine, known))),
        keys=key_facts(keys, entries, used),
        changes=tuple(made),
    )  # fmt: skip


def is_forced(event: str) -> bool:
    """Whether somebody went past a rule, or took over from automation."""
    return event in FORCED or event.endswith(_BY_HAND)


def strangers(entries: Iterable[Entry], known: Collection[str]) -> set[str]:
    """Who signed and is neither a key, nor a part of Pawl, nor of the identity provider."""
    return {e["by"] for e in entries if e["by"] not in known and not e["by"].startswith("oidc:")}


def log_rows(entries: Iterable[Entry], names: Mapping[str, str]) -> Iterator[tuple[str, ...]]:
    """The access and approval log as rows of a table; cloud calls and blocks have a list of their own."""
    yield "audit_entry", "at", "event", "by", "name", "about"
    for e in entries:
        if e["event"] not in CLOUD_CALLS and e["event"] not in BLOCKS:
            yield str(e["seq"]), f"{e['at']:.3f}", e["event"], e["by"], names.get(e["by"], e["by"]), told_of(e)
