"""Chains and `auto` through a real gateway, in front of a real server."""

from __future__ import annotations

import json
from collections.abc import Callable

import openai
import pytest

from pawl.fleet.limits import LimitsSpec
from pawl.learning import picker_sklearn as picker
from pawl.rollout.control import KeyTerms
from tests.integration.gateway_process import FLEET, GOOD, PROMPT, LiveGateway
from tests.waiting import until

CHAIN = "api-tests"
STEPS = (
    FLEET
    + """\
  - {{name: second-negative, task: functional-negative, privacy: local_only}}
  - {{name: writer, task: generic, max_tokens: 77}}
  - {{name: anything, task: generic, first_champion: cloud}}
chains:
  - name: api-tests
    steps:
      - {{name: analyse, agents: [writer], prompt: "List the rules of this:\\n{{input}}"}}
      - {{name: write, agents: [functional-negative, second-negative], prompt: "{{input}}", combine: {{}}, least: 1}}
      - {{name: summary, agents: [writer], prompt: "{{analyse}} / {{write}}"}}
    answer: write
auto: {{unsure: anything, min_confidence: 0.7}}
"""
)
CHAT = "/v1/chat/completions"
ASK = {"model": CHAIN, "messages": [{"role": "user", "content": PROMPT}], "metadata": {"id": "a.B", "source": "a"}}


def test_a_chain_answers_and_is_recorded_as_one_tree(gateway: Callable[..., LiveGateway]) -> None:
    live = gateway(STEPS)
    live.upstream.answers["base"] = GOOD
    status, answer = live.request(CHAT, ASK)[:2]
    assert status == 200, answer
    cases = json.loads(answer["choices"][0]["message"]["content"])["test_cases"]
    assert [c["payload"] for c in cases] == [{}, {"n": "a"}, {"n": 0}], "both said the same: each case once"
    assert [(s["step"], s["agent"]) for s in answer["steps"]] == [
        ("analyse", "writer"), ("write", "functional-negative"), ("write", "second-negative"), ("summary", "writer"),
    ]  # fmt: skip
    until(lambda: len(live.recorded(CHAIN)) == 1)
    root = live.recorded(CHAIN)[0]
    assert (root.id, root.arm, root.cost_usd, root.task["source"]) == (answer["id"], "chain", 0.0, "a")
    assert root.privacy == "local_only", "as private as the most private of its agents"
    below = [i for a in ("writer", "functional-negative", "second-negative") for i in live.recorded(a)]
    assert {(i.parent, i.step) for i in below} == {(root.id, "analyse"), (root.id, "write"), (root.id, "summary")}
    assert {i.id for i in below} == {s["id"] for s in answer["steps"]}
    assert {i.session for i in below} == {root.session} and {i.privacy for i in below} == {"local_only"}
    asked = {body["messages"][-1]["content"]: body for _, body, _ in live.upstream.asked}
    assert asked[PROMPT]["response_format"]["json_schema"]["schema"]["required"] == ["test_cases"]
    assert asked[PROMPT]["messages"][0]["role"] == "system"
    assert asked[f"List the rules of this:\n{PROMPT}"]["max_tokens"] == 77
    assert all("/cloud/" not in path for path, _, _ in live.upstream.asked), "an agent's shadow is a cloud"


def test_an_agents_own_length_holds_where_the_client_names_none(gateway: Callable[..., LiveGateway]) -> None:
    live = gateway(STEPS)
    for agent in ("writer", "second-negative"):
        assert live.request(CHAT, {"model": agent, "messages": [{"role": "user", "content": agent}]})[0] == 200
    sent = {body["messages"][-1]["content"]: body.get("max_tokens") for _, body, _ in live.upstream.asked}
    assert sent == {"writer": 77, "second-negative": None}, "what fleet.yaml does not say is the model's"


def test_feedback_goes_to_the_chain_and_to_its_steps(gateway: Callable[..., LiveGateway]) -> None:
    live = gateway(STEPS)
    live.upstream.answers["base"] = GOOD
    answer = live.request(CHAT, ASK)[1]
    rows = [{"interaction": i, "kind": "outcome", "score": 0.5} for i in (answer["id"], answer["steps"][1]["id"])]
    assert live.request("/v1/feedback", rows)[0] == 200  # type: ignore[arg-type]


def test_it_streams_to_clients_that_want_a_stream(gateway: Callable[..., LiveGateway]) -> None:
    live = gateway(STEPS)
    live.upstream.answers["base"] = GOOD
    with openai.OpenAI(base_url=f"{live.settings.gateway_url}/v1", api_key=live.key) as client:
        assert CHAIN in [m.id for m in client.models.list()] and "auto" in [m.id for m in client.models.list()]
        said = client.chat.completions.create(model=CHAIN, messages=ASK["messages"], stream=True)  # type: ignore[call-overload]
        text = "".join(c.choices[0].delta.content or "" for c in said if c.choices)
    assert len(json.loads(text)["test_cases"]) == 3


def test_a_step_that_has_no_answer_is_named_and_recorded(gateway: Callable[..., LiveGateway]) -> None:
    live = gateway(STEPS)
    live.upstream.failing.add("base")
    status, answer = live.request(CHAT, ASK)[:2]
    assert status == 502 and "step analyse of chain api-tests has no answer: writer:" in answer["error"]["message"]
    until(lambda: len(live.recorded(CHAIN)) == 1)
    assert (live.recorded(CHAIN)[0].status, live.recorded(CHAIN)[0].completion) == (502, "")


