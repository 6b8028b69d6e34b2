"""The gateway as clients meet it: the official openai package, a real upstream, real kills."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import time
from typing import Any

import openai
import pytest

from pawl.lake.parquet_lake import ParquetLake
from pawl.lake.records import Feedback, Interaction
from pawl.rollout.route import Arm, Route, choose
from pawl.rollout.state import Rollout
from tests.integration.gateway_process import GOOD, PROMPT, LiveGateway
from tests.waiting import until

AGENT = "functional-negative"
BASE = Arm("base", "local", "base", "local")
ADAPTER = Arm("fn-v2-abc", "local", "fn-v2-abc", "local")
ASK: list[Any] = [{"role": "user", "content": PROMPT}]


def client(live: LiveGateway) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{live.settings.gateway_url}/v1", api_key=live.key, max_retries=0, timeout=20)


def recorded(live: LiveGateway) -> list[Interaction]:
    return ParquetLake(live.settings.lake_dir, live.settings.journal_dir).interactions(AGENT)


def said(live: LiveGateway) -> list[Feedback]:
    return ParquetLake(live.settings.lake_dir, live.settings.journal_dir).feedback(AGENT)


def open_rollout(live: LiveGateway, stage: str = "20") -> Rollout:
    spec = __import__("pawl.bootstrap", fromlist=["fleet"]).fleet(live.settings).agent(AGENT).rollout
    made = Rollout(
        id="r1",
        agent=AGENT,
        version="2",
        champion=BASE,
        challenger=ADAPTER,
        stage=stage,
        opened_at=time.time(),
        stage_since=time.time(),
        spec=spec,
    )
    saved = live.control.save_rollout(made)
    time.sleep(0.5)  # every gateway knows a route within a quarter of a second
    return saved


def test_an_answer_carries_its_interactions_id_and_is_recorded(live: LiveGateway) -> None:
    answer = client(live).chat.completions.create(
        model=AGENT, messages=ASK, metadata={"id": "a.B", "source": "a"}, extra_body={"top_k": 3}
    )
    assert answer.choices[0].message.content == "I am base"
    assert answer.model == AGENT
    until(lambda: len(recorded(live)) == 2)  # the cloud's shadow too
    mine = next(i for i in recorded(live) if i.role == "answer")
    assert mine.id == answer.id
    assert (mine.arm, mine.prompt_tokens, mine.completion_tokens, mine.cost_usd) == ("base", 3, 2, 0.0)
    assert mine.task == {"id": "a.B", "source": "a"}
    body = next(b for _, b, _ in live.upstream.asked if b["model"] == "base")
    assert body["top_k"] == 3 and "metadata" not in body


def test_streaming_gives_the_same_text_and_the_same_record(live: LiveGateway) -> None:
    chunks = list(client(live).chat.completions.create(model=AGENT, messages=ASK, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "I am base"
    assert len({c.id for c in chunks}) == 1
    assert all(c.choices for c in chunks), "the usage that only the gateway asked for stays inside"
    mine = next(i for i in recorded(live) if i.role == "answer")
    assert (mine.id, mine.completion, mine.streamed, mine.completion_tokens) == (chunks[0].id, "I am base", True, 2)
    assert mine.first_token_s is not None


def test_the_shadow_is_scored_costed_and_never_shown(live: LiveGateway) -> None:
    live.upstream.answers["big"] = GOOD
    answer = client(live).chat.completions.create(model=AGENT, messages=ASK)
    assert "test_cases" not in (answer.choices[0].message.content or "")
    until(lambda: len(said(live)) == 1)
    shadow = next(i for i in recorded(live) if i.role == "shadow")
    assert (shadow.shadow_of, shadow.arm, shadow.cost_usd) == (answer.id, "big", 7.0)
    feedback = said(live)[0]
    assert (feedback.interaction, feedback.score, feedback.source) == (shadow.id, 1.0, "grader")


def test_feedback_needs_an_interaction_and_a_sensible_score(live: LiveGateway) -> None:
    answer = client(live).chat.completions.create(model=AGENT, messages=ASK)
    good = {"interaction": answer.id, "kind": "outcome", "score": 0.5}
    assert live.request("/v1/feedback", good)[0] == 200
    assert live.request("/v1/feedback", [good, {**good, "kind": "rating"}])[0] == 200
    for wrong, status in (
        ({**good, "interaction": "nobody"}, 404),
        ({**good, "score": 2}, 400),
        ({**good, "score": None}, 400),
        ({**good, "colour": 1}, 400),
        ([], 400),
        (b"{", 400),
    ):
        found, body = live.request("/v1/feedback", wrong)
        assert (found, set(body)) == (status, {"error"})
    assert len([f for f in said(live) if f.source == "client"]) == 3


@pytest.mark.parametrize(
    ("key", "path", "status"),
    [("none", "/v1/models", 401), ("client", "/v1/rollouts", 403), ("client", "/v1/models", 200),
     ("operator", "/v1/rollouts", 200), ("client", "/v1/nothing", 404)],
)  # fmt: skip
def test_keys_and_roles(live: LiveGateway, key: str, path: str, status: int) -> None:
    secret = {"none": "wrong", "client": live.key, "operator": live.operator}[key]
    assert live.request(path, key=secret)[0] == status


def test_a_revoked_key_stops_working_within_two_seconds(live: LiveGateway) -> None:
    assert live.request("/v1/models")[0] == 200
    live.control.revoke_key(next(k.id for k in live.control.keys() if k.role == "client"))  # noqa: SIM118
    until(lambda: live.request("/v1/models")[0] == 401, 2)


def test_unknown_agents_and_bad_bodies_are_named(live: LiveGateway) -> None:
    with pytest.raises(openai.NotFoundError, match="functional-negative"):
        client(live).chat.completions.create(model="nobody", messages=ASK)
    assert live.request("/v1/chat/completions", {"model": AGENT, "messages": []})[0] == 400
    assert live.request("/v1/chat/completions", b"x" * (5 << 20))[0] == 413


@pytest.mark.parametrize("closes", [True, False])
@pytest.mark.parametrize(
    ("path", "wrong", "status"),
    [("/v1/chat/completions", "", 413), ("/v1/chat/completions", "wrong", 401), ("/v1/no", "", 404)],
)
def test_a_refusal_reaches_a_client_that_is_still_sending(
    live: LiveGateway, path: str, wrong: str, status: int, closes: bool
) -> None:
    body = b"x" * (12 << 20)
    for _ in range(3):
        connection = http.client.HTTPConnection("127.0.0.1", live.settings.gateway_port, timeout=20)
        sent = {"authorization": f"Bearer {wrong or live.key}", **({"connection": "close"} if closes else {})}
        connection.request("POST", path, body, sent)
        answer = connection.getresponse()
        assert (answer.status, answer.will_close) == (status, closes)
        assert "error" in json.loads(answer.read())
        if not closes:
            connection.request("GET", "/healthz")
            assert connection.getresponse().status == 200, "the connection is good for the next request"
        connection.close()


def test_sessions_stick_to_their_arm(live: LiveGateway) -> None:
    rollout = open_rollout(live, "50")
    route = Route(agent=AGENT, champion=BASE, challenger=ADAPTER, percent=50, rollout=rollout.id)
    for n in range(12):
        for _ in range(2):
            answer = client(live).chat.completions.create(
                model=AGENT, messages=ASK, extra_headers={"x-pawl-session": f"s{n}"}
            )
            assert answer.choices[0].message.content == f"I am {choose(route, f's{n}').model}"


def test_a_broken_challenger_costs_no_client_an_answer(live: LiveGateway) -> None:
    open_rollout(live, "100")
    live.upstream.failing.add("fn-v2-abc")
    answer = client(live).chat.completions.create(model=AGENT, messages=ASK)
    assert answer.choices[0].message.content == "I am base"
    answers = [i for i in recorded(live) if i.role == "answer"]
    assert {(i.arm, i.status) for i in answers} == {("fn-v2-abc", 500), ("base", 200)}
    assert next(i for i in answers if i.arm == "base").reason.startswith("fallback")


def test_the_cloud_stands_behind_a_dead_cluster_and_the_rest_is_an_error(live: LiveGateway) -> None:
    live.upstream.failing.add("base")
    answer = client(live).chat.completions.create(model=AGENT, messages=ASK)
    assert answer.choices[0].message.content == "I am big"
    live.upstream.failing.add("big")
    with pytest.raises(openai.APIStatusError) as caught:
        client(live).chat.completions.create(model=AGENT, messages=ASK)
    assert caught.value.status_code == 502 and "upstream cloud" in str(caught.value)


def test_a_stream_that_breaks_is_recorded_as_broken(live: LiveGateway) -> None:
    live.upstream.breaking.add("base")
    with pytest.raises(openai.APIError):
        list(client(live).chat.completions.create(model=AGENT, messages=ASK, stream=True))
    mine = next(i for i in recorded(live) if i.role == "answer")
    assert mine.broken and mine.error


def test_the_watchdog_rolls_back_by_feedback_alone(live: LiveGateway) -> None:
    open_rollout(live, "50")
    for n in range(400):
        answer = client(live).chat.completions.create(
            model=AGENT, messages=ASK, extra_headers={"x-pawl-session": f"s{n}"}
        )
        bad = "fn-v2" in (answer.choices[0].message.content or "")
        score = 0.0 if bad else 1.0
        live.request("/v1/feedback", {"interaction": answer.id, "kind": "outcome", "score": score})
        found = live.control.rollout("r1")
        assert found is not None
        if found.stage == "rolled_back":
            break
    assert found.stage == "rolled_back"
    assert found.history[-1].by == "watchdog"
    until(lambda: live.request("/v1/rollouts", key=live.operator)[1]["data"][0]["route"]["percent"] == 0, 2)
    answer = client(live).chat.completions.create(model=AGENT, messages=ASK, extra_headers={"x-pawl-session": "s1"})
    assert answer.choices[0].message.content == "I am base"


def test_kill_minus_nine_loses_nothing_that_was_answered(live: LiveGateway) -> None:
    """Clients ask and report from several threads; the process dies in the middle; everything acknowledged is there."""
    answered: list[str] = []
    reported: list[str] = []

    def ask(n: int) -> None:
        mine = client(live)
        while True:
            try:
                if n % 2:
                    chunks = list(mine.chat.completions.create(model=AGENT, messages=ASK, stream=True))
                    identity = chunks[0].id
                else:
                    identity = mine.chat.completions.create(model=AGENT, messages=ASK).id
                answered.append(identity)
                body = {"interaction": identity, "kind": "outcome", "score": 1.0}
                status, told = live.request("/v1/feedback", body)
                if status == 200:
                    reported.append(told["data"][0]["id"])
            except (openai.OpenAIError, OSError):
                return

    for _ in range(3):
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            running = [pool.submit(ask, n) for n in range(6)]
            time.sleep(1.0)
            live.kill()
            concurrent.futures.wait(running)
        live.start()
    assert len(answered) > 30
    assert set(answered) <= {i.id for i in recorded(live)}
    assert set(reported) <= {f.id for f in said(live)}
