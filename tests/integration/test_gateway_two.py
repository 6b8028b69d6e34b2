"""Two gateways on one control database: the same arm for every session, new routes within a second, no request lost."""

from __future__ import annotations

import threading

from pawl.rollout.route import Arm, Route
from tests.integration.gateway_process import PROMPT, LiveGateway
from tests.waiting import Took, until

AGENT = "functional-negative"
CHAT = "/v1/chat/completions"
ASK = {"model": AGENT, "messages": [{"role": "user", "content": PROMPT}]}
BASE = Arm("base", "local", "base", "local")
NEW = Arm("fn-v2-abc", "local", "fn-v2-abc", "local")


def arm(live: LiveGateway, session: str) -> str:
    status, body = live.request(CHAT, ASK, headers={"x-pawl-session": session})
    assert status == 200, body
    return str(body["choices"][0]["message"]["content"]).removeprefix("I am ")


def test_they_agree_on_every_sessions_arm(two: list[LiveGateway]) -> None:
    one, other = two
    one.control.put_route(Route(agent=AGENT, champion=BASE, challenger=NEW, percent=50, rollout="r"))
    until(lambda: {arm(live, f"try{n}") for live in two for n in range(8)} == {"base", "fn-v2-abc"}, 3)
    arms = {f"s{n}": arm(one, f"s{n}") for n in range(60)}
    assert arms == {session: arm(other, session) for session in arms}
    assert 12 < list(arms.values()).count("fn-v2-abc") < 48


def test_a_new_route_is_applied_within_a_second_and_no_request_is_lost(two: list[LiveGateway]) -> None:
    statuses: list[int] = []
    over = threading.Event()

    def ask(live: LiveGateway) -> None:
        while not over.is_set():
            statuses.append(live.request(CHAT, ASK)[0])

    callers = [threading.Thread(target=ask, args=(live,)) for live in two for _ in range(2)]
    for caller in callers:
        caller.start()
    took = []
    for n in range(6):
        route = two[0].control.route(AGENT) or Route(agent=AGENT, champion=BASE)
        wanted = NEW if n % 2 == 0 else BASE
        two[0].control.put_route(
            Route(agent=AGENT, champion=wanted, revision=route.revision, challenger=None, percent=0)
        )
        with Took() as one:
            for live in two:
                until(lambda live=live, wanted=wanted: arm(live, "s") == wanted.name, 2)
        took.append(one.seconds)
    over.set()
    for caller in callers:
        caller.join()
    assert set(statuses) == {200} and len(statuses) > 50
    assert max(took) < 1.0, took
