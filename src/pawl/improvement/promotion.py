"""From a judged candidate to an open rollout: registration, the request for approval, the operator's override."""

from __future__ import annotations

import shutil
import tempfile
import time
import uuid
from pathlib import Path

import msgspec

from pawl.bootstrap import current_route
from pawl.curation.dataset import load, name_of
from pawl.curation.datasheet import datasheet
from pawl.errors import ApprovalInvalid, NotAllowed, StaleWrite
from pawl.evaluation.report import Comparison, GateDecision
from pawl.evaluation.rows import columns
from pawl.improvement.preparing import reports_of
from pawl.improvement.steps import Lineage, dataset_of, training_of
from pawl.improvement.workplace import Candidate, Workplace
from pawl.registry.approvals import standing
from pawl.registry.port import LearntFrom, Version
from pawl.registry.run_log import kept_id
from pawl.rollout.control import Key, Request
from pawl.rollout.route import Arm
from pawl.rollout.state import Override, Rollout
from pawl.serving import vllm_adapters


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


def force(place: Workplace, number: str, key: Key, reason: str, skips: tuple[str, ...]) -> Request:
    """An operator's explicit order to roll out past the gate (and past shadow): recorded, never silent."""
    if key.role not in ("operator", "admin"):
        raise NotAllowed(f"the key {key.name!r} has role {key.role}; an override needs operator or admin")
    if not reason.strip():
        raise ApprovalInvalid("an override needs a reason: --reason 'why'")
    version = place.registry.version(place.agent_name, number)
    now = time.time()
    request = Request(
        agent=place.agent_name,
        version=number,
        adapter=version.adapter,
        adapter_sha256=version.sha256,
        evidence=version.tags.get("evidence", ""),
        asked_at=now,
        expires=now + 3600,
        override_by=key.name,
        override_reason=reason,
        skips=skips,
    )
    place.control.ask(request)
    detail = {"agent": place.agent_name, "version": number, "reason": reason, "skips": list(skips)}
    place.control.audit("override", key.name, detail, now)
    return request


def ready(place: Workplace, now: float) -> Request | None:
    """The oldest request that may open a rollout now: approved, or forced; None where there is none.

    Codes pasted as a tag on the version in the registry's UI are read, verified and spent here.
    """
    started = {r.version for r in place.control.rollouts(place.agent_name)}
    for request in sorted(place.control.requests(), key=lambda r: r.asked_at):
        if request.agent != place.agent_name or request.version in started:
            continue
        if request.override_by is not None:
            if now < request.expires:
                return request
            continue
        _read_tag(place, request, now)
        approvals = place.control.approvals(request.agent, request.version)
        if standing(request, approvals, now) == "approved":
            return request
    return None


def _read_tag(place: Workplace, request: Request, now: float) -> None:
    from pawl.registry.approvals import approve_by_code

    version = place.registry.version(request.agent, request.version)
    code = version.tags.get("approval_code")
    if not code or f"(code ending {code[-8:]})" in version.tags.get("approval_answer", ""):
        return
    try:
        approve_by_code(place.control, request, code, now)
        answer = "accepted"
    except ApprovalInvalid as e:
        answer = f"refused: {e}"
        place.control.audit("approval code refused", "registry tag", {"version": request.version, "why": str(e)}, now)
    # The answer names the code's end, so that a corrected code is read and the same one is not read twice.
    place.registry.tag(request.agent, request.version, "approval_answer", f"{answer} (code ending {code[-8:]})"[:4000])


def open_rollout(place: Workplace, request: Request) -> Rollout:
    """Bring the adapter onto the serving cluster, verify it there, then open the rollout."""
    version = place.registry.version(request.agent, request.version)
    arm = Arm(version.adapter, place.fleet.local_upstream, version.adapter, "local")
    present(place, version)
    now = time.time()
    route = current_route(place.fleet, place.control, place.agent)
    override = None
    if request.override_by is not None:
        override = Override(request.override_by, request.override_reason, now, request.skips)
    stage = str(place.agent.rollout.stages[0]) if "shadow" in request.skips else "shadow"
    rollout = Rollout(
        id=f"rollout-{uuid.uuid4().hex[:12]}",
        agent=request.agent,
        version=request.version,
        champion=route.champion,
        challenger=arm,
        stage=stage,
        opened_at=now,
        stage_since=now,
        spec=place.agent.rollout,
        keep_shadow=route.shadows,
        override=override,
    )
    saved = place.control.save_rollout(rollout)
    detail = {"rollout": saved.id, "version": request.version, "stage": stage}
    place.control.audit("rollout opened", "roll_out", detail, now)
    return saved


