"""The measurements: whose turn it is, what is counted, and the check that the stub saw what the client counted."""

from __future__ import annotations

import gc
import http.client
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

from benchmarks import claims
from benchmarks.claims import Claim
from benchmarks.load import OneClient, Streams, Wrk
from benchmarks.peers import Gateway, Place
from benchmarks.servers import Call, Cores, Failed, Server, ask
from benchmarks.stub_upstream import MODEL

CLIENTS = 64
STREAMS = 1000
_TOKEN_PACE_MS = 2
_TOKEN_CHUNKS = 3
_STREAM_PACE_MS = 500
_STREAM_CHUNKS = 10  # five seconds a stream: all must be open before the first ends
_REST_S = 0.2
_QUIET = 0.07  # above this share of a core, other processes show in the figures
_BUSY = 0.9  # below this share of its core, a gateway was not what limited the rate

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """How much is measured. Seconds are of steady load, without the ramps."""

    rounds: int
    tries: int  # for a pair that other processes disturb
    window_s: float
    batches: float  # a window holds at least this many times CLIENTS answers: a slow gateway gets longer ones
    most_s: float  # but no turn is longer than this
    warm_s: int
    latency_requests: int  # a round
    token_requests: int  # a round
    disk_gb: float  # of journal that ours may write at 15,000 requests/s


FULL = Plan(
    rounds=5,
    tries=3,
    window_s=5,
    batches=12,
    most_s=16,
    warm_s=6,
    latency_requests=2000,
    token_requests=400,
    disk_gb=15,
)
QUICK = Plan(
    rounds=2, tries=1, window_s=1.5, batches=4, most_s=5, warm_s=4, latency_requests=500, token_requests=100, disk_gb=3
)


@dataclass(frozen=True)
class Turn:
    """One gateway under load. Shares are of one core, over the time in which the rate was counted."""

    rate: float  # requests/s
    used: float  # by the gateway
    others: float  # of both cores, by what has nothing to do with the measurement


@dataclass(frozen=True)
class Spent:
    """CPU seconds of the gateway and of strangers, and the clock."""

    gateway: float
    others: float
    clock: float

    def __sub__(self, before: Spent) -> Spent:
        return Spent(self.gateway - before.gateway, self.others - before.others, self.clock - before.clock)


@dataclass(frozen=True)
class Seen:
    """What the stub counted until a moment of its own clock."""

    chats: int
    wrong_model: int
    at_ns: int


