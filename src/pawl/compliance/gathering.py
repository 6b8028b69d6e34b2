"""Gathers the report from settings, fleet, control database, lake and files, and writes it."""

from __future__ import annotations

import contextlib
import csv
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from pawl import __version__, bootstrap
from pawl.compliance import access, controls, retention, security
from pawl.compliance.facts import Beside, Egress, Licensed, Report, Retention, Scrubbed
from pawl.compliance.licences import category
from pawl.compliance.machine import look
from pawl.compliance.veil import Veil
from pawl.curation.dataset import is_dataset
from pawl.errors import LakeError
from pawl.fleet.reach import NoKey, key_of
from pawl.fleet.spec import FleetSpec
from pawl.lake.care import AUDIT_DAYS, PAYLOAD_DAYS
from pawl.rollout.control import ControlStore
from pawl.settings import Settings

if TYPE_CHECKING:
    from pawl.compliance.lake_duckdb import Records, Span
    from pawl.lake.parquet_lake import ParquetLake

Tell = Callable[[str], None]
# Folders under PAWL_HOME that may repeat texts, and what they hold.
_BESIDE = {
    "batches": "files and results of batches", "answers": "kept answers of evaluations",
    "candidates": "comparisons and training runs", "datasets": "dataset versions", "regression": "regression suites",
    "reviews": "reviews by people", "reports": "pages", "validation": "pages about data", "journal": "the journal",
    "logs": "logs of servers",
}  # fmt: skip


class Sheet(msgspec.Struct, frozen=True):
    """What is needed of a dataset's file: all but its texts."""

    agent: str
    licence: str = ""
    scrubbed: dict[str, int] = {}


class Lineage(msgspec.Struct, frozen=True):
    """What is needed of a candidate's lineage."""

    candidate: str = ""
    dataset: str = ""
    adapter_sha256: str = ""


def gather(settings: Settings, out: Path, by: str, since: float, until: float, agent: str, now: float,
           tell: Tell = lambda step: None) -> tuple[Report, list[Path]]:  # fmt: skip
    """The report, and the files that are written into `out` already: the lists of what left and of who did what.

    Raises:
        LakeError: the lake or a dataset cannot be read.
        PawlError: the control database cannot be read.
        KeyError: no agent of that name.
    """
    from pawl.compliance.lake_duckdb import Span, records

    fleet, control, lake = bootstrap.fleet(settings), bootstrap.control(settings), bootstrap.lake(settings)
    if agent:
        fleet.agent(agent)
    tell("the lake")
    pending = lake.pending()
    with records(lake, pending) as found:
        tell("the audit log")
        # After the lake: a call is audited before it is recorded, so that nothing read there can be missing here.
        broken, entries = control.verify_audit(), control.audit_log()
        veil = Veil([settings.api_key, *_upstream_keys(fleet)])
        keys = [msgspec.structs.replace(k, name=veil(k.name)) for k in control.keys()]  # noqa: SIM118 - no dictionary
        names = {k.id: k.name for k in keys}
        signed: dict[str, str] = {}
        for e in entries:  # a name that somebody put a secret into is nowhere repeated
            e["by"] = signed.get(e["by"]) or signed.setdefault(e["by"], veil(e["by"]))
        egress = _egress(settings, fleet, found, entries, names, Span(since, until, agent))
        used = found.last_used()
        files = list(found.write(out))
        kept = _retention(settings, control, lake, found, entries, len(pending), agent, now)
    mine = access.within(entries, since, until)
    files.append(_written_log(out / "access.csv", access.log_rows(mine, names)))
    requests = control.requests()
    approvals = {(r.agent, r.version): control.approvals(r.agent, r.version) for r in control.rollouts()}
    made = access.changes(control.rollouts(), requests, approvals, since, until, agent)
    tell("licences")
    licensed, scrubbed = licences(settings, fleet, agent)
    tell("this machine")
    talks = egress.channels
    report = Report(
        made=now,
        by=by,
        since=since,
        until=until,
        agent=agent,
        pawl=__version__,
        egress=egress,
        access=access.access(entries, broken, keys, used, made, since, until),
        retention=kept,
        licences=licensed,
        scrubbed=scrubbed,
        security=security.findings(settings, fleet, look(settings, fleet), talks),
    )
    report = msgspec.structs.replace(report, controls=controls.controls(report))
    return msgspec.json.decode(veil(msgspec.json.encode(report).decode()), type=Report), files


def _upstream_keys(fleet: FleetSpec) -> Iterator[str | None]:
    for upstream in fleet.upstreams.values():
        with contextlib.suppress(NoKey):
            yield key_of(upstream, "here")


