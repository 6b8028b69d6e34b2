"""A place to promote in: real adapters of the ports, a registry in memory, and a cluster that is a small real server
with vLLM's adapter API."""

from __future__ import annotations

import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from pawl.curation import dataset as datasets
from pawl.curation.dataset import DatasetVersion, Example
from pawl.evaluation.gate import gate
from pawl.evaluation.paired import compare
from pawl.evaluation.report import ItemResult
from pawl.improvement import approving, promotion, publish, rolling
from pawl.improvement.steps import Lineage
from pawl.improvement.workplace import Candidate
from pawl.lake.journal import Journal
from pawl.lake.records import Feedback, Interaction
from pawl.registry.adapter_hash import adapter_sha256
from pawl.rollout.control import Key
from pawl.training.result import TrainResult
from tests.memory_place import Place
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