class Bench:
    """The stub and all gateways; one of them runs at a time."""

    def __init__(self, place: Place, cores: Cores, stub: Server, gateways: Sequence[Gateway], plan: Plan, say: Say):
        self._place, self._cores, self._stub, self._plan, self._say = place, cores, stub, plan, say
        self._gateways = gateways
        self._direct = Call(place.stub_port, MODEL)
        self._counter = http.client.HTTPConnection("127.0.0.1", place.stub_port, timeout=30)
        self._rough: dict[str, float] = {}  # requests/s, from the warm-up
        self.measured_s = 0.0
        self.turns = self.disturbed = 0

    def warm_up(self, gateway: Gateway) -> None:
        """Load it once, uncounted, and learn how long its windows have to be."""
        seconds = self._plan.warm_s
        self._rough[gateway.name] = max(1.0, self._run(gateway, seconds, seconds / 2).rate)

    def rates(self, claim: str, ours: Gateway, peer: Gateway) -> Claim:
        """Requests/s at 64 clients, in pairs, each of ours right before its peer."""
        pairs: list[tuple[float, float]] = []
        for n in range(self._plan.rounds):
            for tries_left in range(self._plan.tries - 1, -1, -1):
                a, b = self.turn(ours), self.turn(peer)
                if not tries_left or max(a.others, b.others) <= _QUIET:
                    break
                self._say(f"{claim}, pair {n + 1}: disturbed, once more")
            pairs.append((a.rate, b.rate))
            found = f"{a.rate:,.0f} and {b.rate:,.0f} requests/s, {a.rate / b.rate:.3g}"
            self._say(f"{claim}, pair {n + 1} of {self._plan.rounds}: {found}")
        return claims.rates(claim, pairs)

    def turn(self, gateway: Gateway) -> Turn:
        """One measured run, long enough for this gateway."""
        with self._timed():
            batch_s = CLIENTS / self._rough[gateway.name]
            # All clients begin at once: until the first batch is through, answers are owed and not yet counted.
            ramp_s = max(0.3, 1.5 * batch_s)
            window_s = max(self._plan.window_s, self._plan.batches * batch_s)
            turn = self._run(gateway, math.ceil(min(ramp_s + window_s, self._plan.most_s)), ramp_s)
            self._rough[gateway.name] = turn.rate
        self.turns += 1
        self.disturbed += turn.others > _QUIET
        if turn.others > _QUIET:
            self._say(f"note: other processes took {turn.others:.0%} of a core beside {gateway.name}; close what runs")
        elif turn.used < _BUSY:
            self._say(
                f"note: {gateway.name} used {turn.used:.0%} of its core: it waited for load generator, stub or disk"
            )
        return turn

    def latency(self, gateway: Gateway) -> Claim:
        """Added milliseconds of a whole answer, at one client."""
        return self._added("latency", gateway, OneClient.whole_ns, self._plan.latency_requests, 0, (0.5, 0.99))

    def first_token(self, gateway: Gateway) -> Claim:
        """Added milliseconds (median) until a stream's first event, at one client."""
        ask(self._place.stub_port, "POST", f"/pace/{_TOKEN_PACE_MS}")
        count = self._plan.token_requests
        return self._added("first token", gateway, OneClient.first_token_ns, count, _TOKEN_CHUNKS, (0.5,))

    def streams(self, gateway: Gateway) -> Claim:
        """Resident memory in MB with 1,000 open streams, against the same gateway before."""
        ask(self._place.stub_port, "POST", f"/pace/{_STREAM_PACE_MS}")
        with self._timed(), self._alone(gateway), self._counted(gateway, STREAMS, 0):
            before = gateway.server.rss_mb()
            held: list[float] = []
            with Streams(gateway.call, STREAMS, _STREAM_CHUNKS) as streams:
                end = time.monotonic() + 60
                while streams.ended < STREAMS:
                    if time.monotonic() > end:
                        raise gateway.server.failed(f"has finished {streams.ended} of {STREAMS} streams after 60 s")
                    streams.read(0.05)
                    if streams.begun == STREAMS and not streams.ended:
                        held.append(gateway.server.rss_mb())
        if not held:
            raise Failed(f"{STREAMS} streams were never open at once: the first ended before the last had begun")
        return Claim("streams", max(held), before, max(held) / before, (min(held), max(held)), "MB")

    # -- turns

    @contextmanager
    def _alone(self, gateway: Gateway | None) -> Iterator[None]:
        """Everybody else is frozen."""
        for other in self._gateways:
            if other is not gateway:
                other.server.freeze()
        if gateway:
            gateway.server.thaw()
        gc.collect()
        gc.disable()
        try:
            yield
        finally:
            gc.enable()

    @contextmanager
    def _timed(self) -> Iterator[None]:
        begun = time.monotonic()
        yield
        self.measured_s += time.monotonic() - begun

    def _run(self, gateway: Gateway, seconds: int, ramp_s: float) -> Turn:
        """Load for that long, measured between the ramp and the end."""
        with self._alone(gateway):
            before = self._seen()
            with Wrk(gateway.call, CLIENTS, seconds, self._cores.load, self._place.folder) as wrk:
                time.sleep(ramp_s)
                first, spent = self._seen(), self._spent(gateway, wrk)
                time.sleep(seconds - ramp_s - 0.1)
                last, spent = self._seen(), self._spent(gateway, wrk) - spent
                said = wrk.said()
            after = self._drained(gateway)
        if said.errors:
            raise gateway.server.failed(f"did not answer all with 200, wrk counts {said.errors}")
        self._check(gateway, before, after, said.answered, CLIENTS)
        rate = (last.chats - first.chats) / ((last.at_ns - first.at_ns) / 1e9)
        return Turn(rate, spent.gateway / spent.clock, spent.others / spent.clock)

    def _spent(self, gateway: Gateway, wrk: Wrk) -> Spent:
        """Seconds since some moment. What a hypervisor took from the cores counts as others' too."""
        mine = gateway.server.cpu_s() + self._stub.cpu_s() + wrk.cpu_s() + time.process_time()
        cores = psutil.cpu_times(percpu=True)
        both = [cores[n] for n in (self._cores.gateway, self._cores.load)]
        busy = sum(c.user + c.nice + c.system + c.irq + c.softirq + c.steal for c in both)
        return Spent(gateway.server.cpu_s(), busy - mine, time.monotonic())

    def _added(
        self,
        claim: str,
        gateway: Gateway,
        timed: Callable[[OneClient], int],
        count: int,
        stream_of: int,
        quantiles: Sequence[float],
    ) -> Claim:
        """Through the gateway and direct, in turns."""
        rounds: list[tuple[list[int], list[int]]] = []
        warm = max(20, count // 20)
        with self._timed():
            for n in range(self._plan.rounds):
                taken: list[list[int]] = []
                for call in (gateway.call, self._direct):
                    turn = gateway if call is gateway.call else None
                    with self._alone(turn), self._counted(turn, count + warm, 0), OneClient(call, stream_of) as client:
                        taken.append([timed(client) for _ in range(count + warm)][warm:])
                rounds.append((taken[0], taken[1]))
                through, direct = (claims.quantile(t, 0.5) / 1e6 for t in taken)
                self._say(f"{claim}, round {n + 1}: {through:.3f} ms through the gateway, {direct:.3f} ms direct (p50)")
        return claims.added_ms(claim, rounds, quantiles)

    # -- the stub's counts

    def _seen(self) -> Seen:
        """What the stub has counted so far."""
        self._counter.request("GET", "/count")
        said = json.loads(self._counter.getresponse().read())
        return Seen(said["seen"], said["wrong_model"], said["at_ns"])

    def _drained(self, gateway: Gateway | None) -> Seen:
        """The same, when the gateway rests: some go on with what clients asked that have left."""
        last, used, end = self._seen(), 0.0, time.monotonic() + 15
        while time.monotonic() < end:
            before = gateway.server.cpu_s() if gateway else 0.0
            time.sleep(_REST_S)
            used = (gateway.server.cpu_s() if gateway else 0.0) - before
            now = self._seen()
            if now.chats == last.chats and used < _REST_S / 4:
                return now
            last = now
        raise Failed("the gateway still works fifteen seconds after the load ended")

    @contextmanager
    def _counted(self, gateway: Gateway | None, answered: int, in_flight: int) -> Iterator[None]:
        """Check a block in which a client counted that many answers."""
        before = self._seen()
        yield
        self._check(gateway, before, self._drained(gateway), answered, in_flight)

    def _check(self, gateway: Gateway | None, before: Seen, after: Seen, answered: int, in_flight: int) -> None:
        """Failed where the stub has not seen each answered request, with its model rewritten, and no others."""
        name, seen = gateway.name if gateway else "the stub", after.chats - before.chats
        if not answered <= seen <= answered + in_flight:
            raise Failed(
                f"{name}: the client counted {answered} answers and the stub {seen} requests; "
                f"at most {in_flight} can have been under way"
            )
        if after.wrong_model != before.wrong_model:
            raise Failed(f"{name}: {after.wrong_model - before.wrong_model} requests reached the stub unrewritten")
