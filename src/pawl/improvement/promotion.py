"""From a judged candidate to a version in the registry that asks for approval."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from pawl.curation.dataset import load, name_of
from pawl.curation.datasheet import datasheet
from pawl.evaluation.report import Comparison, GateDecision
from pawl.evaluation.rows import columns
from pawl.improvement.preparing import reports_of
from pawl.improvement.steps import Lineage, dataset_of, training_of
from pawl.improvement.workplace import Candidate, Workplace
from pawl.registry.port import LearntFrom
from pawl.registry.run_log import kept_id
from pawl.rollout.control import Request


class Registered(msgspec.Struct, frozen=True):
    """What became of a candidate after the gate."""

    version: str
    adapter: str
    decision: str
    evidence: str  # digest that an approval is bound to
    url: str


def register(place: Workplace, candidate: Candidate, report: Path) -> Registered:
    """Put the candidate into the registry with its lineage; ask for approval where the gate says promote.

    A rejected one is registered too, so that what was refused can be looked at; its adapter hash is remembered.
    """
    lineage = candidate.read("lineage", Lineage)
    comparison = candidate.read("comparison", Comparison)
    gate = candidate.read("gate", GateDecision)
    evidence = comparison.digest()
    tags = {**msgspec.to_builtins(lineage), "evidence": evidence, "gate": gate.decision}
    agent = place.agent_name
    tags["run_id"] = _log(place, candidate, comparison)
    version = place.registry.register(
        agent, candidate.adapter, tags, {"report.html": report, **_about_the_data(place, candidate)}
    )
    now = time.time()
    if gate.decision == "promote":
        place.registry.move_alias(agent, "challenger", version.number)
        if place.control.request(agent, version.number) is None:
            expires = now + place.agent.approval_hours * 3600
            place.control.ask(
                Request(
                    agent=agent,
                    version=version.number,
                    adapter=version.adapter,
                    adapter_sha256=version.sha256,
                    evidence=evidence,
                    asked_at=now,
                    expires=expires,
                )
            )
            place.control.audit("approval asked", "improve_agent", {"agent": agent, "version": version.number}, now)
    elif gate.decision == "reject":
        place.control.reject_adapter(version.sha256, agent, "gate: " + "; ".join(gate.reasons), now)
        detail = {"agent": agent, "version": version.number, "reasons": list(gate.reasons)}
        place.control.audit("gate rejected", "improve_agent", detail, now)
    return Registered(version.number, version.adapter, gate.decision, evidence, place.registry.url(version))


def _log(place: Workplace, candidate: Candidate, comparison: Comparison) -> str:
    """The training run in the registry's experiment: spec, result, loss curve, and what the comparison found."""
    trained = training_of(candidate)
    metrics = {
        "tokens_per_s": trained.tokens_per_s,
        "seconds": trained.seconds,
        "champion_score": comparison.champion.score.mean,
        "challenger_score": comparison.challenger.score.mean,
        "challenger_score_lower": comparison.challenger.score.lower,
        "difference": comparison.difference.mean,
        "p_better": comparison.p_better,
    }
    # Curves are no parameters.
    told = msgspec.structs.replace(trained, stages=tuple(msgspec.structs.replace(s, losses=()) for s in trained.stages))
    params = {k: str(v) for k, v in msgspec.to_builtins(told).items() if k != "adapter_dir"}
    losses = candidate.read("losses", list[tuple[int, float]])
    made = dataset_of(place, candidate)
    figures = {**made.by_split, "pairs": len(made.pairs), "sources": len(made.sources)}
    learnt = LearntFrom(name=name_of(made), fingerprint=made.fingerprint, figures=figures)
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
