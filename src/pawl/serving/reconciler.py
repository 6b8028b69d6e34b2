"""Keeps "which adapter must be where" true on every replica: load, verify, drain, unload, again after a restart.

The gateway runs it all the time; tasks use the same one to see an adapter in place before they go on. It needs the
control database and the adapters' folders, neither Prefect nor MLflow.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import msgspec

from pawl.errors import ModelFileError, PawlError, ServerNotUp
from pawl.serving import plan as planning
from pawl.serving.desired import Need, fitting
from pawl.serving.plan import Action, Known, Seen
from pawl.serving.replicas import Replica, Replicas

log = logging.getLogger("pawl.serving")
EVERY_S = 1.0
_MISSES = 2  # looks in a row without an answer before a replica counts as down


class ReplicaView(msgspec.Struct, frozen=True, kw_only=True):
    """A replica as last seen; replaced whole."""

    url: str
    up: bool
    why: str = ""  # where it is not up
    ready: frozenset[str] = frozenset()  # model names that requests may be sent to
    listed: tuple[str, ...] = ()  # its adapters
    draining: tuple[str, ...] = ()
    failures: Mapping[str, planning.Failure] = {}
    began: float = 0.0  # when the look began, by the clock


class Reconciler:
    """One process' hand on the replicas; several may work at once, each step is harmless when it comes twice."""

    def __init__(
        self,
        replicas: Replicas,
        wanted: Callable[[], Mapping[str, Need]],
        *,
        slots: int,
        home: str,
        evict: bool,
        drain_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`wanted`: what is needed now. `slots`: adapters that a replica keeps. `home`: only adapters loaded from under
        it are unloaded, and only with `evict`."""
        self._replicas, self._wanted, self._slots = replicas, wanted, slots
        self._home, self._evict, self._drain_s, self._clock = home, evict, drain_s, clock
        self._known: dict[str, Known] = {}
        self._misses: Counter[str] = Counter()
        self._counting = threading.Lock()
        self.views: Mapping[str, ReplicaView] = {}  # by url
        self.needs: Mapping[str, Need] = {}
        self.steps: Counter[tuple[str, str]] = Counter()  # (kind, "ok" or "failed")

    def look_of(self, base: str) -> ReplicaView | None:
        """The latest look at the replica of a base URL; None where there was none."""
        return self.views.get(base.removesuffix("/v1"))

    def bases(self) -> list[str]:
        """The base URLs of the replicas that were seen, in their order."""
        return [f"{url}/v1" for url in self.views]

    def summary(self) -> dict[str, object]:
        """How many replicas are up, and which adapters some of those lack."""
        up = [view for view in self.views.values() if view.up]
        lacking = sorted({n for n in self.needs for view in up if n not in view.ready})
        return {"replicas": {"up": len(up), "of": len(self.views)}, "adapters_not_ready": lacking}

    # -- one look

    def look(self) -> Mapping[str, ReplicaView]:
        """Look at all replicas side by side, and do what is to be done. Blocks; raises nothing for a replica."""
        wanted, replicas = self._refresh(), self._replicas()
        with ThreadPoolExecutor(max(1, len(replicas))) as pool:
            found = list(pool.map(lambda replica: self.look_at(replica, wanted), replicas))
        return {view.url: view for view in found}

    def look_at(self, replica: Replica, wanted: Mapping[str, Need]) -> ReplicaView:
        """One replica. What it may be asked is told only when all was tried: a replica that comes back has its
        adapters before it gets traffic."""
        began, url = self._clock(), replica.url
        try:
            seen = replica.look()
            known = self._known.get(url) or self._first(seen)
            idle = any(n not in wanted and m.adapter for n, m in seen.listed.items())
            if self._evict and idle:
                seen = Seen(seen.listed, replica.busy())
            known = planning.observed(known, seen, wanted, self._clock())
            steps = self._steps(known, seen, wanted)
            known = self._known[url] = self._work(replica, known, steps)
            after = replica.look() if steps else seen
        except PawlError as e:
            return self._missed(url, str(e), began)
        self._misses[url] = 0
        view = ReplicaView(
            url=url,
            up=True,
            ready=planning.ready(known, after),
            listed=tuple(sorted(n for n, m in after.listed.items() if m.adapter)),
            draining=tuple(sorted(known.idle_since)),
            failures=known.failures,
            began=began,
        )
        return self._publish(view)

    def _first(self, seen: Seen) -> Known:
        """Of a replica that was never looked at: others may have unloaded as many as it holds."""
        return Known(ghosts=self._slots if any(m.adapter for m in seen.listed.values()) else 0)

    def _steps(self, known: Known, seen: Seen, wanted: Mapping[str, Need]) -> list[Action]:
        steps = planning.plan(
            known, seen, wanted, self._clock(), slots=self._slots, home=self._home, drain_s=self._drain_s
        )
        return [s for s in steps if self._evict or s.kind not in ("drain", "unload")]

    def _work(self, replica: Replica, known: Known, steps: list[Action]) -> Known:
        broken: set[str] = set()
        for step in steps:
            if step.name in broken:
                continue
            try:
                _do(replica, step)
            except (PawlError, OSError) as e:  # OSError: a folder that is not there
                broken.add(step.name)
                fault: planning.Fault = "server" if isinstance(e, ServerNotUp) else "file"
                known = planning.failed(known, step, str(e), fault, self._clock())
                self._count(step.kind, "failed")
                log.warning("%s %s on %s failed: %s", step.kind, step.name, replica.url, e)
            else:
                known = planning.done(known, step, self._clock())
                self._count(step.kind, "ok")
                if step.kind != "touch":
                    log.info("%s %s on %s", step.kind, step.name, replica.url)
        return known

    def _missed(self, url: str, why: str, began: float) -> ReplicaView:
        self._misses[url] += 1
        before = self.views.get(url)
        if before is not None and before.up and self._misses[url] < _MISSES:
            return before
        # It may restart empty, or only have been slow: what it unloaded may still take its slots.
        self._known[url] = Known(ghosts=self._known.get(url, Known()).ghosts)
        return self._publish(ReplicaView(url=url, up=False, why=why, began=began))

    def _publish(self, view: ReplicaView) -> ReplicaView:
        before = self.views.get(view.url)
        if before is None or before.up != view.up:
            level = logging.INFO if view.up else logging.WARNING
            said = f"is up with {len(view.listed)} adapters" if view.up else f"is down: {view.why}"
            log.log(level, "replica %s %s", view.url, said)
        with self._counting:
            self.views = {**self.views, view.url: view}
        return view

    def _count(self, kind: str, outcome: str) -> None:
        with self._counting:
            self.steps[kind, outcome] += 1

    def _refresh(self) -> Mapping[str, Need]:
        self.needs = fitting(self._wanted(), self._slots)
        return self.needs

    # -- until it is so

    def settle(self, names: Collection[str], within_s: float = 120.0) -> list[str]:
        """Wait until every replica that is up answers with these adapters; returns their addresses.

        Raises:
            ModelFileError: an adapter is unsound, refused, or its name stands for another folder.
            ServerNotUp: no replica is up, or one did not get there in time.
        """
        end = self._clock() + within_s
        while True:
            views = self.look().values()
            up = [v for v in views if v.up]
            if not up:
                raise ServerNotUp("; ".join(v.why for v in views) or "no vLLM replica is known: see PAWL_VLLM_URLS")
            late = {v.url: sorted(set(names) - v.ready) for v in up}
            if not any(late.values()):
                return [v.url for v in up]
            told = [v.failures[n] for v in up for n in late[v.url] if n in v.failures]
            for failure in told:
                if failure.fault == "file":
                    raise ModelFileError(failure.why)
            if self._clock() > end:
                missing = "; ".join(f"{url} lacks {', '.join(n)}" for url, n in late.items() if n)
                why = "; ".join(sorted({f.why for f in told}))
                raise ServerNotUp(f"after {within_s:.0f} s {missing}{': ' + why if why else ''}")
            time.sleep(min(0.5, max(0.05, within_s / 20)))

    # -- for ever

    async def watch(self) -> None:
        """Look at every replica about once a second; one that is slow to answer keeps no other waiting."""
        under_way: dict[str, asyncio.Task[ReplicaView]] = {}
        while True:
            try:
                wanted, replicas = await asyncio.to_thread(lambda: (self._refresh(), self._replicas()))
            except Exception:  # a loop that ended would never bring an adapter back
                log.exception("what must be on the replicas could not be read; trying again")
            else:
                under_way = {url: task for url, task in under_way.items() if not _ended(task)}
                for replica in replicas:
                    if replica.url not in under_way:
                        look = partial(self.look_at, replica, wanted)
                        under_way[replica.url] = asyncio.create_task(_aside(look))
                gone = self.views.keys() - {r.url for r in replicas}
                if gone:
                    self.views = {url: view for url, view in self.views.items() if url not in gone}
            await asyncio.sleep(EVERY_S)


def _do(replica: Replica, step: Action) -> None:
    match step.kind:
        case "load":
            replica.load(step.name, step.path)
        case "verify" | "touch":
            replica.verify(step.name)
        case "unload":
            replica.unload(step.name)
        case "drain":
            """Requests stop because it is no longer ready."""


async def _aside(look: Callable[[], ReplicaView]) -> ReplicaView:
    """In a thread that nobody waits for at the end: a replica that hangs must not keep the gateway from ending."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[ReplicaView] = loop.create_future()

    def tell(view: ReplicaView | None, error: Exception | None) -> None:
        if done.done():
            return
        if view is not None:
            done.set_result(view)
        elif error is not None:
            done.set_exception(error)

    def work() -> None:
        view, error = None, None
        try:
            view = look()
        except Exception as e:
            error = e
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(tell, view, error)

    threading.Thread(target=work, name="look at a replica", daemon=True).start()
    return await done


def _ended(task: asyncio.Task[ReplicaView]) -> bool:
    if task.done() and not task.cancelled() and task.exception() is not None:
        log.error("a look at a replica broke off; trying again", exc_info=task.exception())
    return task.done()