def _egress(settings: Settings, fleet: FleetSpec, found: Records, entries: list[dict[str, Any]],
            names: dict[str, str], span: Span) -> Egress:  # fmt: skip
    clouds = {bootstrap.upstream_arm(fleet, n).name: n for n, u in fleet.upstreams.items() if u.kind == "cloud"}
    found.match(entries, names, clouds, span)
    sent = found.sent()
    mine = access.within(entries, span.since, span.until)
    stopped, by_day = access.blocked(mine, names, span.agent)
    interactions, local, imported, denied = found.recorded(span)
    return Egress(
        interactions=interactions,
        local=local,
        requests=sum(s.requests for s in sent if s.kind == "request"),
        shadows=sum(s.requests for s in sent if s.kind == "shadow"),
        attempts=sum(s.attempts for s in sent),
        unaudited=found.unaudited(),
        against_mode=sum(s.requests for s in sent if s.mode != "open"),
        imported=imported,
        stand_ins=tuple(n for n, u in fleet.upstreams.items() if u.stand_in),
        denied=denied,
        sent=sent,
        blocked=stopped,
        days=found.days(by_day),
        evaluations=access.evaluations(mine, span.agent),
        channels=security.channels(settings, fleet),
    )


def _retention(settings: Settings, control: ControlStore, lake: ParquetLake, found: Records,
               entries: list[dict[str, Any]], waiting: int, agent: str, now: float) -> Retention:  # fmt: skip
    manifest, digests = lake.erasures()
    texts, rows, told, last = retention.limits(entries, (PAYLOAD_DAYS, AUDIT_DAYS))
    there = {p.stem for p in settings.datasets_dir.glob("*.json")}
    there |= {p.name for p in (settings.home / "candidates").glob("*") if p.is_dir()}
    return Retention(
        payload_days=texts,
        audit_days=rows,
        told=told,
        last_run=last,
        kept=retention.kept(manifest.objects, now, texts, rows, agent),
        waiting=waiting,
        beside=tuple(_beside(settings.home)),
        erasures=retention.erasures(entries, there),
        marks=len({e.sha256 for e in manifest.erased}),
        ids=len(digests),
        leftovers=found.leftovers(manifest.erased, digests.data),
    )


def _beside(home: Path) -> Iterator[Beside]:
    for name, what in _BESIDE.items():
        stats = [p.stat() for p in (home / name).rglob("*") if p.is_file()]
        if stats:
            yield Beside(what=f"{name}: {what}", files=len(stats), bytes=sum(s.st_size for s in stats),
                         oldest=min(s.st_mtime for s in stats))  # fmt: skip


def licences(settings: Settings, fleet: FleetSpec, agent: str) -> tuple[tuple[Licensed, ...], tuple[Scrubbed, ...]]:
    """(everything used and its terms, what wants attention first; what was scrubbed from each dataset)."""
    from pawl.compliance.licences import ORDER
    from pawl.compliance.sbom_cyclonedx import libraries
    from pawl.training.adapter_check import base_at_hand
    from pawl.training.licences import licence_of

    base = fleet.base_model
    base_licence = licence_of(base.source, base_at_hand(base, settings.models_dir), base.licence)
    found = [_licensed("model", Path(base.source).name, "", base_licence, "the base model of all adapters")]
    for name, upstream in fleet.upstreams.items():
        if upstream.kind == "cloud":
            found.append(_licensed("service", upstream.model or name, name, "", "its provider's terms of use hold"))
    sheets = {p.stem: _sheet(p) for p in sorted(settings.datasets_dir.glob("*.json")) if is_dataset(p)}
    mine = {name: s for name, s in sheets.items() if agent in ("", s.agent)}
    found += [_licensed("dataset", name, "", s.licence, f"of {s.agent}") for name, s in mine.items()]
    for path in sorted((settings.home / "candidates").glob("*/lineage.json")):
        line = _lineage(path)
        if line is None or not line.adapter_sha256 or agent not in ("", path.parent.name.rpartition("-")[0]):
            continue
        data = sheets.get(line.dataset)
        terms = [base_licence or "unknown", (data.licence if data else "") or "unknown"]
        note = f"as its base model ({terms[0]}) and its dataset {line.dataset} ({terms[1]})"
        found.append(
            _licensed("adapter", line.candidate, line.adapter_sha256[:12], "; ".join(dict.fromkeys(terms)), note)
        )
    found += libraries()
    kinds = ("model", "adapter", "dataset", "service", "library")
    found.sort(key=lambda i: (ORDER.index(i.category), kinds.index(i.kind), i.name.lower()))
    return tuple(found), tuple(Scrubbed(name, s.scrubbed) for name, s in mine.items())


def _licensed(kind: Any, name: str, version: str, licence: str, note: str) -> Licensed:
    return Licensed(kind=kind, name=name, version=version, licence=licence, category=category(licence), note=note)


def _sheet(path: Path) -> Sheet:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Sheet)
    except (OSError, msgspec.MsgspecError) as e:
        raise LakeError(f"the dataset {path} cannot be read: {e}; prepare it anew, or delete it") from e


def _lineage(path: Path) -> Lineage | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Lineage)
    except (OSError, msgspec.MsgspecError):
        return None


def _written_log(path: Path, rows: Iterator[tuple[str, ...]]) -> Path:
    with path.open("w", newline="") as out:
        csv.writer(out).writerows(rows)
    return path


def digests(files: list[Path]) -> dict[str, str]:
    """SHA-256 of each file, by name."""
    found = {}
    for path in files:
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
