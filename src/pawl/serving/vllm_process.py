"""How a vLLM replica is started: its command and environment (pure), measured for small CPUs."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path

from pawl.errors import ResourceError

WORKER_EXTENSION = "pawl.serving.vllm_cpu_lora.Worker"
MAX_CPU_LORAS = 12  # adapters that stay resident; a rollout needs two, an evaluation one more


def command(
    *,
    base_dir: Path,
    served_name: str,
    host: str,
    port: int,
    max_model_len: int,
    max_lora_rank: int | None,
    max_loras: int = 2,
    max_cpu_loras: int = MAX_CPU_LORAS,
    max_num_seqs: int = 32,
) -> list[str]:
    """The replica's command line. Adapters are loaded at run time, under immutable names; with `max_lora_rank` None it
    takes none, and serves one model merged."""
    line = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server",
        "--model", str(base_dir), "--served-model-name", served_name, "--host", host, "--port", str(port),
        "--dtype", "bfloat16", "--max-model-len", str(max_model_len), "--max-num-seqs", str(max_num_seqs),
        "--disable-uvicorn-access-log",
    ]  # fmt: skip
    if max_lora_rank is None:
        return line
    return [
        *line, "--enable-lora", "--max-loras", str(max_loras), "--max-cpu-loras", str(max_cpu_loras),
        "--max-lora-rank", str(_supported(max_lora_rank)),
        # On CPU: adapters at nearly the base model's speed, and the base model itself in mixed batches.
        "--worker-extension-cls", WORKER_EXTENSION,
    ]  # fmt: skip


def environment(env: Mapping[str, str] | None = None, core: int | None = None) -> dict[str, str]:
    """What the replica is told besides. `core`: it computes on that one alone, beside other replicas.

    By default vLLM keeps a core for itself: on two cores, using it doubles the throughput. OpenMP and tcmalloc
    are preloaded where they are found.
    """
    given = os.environ if env is None else env
    found = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if core is not None:
        found["VLLM_CPU_OMP_THREADS_BIND"] = str(core)
    preload = [p for p in (given.get("LD_PRELOAD", ""), *_faster_libraries()) if p]
    if preload:
        found["LD_PRELOAD"] = ":".join(preload)
    return found


def demand_memory(free_bytes: int, needed_gb: float = 6.0) -> None:
    """ResourceError where a replica would not fit."""
    if free_bytes < needed_gb * 2**30:
        raise ResourceError(
            f"{free_bytes / 2**30:.1f} GB of memory are free, a vLLM replica needs about {needed_gb:.0f}: "
            "end other programs, or serve on another machine"
        )


def _supported(rank: int) -> int:
    """vLLM knows only some maximal ranks."""
    return next((r for r in (8, 16, 32, 64, 128, 256) if r >= rank), 256)


def _faster_libraries() -> list[str]:
    places = [
        str(Path(sys.prefix) / "lib" / "libiomp5.so"),
        f"/usr/lib/{platform.machine()}-linux-gnu/libtcmalloc_minimal.so.4",
    ]
    return [place for place in places if Path(place).exists()]
