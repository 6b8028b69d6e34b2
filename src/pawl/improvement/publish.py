"""Assembles the loop's page from what is recorded: lake, control database, registry and the candidate's evidence."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from pawl.bootstrap import upstream_arm
from pawl.curation.dataset import load
from pawl.evaluation.report import Comparison, GateDecision, Interval
from pawl.improvement.continuing import forgotten, judged
from pawl.improvement.preparing import reports_of
from pawl.improvement.steps import Lineage, training_of
from pawl.improvement.workplace import Candidate, Workplace
from pawl.lake.records import Feedback, Interaction
from pawl.monitoring import timeline
from pawl.monitoring.economics import Economics, summarise
from pawl.monitoring.loop_data import (
    DatasetFacts,
    Distance,
    LoopReport,
    OnlinePoint,
    Setback,
    TimeSplit,
    TrainingFacts,
    Week,
)
from pawl.monitoring.loop_report import write
from pawl.registry.port import Version
from pawl.rollout.state import Rollout
from pawl.validation.report import warnings_of


def evidence_page(place: Workplace, candidate: Candidate) -> Path:
    """The page an approver reads: rendered when the gate has decided, before anything is registered."""
    return write(_data(place, candidate, None, None), place.settings.reports_dir / f"{candidate.id}-evidence.html")


def final_page(place: Workplace, rollout: Rollout) -> Path:
    """The page at the rollout's end, attached to the version in the registry."""
    version = place.registry.version(place.agent_name, rollout.version)
    candidate = Candidate(place.settings.home / "candidates" / version.tags["candidate"])
    path = write(_data(place, candidate, version, rollout), place.settings.reports_dir / f"{version.adapter}.html")
    place.registry.attach(place.agent_name, version.number, path)
    return path


def loop_page(place: Workplace) -> Path:
    """The page over everything so far, with the best version that serves now: `report.html` of the agent."""
    rollouts = place.control.rollouts(place.agent_name)
    done = next((r for r in rollouts if r.stage == "done" and not r.restores), None)
    target = place.settings.reports_dir / f"{place.agent_name}.html"
    if done is None:
        return write(LoopReport(title="Pawl", agent=place.agent_name, generated_at=time.time()), target)
    version = place.registry.version(place.agent_name, done.version)
    candidate = Candidate(place.settings.home / "candidates" / version.tags["candidate"])
    path = write(_data(place, candidate, version, done), target)
    place.registry.attach(place.agent_name, version.number, path)
    return path


def _data(place: Workplace, candidate: Candidate, version: Version | None, rollout: Rollout | None) -> LoopReport:
    agent = place.agent_name
    lineage = candidate.read("lineage", Lineage)
    comparison = candidate.read("comparison", Comparison)
    trained = training_of(candidate)
    dataset = load(place.settings.datasets_dir / lineage.dataset)
    losses = tuple(loss for _, loss in candidate.read("losses", list[tuple[int, float]]))
    seen = place.lake.interactions(agent, since=None, until=None)
    said = place.lake.feedback(agent, since=None, until=None)
    scores = _scores(said)
    cloud = next((n for n, u in place.fleet.upstreams.items() if u.kind == "cloud"), None)
    approvals = place.control.approvals(agent, version.number) if version else []
    names = {"report_digest": comparison.digest()}
    if version:
        names |= {"registry_version": version.number, "adapter": version.adapter}
    return LoopReport(
        title="A week of learning",
        agent=agent,
        generated_at=time.time(),
        week=time.strftime("%Y-%m-%d", time.localtime()),
        comparison=comparison,
        gate=candidate.read("gate", GateDecision),
        dataset=DatasetFacts(
            fingerprint=dataset.fingerprint,
            counts=dataset.counts,
            examples=len(dataset.train),
            sources=len(dataset.sources),
            warnings=warnings_of(reports_of(place.settings.datasets_dir / lineage.dataset)),
            red=tuple(f"{c.name}: {c.value}, needed {c.needed}" for c in dataset.card.red) if dataset.card else (),
        ),
        training=TrainingFacts(
            steps=trained.steps,
            seconds=trained.seconds,
            tokens_per_second=trained.tokens_per_s,
            losses=losses,
            start=lineage.parent,
        ),
        lineage={k: str(v) for k, v in msgspec.to_builtins(lineage).items()} | names,
        request=place.control.request(agent, version.number) if version else None,
        approval=approvals[-1] if approvals else None,
        rollout=rollout,
        online=_online(rollout, seen, scores) if rollout else (),
        harm=_harm(rollout, seen, said) if rollout else (),
        economics=_economics(place, cloud, seen) if cloud else None,
        distance=_distance(place, cloud, seen, scores) if cloud else None,
        weeks=_weeks(place),
        forgetting=forgotten(place),
        setbacks=_setbacks(place, seen),
        time_split=_time_split(place),
    )


def _economics(place: Workplace, cloud: str, seen: list[Interaction]) -> Economics:
    """Priced at the cloud upstream, whose arm bears its model's name."""
    return summarise(seen, name=upstream_arm(place.fleet, cloud).name, upstream=place.fleet.upstreams[cloud])


