"""How soon every gateway obeys: the watchdogs of two gateways, with neither Prefect nor MLflow up."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from pawl.fleet.spec import RolloutSpec
from pawl.rollout.route import choose
from pawl.rollout.state import Rollout, route_of
from tests.integration.gateway_process import FLEET, LiveGateway
from tests.integration.test_gateway_two import AGENT, ASK, BASE, CHAT, NEW
from tests.waiting import Took, until

SPEC = RolloutSpec(min_stage_sessions=1000, min_bake_s=0)


def opened(live: LiveGateway, **more: object) -> Rollout:
    now = time.time()
    fields = {
        "id": "r1", "agent": AGENT, "version": "1", "champion": BASE, "challenger": NEW, "stage": "50",
        "opened_at": now, "stage_since": now, "spec": SPEC,
    }  # fmt: skip
    return live.control.save_rollout(Rollout(**{**fields, **more}))  # type: ignore[arg-type]


def arm(live: LiveGateway, session: str) -> str:
    status, body = live.request(CHAT, ASK, headers={"x-pawl-session": session})[:2]
    assert status == 200, body
    return str(body["choices"][0]["message"]["content"]).removeprefix("I am ")


def tell(live: LiveGateway, session: str, score: dict[str, float]) -> None:
    """A client asks and says what the answer was worth."""
    status, body = live.request(CHAT, ASK, headers={"x-pawl-session": session})[:2]
    assert status == 200, body
    said = str(body["choices"][0]["message"]["content"]).removeprefix("I am ")
    rows = [{"interaction": body["id"], "kind": "outcome", "score": score[said]}]
    assert live.request("/v1/feedback", rows)[0] == 200  # type: ignore[arg-type]


def test_from_the_deciding_feedback_to_every_gateway(two: list[LiveGateway]) -> None:
    """The feedback reaches both gateways in turns, so that neither has all of it by itself."""
    rollout = opened(two[0])
    theirs = [s for s in (f"s{n}" for n in range(400)) if choose(route_of(rollout), s) == NEW][:4]
    until(lambda: all(arm(live, s) == NEW.name for live in two for s in theirs), 3)
    with Took() as took:
        sent, n = 0.0, 0
        while (now := two[0].control.rollout("r1")) is not None and now.stage != "rolled_back":
            sent = took.seconds
            tell(two[n % 2], f"t{n}", {BASE.name: 1.0, NEW.name: 0.0})
            n += 1
            time.sleep(0.02)
            assert n < 400
        for live in two:
            until(lambda live=live: all(arm(live, s) == BASE.name for s in theirs), 5)
    # The last feedback may be one that was not needed any more: from the one that decided it took no longer than the
    # other gateway's next look into the lake, and its look at the routes.
    assert took.seconds - sent < 2.0
    assert now is not None and now.history[-1].by == "watchdog"
    assert "worse than the champion" in now.history[-1].decision.reason
    assert now.history[-1].at - now.opened_at < 60


def test_it_halves_before_it_rolls_back_and_says_so(two: list[LiveGateway]) -> None:
    live = two[0]
    opened(live)
    shares, n = [50], 0
    while (now := live.control.rollout("r1")) is not None and now.stage != "rolled_back" and n < 400:
        tell(live, f"t{n}", {BASE.name: 1.0, NEW.name: 0.3})
        route = live.control.route(AGENT)
        assert route is not None
        if route.percent != shares[-1]:
            shares.append(route.percent)
        n += 1
        time.sleep(0.12)  # a look after each
    route = live.control.route(AGENT)
    shares += [route.percent] if route else []
    assert shares == [50, 25, 0], shares
    actions = [t.decision.action for t in now.history] if now else []
    assert actions == ["hold", "halve", "rollback"] or actions == ["halve", "rollback"], actions
    events = [e["event"] for e in live.control.audit_log()]
    assert "rollout halve by watchdog" in events and "rollout rollback by watchdog" in events


def test_what_serves_is_watched_while_a_rollout_waits_for_a_person(gateway: Callable[..., LiveGateway]) -> None:
    # Its breaker would rest it, which is an alarm of its own; one that crawls on is what nobody would see.
    patient = FLEET.replace("{{kind: local,", "{{kind: local, breaker: {{consecutive: 1000, min_calls: 1000}},")
    live = gateway(patient.replace("    shadow: cloud\n", ""))
    live.upstream.failing |= {"base", "big"}
    for n in range(30):
        live.request(CHAT, ASK, headers={"x-pawl-session": f"s{n}"})

    def alarm() -> str:
        rows = live.request("/v1/rollouts", None, key=live.operator)[1]["data"]
        return str(rows[0]["alarm"])

    until(lambda: bool(alarm()), 15)
    assert "of its latest" in alarm() and "calls failed, 10% may" in alarm()
    entry = next(e for e in live.control.audit_log() if e["event"] == "champion alarm")
    assert entry["detail"]["champion"] == "base"
    assert live.control.route(AGENT) is None, "an alarm moves nothing"
    assert live.metric("pawl_champion_alarm", agent=AGENT) == 1.0


def test_an_open_rollout_is_stored_as_it_was_asked(two: list[LiveGateway]) -> None:
    saved = opened(two[0], stage="20")
    assert two[1].control.rollout("r1") == saved and msgspec.json.encode(saved.shares) == b"[[1,20]]"
