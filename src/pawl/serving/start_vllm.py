"""Becomes one vLLM replica as the fleet's specification says, for containers and service units.

`python -m pawl.serving.start_vllm --host 0.0.0.0 --port 8000 [more arguments of vLLM]`. The process is replaced by
vLLM, so signals and exit codes are vLLM's own.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pawl import bootstrap
from pawl.errors import ModelFileError, PawlError
from pawl.fleet.spec import FleetSpec
from pawl.serving import vllm_process
from pawl.settings import Settings
from pawl.training.adapter_check import base_at_hand

_SIDE_BY_SIDE = 8  # adapters in one batch; each takes memory for its slot whether it is used or not


def line(
    fleet: FleetSpec,
    base_dir: Path,
    host: str,
    port: int,
    more: Sequence[str] = (),
    *,
    cpu_loras: int = vllm_process.MAX_CPU_LORAS,
) -> list[str]:
    """The command of a replica that can serve every agent of the fleet (pure): its ranks, and a slot in a batch for
    each agent's champion and one challenger. `cpu_loras`: adapters that it keeps. `more` comes last, so it wins over
    what is said here."""
    base = fleet.base_model
    return [
        *vllm_process.command(
            base_dir=base_dir,
            served_name=base.served_name,
            host=host,
            port=port,
            max_model_len=base.max_model_len,
            max_lora_rank=max(agent.training.greatest_rank for agent in fleet.agents),
            max_loras=min(_SIDE_BY_SIDE, 1 + len(fleet.agents)),
            max_cpu_loras=cpu_loras,
        ),
        *more,
    ]


def main() -> None:
    """Replace this process. Ends with one line and code 1 where the fleet is wrong or the base model is not there."""
    parser = argparse.ArgumentParser(prog="pawl.serving.start_vllm", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="beyond loopback whoever reaches it may load adapters")
    parser.add_argument("--port", type=int, default=8710)
    options, more = parser.parse_known_args()
    settings = Settings()
    try:
        fleet = bootstrap.fleet(settings)
        base_dir = base_at_hand(fleet.base_model, settings.models_dir)
        if base_dir is None:
            raise ModelFileError(f"{fleet.base_model.source} is not under {settings.models_dir}: run `pawl base` first")
    except PawlError as e:
        sys.exit(f"pawl.serving.start_vllm: {e}")
    command = line(fleet, base_dir, options.host, options.port, more, cpu_loras=settings.vllm_cpu_loras)
    os.execve(command[0], command, {**os.environ, **vllm_process.environment()})  # noqa: S606 - our own command


if __name__ == "__main__":
    main()
