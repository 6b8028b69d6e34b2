"""A champion merged into a replica of its own beside the same one as an adapter: tokens a second, same work.

    python -m benchmarks.serving_modes [--quick] [--json]

Two real vLLM servers take turns (the other is frozen) with the same prompts, clients and answers of the same length,
greedy: one serves the built-in 135M model with a rank-16 adapter as the product does, the other the same weights merged
and no adapters. Counted are completion tokens a second of all clients together; `ratio` is merged over adapter. The
claims are one for each number of clients. The adapter is random: speed does not depend on what it learnt.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console

from benchmarks.claims import Claim, rates, tell
from benchmarks.cluster_scene import Process, random_adapter
from benchmarks.servers import Failed, free_port
from benchmarks.training import base_dir
from pawl.serving import vllm_adapters, vllm_process

RANK = 16
ADAPTER, MERGED = "an-adapter", "an-adapter-merged"
CLIENTS = (8, 32)
ROUNDS = {True: 2, False: 5}
TOKENS = {True: 32, False: 96}
EACH = 2  # requests of a client in a round
_WORDS = [
    "request",
    "answer",
    "field",
    "value",
    "limit",
    "schema",
    "retry",
    "token",
    "server",
    "order",
    "user",
    "price",
]


class Server:
    """One vLLM server, frozen while it is not its turn."""

    def __init__(self, name: str, model_dir: Path, folder: Path, rank: int | None) -> None:
        port = free_port()
        self.name, self.url = name, f"http://127.0.0.1:{port}"
        served = MERGED if rank is None else "base"
        line = vllm_process.command(
            base_dir=model_dir, served_name=served, host="127.0.0.1", port=port, max_model_len=512, max_lora_rank=rank
        )
        self.process = Process(name, line, f"{self.url}/health", folder, vllm_process.environment())

    def rate(self, clients: int, tokens: int, seed: int) -> float:
        """Completion tokens a second."""
        rng = random.Random(seed)
        prompts = [" ".join(rng.choices(_WORDS, k=90)) for _ in range(clients * EACH)]
        self.process.send(signal.SIGCONT)
        try:
            began = time.perf_counter()
            with ThreadPoolExecutor(clients) as pool:
                made = sum(pool.map(lambda prompt: self._ask(prompt, tokens), prompts))
            return made / (time.perf_counter() - began)
        finally:
            self.process.send(signal.SIGSTOP)

    def _ask(self, prompt: str, tokens: int) -> int:
        body = {
            "model": self.name, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True,
        }  # fmt: skip
        request = urllib.request.Request(
            f"{self.url}/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=600) as answer:
            return int(json.loads(answer.read())["usage"]["completion_tokens"])


def merge(base: Path, adapter: Path, target: Path) -> Path:
    """Both as one model."""
    from pawl.training.export_peft import with_adapter, write_merged

    write_merged(with_adapter(base, adapter), base, target, MERGED, bfloat16=True)
    return target


def measure(folder: Path, quick: bool, say: Console) -> list[Claim]:
    """Start both, take turns, compare."""
    base = base_dir()
    adapter = random_adapter(base, folder / "adapter", 1, RANK)
    say.print("merging ...")
    merged = Server(MERGED, merge(base, adapter, folder / "merged"), folder, None)
    hot = Server(ADAPTER, base, folder, RANK)
    try:
        for server in (merged, hot):
            say.print(f"starting {server.name} ...")
            server.process.start()
            server.process.wait()
            if server is hot:
                vllm_adapters.reconcile(server.url, {ADAPTER: str(adapter)}, base)
            server.process.send(signal.SIGSTOP)
        claims = []
        for clients in CLIENTS:
            pairs = []
            for n in range(1 + ROUNDS[quick]):
                pair = (merged.rate(clients, TOKENS[quick], n), hot.rate(clients, TOKENS[quick], n))
                say.print(f"{clients} clients, round {n}: merged {pair[0]:.0f}, adapter {pair[1]:.0f} tokens/s")
                if n:  # the first warms both
                    pairs.append(pair)
            claims.append(rates(f"merged_{clients}", pairs, "tokens/s"))
        return claims
    finally:
        for server in (merged, hot):
            server.process.send(signal.SIGCONT)
            server.process.stop()


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shorter answers, two rounds")
    parser.add_argument("--json", action="store_true", help="one line a claim")
    given = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    errors = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="pawl-bench-") as folder:
        try:
            found = measure(Path(folder), given.quick, errors)
        except Failed as e:
            errors.print(f"failed: {e}", markup=False)
            return 1
    tell(found, "a champion merged, beside the same as an adapter", as_json=given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
