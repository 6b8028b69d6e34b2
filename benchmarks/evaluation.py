"""Evaluation: the runner behind `improve_agent` beside vLLM's own offline batch, on the same items and model.

    python -m benchmarks.evaluation [--quick] [--json]

Items are real operations of botocore, the model is the built-in 135M one in bfloat16, answers are greedy. Ours asks a
vLLM server over HTTP as the product does, grades every answer and keeps it in the cache; the peer is `vllm.LLM.chat`
in a process of its own, with the same settings (adapters allowed, bounds on sequences and length), that neither grades
nor keeps anything. Both stay up and take turns, and neither finds an earlier round's prompts in its cache. Counted are
completion tokens a second from the first question to the last grade.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import IO, Any

from rich.console import Console

from benchmarks.claims import rates, table
from benchmarks.servers import free_port
from benchmarks.training import base_dir

ITEMS = {True: 32, False: 128}
MAX_TOKENS = {True: 48, False: 128}
ROUNDS = {True: 2, False: 5}
MAX_LEN, SEQUENCES, SEED = 1024, 32, 11
READY_S = 400


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter answers, two rounds")
    parser.add_argument("--json", action="store_true", help="one line a claim")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        return offline(Path(given.child[0]), int(given.child[1]))
    say = Console(stderr=True).print
    pairs = []
    with (
        tempfile.TemporaryDirectory(prefix="pawl-bench-") as folder,
        Peer(Path(folder), given.quick) as peer,
        Server(Path(folder)) as server,
    ):
        for n in range(1 + ROUNDS[given.quick]):
            mine = ours(server.url, Path(folder) / f"answers-{n}", given.quick)
            theirs = peer.rate()
            if n:  # the first pair warms both
                pairs.append((mine, theirs))
                say(f"ours {mine:.0f}, vLLM offline {theirs:.0f} tokens/s")
    claim = rates("vllm", pairs, "completion tokens/s")
    print(claim.json()) if given.json else Console().print(table([claim]))
    return 0


def items(quick: bool) -> list[Any]:
    """The same items on both sides."""
    from pawl.fleet.source import TaskSourceSpec
    from pawl.qe.tasks import task_of

    found = task_of("functional-negative").items(TaskSourceSpec())
    return random.Random(SEED).sample(list(found), ITEMS[quick])


def ours(url: str, cache: Path, quick: bool) -> float:
    """Completion tokens a second of the product's runner, grades and cache included."""
    from pawl.evaluation.runner import answer_items
    from pawl.qe.tasks import task_of

    task, asked = task_of("functional-negative"), items(quick)
    # Answers to the same prompts again: without this a later round would find them in the prefix cache, as below.
    reset = urllib.request.Request(f"{url}/reset_prefix_cache", method="POST")
    urllib.request.urlopen(reset, timeout=30).close()
    began = time.perf_counter()
    results = answer_items(
        asked,
        "base",
        url,
        max_tokens=MAX_TOKENS[quick],
        model_hash="bench",
        grade=lambda item, text: task.grade(item.messages, text, item.truth),
        cache_dir=cache,
    )
    seconds = time.perf_counter() - began
    if any(r.score is None for r in results):
        raise SystemExit("an answer could not be graded")
    return sum(r.completion_tokens for r in results) / seconds


class Server:
    """A vLLM server as the product starts it."""

    def __init__(self, folder: Path) -> None:
        from pawl.serving import vllm_process

        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = vllm_process.command(
            base_dir=base_dir(), served_name="base", host="127.0.0.1", port=port, max_model_len=MAX_LEN,
            max_lora_rank=16, max_num_seqs=SEQUENCES,
        )  # fmt: skip
        log = (folder / "server.log").open("w")
        env = os.environ | vllm_process.environment() | {"VLLM_SERVER_DEV_MODE": "1"}  # for reset_prefix_cache
        self._process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)

    def __enter__(self) -> Server:
        end = time.monotonic() + READY_S
        while time.monotonic() < end and self._process.poll() is None:
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=2)
                return self
            except OSError:
                time.sleep(0.5)
        self.__exit__()
        raise SystemExit("vLLM's server did not come up")

    def __exit__(self, *_: object) -> None:
        _end(self._process)


class Peer:
    """vLLM's offline engine in a process of its own, asked again and again."""

    def __init__(self, folder: Path, quick: bool) -> None:
        from pawl.serving import vllm_process

        path = folder / "items.json"
        path.write_text(json.dumps([i.messages for i in items(quick)]))
        command = [sys.executable, "-m", "benchmarks.evaluation", "--child", str(path), str(MAX_TOKENS[quick])]
        log = (folder / "peer.log").open("w")
        self._process = subprocess.Popen(
            command, env=os.environ | vllm_process.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=log, text=True, start_new_session=True,
        )  # fmt: skip
        self._in: IO[str] = self._process.stdin  # type: ignore[assignment]
        self._out: IO[str] = self._process.stdout  # type: ignore[assignment]

    def __enter__(self) -> Peer:
        self._line("ready")
        return self

    def rate(self) -> float:
        """Completion tokens a second of the whole batch."""
        print("go", file=self._in, flush=True)
        return float(self._line("rate"))

    def _line(self, name: str) -> str:
        for line in self._out:
            if line.startswith(f"{name} "):
                return line.split()[1]
        raise SystemExit("vLLM's offline engine ended")

    def __exit__(self, *_: object) -> None:
        self._in.close()  # it ends by itself then, and its engine with it
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(30)
        _end(self._process)


def offline(path: Path, max_tokens: int) -> int:
    """The peer's process: a line in, the batch's rate out."""
    from vllm import LLM, SamplingParams

    from pawl.serving.vllm_process import WORKER_EXTENSION

    model = LLM(
        str(base_dir()), dtype="bfloat16", max_model_len=MAX_LEN, max_num_seqs=SEQUENCES, disable_log_stats=True,
        enable_lora=True, max_loras=2, max_lora_rank=16, worker_extension_cls=WORKER_EXTENSION,
    )  # fmt: skip
    asked = json.loads(path.read_text())
    how = SamplingParams(temperature=0, max_tokens=max_tokens)
    print("ready 1", flush=True)
    for _ in sys.stdin:
        model.reset_prefix_cache()
        began = time.perf_counter()
        answers = model.chat(asked, how, use_tqdm=False)
        seconds = time.perf_counter() - began
        print(f"rate {sum(len(a.outputs[0].token_ids) for a in answers) / seconds}", flush=True)
    return 0


def _end(process: subprocess.Popen[Any]) -> None:
    """With everything that it started: vLLM's engine is a process of its own."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)


if __name__ == "__main__":
    sys.exit(main())
