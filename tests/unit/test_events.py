"""Events as Prefect's triggers see them: over HTTP, to a server that keeps what it was sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pawl.improvement import alias_watch
from pawl.registry.memory_registry import MemoryRegistry
from pawl.rollout.events import Event
from pawl.rollout.prefect_api import PrefectApi
from pawl.settings import Settings
from tests.memory_place import Place
from tests.receivers import Webhook
from tests.tiny_adapter import make_adapter, tensors


@pytest.fixture
def listening() -> Iterator[Webhook]:
    made = Webhook()
    yield made
    made.server.shutdown()


def test_what_an_event_is_about(listening: Webhook) -> None:
    api = PrefectApi(f"http://127.0.0.1:{listening.port}/api")
    stopped = {"stage": "rolled_back", "why": "worse"}
    assert api.emit(Event(name="pawl.rollout.stopped", agent="a", version="3", at=1.0, detail=stopped))
    assert api.emit(
        Event(name="pawl.drift.found", agent="a", version="", at=2.0, detail={"kinds": ["length"], "retrain": "no"})
    )
    first, second = listening.events
    assert first["resource"] == {
        "prefect.resource.id": "pawl.version.a.3",
        "pawl.agent": "a",
        "pawl.stage": "rolled_back",
    }
    assert second["resource"] == {"prefect.resource.id": "pawl.agent.a", "pawl.agent": "a", "pawl.retrain": "no"}
    assert second["payload"] == {"agent": "a", "version": "", "kinds": ["length"], "retrain": "no"}


def test_an_alias_that_promotion_moves_is_told_once(tmp_path: Path, root: Path, listening: Webhook) -> None:
    settings = Settings(home=tmp_path, fleet=root / "infra" / "fleet.yaml", prefect_port=listening.port)
    place = Place(settings, "functional-negative", MemoryRegistry())
    for n in (1, 2):
        make_adapter(tmp_path / f"a{n}", tensors(n / 10))
        place.registry.register("functional-negative", tmp_path / f"a{n}", {}, {})
    for number in ("1", "1", "2"):
        alias_watch.move(place, "champion", number)
    told = [(e["event"], e["payload"]["version"], e["payload"]["before"]) for e in listening.events]
    assert told == [("pawl.alias.moved", "1", ""), ("pawl.alias.moved", "2", "1")]
    assert {e["resource"]["pawl.alias"] for e in listening.events} == {"champion"}
