"""The loop as Prometheus sees it: who serves, what rolls out, what waits for people, the record's disk and journal.

What lies in the control database and on disk is read in a thread every few seconds, never while Prometheus waits.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pawl.gateway.snapshot import Snapshot
from pawl.lake.journal import SEALED
from pawl.monitoring import baseline, drift_record
from pawl.monitoring.drift_record import DriftRecord
from pawl.monitoring.progress import ProgressFile
from pawl.registry.approvals import standing, unanswered
from pawl.rollout.control import ControlStore, Request
from pawl.rollout.route import Arm
from pawl.rollout.state import TERMINAL, percent_of

log = logging.getLogger("pawl.gateway")
EVERY_S = 10.0
_STEPS = {"trained": "training.json", "judged": "comparison.json"}  # files that a candidate's steps leave


class Waiting(msgspec.Struct, frozen=True):
    """An approval that was asked for and has led to no rollout yet. Times are epoch seconds."""

    agent: str
    state: str  # waiting, approved, expired
    asked_at: float
    expires: float


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What one look found."""

    waiting: tuple[Waiting, ...] = ()
    ended: Mapping[tuple[str, str], int] = {}  # (agent, done or rolled_back) -> rollouts
    baselines: Mapping[tuple[str, str], float] = {}  # (agent, arm) -> 0..1
    drift: Mapping[str, DriftRecord] = {}  # by agent, of the champion of now
    steps: Mapping[tuple[str, str], float] = {}  # (agent, step of a candidate) -> when it was last done
    progress: tuple[str, float, float] | None = None  # what is under way, share done, when that was written
    lag_s: float = 0.0
    segments: int = 0
    segment_bytes: int = 0
    disk_free: int = 0
    disk_size: int = 0


