"""Tasks that register, ask, and move rollouts."""

from __future__ import annotations

import logging
import time

from prefect import task

from pawl.bootstrap import fleet
from pawl.errors import NotThere, PawlError
from pawl.improvement import alias_watch, approving, attending, placing, promotion, publish, rolling
from pawl.rollout.state import TERMINAL
from pawl.settings import Settings
from tasks.failures import BRIEF, MINUTE_S, PATIENT
from tasks.places import candidate, workplace
from tasks.showing import link, rename
from tasks.values import Judged, Moved, Promoted

log = logging.getLogger("pawl.promotion")


@task
def agents_of_fleet() -> tuple[str, ...]:
    """All agents."""
    return tuple(a.name for a in fleet(Settings()).agents)


@task(**PATIENT, timeout_seconds=30 * MINUTE_S)
def register(judged: Judged) -> Promoted:
    """Register with lineage and report; ask for approval where the gate says promote."""
    place = workplace(judged.agent)
    made = candidate(place, judged.candidate)
    page = place.settings.reports_dir / f"{made.id}-evidence.html"
    done = promotion.register(place, made, page)
    agent, named = judged.agent, f"{judged.agent} version {done.version}"
    came_to = f"promote, but {done.unasked}" if done.unasked else done.decision
    rename(f"promote {named}: {came_to}")
    rename(f"improve {named}: {came_to}", above=True)
    link(f"version-{agent}", done.url, f"{done.adapter}: {came_to}", "The version in MLflow")
    kept = place.registry.link_to(place.registry.version(agent, done.version), "report.html")
    link(f"report-{agent}", kept, f"report of {done.adapter}", "The evidence, as an approver sees it")
    return Promoted(
        agent=judged.agent,
        version=done.version,
        adapter=done.adapter,
        decision=done.decision,
        evidence=done.evidence,
        url=done.url,
        unasked=done.unasked,
    )


@task(**BRIEF, timeout_seconds=10 * MINUTE_S)
def open_approved(agent: str) -> Moved | None:
    """Open the rollout of an approved (or forced) request, when no other is open; look after those that wait."""
    place = workplace(agent)
    attending.attend(place, time.time())
    placing.restore(place)
    if place.control.open_rollout(agent) is not None:
        return None
    request = approving.ready(place, time.time())
    if request is None:
        return None
    rollout = rolling.open_rollout(place, request)
    return Moved(agent=agent, stage=rollout.stage, version=rollout.version, what="opened")


@task(**BRIEF, timeout_seconds=10 * MINUTE_S)
def tick(agent: str) -> Moved | None:
    """Move the open rollout on by its evidence."""
    moved = rolling.advance(workplace(agent))
    return None if moved is None else Moved(agent=agent, stage=moved[0].stage, version=moved[0].version, what=moved[1])


@task(**BRIEF, timeout_seconds=10 * MINUTE_S)
def settle(agent: str) -> tuple[Moved, ...]:
    """Aliases and the final page of rollouts that have ended; repeated until it is done."""
    place = workplace(agent)
    settled = []
    # The oldest first: what the latest one demands of the aliases holds.
    for rollout in reversed(place.control.rollouts(agent)):
        if rollout.stage in TERMINAL and not rolling.settled(place, rollout):
            rolling.remember(place, rollout)  # needs no registry, which the page does
            if not rollout.restores:
                try:
                    publish.final_page(place, rollout)
                except NotThere as e:
                    log.warning("the last page of %s is not drawn: %s", rollout.id, e)
            rolling.settle(place, rollout)
            settled.append(Moved(agent=agent, stage=rollout.stage, version=rollout.version, what="settled"))
    return tuple(settled)


@task(timeout_seconds=5 * MINUTE_S)
def watch_aliases(agent: str) -> tuple[Moved, ...]:
    """Put back the aliases that something other than promotion moved; without the registry, the next run looks."""
    place = workplace(agent)
    try:
        strays = alias_watch.watch(place, time.time())
    except PawlError as e:
        log.warning("the aliases of %s could not be looked at: %s", agent, e)
        return ()
    return tuple(
        Moved(
            agent=agent,
            stage=s.alias,
            version=s.expected,
            what=f"named {s.found or 'none'}, put back to {s.expected or 'none'}",
        )
        for s in strays
        if s.put_back
    )


def name_by(moved: tuple[Moved, ...]) -> None:
    """Name the run after what it moved; one that moved nothing keeps its name."""
    stayed = ("hold", "another")
    told = [f"{m.agent} version {m.version}: {m.what.split(': ')[0]}" for m in moved if not m.what.startswith(stayed)]
    if told:
        rename("; ".join(told))
