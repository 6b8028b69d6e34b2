"""From a judged candidate to a finished rollout on real adapters of the ports: registration, all ways to approve,
loading with verification, ticks, aliases, the override, and what is remembered. The cluster is a small real server
that speaks vLLM's adapter API."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from pawl.curation import dataset as datasets
from pawl.curation.dataset import DatasetVersion, Example
from pawl.errors import ApprovalInvalid, ModelFileError, NotAllowed, ServerNotUp
from pawl.evaluation.gate import gate
from pawl.evaluation.paired import compare
from pawl.evaluation.report import ItemResult
from pawl.improvement import approving, placing, promotion, publish, rolling
from pawl.improvement.steps import Lineage
from pawl.improvement.workplace import Candidate, Workplace
from pawl.lake.journal import Journal
from pawl.lake.records import Feedback, Interaction
from pawl.registry import approvals
from pawl.registry.adapter_hash import adapter_sha256
from pawl.registry.memory_registry import MemoryRegistry
from pawl.rollout.control import Key
from pawl.serving import vllm_adapters
from pawl.settings import Settings
from pawl.training.result import TrainResult
from tests.tiny_adapter import make_adapter, tensors

AGENT = "functional-negative"


class Cluster:
    """Lists, loads and answers like a vLLM replica; forgets everything when told to."""

    def __init__(self) -> None:
        self.loaded: dict[str, str] = {"base": "base"}
        self.mute: set[str] = set()
        cluster = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """Silent."""

            def _send(self, status: int, body: Any) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self) -> None:
                self._send(200, {"data": [{"id": n, "root": p} for n, p in cluster.loaded.items()]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if self.path == "/v1/load_lora_adapter":
                    if not Path(body["lora_path"]).is_dir():
                        self._send(404, {"error": "no such folder"})
                        return
                    cluster.loaded[body["lora_name"]] = body["lora_path"]
                elif body.get("model") in cluster.mute or body.get("model") not in cluster.loaded:
                    self._send(404, {"error": "no such model"})
                    return
                self._send(200, {"choices": [{"message": {"content": "x"}}]})

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, daemon=True).start()


@dataclass(frozen=True)
class Place(Workplace):
    """The workplace with a registry in memory."""

    memory: MemoryRegistry

    @property
    def registry(self) -> MemoryRegistry:  # type: ignore[override]
        return self.memory


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    yield made
    made.server.shutdown()


@pytest.fixture
def place(tmp_path: Path, root: Path, cluster: Cluster) -> Place:
    settings = Settings(
        home=tmp_path, fleet=root / "infra" / "fleet.yaml", vllm_port=int(cluster.server.server_address[1])
    )
    return Place(settings, AGENT, MemoryRegistry())


def candidate(place: Place, better: bool, weights: bytes = b"w") -> Candidate:
    """A candidate as training and judging leave it."""
    made = Candidate(place.settings.home / "candidates" / f"c{weights.hex()}")
    make_adapter(made.adapter, tensors(sum(weights) / 256))
    example = Example(id="e", messages=[], completion="{}", quality=1.0, source="t", interactions=("i",))
    version = DatasetVersion(agent=AGENT, examples=(example,), sources=("t",))
    path = datasets.save(version, place.settings.datasets_dir)
    old = [ItemResult(item=f"i{n}", source=f"s{n}", score=0.0 if better else 0.9) for n in range(120)]
    new = [ItemResult(item=f"i{n}", source=f"s{n}", score=0.9 if better else 0.0) for n in range(120)]
    found = compare(
        AGENT, ("base", old), ("new", new), margin=0.05, alpha=0.05, dataset=version.fingerprint, training_sources={"t"}
    )
    made.write("comparison", found)
    made.write("gate", gate(found, place.agent.evaluation, None))
    made.write("losses", [(1, 2.0), (2, 1.0)])
    trained = TrainResult(
        adapter_dir="adapter", steps=2, examples=1, dropped=0, tokens=10, completion_tokens=5, seconds=1.0,
        tokens_per_s=10.0, loss_first=2.0, loss_last=1.0, parameters=1, dtype="bfloat16",
    )  # fmt: skip
    made.write("training", trained)
    lineage = Lineage(
        dataset=path.name, dataset_fingerprint=version.fingerprint, base_sha256="b",
        adapter_sha256=adapter_sha256(made.adapter), code_version="1", parent="base", candidate=made.id,
    )  # fmt: skip
    made.write("lineage", lineage)
    return made


def registered(place: Place, better: bool = True, weights: bytes = b"w") -> promotion.Registered:
    made = candidate(place, better, weights)
    return promotion.register(place, made, publish.evidence_page(place, made))


def key(place: Place, role: Any) -> Key:
    return place.control.create_key(role, f"a {role}")[0]


def traffic(place: Place, stage: str, scores: dict[str, float], amount: int = 40) -> None:
    """Recorded sessions of a stage, spread over the arms as the route spreads them, each with its outcome."""
    rollout = place.control.open_rollout(AGENT)
    assert rollout is not None
    from pawl.rollout.route import choose
    from pawl.rollout.state import route_of

    route, records = route_of(rollout), []
    for n in range(amount):
        at, session = time.time(), f"{stage}-{n}"
        arm = choose(route, session)
        shared: dict[str, Any] = {
            "agent": AGENT, "session": session, "key_id": "k", "arm_kind": "local", "rollout": rollout.id,
            "stage": stage, "messages": [], "completion": "x", "latency_s": 0.1, "finish_reason": "stop",
        }  # fmt: skip
        mine = [Interaction(id=f"{stage}{n}", at=at, arm=arm.name, **shared)]
        if stage == "shadow":
            of = {"role": "shadow", "shadow_of": f"{stage}{n}"}
            mine.append(Interaction(id=f"{stage}{n}s", at=at, arm=rollout.challenger.name, **shared, **of))
        for i in mine:
            score = scores["challenger" if i.arm == rollout.challenger.name else "champion"]
            said = Feedback(id=f"f{i.id}", at=at + 0.01, interaction=i.id, agent=AGENT, kind="outcome", score=score)
            records += [i, said]
    journal = Journal(place.settings.journal_dir, "test")
    journal.append(records)
    journal.close()


def opened(place: Place, version: str) -> None:
    request = approving.ready(place, time.time())
    assert request is not None and request.version == version
    rolling.open_rollout(place, request)


def test_a_good_one_goes_all_the_way(place: Place, cluster: Cluster) -> None:
    made = registered(place)
    assert made.decision == "promote"
    challenger = place.registry.by_alias(AGENT, "challenger")
    assert challenger is not None and challenger.number == made.version
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
