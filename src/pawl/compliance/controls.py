"""What the findings mean for GDPR, HIPAA and SOC 2 (pure). Green only where the data show it; no legal advice.

Articles as in Regulation (EU) 2016/679, standards as in 45 CFR 164.312, criteria as in the AICPA's Trust Services
Criteria (2017, revised points of focus 2022).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pawl.compliance.access import REPORT
from pawl.compliance.facts import Control, Finding, Light, Report

UNUSED_DAYS = 90
# What an operator does before anybody uses the machine: of itself it shows nothing of how it is run.
_PREPARING = frozenset({"key created", "key rotated", "key revoked", "control database copied", REPORT})
_DAY_S = 86_400.0


class Check(NamedTuple):
    """One fact, judged."""

    light: Light
    found: str


def controls(report: Report) -> tuple[Control, ...]:
    """The tables of the three frameworks."""
    chain, left, outside = audit_chain(report), what_left(report), by_mode(report)
    kept, erased, keys, actors, changed = (f(report) for f in (limits, erasures, key_care, actors_known, changes))
    named = {f.name: f for f in report.security}
    transport = _of(named, "the gateway's listener", "connections to other machines")
    rest = _of(
        named, "encryption at rest, PAWL_HOME", *(["encryption at rest, the lake's objects"] if _in_s3(named) else [])
    )
    stored = _of(named, "API keys", "the control database")
    sandbox, files = _of(named, "sandbox for generated code"), _files(report.security)
    scrubbed = scrubbing(report)
    gdpr, hipaa, soc = "GDPR", "HIPAA 164.312", "SOC 2"
    rows: tuple[tuple[str, str, str, Check, str], ...] = (
        (gdpr, "Art. 5(1)(b)", "Purpose limitation", consent(report),
         "Choose and record the legal basis of learning from traffic; `data.consent: required` where it is consent."),
        (gdpr, "Art. 5(1)(c)", "Data minimisation", scrubbed,
         "Prompts are kept as they came until retention takes them: decide what clients may send at all."),
        (gdpr, "Art. 5(1)(e)", "Storage limitation", kept,
         "Decide the limits, run `pawl lake expire` on a schedule, and set limits for what lies beside the lake and "
         "for backups."),
        (gdpr, "Art. 5(1)(f)", "Integrity and confidentiality", _all(chain, outside, transport),
         "See article 32."),
        (gdpr, "Art. 15", "Right of access", Check("grey", "that a person asked and was answered is not recorded here"),
         "Answer requests in time: `pawl lake query` finds a person's records by session, user and task."),
        (gdpr, "Art. 17", "Right to erasure", erased,
         "Record who asked and when; retrain or retire what learnt from them; erase backups and traces."),
        (gdpr, "Art. 30", "Records of processing", _all(left, chain),
         "Name controller, purposes and categories of persons; this page gives recipients, volume and limits."),
        (gdpr, "Art. 32", "Security of processing", _all(transport, rest, stored, files),
         "Assess the risk; test restoring and this page's findings regularly; encrypt backups."),
        (hipaa, "(a) access control", "Unique users, least privilege", _all(actors, keys, outside),
         "Give each person or system a key of its own; write the emergency access procedure."),
        (hipaa, "(a)(2)(iv)", "Encryption and decryption", rest,
         "Encrypt volumes, buckets and backups; manage their keys."),
        (hipaa, "(b) audit controls", "Activity is recorded", _all(chain, left),
         "Review this report regularly, and copy the audit log to a place that this machine cannot write."),
        (hipaa, "(c) integrity", "No improper alteration", _all(chain, changed),
         "Keep copies; compare the digests that the audit log keeps of each report."),
        (hipaa, "(d) authentication", "Who calls is who they say", _all(stored, actors),
         "Rotate keys; prefer the identity provider or client certificates for people."),
        (hipaa, "(e) transmission security", "Encrypted on the way", _all(transport, outside),
         "Sign agreements with every provider that is listed as a recipient (business associates)."),
        (soc, "CC6.1", "Logical access is restricted", _all(stored, files, rest),
         "Restrict who may log in to the machine."),
        (soc, "CC6.2, CC6.3", "Access is given, reviewed, removed", keys,
         "Review the list of keys with their owners; revoke who left."),
        (soc, "CC6.6, CC6.7", "Boundary and transmission", _all(outside, left, transport),
         "Hold the network closed outside the process too: infra/kubernetes, infra/systemd."),
        (soc, "CC6.8", "Unauthorised code", sandbox, "Scan images: .github/workflows/images.yml."),
        (soc, "CC7.1, CC7.2", "Operation is monitored", _all(chain, actors),
         "Answer the alerts; docs/runbooks says how. That somebody did is not recorded here."),
        (soc, "CC7.4", "Incidents are answered", Check("grey", "incidents are not recorded here"),
         "Keep a record of incidents; docs/runbooks/key-leak.md is the one for keys."),
        (soc, "CC8.1", "Changes are authorised", changed,
         "Look at every forced change and its reason in the audit log."),
    )  # fmt: skip
    used = in_use(report)
    return tuple(
        Control(framework=framework, ref=ref, title=title, light=shown.light, found=shown.found, duty=duty)
        for framework, ref, title, check, duty in rows
        for shown in (check if used else _unused(check),)
    )


def in_use(r: Report) -> bool:
    """Whether there is anything to go by: traffic, an act of somebody, versions before clients, data kept or erased."""
    acted = any(e.name not in _PREPARING for e in r.access.events)
    kept = r.retention
    return bool(r.egress.interactions or acted or r.access.changes or kept.kept or kept.erasures or kept.marks)


def audit_chain(r: Report) -> Check:
    """Whether the audit log is as it was written."""
    if r.access.broken:
        return Check("red", f"the audit log was changed: {r.access.broken}")
    if not r.access.entries:
        return Check("grey", "the audit log is empty")
    return Check("green", f"the chain of {r.access.entries:,} audit entries is whole")


def what_left(r: Report) -> Check:
    """Whether all that left is known."""
    e = r.egress
    if e.unaudited:
        return Check("red", f"{e.unaudited:,} answers came from a cloud and the audit log knows no call for them")
    if not e.interactions:
        return Check("grey", "no traffic in this window")
    there = len({s.upstream for s in e.sent})
    said = f"{e.requests + e.shadows:,} requests left, to {there} upstream(s), each with an entry in the audit log"
    return Check("green", said if e.sent else f"nothing left of {e.interactions:,} recorded calls")


def by_mode(r: Report) -> Check:
    """Whether anything left against its privacy mode."""
    e, stopped = r.egress, sum(b.requests for b in r.egress.blocked)
    if e.against_mode:
        return Check("red", f"{e.against_mode:,} requests left though their privacy mode keeps them in")
    if not e.interactions:
        return Check("grey", "no traffic in this window")
    return Check("green", f"nothing left against its privacy mode; {stopped:,} were stopped")


def limits(r: Report) -> Check:
    """Whether anything is kept longer than its limit."""
    late = [k for k in r.retention.kept if k.text_overdue or k.row_overdue]
    if late:
        rows = sum(k.text_overdue + k.row_overdue for k in late)
        where = sorted({k.agent for k in late})
        return Check("red", f"{rows:,} rows of {', '.join(where)} are past their limit; run `pawl lake expire`")
    if not r.retention.kept:
        return Check("grey", f"the lake holds nothing; {r.retention.waiting:,} records wait in the journal")
    oldest = min(k.oldest for k in r.retention.kept)
    days = (r.made - oldest) / _DAY_S
    return Check("green", f"nothing in the lake is past {r.retention.payload_days:g} days (texts) or "
                          f"{r.retention.audit_days:g} (rows); the oldest row has {days:.0f}")  # fmt: skip


def erasures(r: Report) -> Check:
    """Whether what was to be erased is gone."""
    found = r.retention
    problems = []
    if found.leftovers:
        problems.append(f"{found.leftovers:,} records in the lake should be gone: erase the same person again")
    if pending := sum(e.unreached for e in found.erasures):
        problems.append(f"{pending} place(s) did not answer the last erasure")
    if still := sorted({n for e in found.erasures for n in e.still}):
        problems.append(f"still there, and learnt from erased persons: {_some(still)}")
    if problems:
        return Check("red", "; ".join(problems))
    if not found.erasures and not found.marks:
        return Check("grey", "no erasure was done, so that nothing is shown")
    return Check("green", f"{found.marks} erased persons and {found.ids:,} interactions were looked for in the lake by "
                          "digest: none is there")  # fmt: skip


def key_care(r: Report) -> Check:
    """Whether keys are made on the record and used."""
    active = [k for k in r.access.keys if not k.revoked]
    if not active:
        return Check("grey", "there is no active key")
    seen = {k.id: max(k.used or 0.0, k.made or 0.0, k.rotated or 0.0) for k in active}
    # Of a key that was never seen nobody knows the age; that it was made off the record is told anyway.
    idle = [k.name for k in active if seen[k.id] and r.made - seen[k.id] > UNUSED_DAYS * _DAY_S]
    unknown = [k.name for k in active if k.made is None]
    problems = []
    if unknown:
        problems.append(f"made without an entry in the audit log: {_some(unknown)}")
    if idle:
        problems.append(f"active and unused for {UNUSED_DAYS} days: {_some(idle)}")
    gone = sum(k.revoked for k in r.access.keys)
    said = f"{len(active)} active keys, each made on the record, none unused for {UNUSED_DAYS} days; {gone} revoked"
    return Check("red", "; ".join(problems)) if problems else Check("green", said)


def actors_known(r: Report) -> Check:
    """Whether everybody who acted is somebody."""
    if r.access.strangers:
        return Check("red", f"in the audit log, and neither a key nor a part of Pawl: {_some(r.access.strangers)}")
    acted = sum(e.times for e in r.access.events)
    if not acted:
        return Check("grey", "nobody acted in this window")
    return Check(
        "green", f"all {acted:,} entries of the window name a key, a person of the identity provider or a part of Pawl"
    )


def changes(r: Report) -> Check:
    """Whether every version that clients met was approved."""
    made = r.access.changes
    if not made:
        return Check("grey", "no version was put before clients in this window")
    bare = [f"{c.agent} {c.version}" for c in made if not c.approved_by and not c.forced_by]
    forced = [f"{c.agent} {c.version} by {c.forced_by}" for c in made if c.forced_by]
    if bare or forced:
        said = [f"without an approval: {_some(bare)}"] if bare else []
        said += [f"forced past the gate: {_some(forced)}"] if forced else []
        return Check("red", f"of {len(made)} changes " + "; ".join(said))
    alone = sum(1 for c in made if c.approved_by == (c.starter,))
    return Check("green", f"all {len(made)} changes were approved before clients met them"
                          + (f"; {alone} by nobody but who started the training" if alone else ""))  # fmt: skip


def consent(r: Report) -> Check:
    """What is known of the purpose."""
    said = (
        f"{r.egress.denied:,} of {r.egress.interactions:,} recorded calls forbid learning from them"
        if (r.egress.interactions)
        else "no traffic in this window"
    )
    return Check("grey", f"{said}; whether the purpose is lawful is not for data to show")


def scrubbing(r: Report) -> Check:
    """What was taken out before learning. What left for a cloud left as it was: calls are sent or blocked, whole."""
    if not r.scrubbed:
        return Check(
            "grey", "no dataset was made, so nothing had to be scrubbed; requests are sent or blocked, never redacted"
        )
    total = sum(n for s in r.scrubbed for n in s.counts.values())
    return Check("grey", f"{total:,} personal data and secrets were taken out of {len(r.scrubbed)} datasets; requests "
                         "themselves are sent or blocked, never redacted")  # fmt: skip


def _unused(check: Check) -> Check:
    """What is wrong is wrong before the first request; that nothing is wrong shows nothing yet."""
    if check.light != "green":
        return check
    return Check(
        "grey", f"nobody has used this machine in the window, so that nothing is shown; as set up: {check.found}"
    )


def _some(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _in_s3(named: dict[str, Finding]) -> bool:
    found = named.get("encryption at rest, the lake's objects")
    return found is not None and not found.found.startswith("they lie under")


def _of(named: dict[str, Finding], *names: str) -> Check:
    return _all(*(Check(f.light, f"{f.name}: {f.found}") for n in names if (f := named.get(n)) is not None))


def _files(found: Iterable[Finding]) -> Check:
    mine = [f for f in found if f.name == "the home" or f.name.endswith("'s file")]
    return _all(*(Check(f.light, f"{f.name}: {f.found}") for f in mine))


def _all(*checks: Check) -> Check:
    """Green where all are; what is worst is told, since that is what somebody has to do something about."""
    for light in ("red", "grey", "green"):
        if said := [c.found for c in checks if c.light == light]:
            return Check(light, "; ".join(said))
    return Check("grey", "not looked at")
