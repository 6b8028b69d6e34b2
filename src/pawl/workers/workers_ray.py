"""Pieces of work on a Ray cluster, or on a Ray that is started on this machine for them.

A piece that its machine's death cuts off is run again elsewhere, so pieces must be such that twice does no harm.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import signal
import socket
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from functools import cached_property
from typing import Any, TypeVar

# Read by Ray as it is imported. It tells nobody outside that it is used, and talks to those who have the token.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AUTH_MODE", "token")

import ray
from ray import cloudpickle
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pawl.errors import ConfigError, ServerNotUp, TrainingFailed
from pawl.workers.port import Done, Told

R = TypeVar("R")

LOCAL = "local"
AGAIN = 3  # times that a piece is run again whose machine died


class RayWorkers:
    """The cluster at `address`, e.g. ray-head:6379, or `local`: one that lives on this machine as long as this process.

    ServerNotUp at first use where no cluster answers there.
    """

    elsewhere = True

    def __init__(self, address: str) -> None:
        self._address = address

    def slots(self, *, trains: bool = False) -> int:
        """A core each, and a GPU each for what trains where the cluster has any."""
        there = self._resources
        return max(1, int((trains and there.get("GPU", 0)) or there.get("CPU", 1)))

    def run(
        self,
        work: Callable[..., R],
        pieces: Iterable[tuple[Any, ...]],
        told: Told,
        *,
        trains: bool = False,
    ) -> Generator[Done[R]]:
        """As many at a time as there are slots."""
        slots, gpu = self.slots(trains=trains), 1 if trains and self._resources.get("GPU") else 0
        remote = ray.remote(max_retries=AGAIN, num_cpus=1, num_gpus=gpu)(_work)
        waiting, ended = enumerate(pieces), False
        running: dict[Any, int] = {}  # what Ray will know the result by -> the piece's number
        # Beside this process: what they all speak through must not die with one of the others' machines.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        line = _Line.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined]
        heard = line.heard.remote()
        try:
            while True:
                while not ended and len(running) < slots:
                    if (found := next(waiting, None)) is None:
                        ended = True
                    else:
                        number, piece = found
                        running[remote.remote(line, number, _version(), cloudpickle.dumps((work, piece)))] = number
                if not running:
                    return
                (ready, *_), _ = ray.wait([heard, *running], num_returns=1)
                if ready is heard:
                    number, turn, said = ray.get(heard)
                    line.answer.remote(turn, *_answer(told, number, said))
                    heard = line.heard.remote()
                else:
                    yield _done(running.pop(ready), ready)
        except RayError as e:
            raise ServerNotUp(f"the Ray cluster at {self._address} does not go on ({e}); start it and try again") from e
        finally:
            with suppress(RayError):  # a cluster that is gone runs nothing any more
                for ref in running:
                    ray.cancel(ref, force=True)
                ray.kill(line)

    @cached_property
    def _resources(self) -> dict[str, float]:
        if not ray.is_initialized():
            # Ray takes the signal for itself; what runs here had a use for it.
            main = threading.current_thread() is threading.main_thread()
            before = signal.getsignal(signal.SIGTERM) if main else None
            local = self._address == LOCAL
            shared = {"_node_ip_address": "127.0.0.1", "include_dashboard": False} if local else {}
            try:
                ray.init(LOCAL if local else self._address, log_to_driver=False, logging_level="warning", **shared)
            except (RayError, ConnectionError, RuntimeError, ValueError) as e:
                raise ServerNotUp(
                    f"no Ray cluster answers at {self._address} ({e}): start it, or unset PAWL_RAY"
                ) from e
            finally:
                if main:
                    signal.signal(signal.SIGTERM, before)
        return dict(ray.cluster_resources())


@ray.remote(num_cpus=0, max_concurrency=10_000)
class _Line:
    """Carries what pieces say to who started them, and the answers back."""

    def __init__(self) -> None:
        self._said: asyncio.Queue[tuple[int, int, Any]] = asyncio.Queue()
        self._answers: dict[int, asyncio.Future[tuple[Any, Exception | None]]] = {}
        self._turns = 0

    async def say(self, number: int, message: Any) -> tuple[Any, Exception | None]:
        self._turns += 1
        answer: asyncio.Future[tuple[Any, Exception | None]] = asyncio.get_running_loop().create_future()
        self._answers[self._turns] = answer
        self._said.put_nowait((number, self._turns, message))
        return await answer

    async def heard(self) -> tuple[int, int, Any]:
        return await self._said.get()

    async def answer(self, turn: int, result: Any, error: Exception | None) -> None:
        self._answers.pop(turn).set_result((result, error))


def _work(line: Any, number: int, version: str, pickled: bytes) -> Any:
    """A piece, in the process where it runs."""
    if version != _version():
        raise ConfigError(
            f"Ray's machine {socket.gethostname()}", [f"it has Pawl {_version()}, this one {version}: install the same"]
        )

    def tell(message: Any) -> Any:
        result, error = ray.get(line.say.remote(number, message))
        if error is not None:
            raise error
        return result

    work, piece = cloudpickle.loads(pickled)  # here, so that what cannot be opened here is an error like any other
    return work(tell, *piece)


def _answer(told: Told, number: int, said: Any) -> tuple[Any, Exception | None]:
    try:
        answer = told(number, said)
    except Exception as e:  # it is the piece's to handle
        return None, e
    return answer, None


def _done(number: int, ref: Any) -> Done[Any]:
    try:
        return Done(number, ray.get(ref))
    except OutOfMemoryError as e:
        return Done(number, None, TrainingFailed(f"out of memory on Ray's machine: {e}"))
    except RayTaskError as e:
        cause = e.cause if isinstance(e.cause, Exception) else e
        # Where it came from: a traceback does not travel.
        cause.add_note(str(e))
        return Done(number, None, cause)


def _version() -> str:
    return importlib.metadata.version("pawl")
