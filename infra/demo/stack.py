"""All of Pawl on this machine: the base model, vLLM, the stand-in, MLflow, Prefect, the gateway."""

from __future__ import annotations

import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console

from infra.demo import prefect_server
from infra.demo.servers import PYTHON, Server, demand_machine
from pawl.commands.registry import webhook_encryption_key
from pawl.errors import ModelFileError
from pawl.gateway.api.control import secret_of
from pawl.improvement.workplace import Workplace
from pawl.monitoring import timeline
from pawl.registry import mlflow_webhooks
from pawl.settings import Settings


class Stack:
    """The demo's servers."""

    def __init__(self, settings: Settings, root: Path, agent: str, console: Console) -> None:
        self.settings, self.root, self.console = settings, root, console
        self.place = Workplace(settings, agent)
        self._vllm: Server | None = None

    def servers(self) -> list[Server]:
        """In the order in which they are stopped."""
        s, root = self.settings, self.root
        home = str(s.home.resolve())
        mlflow_env = {
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
            # Approval codes reach the gateway on loopback (mlflow/README.md says what the last one opens).
            "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": webhook_encryption_key(s),
            "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
            "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        }
        mlflow = [
            PYTHON, "-m", "mlflow", "server", "--host", s.host, "--port", str(s.mlflow_port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{home}/mlflow.sqlite",
            "--artifacts-destination", f"{home}/mlflow-artifacts",
        ]  # fmt: skip
        standin = [PYTHON, "-m", "pawl.qe.standin", "--host", s.host, "--port", str(s.standin_port)]
        gateway = [PYTHON, "-m", "pawl.cli", "gateway"]
        found = [
            Server("worker", [], lambda: True, s.home),
            Server("gateway", gateway, f"{s.gateway_url}/readyz", s.home, s.gateway_port),
            Server("standin", standin, f"{s.standin_url}/healthz", s.home, s.standin_port),
            Server("vllm", [], f"{s.vllm_url}/health", s.home, s.vllm_port),
            Server("mlflow", mlflow, f"{s.mlflow_url}/health", s.home, s.mlflow_port, mlflow_env, ready_s=120),
            prefect_server.server(s, root),
        ]
        database = prefect_server.database(s)
        return [*found, database] if database else found

    def start(self) -> None:
        """Start what is not running; the slow ones beside each other."""
        running = sum(1 for s in self.servers() if s.running())
        if not running:
            demand_machine(self.settings.home)
        os.environ["MLFLOW_TRACKING_URI"] = self.settings.mlflow_url
        by_name = {s.name: s for s in self.servers()}
        began = time.time()
        said = "starting the servers (vLLM takes about a minute and a half) ..."
        with self.console.status(said), ThreadPoolExecutor(4) as pool:
            model = pool.submit(self._start_vllm)
            for name in ("mlflow", "standin"):
                by_name[name].start()
            orchestration = pool.submit(self._start_prefect, by_name)
            for name in ("mlflow", "standin"):
                by_name[name].wait()
                self._say(name, began)
            by_name["gateway"].start()
            by_name["gateway"].wait()
            self._say("gateway", began)
            mlflow_webhooks.ensure(
                self.settings.mlflow_url,
                f"{self.settings.gateway_url}/control/mlflow",
                secret_of(self.place.control),
            )
            orchestration.result()
            self._say("prefect", began)
            model.result()
            self._say("vllm", began)

    def _say(self, name: str, began: float) -> None:
        self.console.print(f"  [green]up[/] {name} after {time.time() - began:.0f} s")

    def _start_prefect(self, by_name: dict[str, Server]) -> None:
        if "postgres" in by_name:
            by_name["postgres"].start()
            by_name["postgres"].wait()
        # Built anew: only now is the database's address known.
        server = prefect_server.server(self.settings, self.root)
        server.start()
        server.wait()
        prefect_server.deploy(self.settings, self.root)
        worker = prefect_server.worker(self.settings, self.root)
        worker.start()
        worker.wait()

    def _start_vllm(self) -> None:
        from pawl.serving import start_vllm, vllm_process

        with timeline.span(self.place.timeline, "model", "start vLLM"):
            # In a process of its own: what it needs of memory is given back.
            done = subprocess.run([PYTHON, "-m", "pawl.cli", "base"], capture_output=True, text=True)
            if done.returncode != 0:
                raise ModelFileError(done.stderr.strip()[-1500:])
            folder = Path(done.stdout.strip().splitlines()[-1])
            s = self.settings
            command = start_vllm.line(self.place.fleet, folder, s.host, s.vllm_port, cpu_loras=s.vllm_cpu_loras)
            env = vllm_process.environment()
            server = Server("vllm", command, f"{s.vllm_url}/health", s.home, s.vllm_port, env, ready_s=400)
            server.start()
            server.wait()

    def stop(self) -> None:
        """End what this demo, or an interrupted one before it, started."""
        for server in self.servers():
            server.stop()