def _scores(said: list[Feedback]) -> dict[str, float]:
    return {f.interaction: f.score for f in said if f.kind == "outcome" and f.score is not None}


def _online(rollout: Rollout, seen: list[Interaction], scores: dict[str, float]) -> tuple[OnlinePoint, ...]:
    points = []
    for i in seen:
        if i.rollout != rollout.id or i.id not in scores:
            continue
        if i.arm == rollout.challenger.name:
            points.append(OnlinePoint(at=i.at, arm="challenger", score=scores[i.id]))
        elif i.arm == rollout.champion.name and i.role == "answer":
            points.append(OnlinePoint(at=i.at, arm="champion", score=scores[i.id]))
    return tuple(points)


def _harm(rollout: Rollout, seen: list[Interaction], said: list[Feedback]) -> tuple[tuple[float, float], ...]:
    from pawl.rollout.decide import evidence_path
    from pawl.rollout.evidence import gather

    return tuple(evidence_path(rollout, gather(rollout, seen, said)))


def rollout_plot(place: Workplace, rollout: Rollout) -> str:
    """One rollout through its stages, as SVG: scores of both arms, and the evidence of harm."""
    from pawl.monitoring import plots_matplotlib as plot

    seen = place.lake.interactions(rollout.agent, since=rollout.opened_at, until=None)
    said = place.lake.feedback(rollout.agent, since=rollout.opened_at, until=None)
    online = _online(rollout, seen, _scores(said))
    draw = plot.rollout_timeline(rollout, online, _harm(rollout, seen, said))
    return plot.svg(draw, width=10, height=4.2, background="white")


def _distance(place: Workplace, cloud: str, seen: list[Interaction], scores: dict[str, float]) -> Distance | None:
    """The cloud's shadow answers beside what the serving arm answered to the same requests."""
    from pawl.bootstrap import current_route
    from pawl.evaluation.paired import clustered_mean

    serving = current_route(place.fleet, place.control, place.agent).champion.name
    answers = {i.id: i for i in seen if i.role == "answer" and i.arm == serving and i.id in scores}
    name = upstream_arm(place.fleet, cloud).name
    pairs = [
        (answers[i.shadow_of], i)
        for i in seen
        if i.role == "shadow" and i.arm == name and i.shadow_of in answers and i.id in scores
    ]
    if not pairs:
        return None

    def interval(rows: list[tuple[str, float]]) -> Interval:
        return clustered_mean(rows, alpha=place.agent.evaluation.alpha)

    return Distance(
        upstream=name,
        stand_in=place.fleet.upstreams[cloud].stand_in,
        score=interval([(str(a.task.get("source", a.id)), scores[s.id]) for a, s in pairs]),
        local=interval([(str(a.task.get("source", a.id)), scores[a.id]) for a, _ in pairs]),
        items=len(pairs),
    )


def _weeks(place: Workplace) -> tuple[Week, ...]:
    """The first champion, then every challenger that took over, oldest first."""
    weeks: list[Week] = []
    done = [r for r in reversed(place.control.rollouts(place.agent_name)) if r.stage == "done"]
    for n, rollout in enumerate(done, start=1):
        comparison = judged(place, rollout.version)
        if comparison is None:
            continue
        if not weeks:
            weeks.append(Week(week="before", score=comparison.champion.score, version=comparison.champion.name))
        weeks.append(
            Week(
                week=f"week {n}",
                score=comparison.challenger.score,
                p_versus_before=comparison.p_better,
                version=rollout.challenger.name,
            )
        )
    return tuple(weeks)


def _setbacks(place: Workplace, seen: list[Interaction]) -> tuple[Setback, ...]:
    found = []
    for entry in place.control.audit_log():
        detail = entry["detail"]
        if entry["event"] == "gate rejected" and detail["agent"] == place.agent_name:
            reasons = tuple(str(r) for r in detail["reasons"])
            found.append(Setback(version=detail["version"], at=entry["at"], kind="refused", reasons=reasons))
    for rollout in place.control.rollouts(place.agent_name):
        if rollout.stage != "rolled_back" or not rollout.history:
            continue
        last = rollout.history[-1]
        mine = [i for i in seen if i.rollout == rollout.id and i.role == "answer"]
        first = min((i.at for i in mine if i.arm == rollout.challenger.name), default=rollout.opened_at)
        reasons = (last.decision.reason,)
        if rollout.override:
            forced = f"forced past {' and '.join(rollout.override.skips)} by {rollout.override.by}"
            reasons += (f"{forced}: {rollout.override.reason}",)
        found.append(
            Setback(
                version=rollout.version,
                at=last.at,
                kind="rolled_back",
                reasons=reasons,
                rollback_s=last.at - first,
                answered_during=sum(1 for i in mine if i.arm == rollout.challenger.name),
            )
        )
    return tuple(sorted(found, key=lambda s: s.at))


def _time_split(place: Workplace) -> TimeSplit | None:
    spans = timeline.read(place.timeline)
    if not spans:
        return None
    sessions = timeline.sessions(place.settings.home / "sessions.jsonl", time.time())
    found = timeline.split(spans, sessions or [(min(s.start for s in spans), time.time())])
    return TimeSplit(model_s=found.model, evidence_s=found.waiting, orchestration_s=found.orchestration)
