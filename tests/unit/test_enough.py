"""Enough new feedback is told once, by the count of the preparation itself, on a real lake and control database."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pawl.improvement.enough import latest, look, prepared
from pawl.lake.records import Feedback, Interaction
from pawl.registry.memory_registry import MemoryRegistry
from pawl.settings import Settings
from tests.memory_place import Place
from tests.receivers import Webhook

AGENT = "functional-negative"


@pytest.fixture
def listening() -> Iterator[Webhook]:
    made = Webhook()
    yield made
    made.server.shutdown()


@pytest.fixture
def place(tmp_path: Path, root: Path, listening: Webhook) -> Place:
    text = (root / "infra" / "fleet.yaml").read_text()
    (tmp_path / "fleet.yaml").write_text(text.replace("retrain_examples: 200", "retrain_examples: 20"))
    settings = Settings(home=tmp_path, fleet=tmp_path / "fleet.yaml", prefect_port=listening.port)
    return Place(settings, AGENT, MemoryRegistry())


def answered(place: Place, first: int, count: int, score: float | None = 1.0) -> None:
    """Answers of the cloud at epoch seconds 1000 + n, each with its outcome a second later."""
    for n in range(first, first + count):
        call = Interaction(
            id=f"i{n}", at=1000.0 + n, agent=AGENT, session="s", key_id="k", arm="cloud", arm_kind="cloud",
            messages=[{"role": "user", "content": f"prompt {n}"}], completion="{}", finish_reason="stop",
        )  # fmt: skip
        said = Feedback(id=f"f{n}", at=1001.0 + n, interaction=call.id, agent=AGENT, kind="outcome", score=score)
        place.lake.add([call, said])


def test_what_teaches_is_counted_and_told_once(place: Place, listening: Webhook) -> None:
    answered(place, 0, 15)
    answered(place, 100, 10, score=0.2)  # of which nothing is learnt
    assert look(place, 2000.0)._asdict() == {
        "agent": AGENT, "usable": 15, "wanted": 20, "since": None, "told": False,
    }  # fmt: skip
    assert listening.events == []
    answered(place, 20, 5)
    assert look(place, 2000.0).told
    (event,) = listening.events
    assert event["event"] == "pawl.feedback.enough" and event["payload"]["usable"] == 20
    assert event["resource"]["prefect.resource.id"] == f"pawl.agent.{AGENT}"
    again = look(place, 2001.0)
    assert (again.usable, again.since, again.told) == (0, 2000.0, False) and len(listening.events) == 1
    answered(place, 1500, 20)
    assert look(place, 4000.0).told and len(listening.events) == 2


def test_an_event_that_nobody_took_is_sent_again(place: Place, listening: Webhook) -> None:
    answered(place, 0, 20)
    listening.refuse = True
    assert not look(place, 2000.0).told
    listening.refuse = False
    assert look(place, 2001.0).told and len(listening.events) == 1


def test_a_dataset_begins_the_count_anew(place: Place, listening: Webhook) -> None:
    answered(place, 0, 20)
    folder = place.settings.datasets_dir
    folder.mkdir()
    for name in (f"{AGENT}-0123456789ab.json", f"{AGENT}-other-0123456789ab.json", f"{AGENT}-0123456789ab.stats.json"):
        (folder / name).write_text("{}")
        os.utime(folder / name, (9000.0, 9000.0))
    os.utime(folder / f"{AGENT}-0123456789ab.json", (1500.0, 1500.0))
    assert prepared(folder, AGENT) == 1500.0
    found = look(place, 2000.0)
    assert (found.usable, found.since, found.told) == (0, 1500.0, False) and listening.events == []


def test_the_later_of_two_moments() -> None:
    assert latest("", None) is None and latest("", 2.0) == 2.0
    assert latest("3.5", None) == latest("3.5", 2.0) == 3.5
