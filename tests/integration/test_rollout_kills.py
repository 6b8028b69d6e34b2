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
from collections.abc import Callable, Iterator
from functools import cached_property
from multiprocessing.managers import BaseManager
from typing import Any, Literal

import pytest

from pawl.improvement import approving, by_hand, rolling
from pawl.improvement.promotion import Registered
from pawl.registry import approvals
from pawl.registry.memory_registry import MemoryRegistry
from pawl.rollout.control import AuditEntry, Key
from pawl.rollout.control_sqlite import SqliteControl
from pawl.rollout.state import TERMINAL, Decision, Rollout, move, order, route_of
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
Meddle = Callable[[Place, Rollout | None], bool]
AT_50 = (
    "rollout halve by watchdog", "rollout paused by hand", "rollout reduced by hand", "rollout resumed",
    "rollout hold by watchdog", "rollout resumed",
)  # fmt: skip


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


def live_on(place: Place, scores: dict[str, float], meddle: Meddle | None = None) -> None:
    """What ticks of roll_out do until nothing is left to do: open, move on, settle. `meddle` comes before each tick,
    and says whether it did anything."""
    stages = order(place.agent.rollout)
    while True:
        rollout = place.control.open_rollout(AGENT)
        if meddle is not None and meddle(place, rollout):
            continue
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


def stopped(place: Place, rollout: Rollout, action: Literal["halve", "hold"]) -> None:
    """What the watchdog writes."""
    now = time.time()
    moved = move(rollout, Decision(action=action, reason="x"), by="watchdog", now=now)
    place.control.save_rollout(moved, AuditEntry(f"rollout {action} by watchdog", "watchdog", {}, now))


def meddled(place: Place, rollout: Rollout | None) -> bool:
    """At 50 % the watchdog and a person do all that neither advances nor ends it; at the end a person goes back."""
    if rollout is None:
        latest = next(iter(place.control.rollouts(AGENT)), None)
        if latest is None or latest.restores:
            return False
        if rolling.settled(place, latest):
            by_hand.restore(place, "base", person(place), "it was better")
        else:
            rolling.settle(place, latest)
        return True
    done = sum(t.stage_from == t.stage_to == "50" for t in rollout.history)
    if rollout.stage != "50" or done == len(AT_50):
        return False
    match AT_50[done]:
        case "rollout halve by watchdog":
            stopped(place, rollout, "halve")
        case "rollout hold by watchdog":
            stopped(place, rollout, "hold")
        case "rollout paused by hand":
            by_hand.pause(place.control, AGENT, person(place), "a look")
        case "rollout reduced by hand":
            by_hand.reduce(place.control, AGENT, 10, person(place), "less of it")
        case _:
            by_hand.resume(place.control, AGENT, person(place))
    return True


def person(place: Place) -> Key:
    return next(k for k in place.control.keys() if k.role == "operator")  # noqa: SIM118 - a method


def child(
    settings: Settings, registry: Any, at: int, when: When, scores: dict[str, float], meddle: Meddle | None = None
) -> None:
    live_on(DeadlyPlace(settings, AGENT, registry).arm(at, when), scores, meddle)
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
        assert [r.restores for r in rollouts] in ([False], [True, False]), "no second rollout of the same version"
        return rollout.stage
    finally:
        control.close()


def approved(settings: Settings, registry: Any) -> Registered:
    """A version that waits for nothing but its rollout."""
    start = Place(settings, AGENT, registry)
    made = registered(start)
    request = start.control.request(AGENT, made.version)
    assert request is not None
    now = time.time()
    approvals.approve_by_key(start.control, request, key(start, "approver"), expires=now + 600, now=now)
    key(start, "operator")
    start.control.close()  # type: ignore[attr-defined]
    return made


def lives(
    settings: Settings, registry: Any, when: When, scores: dict[str, float], meddle: Meddle | None = None
) -> tuple[int, list[str]]:
    """Live until one life comes to the end: how many were killed, and the stages that were found in between."""
    killed, seen = 0, [""]
    for at in range(1, MOST):
        life = FORK.Process(target=child, args=(settings, registry, 1 + at % REACH, when, scores, meddle))
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
    return killed, seen


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("better", [True, False])
def test_it_converges_wherever_it_is_killed(
    place: Place, cluster: Cluster, registry: Any, when: When, better: bool
) -> None:
    settings, scores = place.settings, {"champion": 0.2, "challenger": 0.8}
    if not better:
        scores = {"champion": 0.9, "challenger": 0.0}
    made = approved(settings, registry)
    killed, seen = lives(settings, registry, when, scores)
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


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_the_watchdog_and_people_do_is_whole_too(
    place: Place, cluster: Cluster, registry: Any, when: When
) -> None:
    settings, scores = place.settings, {"champion": 0.2, "challenger": 0.8}
    approved(settings, registry)
    killed, _ = lives(settings, registry, when, scores, meddled)
    control = SqliteControl(settings.control_db)
    told = [e["event"] for e in control.audit_log()]
    assert [event for event in told if event in {*AT_50, "restored"}] == [*AT_50, "restored"], "each of them once"
    restored, rolled_out = control.rollouts(AGENT)
    assert (restored.stage, rolled_out.stage) == ("done", "done")
    held = [(t.stage_to, t.by) for t in rolled_out.history if t.stage_from == t.stage_to]
    assert held == [("50", "watchdog" if "watchdog" in what else "a operator") for what in AT_50]
    route = control.route(AGENT)
    assert route is not None and (route.champion.name, route.challenger) == ("base", None)
    assert registry.by_alias(AGENT, "champion").number == rolled_out.version, "the base model is no version"
    assert registry.by_alias(AGENT, "challenger") is None
    assert killed >= 8
