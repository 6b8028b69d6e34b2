"""Both registries keep the same contract; the real one on a real MLflow server."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pawl.errors import ModelFileError, NotThere, PawlError, ServerNotUp
from pawl.registry.adapter_hash import adapter_sha256
from pawl.registry.memory_registry import MemoryRegistry
from pawl.registry.mlflow_registry import MlflowRegistry, shortened
from pawl.registry.port import LearntFrom, Registry


@pytest.fixture(params=["memory", pytest.param("mlflow", marks=pytest.mark.servers)])
def registry(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Registry:
    if request.param == "memory":
        return MemoryRegistry()
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    return MlflowRegistry(request.getfixturevalue("mlflow_url"))


@pytest.fixture
def agent(request: pytest.FixtureRequest) -> str:
    """A name of its own for each test: the server is shared."""
    return request.node.originalname.removeprefix("test_").replace("_", "-")[:60]


def adapter(folder: Path, weights: bytes) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"r": 16}))
    (folder / "adapter_model.safetensors").write_bytes(weights)
    (folder / "README.md").write_text("made by a test")
    return folder


def test_a_version_carries_lineage_and_its_files(registry: Registry, agent: str, tmp_path: Path) -> None:
    report = tmp_path / "evidence-of-some-run.html"
    report.write_text("<h1>seen</h1>")
    folder = adapter(tmp_path / "a", b"weights" * 1000)
    made = registry.register(agent, folder, {"dataset": "d1.json", "evidence": "e1"}, {"report.html": report})
    assert made.number == "1"
    assert made.sha256 == adapter_sha256(folder) == made.tags["adapter_sha256"]
    assert made.adapter == f"{agent}-v1-{made.sha256[:8]}"
    assert made.tags["dataset"] == "d1.json" and made.run_id
    assert registry.version(agent, "1") == made
    assert agent in registry.url(made)


def test_download_gives_the_plain_folder_back(registry: Registry, agent: str, tmp_path: Path) -> None:
    made = registry.register(agent, adapter(tmp_path / "a", os.urandom(50_000)), {}, {})
    for target in (tmp_path / "new" / "folder", tmp_path):
        found = registry.download(made, target)
        assert adapter_sha256(found) == made.sha256
        assert (found / "README.md").read_text() == "made by a test"


def test_the_same_adapter_is_registered_once(registry: Registry, agent: str, tmp_path: Path) -> None:
    first = registry.register(agent, adapter(tmp_path / "a", b"same"), {"try": "1"}, {})
    again = registry.register(agent, adapter(tmp_path / "b", b"same"), {"try": "2"}, {})
    other = registry.register(agent, adapter(tmp_path / "c", b"other"), {"try": "3"}, {})
    assert again == first
    assert [v.number for v in registry.versions(agent)] == ["2", "1"]
    assert registry.find_by_sha256(agent, other.sha256) == other
    assert registry.find_by_sha256(agent, "0" * 64) is None


def test_aliases_move_and_drop(registry: Registry, agent: str, tmp_path: Path) -> None:
    assert registry.by_alias(agent, "champion") is None
    one = registry.register(agent, adapter(tmp_path / "a", b"1"), {}, {})
    two = registry.register(agent, adapter(tmp_path / "b", b"2"), {}, {})
    assert registry.by_alias(agent, "champion") is None
    registry.move_alias(agent, "champion", one.number)
    registry.move_alias(agent, "challenger", two.number)
    assert registry.by_alias(agent, "champion") == one
    registry.move_alias(agent, "champion", two.number)
    assert registry.by_alias(agent, "champion") == registry.by_alias(agent, "challenger") == two
    registry.drop_alias(agent, "challenger")
    registry.drop_alias(agent, "challenger")
    assert registry.by_alias(agent, "challenger") is None
    with pytest.raises(NotThere):
        registry.move_alias(agent, "champion", "99")
    assert registry.by_alias(agent, "champion") == two


def test_tags_are_added_and_replaced(registry: Registry, agent: str, tmp_path: Path) -> None:
    made = registry.register(agent, adapter(tmp_path / "a", b"1"), {"evidence": "e1"}, {})
    registry.tag(agent, made.number, "rollout", "done")
    registry.tag(agent, made.number, "rollout", "rolled_back")
    tags = registry.version(agent, made.number).tags
    assert (tags["evidence"], tags["rollout"]) == ("e1", "rolled_back")


def test_what_does_not_exist(registry: Registry, agent: str, tmp_path: Path) -> None:
    assert registry.versions(agent) == []
    registry.drop_alias(agent, "champion")
    with pytest.raises(NotThere):
        registry.version(agent, "1")
    with pytest.raises(NotThere):
        registry.tag(agent, "1", "a", "b")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelFileError, match="train it again"):
        registry.register(agent, tmp_path / "empty", {}, {})


def test_pages_and_tables_can_be_rewritten(registry: Registry, agent: str, tmp_path: Path) -> None:
    def shout(name: str, content: bytes) -> bytes | None:
        return content.replace(b"secret", b"(gone)") if b"secret" in content else None

    assert registry.rewrite(agent, shout) == [], "an agent without runs"
    run_id = registry.log_training(agent, {}, {}, {})
    registry.log_table(run_id, "evaluation-1.json", {"item": ["a", "b"], "prompt": ["a secret", "none"]})
    made = registry.register(agent, adapter(tmp_path / "a", b"secret"), {"run_id": run_id}, {})
    page = tmp_path / "page.html"
    for agent_of, text in ((made, "<p>a secret</p>"), (made, "<p>another secret</p>")):
        page.write_text(text)
        registry.attach(agent_of.agent, agent_of.number, page)
    links = registry.rewrite(agent, shout)
    assert sorted(link.rpartition("/")[2] for link in links) == ["evaluation-1.json", "page.html"]
    seen: dict[str, bytes] = {}
    assert registry.rewrite(agent, lambda name, content: seen.update({name: content})) == []
    assert seen["page.html"] == b"<p>another (gone)</p>"
    table = json.loads(seen["evaluation-1.json"])
    assert table == {"columns": ["item", "prompt"], "data": [["a", "a (gone)"], ["b", "none"]]}
    assert adapter_sha256(registry.download(made, tmp_path / "again")) == made.sha256, "weights are left alone"


def test_training_is_logged_and_reports_are_attached(registry: Registry, agent: str, tmp_path: Path) -> None:
    curve = [(step, 1.0 / step) for step in range(1, 1500)]
    learnt = LearntFrom(name="a-1", fingerprint="f" * 64, figures={"train": 7})
    run_id = registry.log_training(agent, {"rank": "16"}, {"seconds": 3.5}, {"loss": curve}, learnt)
    made = registry.register(agent, adapter(tmp_path / "a", b"1"), {"run_id": run_id}, {})
    assert made.run_id == run_id
    page = tmp_path / "page.html"
    for text in ("<p>first</p>", "<p>second</p>"):
        page.write_text(text)
        link = registry.attach(agent, made.number, page)
    assert link.endswith("page.html")
    table: dict[str, list[object]] = {"item": ["a", "b"], "change": [-1.0, None], "answer": ["x", "<b>"]}
    for columns in (table, {"item": ["another"]}):
        registry.log_table(run_id, "evaluation-1.json", columns)
    if isinstance(registry, MemoryRegistry):
        assert registry.attached[agent, made.number] == {"page.html": b"<p>second</p>"}
        assert registry.datasets[run_id] == learnt
        assert registry.tables == {(run_id, "evaluation-1.json"): table}, "the first one stays"
        assert registry.runs[run_id] == ({"rank": "16"}, {"seconds": 3.5, "loss": 1.0 / 1499})
        return
    from mlflow import MlflowClient

    client = MlflowClient(link.split("/#/")[0])
    run = client.get_run(run_id)
    found = json.loads(Path(client.download_artifacts(run_id, "evaluation-1.json", str(tmp_path))).read_text())
    assert found == {"columns": ["item", "change", "answer"], "data": [["a", -1.0, "x"], ["b", None, "<b>"]]}
    assert "evaluation-1.json" in run.data.tags["mlflow.loggedArtifacts"], "MLflow's page of evaluations shows it"
    assert run.data.params == {"rank": "16"} and run.info.status == "FINISHED"
    assert run.data.metrics == pytest.approx({"seconds": 3.5, "loss": 1.0 / 1499})
    assert len(client.get_metric_history(run_id, "loss")) == 1499
    (found,) = run.inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.digest, found.dataset.profile) == ("a-1", "f" * 36, '{"train": 7}')
    assert [(t.key, t.value) for t in found.tags] == [("mlflow.data.context", "training")]
    assert Path(client.download_artifacts(run_id, "page.html", str(tmp_path / ".."))).read_text() == "<p>second</p>"


def test_a_run_that_trained_nothing_is_recorded_once_with_all_that_hangs_on_it(
    registry: Registry, agent: str, tmp_path: Path
) -> None:
    page, plot = tmp_path / "base-against-cloud.html", tmp_path / "plot-quality.svg"
    page.write_text("<p>page</p>")
    plot.write_text("<svg/>")
    given: dict[str, Any] = {
        "params": {"first": "base"}, "metrics": {"difference": -0.25},
        "files": {"report.html": page, "plot-quality.svg": plot},
        "tables": {"evaluation-1.json": {"item": ["a"], "change": [None]}},
    }  # fmt: skip
    link = registry.log_run(agent, "compare base cloud", key="comparison-1", **given)
    assert registry.log_run(agent, "compare base cloud", key="comparison-1", **given) == link
    other = registry.log_run(agent, "compare base cloud", key="comparison-2", **given)
    assert other != link and registry.versions(agent) == []
    run_id = link.rsplit("/", 1)[1]
    if isinstance(registry, MemoryRegistry):
        assert registry.runs[run_id] == ({"first": "base"}, {"difference": -0.25})
        assert registry.attached[agent, run_id] == {"report.html": b"<p>page</p>", "plot-quality.svg": b"<svg/>"}
        assert registry.tables[run_id, "evaluation-1.json"] == {"item": ["a"], "change": [None]}
        return
    from mlflow import MlflowClient

    client = MlflowClient(link.split("/#/")[0])
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED" and run.info.run_name == "compare base cloud"
    assert run.data.params == {"first": "base"} and run.data.metrics == {"difference": -0.25}
    assert {a.path for a in client.list_artifacts(run_id)} == {"report.html", "plot-quality.svg", "evaluation-1.json"}
    assert Path(client.download_artifacts(run_id, "report.html", str(tmp_path / ".."))).read_text() == "<p>page</p>"
    assert "evaluation-1.json" in run.data.tags["mlflow.loggedArtifacts"]
    # One that was cut off half-way is completed: it bears the key and is not finished.
    half = client.create_run(run.info.experiment_id, tags={"pawl_key": "comparison-3"}).info.run_id
    assert registry.log_run(agent, "compare", key="comparison-3", **given).endswith(half)
    assert client.get_run(half).info.status == "FINISHED" and client.get_run(half).data.metrics


def test_a_version_gets_its_card_and_keeps_its_adapter(registry: Registry, agent: str, tmp_path: Path) -> None:
    made = registry.register(agent, adapter(tmp_path / "a", b"weights"), {}, {})
    for card in ("---\nlicense: mit\n---\n# first\n", "---\nlicense: mit\n---\n# second\n"):
        registry.describe(made, card, None)
    found = registry.download(made, tmp_path / "found")
    assert (found / "README.md").read_text() == "---\nlicense: mit\n---\n# second\n"
    assert adapter_sha256(found) == made.sha256
    with pytest.raises(PawlError):
        registry.describe(msgspec.structs.replace(made, number="99"), "# none", None)
    if not isinstance(registry, MemoryRegistry):
        assert registry._client.get_model_version(agent, made.number).description == "# second\n"


def test_a_long_card_is_cut_between_lines() -> None:
    card = "---\nlicense: mit\n---\n" + "\n".join(f"line {n} of the card" for n in range(1000))
    shown = shortened(card)
    assert len(shown) <= 5000 and shown.startswith("line 0") and shown.endswith("README.md among the files.")
    assert set(shown.split("\n\n")[0].splitlines()) < set(card.splitlines())
    assert shortened("# short") == "# short"


def test_a_server_that_is_down_is_named(monkeypatch: pytest.MonkeyPatch, free_port: int) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    url = f"http://127.0.0.1:{free_port}"
    with pytest.raises(ServerNotUp, match=url):
        MlflowRegistry(url).versions("anything")
    with pytest.raises(ServerNotUp, match=url):
        MlflowRegistry(url).log_run("anything", "n", key="k", params={}, metrics={}, files={}, tables={})


def test_the_hash_covers_names_and_contents(tmp_path: Path) -> None:
    a, b = adapter(tmp_path / "a", b"12"), adapter(tmp_path / "b", b"12")
    assert adapter_sha256(a) == adapter_sha256(b)
    (b / "README.md").write_text("another text changes nothing that is served")
    assert adapter_sha256(a) == adapter_sha256(b)
    (b / "adapter_config.json").write_text(json.dumps({"r": 8}))
    assert adapter_sha256(a) != adapter_sha256(b)
    (b / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelFileError, match=r"adapter_model\.safetensors"):
        adapter_sha256(b)
