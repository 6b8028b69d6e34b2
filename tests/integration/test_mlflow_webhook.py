"""An approval pasted in MLflow's UI arrives at the gateway by a signed webhook, is spent there, and Prefect hears of
it: on a real MLflow and a real gateway. Polling stays as the net."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pawl.commands.registry import webhook_encryption_key
from pawl.gateway.api.control import secret_of
from pawl.registry import approvals
from pawl.registry.aliases import alias_pointer
from pawl.registry.mlflow_registry import MlflowRegistry
from pawl.registry.mlflow_webhooks import EVENTS, ensure
from pawl.registry.port import Version
from pawl.registry.webhook import DELIVERY, SIGNATURE, TIMESTAMP, signature
from pawl.rollout.control import Request
from pawl.settings import Settings
from tests.integration.gateway_process import LiveGateway
from tests.integration.mlflow_process import LiveMlflow
from tests.integration.test_approval_path import Listener
from tests.tiny_adapter import make_adapter, tensors
from tests.waiting import Took, until

AGENT = "functional-negative"


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.server.shutdown()


@pytest.fixture
def live(gateway: Callable[..., LiveGateway], listener: Listener) -> LiveGateway:
    return gateway(PAWL_PREFECT_PORT=str(listener.server.server_address[1]))


@pytest.fixture
def mlflow(tmp_path: Path, unused: Callable[[], int], live: LiveGateway) -> Iterator[LiveMlflow]:
    key = webhook_encryption_key(Settings(home=live.home))
    made = LiveMlflow(tmp_path / "mlflow", unused(), {"MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": key})
    yield made
    made.stop()


def asked(live: LiveGateway, registry: MlflowRegistry, folder: Path, weights: float) -> tuple[Version, Request]:
    version = registry.register(AGENT, make_adapter(folder, tensors(weights)), {"evidence": "e" * 64}, {})
    request = Request(
        agent=AGENT, version=version.number, adapter=version.adapter, adapter_sha256=version.sha256, evidence="e" * 64,
        asked_at=time.time(), expires=time.time() + 3600,
    )  # fmt: skip
    live.control.ask(request)
    return version, request


@pytest.mark.servers
def test_a_pasted_code_approves_within_a_second(
    live: LiveGateway, mlflow: LiveMlflow, listener: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    target = f"{live.settings.gateway_url}/control/mlflow"
    first = ensure(mlflow.url, target, "an old secret")
    assert ensure(mlflow.url, target, secret_of(live.control)) == first, "there is one, and it can be changed"
    client, registry = MlflowClient(mlflow.url, mlflow.url), MlflowRegistry(mlflow.url)
    assert [len(h.events) for h in client.list_webhooks()] == [len(EVENTS)]
    version, request = asked(live, registry, tmp_path / "a", 0.1)
    key, _ = live.control.create_key("approver", "ann")
    code = approvals.code_for(live.control, request, key, expires=time.time() + 60, now=time.time())

    # As MLflow's page does it. A slip of the hand first: it answers nothing.
    client.set_model_version_tag(AGENT, version.number, "approval_code", code[:-2])
    refused = until(lambda: [e for e in listener.events if e["event"] == "pawl.approval.refused"], 5)
    assert "altered" in refused[0]["payload"]["why"]
    assert live.control.approvals(AGENT, version.number) == []
    with Took() as took:
        client.set_model_version_tag(AGENT, version.number, "approval_code", code)
        (given,) = until(lambda: live.control.approvals(AGENT, version.number), 5)
    assert (given.by, given.via, given.verdict) == ("ann", "mlflow", "approved")
    granted = until(lambda: [e for e in listener.events if e["event"] == "pawl.approval.granted"], 5)
    assert granted[0]["payload"]["agent"] == AGENT and granted[0]["payload"]["by"] == "ann"
    assert granted[0]["payload"]["evidence"] == request.evidence
    print(f"from the tag to the approval: {took.seconds:.3f} s")
    assert took.seconds < 2
    # The same code by the polling that stays as the net: taken for what it was, spent once.
    client.set_model_version_tag(AGENT, version.number, "approval_code", code)
    client.set_model_version_tag(AGENT, version.number, "unrelated", "x")
    time.sleep(1)
    assert len(live.control.approvals(AGENT, version.number)) == 1
    assert [e["event"] for e in live.control.audit_log()].count("approval code refused") == 1

    # MLflow dies and comes back with the same key: the webhook's secret is still readable.
    mlflow.kill()
    mlflow.start()
    other, wanted = asked(live, registry, tmp_path / "b", 0.2)
    no = approvals.code_for(
        live.control, wanted, key, expires=time.time() + 60, now=time.time(), verdict="rejected", reason="worse"
    )
    client.set_model_version_tag(AGENT, other.number, "approval_code", no)
    until(lambda: live.control.rejection(other.sha256), 5)
    assert live.control.verify_audit() is None

    # An alias that something else moves is reported; one that promotion moved is not.
    live.control.move_pointer(alias_pointer(AGENT, "champion"), 0, version.number)
    registry.move_alias(AGENT, "champion", version.number)
    registry.move_alias(AGENT, "champion", other.number)
    strayed = until(lambda: [e for e in listener.events if e["event"] == "pawl.alias.strayed"], 5)
    registry.drop_alias(AGENT, "champion")
    until(lambda: len([e for e in listener.events if e["event"] == "pawl.alias.strayed"]) == 2, 5)
    detail = strayed[0]["payload"]
    assert (detail["alias"], detail["expected"], detail["found"]) == ("champion", version.number, other.number)


def test_what_is_not_signed_is_refused(live: LiveGateway, listener: Listener) -> None:
    version = "3"
    live.control.ask(
        Request(
            agent=AGENT, version=version, adapter="a", adapter_sha256="a" * 64, evidence="e" * 64,
            asked_at=time.time(), expires=time.time() + 60,
        )
    )  # fmt: skip
    request = live.control.request(AGENT, version)
    assert request is not None
    key, _ = live.control.create_key("approver", "ann")
    code = approvals.code_for(live.control, request, key, expires=time.time() + 60, now=time.time())
    data = {"name": AGENT, "version": version, "key": "approval_code", "value": code}
    body = json.dumps({"entity": "model_version_tag", "action": "set", "data": data}).encode()

    def deliver(secret: str, delivery: str, age: float = 0) -> tuple[int, Any]:
        at = str(int(time.time() - age))
        sent = {SIGNATURE: signature(secret, delivery, at, body), TIMESTAMP: at, DELIVERY: delivery}
        return live.request("/control/mlflow", body, headers=sent)  # type: ignore[no-any-return]

    genuine = secret_of(live.control)
    assert live.request("/control/mlflow", body)[0] == 401, "a key is no signature"
    assert deliver("guessed", "d1")[0] == 401
    assert deliver(genuine, "d1", age=3600)[0] == 401
    assert live.control.approvals(AGENT, version) == [] and listener.events == []
    assert deliver(genuine, "d1") == (200, {"status": "accepted: approved by ann"})
    assert deliver(genuine, "d1") == (200, {"status": "seen before"})
    assert deliver(genuine, "d2") == (200, {"status": "accepted: approved by ann"}), "known, and not counted again"
    assert len(live.control.approvals(AGENT, version)) == 1
    assert listener.names == ["pawl.approval.granted"]
    live.kill()
    live.start()
    assert deliver(genuine, "d1")[0] == 200
    assert len(live.control.approvals(AGENT, version)) == 1 and listener.names == ["pawl.approval.granted"]