def fetch(place: Workplace, version: Version) -> Path:
    """The version's adapter in its folder on this disk, whole or not at all: what the registry gives is checked beside
    that folder and then takes its name. Several processes may fetch one version."""
    from pawl.errors import ModelFileError
    from pawl.registry.adapter_hash import adapter_sha256
    from pawl.training.adapter_check import base_at_hand, check_adapter

    folder = place.settings.adapters_dir / version.adapter
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", suffix=".part", dir=folder.parent))
    try:
        found = place.registry.download(version, part)
        if adapter_sha256(found) != version.sha256:
            raise ModelFileError(f"{version.adapter}: the registry's files do not have the registered hash; not loaded")
        check_adapter(found, base_at_hand(place.fleet.base_model, place.settings.models_dir))
        found.chmod(0o755)
        try:
            found.rename(folder)
        except OSError:
            if not folder.exists():  # else another process was first, with the same files
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def present(place: Workplace, version: Version) -> Path:
    """The version's adapter in its folder on disk, loaded and verified on the cluster under its own name."""
    folder = fetch(place, version)
    _load(place, {version.adapter: str(folder.resolve())})
    return folder


def _load(place: Workplace, wanted: dict[str, str]) -> None:
    from pawl.training.adapter_check import base_at_hand

    base = base_at_hand(place.fleet.base_model, place.settings.models_dir)
    vllm_adapters.reconcile(place.settings.vllm_url, wanted, base)


def restore(place: Workplace) -> None:
    """Load whatever a route or an open rollout names and the cluster has forgotten (a restart does that)."""
    wanted = {}
    route = current_route(place.fleet, place.control, place.agent)
    for arm in (route.champion, route.challenger, *route.shadows):
        folder = place.settings.adapters_dir / arm.name if arm else None
        if arm and arm.kind == "local" and folder and folder.exists():
            wanted[arm.name] = str(folder.resolve())
    if wanted:
        _load(place, wanted)


def settle(place: Workplace, rollout: Rollout) -> None:
    """After a rollout's end: move the aliases (success) or remember the adapter as rejected (rolled back)."""
    registry, agent = place.registry, place.agent_name
    now = time.time()
    if rollout.stage == "done":
        champion = registry.by_alias(agent, "champion")
        if champion is not None and champion.number != rollout.version:
            registry.move_alias(agent, "previous", champion.number)
        if champion is None or champion.number != rollout.version:
            registry.move_alias(agent, "champion", rollout.version)
            detail = {"agent": agent, "version": rollout.version}
            place.control.audit("champion moved", "roll_out", detail, now)
        registry.drop_alias(agent, "challenger")
    elif rollout.stage == "rolled_back":
        version = registry.version(agent, rollout.version)
        why = rollout.history[-1].decision.reason if rollout.history else "rolled back"
        place.control.reject_adapter(version.sha256, agent, f"rolled back: {why}", now)
        challenger = registry.by_alias(agent, "challenger")
        if challenger is not None and challenger.number == rollout.version:
            registry.drop_alias(agent, "challenger")
    registry.tag(agent, rollout.version, "rollout", rollout.stage)


def settled(place: Workplace, rollout: Rollout) -> bool:
    """Whether `settle` finished for this rollout; it is repeated until it did."""
    return place.registry.version(place.agent_name, rollout.version).tags.get("rollout") == rollout.stage


def advance(place: Workplace, now: float | None = None) -> tuple[Rollout, str] | None:
    """One tick of the open rollout: gather evidence, decide, move. None where none is open."""
    from pawl.rollout.decide import decide
    from pawl.rollout.evidence import gather
    from pawl.rollout.state import move

    rollout = place.control.open_rollout(place.agent_name)
    if rollout is None:
        return None
    at = time.time() if now is None else now
    seen = place.lake.interactions(place.agent_name, since=rollout.opened_at, until=None)
    said = place.lake.feedback(place.agent_name, since=rollout.opened_at, until=None)
    decision = decide(rollout, gather(rollout, seen, said), at)
    moved = move(rollout, decision, by="roll_out", now=at)
    if moved is rollout:
        return rollout, f"{decision.action}: {decision.reason}"
    try:
        saved = place.control.save_rollout(moved)
    except StaleWrite:
        return rollout, "another writer was first; the next tick looks again"
    detail = {"rollout": saved.id, "from": rollout.stage, "to": saved.stage, "why": decision.reason}
    place.control.audit("rollout moved", "roll_out", detail, at)
    return saved, f"{rollout.stage} -> {saved.stage}: {decision.reason}"