def test_an_answer_without_the_promised_form_is_left_out(gateway: Callable[..., LiveGateway]) -> None:
    live = gateway(STEPS)
    live.upstream.answers["base"] = "Here are some tests."
    answer = live.request(CHAT, ASK)[1]
    assert json.loads(answer["choices"][0]["message"]["content"]) == {"test_cases": []}
    assert [s["conforms"] for s in answer["steps"]] == [True, False, False, True]


@pytest.mark.parametrize(
    ("path", "body", "status", "why"),
    [
        (CHAT, {"model": CHAIN, "messages": []}, 400, "at least one message"),
        (CHAT, {"model": CHAIN, "messages": [{"role": "system", "content": "x"}]}, 400, "role user"),
        ("/v1/completions", {"model": CHAIN, "prompt": "x"}, 400, "ask it at /v1/chat/completions"),
        (CHAT, {"model": "auto", "messages": [{"role": "user", "content": ""}]}, 400, "there is none"),
    ],
)
def test_requests_that_make_no_sense_are_refused(
    gateway: Callable[..., LiveGateway], path: str, body: dict[str, object], status: int, why: str
) -> None:
    found, answer = gateway(STEPS).request(path, body)[:2]
    assert found == status and why in answer["error"]["message"]


def test_a_key_must_be_allowed_every_agent_of_a_chain(gateway: Callable[..., LiveGateway]) -> None:
    live = gateway(STEPS)
    live.key = live.control.create_key("client", "few", terms=KeyTerms(agents=("writer",)))[1]
    status, answer = live.request(CHAT, ASK)[:2]
    assert status == 403 and "functional-negative" in answer["error"]["message"]


def test_a_key_of_the_chains_agents_may_say_what_its_answer_was_worth(gateway: Callable[..., LiveGateway]) -> None:
    live = gateway(STEPS)
    live.upstream.answers["base"] = GOOD
    agents = ("writer", "functional-negative", "second-negative")
    live.key = live.control.create_key("client", "some", terms=KeyTerms(agents=agents))[1]
    answer = live.request(CHAT, ASK)[1]
    said = [{"interaction": answer["id"], "kind": "rating", "score": 1.0}]
    assert live.request("/v1/feedback", said)[0] == 200  # type: ignore[arg-type]
    live.key = live.control.create_key("operator", "fewer", terms=KeyTerms(agents=agents[:2]))[1]
    assert live.request("/v1/feedback", said)[0] == 404  # type: ignore[arg-type]


def test_a_limit_on_the_way_is_a_limit_and_says_when(gateway: Callable[..., LiveGateway]) -> None:
    live = gateway(STEPS)
    live.upstream.answers["base"] = GOOD
    live.key = live.control.create_key("client", "slow", terms=KeyTerms(limits=LimitsSpec(requests_per_minute=2)))[1]
    with (
        openai.OpenAI(base_url=f"{live.settings.gateway_url}/v1", api_key=live.key, max_retries=0) as client,
        pytest.raises(openai.RateLimitError, match="has used up") as refused,
    ):
        client.chat.completions.create(model=CHAIN, messages=ASK["messages"])  # type: ignore[call-overload]
    assert float(refused.value.response.headers["retry-after"]) > 0


def test_a_client_that_leaves_ends_the_chain(gateway: Callable[..., LiveGateway]) -> None:
    live = gateway(STEPS)
    live.upstream.delay_s = 1.5
    with (
        openai.OpenAI(
            base_url=f"{live.settings.gateway_url}/v1", api_key=live.key, timeout=0.4, max_retries=0
        ) as client,
        pytest.raises(openai.APITimeoutError),
    ):
        client.chat.completions.create(model=CHAIN, messages=ASK["messages"])  # type: ignore[call-overload]
    until(lambda: len(live.recorded(CHAIN)) == 1)
    assert (live.recorded(CHAIN)[0].status, live.recorded(CHAIN)[0].finish_reason) == (499, "client_gone")
    assert live.upstream.models() == ["base"], "no later step was begun"


def test_auto_picks_the_agent_and_asks_another_where_it_is_unsure(gateway: Callable[..., LiveGateway]) -> None:
    live = gateway(STEPS)
    ask = {"model": "auto", "messages": [{"role": "user", "content": PROMPT}]}
    answer = live.request(CHAT, ask)[1]
    assert answer["model"] == "anything", "nothing is trained yet: somebody answers all the same"
    assert "pawl auto train" in live.log
    some = [f"POST /{n} shop.Add{n}\n" + '{"type":"object","properties":{"n":{"type":"integer"}}}' for n in range(20)]
    others = [f"Write a short, friendly release note about change number {n} of the team." for n in range(20)]
    picker.save(picker.train({"functional-negative": some, "writer": others}), live.home / "auto.npz")
    picked = live.request(CHAT, ask)[1]
    assert picked["model"] == "functional-negative"
    asked = {**ask, "messages": [{"role": "user", "content": "Ohm's law relates volts, amperes, and what else?"}]}
    assert live.request(CHAT, asked)[1]["model"] == "anything"
    until(lambda: any(i.id == picked["id"] for i in live.recorded()))
    sure = next(i.picked for i in live.recorded() if i.id == picked["id"])
    assert sure is not None and sure >= 0.7
