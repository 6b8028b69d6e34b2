"""What computed a training: two runs with the same give the same adapter, bit by bit, on a processor."""

from __future__ import annotations

import platform
from importlib import metadata

from pawl.training.result import TrainResult


def versions() -> dict[str, str]:
    """Packages, device, instruction set, threads, processes that train together."""
    import torch

    from pawl.training.stage_transformers import processes

    found = {p: metadata.version(p) for p in ("torch", "transformers", "peft", "accelerate", "trl")}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    capability = torch.backends.cpu.get_cpu_capability()
    return {
        "python": platform.python_version(),
        **found,
        "device": device,
        "cpu": capability,
        "threads": str(torch.get_num_threads()),
        "processes": str(processes().num_processes),
    }


def differences(one: TrainResult, two: TrainResult) -> list[str]:
    """Why two runs over the same data and spec may not give the same adapter; empty where nothing is known (pure)."""
    names = sorted(one.versions.keys() | two.versions.keys())
    return [
        f"{n}: {one.versions.get(n, 'not recorded')} and {two.versions.get(n, 'not recorded')}"
        for n in names
        if one.versions.get(n) != two.versions.get(n)
    ]
