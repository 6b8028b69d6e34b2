"""From a judged candidate to a finished rollout on real adapters of the ports: registration, all ways to approve,
loading with verification, ticks, aliases, the override, and what is remembered. The cluster is a small real server
that speaks vLLM's adapter API."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from pawl.errors import ApprovalInvalid, ModelFileError, NotAllowed, ServerNotUp
from pawl.improvement import approving, placing, publish, rolling
from pawl.registry import approvals
from pawl.registry.adapter_hash import adapter_sha256
from pawl.serving import vllm_adapters
from tests.integration.promotion_place import AGENT, Cluster, Place, key, opened, registered, traffic
from tests.tiny_adapter import make_adapter, tensors


def test_a_good_one_goes_all_the_way(place: Place, cluster: Cluster) -> None:
    made = registered(place)
    assert made.decision == "promote"
    challenger = place.registry.by_alias(AGENT, "challenger")
    assert challenger is not None and challenger.number == made.version
    hung = place.registry.attached[AGENT, made.version]
    assert {"report.html", "plot-quality.svg", "plot-paired.svg"} <= hung.keys()
    assert hung["plot-paired.svg"].startswith(b"<svg")
    assert place.registry.runs[challenger.run_id][1]["difference"] > 0
    assert approving.ready(place, time.time()) is None, "nothing opens without an approval"
    request = place.control.request(AGENT, made.version)
    assert request is not None
    approvals.approve_by_key(place.control, request, key(place, "approver"), expires=time.time() + 60, now=time.time())
    opened(place, made.version)
    assert made.adapter in cluster.loaded
    for n, stage in enumerate(("shadow", "20", "50", "80", "100", "watch"), start=1):
        traffic(place, stage, {"champion": 0.2, "challenger": 0.8}, amount=100 if stage == "20" else 40)
        moved = rolling.advance(place, time.time() + 10 * n)
        assert moved is not None and moved[0].stage != stage, moved
    assert rolling.advance(place) is None
    rollout = place.control.rollouts(AGENT)[0]
    assert rollout.stage == "done"
    assert place.registry.by_alias(AGENT, "champion") is None, "only the rollout's settling moves the alias"
    page = publish.final_page(place, rollout)
    rolling.settle(place, rollout)
    rolling.settle(place, rollout)
    champion = place.registry.by_alias(AGENT, "champion")
    assert champion is not None and champion.number == made.version
    assert rolling.settled(place, rollout) and page.exists()
    route = place.control.route(AGENT)
    assert route is not None and route.champion.name == made.adapter
    # A restarted replica has forgotten the adapter; it comes back before anybody asks for it.
    cluster.loaded = {"base": "base"}
    placing.restore(place)
    assert made.adapter in cluster.loaded


def test_it_begins_with_traffic_where_no_shadow_could_be_graded(place: Place) -> None:
    made = registered(place)
    request = place.control.request(AGENT, made.version)
    assert request is not None
    approvals.approve_by_key(place.control, request, key(place, "approver"), expires=time.time() + 60, now=time.time())
    spec = place.agent.rollout.model_copy(update={"min_shadow_pairs": 0})
    place.__dict__["agent"] = place.agent.model_copy(update={"rollout": spec})
    opened(place, made.version)
    rollout, route = place.control.open_rollout(AGENT), place.control.route(AGENT)
    assert rollout is not None and rollout.stage == "20"
    assert route is not None and route.challenger is not None and route.percent == 20


def test_a_worse_one_is_refused_remembered_and_only_goes_past_on_somebodys_name(place: Place) -> None:
    made = registered(place, better=False)
    assert made.decision == "reject"
    assert approving.ready(place, time.time()) is None
    version = place.registry.version(AGENT, made.version)
    assert "worse" in (place.control.rejection(version.sha256) or "")
    with pytest.raises(NotAllowed):
        approving.force(place, made.version, key(place, "approver"), "why not", ("gate",))
    with pytest.raises(ApprovalInvalid, match="reason"):
        approving.force(place, made.version, key(place, "operator"), " ", ("gate",))
    approving.force(place, made.version, key(place, "operator"), "an experiment", ("gate", "shadow"))
    opened(place, made.version)
    rollout = place.control.open_rollout(AGENT)
    assert rollout is not None and rollout.stage == "20" and rollout.override is not None
    traffic(place, "20", {"champion": 0.9, "challenger": 0.0}, amount=150)
    moved = rolling.advance(place, time.time() + 10)
    assert moved is not None and moved[0].stage == "rolled_back"
    rolling.settle(place, moved[0])
    assert place.control.rejection(version.sha256), "the first reason stays"
    route = place.control.route(AGENT)
    assert route is not None and route.champion.name == "base"
    assert place.control.verify_audit() is None


def test_a_tag_opens_only_with_a_valid_code(place: Place) -> None:
    made = registered(place)
    request = place.control.request(AGENT, made.version)
    assert request is not None
    place.registry.tag(AGENT, made.version, "approval_code", "approved")
    assert approving.ready(place, time.time()) is None
    assert place.registry.version(AGENT, made.version).tags["approval_answer"].startswith("refused")
    code = approvals.code_for(place.control, request, key(place, "approver"), expires=time.time() + 60, now=time.time())
    place.registry.tag(AGENT, made.version, "approval_code", code)
    found = approving.ready(place, time.time())
    assert found is not None and found.version == made.version
    assert place.registry.version(AGENT, made.version).tags["approval_answer"].startswith("accepted")
    assert place.control.approvals(AGENT, made.version)[0].via == "mlflow"


def test_files_that_changed_in_the_registry_are_not_loaded(place: Place, cluster: Cluster) -> None:
    made = registered(place)
    version = place.registry.version(AGENT, made.version)
    stored = place.registry.download(version, place.settings.home / "look")
    assert adapter_sha256(stored) == version.sha256
    broken = with_other_hash(version)
    with pytest.raises(ModelFileError, match="registered hash"):
        placing.present(place, broken)
    assert broken.adapter not in cluster.loaded


def test_an_unsound_adapter_of_the_registry_goes_nowhere(place: Place, cluster: Cluster, tmp_path: Path) -> None:
    made = make_adapter(tmp_path / "a", tensors(float("nan")))
    version = place.registry.register(AGENT, made, {}, {})
    with pytest.raises(ModelFileError, match="not a number"):
        placing.present(place, version)
    assert version.adapter not in cluster.loaded
    assert not (place.settings.adapters_dir / version.adapter).exists()


def with_other_hash(version: Any) -> Any:
    import msgspec

    return msgspec.structs.replace(version, sha256="0" * 64)


def test_names_are_never_reused_and_silence_is_an_error(place: Place, cluster: Cluster, tmp_path: Path) -> None:
    url = place.settings.vllm_url
    make_adapter(tmp_path / "one")
    make_adapter(tmp_path / "two")
    (make_adapter(tmp_path / "evil") / "adapter_model.bin").write_bytes(b"pickled")
    assert vllm_adapters.reconcile(url, {"a": str(tmp_path / "one")}) == ["a"]
    assert vllm_adapters.reconcile(url, {"a": str(tmp_path / "one")}) == []
    with pytest.raises(ModelFileError, match="a"):
        vllm_adapters.reconcile(url, {"a": str(tmp_path / "two")})
    with pytest.raises(ModelFileError, match=r"adapter_model\.bin"):
        vllm_adapters.reconcile(url, {"c": str(tmp_path / "evil")})
    assert "c" not in cluster.loaded
    cluster.mute.add("b")
    with pytest.raises((ServerNotUp, ModelFileError)):
        vllm_adapters.reconcile(url, {"b": str(tmp_path / "two")})
    with pytest.raises(ServerNotUp, match="does not answer"):
        vllm_adapters.list_models("http://127.0.0.1:9")
