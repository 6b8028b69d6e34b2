"""kill -9 before and after every write of a rollout's life: whoever comes next finds a legal state with its route, and
goes on to the same end.

Each life is lived by child processes over one control database, one journal and one registry (in a process of its own,
like a server). A child is killed at its n-th write; the next one goes on from there, until one lives to the end.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from functools import cached_property
from multiprocessing.managers import BaseManager
from typing import Any, Literal

import pytest

from pawl.improvement import approving, rolling
from pawl.registry import approvals
from pawl.registry.memory_registry import MemoryRegistry
from pawl.rollout.control_sqlite import SqliteControl
from pawl.rollout.state import TERMINAL, order, route_of
from pawl.settings import Settings
from tests.integration.promotion_place import AGENT, Cluster, Place, key, registered, traffic

WRITES = {
    "save_rollout", "put_route", "audit", "move_alias", "drop_alias", "tag", "reject_adapter", "move_pointer", "ask",
    "amend_request", "record_approval",
}  # fmt: skip
MOST = 80  # lives
REACH = 4  # a life ends at its first write, the next at its second, ...: what is repeated must not stop all others
FORK = multiprocessing.get_context("fork")
When = Literal["before", "after"]


class Registries(BaseManager):
    """A registry that outlives the processes that use it."""


Registries.register("registry", MemoryRegistry)


class Deadly:
    """A port whose n-th write ends the process, before or after it is done."""

    def __init__(self, port: Any, count: list[int], at: int, when: When) -> None:
        self._port, self._count, self._at, self._when = port, count, at, when

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        if name not in WRITES:
            return found

        def write(*given: Any, **named: Any) -> Any:
            self._count[0] += 1
            last = self._count[0] == self._at
            if last and self._when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            done = found(*given, **named)
            if last:
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        return write


class DeadlyPlace(Place):
    """A place whose control database and registry kill at the n-th write of both."""

    def arm(self, at: int, when: When) -> DeadlyPlace:
        object.__setattr__(self, "_terms", ([0], at, when))
        return self

    @cached_property
    def control(self) -> Any:
        return Deadly(SqliteControl(self.settings.control_db), *self._terms)  # type: ignore[attr-defined]

    @property
    def registry(self) -> Any:  # type: ignore[override]
        return Deadly(self.memory, *self._terms)  # type: ignore[attr-defined]


@pytest.fixture
def registry() -> Iterator[Any]:
    with Registries(ctx=FORK) as server:
        yield server.registry()  # type: ignore[attr-defined]


def live_on(place: Place, scores: dict[str, float]) -> None:
    """What ticks of roll_out do until nothing is left to do: open, move on, settle."""
    stages = order(place.agent.rollout)
    while True:
        rollout = place.control.open_rollout(AGENT)
        if rollout is None:
            for ended in reversed(place.control.rollouts(AGENT)):
                if ended.stage in TERMINAL and not rolling.settled(place, ended):
                    rolling.settle(place, ended)
            request = approving.ready(place, time.time())
            if request is None:
                return
            rolling.open_rollout(place, request)
            continue
        traffic(place, rollout.stage, scores, amount=100 if rollout.stage == "20" else 40)
        moved = rolling.advance(place, time.time() + 10 * (1 + stages.index(rollout.stage)))
        assert moved is not None and moved[0].stage != rollout.stage, moved


def child(settings: Settings, registry: Any, at: int, when: When, scores: dict[str, float]) -> None:
    live_on(DeadlyPlace(settings, AGENT, registry).arm(at, when), scores)
    os._exit(0)


def legal(settings: Settings) -> str:
    """The stage that a fresh look finds; the route is the one it demands, and the audit log is whole."""
    control = SqliteControl(settings.control_db)
    try:
        assert control.verify_audit() is None
        rollouts = control.rollouts(AGENT)
        if not rollouts:
            return ""
        rollout, route = rollouts[0], control.route(AGENT)
        assert route is not None and route.revision == rollout.route_revision
        wanted = route_of(rollout)
        for name in ("champion", "challenger", "percent", "shadows", "rollout", "stage"):
            assert getattr(route, name) == getattr(wanted, name), name
        assert rollout.stage in (*order(rollout.spec), "rolled_back")
        assert len(rollouts) == 1, "no second rollout of the same version"
        return rollout.stage
    finally:
        control.close()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("better", [True, False])
def test_it_converges_wherever_it_is_killed(
    place: Place, cluster: Cluster, registry: Any, when: When, better: bool
) -> None:
    settings, scores = place.settings, {"champion": 0.2, "challenger": 0.8}
    if not better:
        scores = {"champion": 0.9, "challenger": 0.0}
    start = Place(settings, AGENT, registry)
    made = registered(start)
    request = start.control.request(AGENT, made.version)
    assert request is not None
    now = time.time()
    approvals.approve_by_key(start.control, request, key(start, "approver"), expires=now + 600, now=now)
    start.control.close()  # type: ignore[attr-defined]
    killed, seen = 0, [""]
    for at in range(1, MOST):
        life = FORK.Process(target=child, args=(settings, registry, 1 + at % REACH, when, scores))
        life.start()
        life.join(60)
        stage = legal(settings)
        if stage != seen[-1]:
            seen.append(stage)
        if life.exitcode == 0:
            break
        assert life.exitcode == -signal.SIGKILL, f"life {at} ended with {life.exitcode}"
        killed += 1
    else:
        pytest.fail("it never came to an end")
    moved = [e["detail"]["to"] for e in SqliteControl(settings.control_db).audit_log() if e["event"] == "rollout moved"]
    stages = [*order(place.agent.rollout)] if better else ["shadow", "rolled_back"]
    assert moved == stages[1:], "every move is in the audit log, no stage was left out, none came twice"
    assert [s for s in stages if s in seen] == seen[1:] and seen[-1] == stages[-1]
    assert killed >= (6 if better else 2)
    control = SqliteControl(settings.control_db)
    route = control.route(AGENT)
    champion = registry.by_alias(AGENT, "champion")
    assert route is not None and registry.by_alias(AGENT, "challenger") is None
    if better:
        assert champion is not None and champion.number == made.version and route.champion.name == made.adapter
    else:
        assert champion is None and route.champion.name == "base"
        assert "rolled back" in (control.rejection(registry.version(AGENT, made.version).sha256) or "")
