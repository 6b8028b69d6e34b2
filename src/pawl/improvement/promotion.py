"""From a judged candidate to a version in the registry that asks for approval."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

import msgspec

from pawl.curation.dataset import load, name_of
from pawl.curation.datasheet import datasheet
from pawl.evaluation.report import Comparison, GateDecision
from pawl.evaluation.rows import columns, figures
from pawl.improvement.alias_watch import move as move_alias
from pawl.improvement.approving import ask, withdraw
from pawl.improvement.describing import describe
from pawl.improvement.preparing import reports_of
from pawl.improvement.steps import Lineage, dataset_of, training_of
from pawl.improvement.workplace import Candidate, Workplace
from pawl.monitoring.comparison_plots import save
from pawl.registry.port import LearntFrom, Version
from pawl.registry.run_log import kept_id


class Registered(msgspec.Struct, frozen=True):
    """What became of a candidate after the gate."""

    version: str
    adapter: str
    decision: str
    evidence: str  # digest that an approval is bound to
    url: str
    unasked: str = ""  # why no approval was asked for though the gate says promote


def register(place: Workplace, candidate: Candidate, report: Path) -> Registered:
    """Put the candidate into the registry with its lineage; ask for approval where the gate says promote.

    A rejected one is registered too, so that what was refused can be looked at; its adapter hash is remembered, and
    the same adapter is not asked for again.
    """
    lineage = candidate.read("lineage", Lineage)
    comparison = candidate.read("comparison", Comparison)
    gate = candidate.read("gate", GateDecision)
    evidence = comparison.digest()
    agent, now = place.agent_name, time.time()
    starter = candidate.read("started_by", str) if candidate.has("started_by") else ""
    # The evidence is what an approval is bound to, the report what people read: one digest, under both names.
    judged = {"evidence": evidence, "report_digest": evidence, "gate": gate.decision}
    origin = {"started_by": starter or "unknown"} | _parent(place, lineage)
    tags = {**msgspec.to_builtins(lineage), **origin, **judged, "run_id": _log(place, candidate, comparison)}
    version = place.registry.register(
        agent,
        candidate.adapter,
        tags,
        {"report.html": report, **save(comparison, candidate.folder / "plots"), **_about_the_data(place, candidate)},
    )
    if version.tags.get("evidence") != evidence:
        _judged_anew(place, version, judged, report)
    describe(place, version, candidate)
    unasked = ""
    if gate.decision != "promote":
        withdraw(place, version, evidence, gate.decision, now)
    if gate.decision == "promote":
        unasked = ask(place, version, evidence, starter=starter, candidate=candidate.id, now=now)
        if not unasked:
            move_alias(place, "challenger", version.number)
    elif gate.decision == "reject":
        place.control.reject_adapter(version.sha256, agent, "gate: " + "; ".join(gate.reasons), now)
        detail = {"agent": agent, "version": version.number, "reasons": list(gate.reasons)}
        place.control.audit("gate rejected", "improve_agent", detail, now)
    return Registered(version.number, version.adapter, gate.decision, evidence, place.registry.url(version), unasked)


def _parent(place: Workplace, lineage: Lineage) -> dict[str, str]:
    """The version number of the adapter it was trained from; nothing where that was the base model."""
    found = (v.number for v in place.registry.versions(place.agent_name) if v.adapter == lineage.parent)
    return {"parent_version": number} if (number := next(found, "")) else {}


def _judged_anew(place: Workplace, version: Version, judged: dict[str, str], report: Path) -> None:
    """The same adapter with other evidence: the version tells of the present one, and keeps the page of the former."""
    for key, value in judged.items():
        place.registry.tag(version.agent, version.number, key, value)
    with tempfile.TemporaryDirectory() as folder:
        page = shutil.copyfile(report, Path(folder) / f"report-{judged['evidence'][:12]}.html")
        place.registry.attach(version.agent, version.number, page)


def _log(place: Workplace, candidate: Candidate, comparison: Comparison) -> str:
    """The training run in the registry's experiment: spec, result, loss curve, and what the comparison found."""
    trained = training_of(candidate)
    metrics = {
        "tokens_per_s": trained.tokens_per_s,
        "seconds": trained.seconds,
        **figures(comparison),
    }
    # Curves are no parameters.
    told = msgspec.structs.replace(trained, stages=tuple(msgspec.structs.replace(s, losses=()) for s in trained.stages))
    params = {k: str(v) for k, v in msgspec.to_builtins(told).items() if k != "adapter_dir"}
    losses = candidate.read("losses", list[tuple[int, float]])
    made = dataset_of(place, candidate)
    counts = {**made.by_split, "pairs": len(made.pairs), "sources": len(made.sources)}
    learnt = LearntFrom(name=name_of(made), fingerprint=made.fingerprint, figures=counts)
    # What the run wrote while training ran is there already; this completes it.
    curves = {"examples/loss": losses}
    begun = kept_id(candidate.run_file)
    run_id = place.registry.log_training(place.agent_name, params, metrics, curves, learnt, begun)
    place.registry.log_table(run_id, f"evaluation-{comparison.digest()[:12]}.json", columns(comparison))
    return run_id


def _about_the_data(place: Workplace, candidate: Candidate) -> dict[str, Path]:
    """What hangs on the version beside the report: the datasheet, and the pages of the checks it went through."""
    path = place.settings.datasets_dir / candidate.read("lineage", Lineage).dataset
    reports = reports_of(path)
    sheet = candidate.folder / "datasheet.md"
    sheet.write_text(datasheet(load(path), reports))
    pages = {f"validation-{r.suite}.html": Path(r.docs) for r in reports if r.docs}
    return {"datasheet.md": sheet, **{name: page for name, page in pages.items() if page.exists()}}
