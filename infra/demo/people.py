"""What the people around the running stack do: clients who ask, an approver, an operator."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from typing import Any

from infra.demo import prefect_runs
from infra.demo.servers import PYTHON
from infra.demo.sizes import AGENT, CLIENTS
from infra.demo.traffic_openai import Clients
from pawl.errors import PawlError
from pawl.improvement.workplace import Workplace
from pawl.qe.tasks import task_of
from pawl.rollout.control import Role
from pawl.settings import Settings


class People:
    """Everything here goes through the ways a user has: HTTP, the command, a deployment's run."""

    def __init__(self, settings: Settings, place: Workplace) -> None:
        self._settings, self._place = settings, place

    def clients(self, at_once: int = CLIENTS) -> Clients:
        """OpenAI clients of the agent, so many at once."""
        secret = self.secret("client")
        agent = self._place.agent
        return Clients(self._settings.gateway_url, secret, AGENT, task_of(agent.task), agent.max_tokens, at_once)

    def secret(self, role: Role) -> str:
        """A key of that role, made once; its secret lies in a file that only its owner reads."""
        path = self._settings.home / f"demo-{role}.key"
        if not path.exists():
            _, secret = self._place.control.create_key(role, f"demo {role}")
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(handle, secret.encode())
            os.close(handle)
        return path.read_text()

    def pawl(self, *arguments: str, role: Role) -> str:
        """The command as a person would run it, with a key of that role."""
        env = os.environ | {"PAWL_API_KEY": self.secret(role)}
        done = subprocess.run([PYTHON, "-m", "pawl.cli", *arguments], env=env, capture_output=True, text=True)
        if done.returncode != 0:
            raise PawlError(f"pawl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def tick(self) -> None:
        """One run of roll_out, as the schedule starts it each minute; PawlError where it fails."""
        run = prefect_runs.start_run(self._settings, "roll-out/every-minute", {"agent": AGENT})
        end = time.monotonic() + 120
        while time.monotonic() < end:
            kind, message = prefect_runs.run_state(self._settings, run)
            if kind in ("COMPLETED", "CANCELLED"):  # cancelled: the minute's own run is under way
                return
            if kind in prefect_runs.ENDED:
                raise PawlError(f"roll_out ended as {kind}: {message[-1500:]}")
            time.sleep(0.3)

    def latest_decision(self) -> dict[str, Any]:
        """What the gateway's watchdog thinks of the rollout now; empty without one."""
        return dict(self._rollouts().get("decision") or {})

    def route(self) -> dict[str, Any]:
        """The agent's route as the gateway serves it."""
        return dict(self._rollouts()["route"])

    def _rollouts(self) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 - loopback
            f"{self._settings.gateway_url}/v1/rollouts",
            headers={"authorization": f"Bearer {self.secret('operator')}"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - loopback
            listed = json.load(answer)["data"]
        return dict(next(a for a in listed if a["agent"] == AGENT))
