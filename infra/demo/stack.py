"""All of Pawl on this machine: the base model, vLLM, the stand-in, MLflow, Prefect, the gateway."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from infra.demo.played_time import only_what_is_played
from infra.demo.servers import demand_machine
from pawl.errors import ServerNotUp
from pawl.gateway.api.control import secret_of
from pawl.improvement.workplace import Workplace
from pawl.monitoring import timeline
from pawl.platform import prefect_server, servers
from pawl.platform.bring_up import BAD, Outcome, Start
from pawl.platform.process import Server
from pawl.platform.run_lock import alone
from pawl.registry import mlflow_webhooks
from pawl.settings import Settings


class Stack:
    """The demo's servers."""

    def __init__(self, settings: Settings, root: Path, agent: str, console: Console) -> None:
        self.settings, self.root, self.console = settings, root, console
        self.place = Workplace(settings, agent)

    def servers(self) -> list[Server]:
        """In the order in which they are stopped."""
        s = self.settings
        database = prefect_server.database(s)
        return [
            prefect_server.worker(s, self.root),
            servers.gateway(s),
            servers.standin(s),
            servers.vllm(s, s.vllm_url, "vllm", {}),
            servers.mlflow(s),
            prefect_server.server(s, self.root),
            *([database] if database else []),
        ]

    def start(self) -> None:
        """Start what is not running; the slow ones beside each other. ServerNotUp names what did not come up."""
        if not any(s.running() for s in self.servers()):
            demand_machine(self.settings.home)
        os.environ["MLFLOW_TRACKING_URI"] = self.settings.mlflow_url
        began = time.time()
        steps = [
            servers.base_model(self.settings, self.place.fleet),
            self._deployments(),
            replace(servers.webhook(self.settings), run=self._webhook),
        ]

        def tell(o: Outcome) -> None:
            if o.name == "vllm":
                span = timeline.Span("model", "start vLLM", began, time.time())
                timeline.record(self.place.timeline, span)
            if o.state in ("started", "ran"):
                self.console.print(f"  [green]up[/] {o.name} after {time.time() - began:.0f} s")

        said = "starting the servers (vLLM takes about a minute and a half) ..."
        with alone(self.settings.home, self.console.print), self.console.status(said):
            outcomes = Start(self.settings.home, self.servers(), steps, tell).run()
        failed = [f"{o.name}: {o.why}" for o in outcomes if o.state in BAD]
        if failed:
            raise ServerNotUp("\n".join(failed))

    def _deployments(self) -> servers.Step:
        usual = servers.deployments(self.settings, self.root)

        def play() -> None:
            usual.run()
            only_what_is_played(self.settings)

        return replace(usual, run=play, done_as=lambda: f"played: {usual.done_as()}")

    def _webhook(self) -> None:
        # In this process, which has MLflow's client loaded for its own sake.
        mlflow_webhooks.ensure(
            self.settings.mlflow_url, f"{self.settings.gateway_url}/control/mlflow", secret_of(self.place.control)
        )

    def stop(self) -> None:
        """End what this demo, or an interrupted one before it, started."""
        for server in self.servers():
            server.stop()
