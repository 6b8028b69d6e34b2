"""The watchdog's looks: what is wrong with one agent, or with the lake, blinds it for nobody; it keeps no texts."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from pawl.fleet.spec import AgentSpec, RolloutSpec
from pawl.gateway.snapshot import Snapshot
from pawl.gateway.watchdog import Watchdog, pause_s
from pawl.lake.journal import Journal
from pawl.lake.parquet_lake import ParquetLake
from pawl.lake.records import Feedback, Interaction, Record
from pawl.rollout.control_sqlite import SqliteControl
from pawl.rollout.events import Event
from pawl.rollout.route import Arm, Route, choose
from pawl.rollout.state import Rollout, route_of

OLD, NEW = (Arm(n, "local", n, "local") for n in ("old", "new"))
AGENTS = tuple(AgentSpec(name=name, task="generic") for name in ("one", "two"))
SPEC = RolloutSpec(min_stage_sessions=1000)


class Told:
    """Events, kept."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def emit(self, event: Event) -> bool:
        self.names.append(f"{event.name} {event.agent}")
        return True


class Scene:
    """A watchdog on a control database and a lake of its own."""

    def __init__(self, home: Path) -> None:
        self.home, self.told = home, Told()
        self.control = SqliteControl(home / "control.sqlite")
        self.snapshot = Snapshot(self.control, AGENTS, lambda agent: Route(agent=agent.name, champion=OLD))
        self.lake = ParquetLake(home / "lake", home / "journal")
        self.dog = Watchdog(self.control, self.snapshot, self.lake, {a.name: a.rollout for a in AGENTS}, self.told)

    def opened(self, agent: str) -> Rollout:
        rollout = self.control.save_rollout(
            Rollout(
                id=f"r-{agent}",
                agent=agent,
                version="1",
                champion=OLD,
                challenger=NEW,
                stage="50",
                opened_at=time.time(),
                stage_since=time.time(),
                spec=SPEC,
            )
        )
        self.snapshot.refresh()
        return rollout

    def stage(self, agent: str) -> str:
        return self.control.rollouts(agent)[0].stage


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def calls(rollout: Rollout, arm: Arm, n: int, /, **more: object) -> list[Interaction]:
    """Calls of as many sessions that the split sends to this arm."""
    sessions = (s for s in (f"s{k}" for k in range(10_000)) if choose(route_of(rollout), s) == arm)
    fields: dict[str, object] = {
        "at": time.time(), "agent": rollout.agent, "key_id": "k", "arm": arm.name, "arm_kind": "local",
        "rollout": rollout.id, "stage": rollout.stage, "route_revision": rollout.route_revision,
        "messages": [], "latency_s": 0.1,
    }  # fmt: skip
    made = [{"id": f"{arm.name}{k}{rollout.agent}", "session": s} for k, s in zip(range(n), sessions, strict=False)]
    return [Interaction(**{**fields, **m, **more}) for m in made]  # type: ignore[arg-type]


def scored(call: Interaction, score: float) -> Feedback:
    return Feedback(
        id=f"f{call.id}", at=time.time(), interaction=call.id, agent=call.agent, kind="outcome", score=score
    )


async def looks(scene: Scene, enough: Callable[[], bool], seconds: float = 5.0) -> bool:
    """The watchdog at work until that is so."""
    at_work = asyncio.create_task(scene.dog.watch())
    end = time.monotonic() + seconds
    while not enough() and time.monotonic() < end:
        await asyncio.sleep(0.02)
    at_work.cancel()
    return enough()


def test_a_lake_that_cannot_be_read_does_not_keep_it_from_rolling_back(scene: Scene) -> None:
    rollout = scene.opened("one")

    async def play() -> None:
        await scene.dog.look()
        (scene.home / "lake").mkdir(exist_ok=True)
        for file in ("manifest.json", "manifest"):
            (scene.home / "lake" / file).write_text("{")
        with pytest.raises(Exception, match="manifest"):
            scene.lake.interactions("one")
        for call in calls(rollout, NEW, 8, status=500, error="no"):
            scene.dog.notice(call)
        await asyncio.sleep(2.1)  # the next reading is due
        assert await looks(scene, lambda: scene.stage("one") == "rolled_back")

    asyncio.run(play())
    assert scene.told.names == ["pawl.rollout.stopped one"]


