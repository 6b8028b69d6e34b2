"""The search as a flow on a real Prefect server: its result, its page, and progress that people see while it runs."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from pawl.curation import dataset as datasets
from tests.integration.test_search_settings import FLEET
from tests.unit.test_peft_trainer import make_base, make_dataset


@pytest.mark.servers
def test_the_flow_shows_progress_and_proposes(
    tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterType
    from prefect.testing.utilities import prefect_test_harness

    (tmp_path / "fleet.yaml").write_text(FLEET.format(base=make_base(tmp_path / "models" / "tiny")))
    made = datasets.load(make_dataset(tmp_path, count=40))
    split = tuple(
        msgspec.structs.replace(e, split="validation" if i % 4 == 3 else "train") for i, e in enumerate(made.examples)
    )
    path = datasets.save(msgspec.structs.replace(made, examples=split), tmp_path / "home" / "datasets")
    monkeypatch.setenv("PAWL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PAWL_FLEET", str(tmp_path / "fleet.yaml"))
    monkeypatch.setenv("PAWL_MLFLOW_PORT", str(free_port))  # nobody is there, and nothing stops for it
    with prefect_test_harness(server_startup_timeout=120):
        from flows.search_settings import search_settings

        found = search_settings(agent="tiny", trials=2)
        assert (found.agent, found.dataset, found.trials, found.verdict) == ("tiny", path.stem, 2, "better")
        assert Path(found.proposal).exists() and found.proposed_loss < found.present_loss
        with get_client(sync_client=True) as client:
            shown = {
                kind: client.read_artifacts(artifact_filter=ArtifactFilter(type=ArtifactFilterType(any_=[kind])))
                for kind in ("progress", "markdown")
            }
        (page,) = [a for a in shown["markdown"] if a.key == "search-tiny"]
        assert "better beyond noise" in str(page.data) and "```diff" in str(page.data)
        (progress,) = shown["progress"]
        assert progress.data == 100.0
        said = str(progress.description)
        assert "trial 1 24/24 loss" in said and "learning rate" in said and "tokens/s" in said and "MB" in said
    assert "does not take the run" in caplog.text