class LoopMetrics(Collector):
    """Reads the route snapshot when it is asked, and tells its own latest look at the rest."""

    def __init__(
        self, control: ControlStore, snapshot: Snapshot, alarms: Callable[[], Collection[str]], home: Path
    ) -> None:
        """`alarms`: agents whose champion breaks a limit now."""
        self._control, self._snapshot, self._alarms, self._home = control, snapshot, alarms, home
        self.seen = Seen()
        self._looked_at = 0.0

    async def follow(self) -> None:
        """For ever."""
        while True:
            try:
                self.seen, self._looked_at = await asyncio.to_thread(self.look), time.time()
            except Exception:  # a look that fails shows as the age of the last one that did not
                log.exception("the figures of the loop could not be read; trying again")
            await asyncio.sleep(EVERY_S)

    def look(self) -> Seen:
        """One look at the control database and the disk."""
        now, agents, requests = time.time(), list(self._snapshot.routes), self._control.requests()
        arms = [(r.agent, arm) for r in self._snapshot.routes.values() for arm in (r.champion, r.challenger) if arm]
        rollouts = [r for agent in agents for r in self._control.rollouts(agent)]
        ended = {(a, stage): 0 for a in agents for stage in TERMINAL}
        for r in rollouts:
            if r.stage in TERMINAL:
                ended[r.agent, r.stage] += 1
        usage = shutil.disk_usage(self._home)
        lag_s, segments, size = journal_state(self._home / "journal", now)
        progress = ProgressFile(self._home / "progress.json").read()
        return Seen(
            waiting=tuple(self._standing(r, now) for r in unanswered(requests, rollouts) if r.agent in agents),
            ended=ended,
            baselines=self._baselines(arms, requests),
            drift=self._drift(),
            steps=candidate_steps(self._home / "candidates", agents),
            progress=(progress.name, progress.done / max(1, progress.total), progress.at) if progress else None,
            lag_s=lag_s,
            segments=segments,
            segment_bytes=size,
            disk_free=usage.free,
            disk_size=usage.total,
        )

    def _standing(self, r: Request, now: float) -> Waiting:
        given = self._control.approvals(r.agent, r.version)
        state = "approved" if r.override_by is not None else standing(r, given, now)
        return Waiting(r.agent, state, r.asked_at, r.expires)

    def _baselines(self, arms: Sequence[tuple[str, Arm]], requests: Sequence[Request]) -> dict[tuple[str, str], float]:
        found = {(agent, arm.name): baseline.known(self._control, agent, arm, requests) for agent, arm in arms}
        return {at: mean for at, mean in found.items() if mean is not None}

    def _drift(self) -> dict[str, DriftRecord]:
        """What the quality watch found last; what it found of a champion that serves no longer is no news."""
        found = {agent: drift_record.read(self._control, agent) for agent in self._snapshot.routes}
        champions = {agent: route.champion.name for agent, route in self._snapshot.routes.items()}
        return {a: r for a, r in found.items() if r is not None and r.champion == champions.get(a)}

    def describe(self) -> Iterator[Metric]:
        """Nothing: names are told with their values."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """All series of now."""
        yield from self._routes()
        yield from self._rollouts()
        yield from self._approvals()
        yield from self._learning()
        yield from self._drifts()
        yield from self._record()

    def _routes(self) -> Iterator[Metric]:
        champion = GaugeMetricFamily(
            "pawl_champion", "1 for the arm that serves an agent", labels=["agent", "arm", "arm_kind"]
        )
        share = GaugeMetricFamily(
            "pawl_challenger_percent", "Share of sessions at the challenger, percent", labels=["agent"]
        )
        revision = GaugeMetricFamily(
            "pawl_route_revision", "Rises with every change of the agent's route", labels=["agent"]
        )
        alarm = GaugeMetricFamily("pawl_champion_alarm", "1 while what serves breaks a limit", labels=["agent"])
        alarms = self._alarms()
        for agent, route in self._snapshot.routes.items():
            champion.add_metric([agent, route.champion.name, route.champion.kind], 1.0)
            share.add_metric([agent], route.percent)
            revision.add_metric([agent], route.revision)
            alarm.add_metric([agent], float(agent in alarms))
        yield from (champion, share, revision, alarm)

    def _rollouts(self) -> Iterator[Metric]:
        stage = GaugeMetricFamily(
            "pawl_rollout", "1 for the open rollout's stage", labels=["agent", "version", "stage"]
        )
        percent = GaugeMetricFamily("pawl_rollout_percent", "Share of sessions it may have, percent", labels=["agent"])
        held = GaugeMetricFamily("pawl_rollout_held", "1 while it is held", labels=["agent"])
        age = GaugeMetricFamily("pawl_rollout_stage_seconds", "How long it has been in its stage", labels=["agent"])
        stall = GaugeMetricFamily(
            "pawl_rollout_stall_seconds", "How long a stage may last before it has stalled", labels=["agent"]
        )
        for agent, r in self._snapshot.rollouts.items():
            stage.add_metric([agent, r.version, r.stage], 1.0)
            percent.add_metric([agent], percent_of(r))
            held.add_metric([agent], float(r.held))
            age.add_metric([agent], max(0.0, time.time() - r.stage_since))
            stall.add_metric([agent], r.spec.stall_hours * 3600)
        ended = CounterMetricFamily("pawl_rollouts", "Rollouts that ended, by how", labels=["agent", "end"])
        for at, count in self.seen.ended.items():
            ended.add_metric(list(at), count)
        yield from (stage, percent, held, age, stall, ended)

    def _approvals(self) -> Iterator[Metric]:
        amount = GaugeMetricFamily(
            "pawl_approvals", "Approvals asked that led to no rollout yet, by standing", labels=["agent", "standing"]
        )
        age = GaugeMetricFamily("pawl_approval_age_seconds", "Since the oldest was asked", labels=["agent", "standing"])
        left = GaugeMetricFamily("pawl_approval_expires_seconds", "Until the first of them lapses", labels=["agent"])
        now = time.time()
        for agent in self._snapshot.routes:
            mine = [w for w in self.seen.waiting if w.agent == agent]
            for state in ("waiting", "approved", "expired"):
                these = [w for w in mine if w.state == state]
                amount.add_metric([agent, state], len(these))
                if these:
                    age.add_metric([agent, state], now - min(w.asked_at for w in these))
            if open_ones := [w.expires for w in mine if w.state == "waiting"]:
                left.add_metric([agent], min(open_ones) - now)
        yield from (amount, age, left)

    def _learning(self) -> Iterator[Metric]:
        baselines = GaugeMetricFamily(
            "pawl_quality_baseline", "Mean score of an arm at its evaluation, 0 to 1", labels=["agent", "arm"]
        )
        for at, mean in self.seen.baselines.items():
            baselines.add_metric(list(at), mean)
        steps = GaugeMetricFamily(
            "pawl_candidate_step_time_seconds",
            "Epoch time at which a candidate was last trained or judged, where this machine has its folder",
            labels=["agent", "step"],
        )
        for at, when in self.seen.steps.items():
            steps.add_metric(list(at), when)
        share = GaugeMetricFamily("pawl_work_done_ratio", "Share done of the long work under way here, 0 to 1")
        told = GaugeMetricFamily("pawl_work_told_time_seconds", "Epoch time at which it last said so")
        if self.seen.progress is not None:
            share.add_metric([], self.seen.progress[1])
            told.add_metric([], self.seen.progress[2])
        yield from (baselines, steps, share, told)

    def _drifts(self) -> Iterator[Metric]:
        drift = GaugeMetricFamily(
            "pawl_drift",
            "1 while a kind of the agent's traffic has drifted, 0 where it is watched",
            labels=["agent", "kind"],
        )
        evidence = GaugeMetricFamily(
            "pawl_drift_evidence_ratio",
            "Evidence of drift as a share of what is told as one, on a logarithmic scale: 0 none, 1 enough",
            labels=["agent", "kind"],
        )
        looked = GaugeMetricFamily(
            "pawl_drift_looked_time_seconds", "Epoch time of the last look for drift", labels=["agent"]
        )
        for agent, record in self.seen.drift.items():
            for kind, now in record.kinds.items():
                drift.add_metric([agent, kind], float(now.since is not None))
                evidence.add_metric([agent, kind], drift_record.share(record, now))
            looked.add_metric([agent], record.looked_at)
        yield from (drift, evidence, looked)

    def _record(self) -> Iterator[Metric]:
        seen = self.seen
        for name, what, value in (
            ("pawl_lake_lag_seconds", "Age of the oldest sealed journal segment that is not in the lake", seen.lag_s),
            ("pawl_journal_segments", "Sealed journal segments that are not in the lake", seen.segments),
            ("pawl_journal_bytes", "Their size", seen.segment_bytes),
            ("pawl_disk_free_bytes", "Free on the disk of PAWL_HOME", seen.disk_free),
            ("pawl_disk_size_bytes", "Size of that disk", seen.disk_size),
            ("pawl_loop_looked_time_seconds", "Epoch time of the last look at all this", self._looked_at),
        ):
            family = GaugeMetricFamily(name, what)
            if self._looked_at or name == "pawl_loop_looked_time_seconds":
                family.add_metric([], value)
            yield family


def journal_state(folder: Path, now: float) -> tuple[float, int, int]:
    """Of the sealed segments: age of the oldest in seconds, how many, their bytes."""
    found = []
    for path in folder.glob(f"*{SEALED}"):
        try:
            found.append(path.stat())
        except FileNotFoundError:
            continue  # the lake took it in
    return max((now - s.st_mtime for s in found), default=0.0), len(found), sum(s.st_size for s in found)


def candidate_steps(folder: Path, agents: Sequence[str]) -> dict[tuple[str, str], float]:
    """When each step was last done for any candidate of an agent, by the files that steps leave."""
    found: dict[tuple[str, str], float] = {}
    for step, name in _STEPS.items():
        for path in folder.glob(f"*/{name}"):
            agent = path.parent.name.rpartition("-")[0]
            if agent in agents:
                found[agent, step] = max(path.stat().st_mtime, found.get((agent, step), 0.0))
    return found