def test_what_breaks_at_one_agent_is_not_the_others_to_bear(scene: Scene) -> None:
    one, two = scene.opened("one"), scene.opened("two")

    async def play() -> None:
        await scene.dog.look()
        broken = calls(one, NEW, 1)[0]
        scene.dog.notice(msgspec.structs.replace(broken, at="yesterday"))
        scene.dog.notice(msgspec.structs.replace(broken, id="x"))
        for call in calls(two, NEW, 8, status=500, error="no"):
            scene.dog.notice(call)
        assert await looks(scene, lambda: scene.stage("two") == "rolled_back")

    asyncio.run(play())
    assert scene.stage("one") == "50"


def test_a_rollback_is_not_put_off_by_how_much_was_recorded() -> None:
    assert pause_s(0.0) == 0.1 and pause_s(0.1) == pytest.approx(0.9), "at most ten looks a second, a tenth of a core"
    assert pause_s(0.58) == 2.0  # 30,000 calls
    for spent in (0.001 * n for n in range(1, 1200)):
        assert 2 * spent + pause_s(spent) < 5.0, "a record just too late for one look is in the next"
        assert spent / (spent + pause_s(spent)) < 0.34


def test_it_keeps_no_texts(scene: Scene) -> None:
    rollout = scene.opened("one")
    text = [{"role": "user", "content": "x" * 1000}]
    detail = {"cases": ["y" * 1000]}

    async def play() -> None:
        await scene.dog.look()
        before = sys.getrefcount(text), sys.getrefcount(detail)
        for arm in (OLD, NEW):
            for call in calls(rollout, arm, 5, messages=text):
                scene.dog.notice(call)
                scene.dog.notice(msgspec.structs.replace(scored(call, 1.0), detail=detail))
        del call
        await scene.dog.look()
        assert scene.dog.latest["one"].sessions == 5
        assert (sys.getrefcount(text), sys.getrefcount(detail)) == before

    asyncio.run(play())


def test_records_from_before_it_started_and_of_other_gateways_count(scene: Scene) -> None:
    rollout = scene.opened("one")
    journal = Journal(scene.home / "journal", "another")
    both = zip(calls(rollout, NEW, 20), calls(rollout, OLD, 20), strict=True)
    rows: list[Record] = [r for pair in both for c in pair for r in (c, scored(c, float(c.arm == "old")))]
    journal.append(rows[:12])

    async def play() -> None:
        await scene.dog.look()
        assert scene.dog.latest["one"].sessions == 3
        journal.append(rows[12:])
        assert await looks(scene, lambda: scene.stage("one") == "rolled_back")

    asyncio.run(play())
    journal.close()


def test_another_writers_move_is_seen_at_once_and_what_it_left_is_judged(scene: Scene) -> None:
    rollout = scene.opened("one")

    async def play() -> None:
        await scene.dog.look()
        for call in calls(rollout, NEW, 8, status=500, error="no"):
            scene.dog.notice(call)
        held = msgspec.structs.replace(rollout, held=True)
        SqliteControl(scene.home / "control.sqlite").save_rollout(held)  # the snapshot does not know yet
        await scene.dog.look()
        assert scene.stage("one") == "50" and scene.snapshot.rollouts["one"].held
        assert await looks(scene, lambda: scene.stage("one") == "rolled_back", 1.0)

    asyncio.run(play())


def test_an_alarm_is_about_who_serves_now(scene: Scene) -> None:
    async def play() -> None:
        route = scene.control.put_route(Route(agent="one", champion=OLD))
        scene.snapshot.refresh()
        bare: dict[str, object] = {"rollout": None, "stage": None, "status": 500, "error": "no"}
        for call in calls(scene_rollout("one"), OLD, 30, **bare):
            scene.dog.notice(call)
        scene.dog.look_at_champions()
        assert "30 of its latest 30 calls failed" in scene.dog.alarms["one"]
        scene.control.put_route(msgspec.structs.replace(route, champion=NEW))
        scene.snapshot.refresh()
        scene.dog.look_at_champions()
        assert scene.dog.alarms == {}
        await asyncio.sleep(0.1)

    asyncio.run(play())
    assert sorted(scene.told.names) == ["pawl.champion.alarm one", "pawl.champion.well one"]


def scene_rollout(agent: str) -> Rollout:
    return Rollout(
        id="none", agent=agent, version="1", champion=OLD, challenger=NEW, stage="50", opened_at=0.0, stage_since=0.0,
        spec=SPEC,
    )  # fmt: skip
