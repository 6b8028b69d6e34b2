"""What becomes training data, and what never does."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pawl.curation.dataset import Example, load, save
from pawl.curation.prepare import outcomes, prepare
from pawl.curation.split import side
from pawl.errors import NotEnoughData
from pawl.fleet.spec import AgentSpec, TrainingSpec
from pawl.lake.records import Feedback, Interaction
from pawl.qe.functional_negative import messages
from pawl.qe.operation import Operation

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}}


def agent(**training: Any) -> AgentSpec:
    spec = TrainingSpec(**{"min_examples": 1, "max_examples": 50, "replay_share": 0.5, **training})
    return AgentSpec(name="functional-negative", task="functional-negative", training=spec)


def shadow(n: int, source: str = "svc", **more: Any) -> Interaction:
    op = Operation(id=f"{source}.Op{n}", source=source, method="POST", path="/", schema=SCHEMA)
    base: dict[str, Any] = {
        "id": f"{source}-{n}",
        "at": float(n),
        "agent": "functional-negative",
        "session": "s",
        "key_id": "k",
        "arm": "stand-in",
        "arm_kind": "cloud",
        "role": "shadow",
        "shadow_of": f"answered-{n}",
        "messages": messages(op),
        "completion": f'{{"from":"{source}-{n}"}}',
        "finish_reason": "stop",
        "task": {"id": op.id, "source": source},
    }
    return Interaction(**{**base, **more})


def outcome(i: Interaction, score: float | None, at: float = 0.0, source: str = "grader", **more: Any) -> Feedback:
    base: dict[str, Any] = {"id": f"{i.id}-{source}-{at}", "at": at, "interaction": i.id, "agent": i.agent}
    return Feedback(**{**base, "kind": "outcome", "score": score, "source": source, **more})


def correction(i: Interaction, completion: Any, **more: Any) -> Feedback:
    return outcome(i, None, source="client", kind="correction", detail={"completion": completion}, **more)


def never(_source: str) -> bool:
    return False


def build(seen: list[Interaction], said: list[Feedback], **training: Any) -> list[Example]:
    return list(prepare(agent(**training), seen, said, [], never).examples)


def test_good_cloud_shadows_become_examples_with_their_origin() -> None:
    seen = [shadow(n) for n in range(4)]
    made = build(seen, [outcome(i, 1.0) for i in seen])
    assert {e.completion for e in made} == {i.completion for i in seen}
    assert {e.interactions for e in made} == {(i.id, i.shadow_of) for i in seen}
    assert {(e.source, e.quality, e.replayed) for e in made} == {("svc", 1.0, False)}


@pytest.mark.parametrize(
    "broken",
    [
        {"arm_kind": "local"},
        {"status": 500},
        {"broken": True},
        {"finish_reason": "length"},
        {"completion": ""},
    ],
)
def test_what_is_no_whole_cloud_answer_is_left_out(broken: dict[str, Any]) -> None:
    good, bad = shadow(1), shadow(2, **broken)
    assert [e.completion for e in build([good, bad], [outcome(i, 1.0) for i in (good, bad)])] == [good.completion]


def test_answers_without_an_outcome_or_with_a_bad_one_are_left_out() -> None:
    good, bad, unknown = (shadow(n) for n in range(3))
    said = [outcome(good, 1.0), outcome(bad, 0.66), outcome(unknown, None)]
    version = prepare(agent(), [good, bad, unknown], said, [], never)
    assert [e.completion for e in version.examples] == [good.completion]
    assert list(version.counts.values())[:3] == [3, 2, 1]


def test_latest_outcome_of_each_reporter_counts_then_their_mean() -> None:
    i = shadow(1)
    said = [outcome(i, 1.0, at=2.0), outcome(i, 0.0, at=1.0), outcome(i, 0.5, at=1.0, source="client")]
    assert outcomes(said) == {i.id: 0.75}
    rating = outcome(i, 0.0, at=9.0, kind="rating")
    assert outcomes([*said, rating]) == {i.id: 0.75}


def test_a_correction_outranks_every_answer_whoever_gave_it() -> None:
    cloud = shadow(1)
    local = shadow(1, id="local-1", arm_kind="local", role="answer", shadow_of=None, at=0.5)
    said = [outcome(cloud, 1.0), outcome(local, 0.0), correction(local, '{"fixed":1}')]
    (only,) = build([cloud, local], said)
    assert only.completion == '{"fixed":1}' and only.interactions == ("local-1",)


@pytest.mark.parametrize("what", [None, 7, "", ["x"]])
def test_a_correction_that_is_no_text_is_ignored(what: Any) -> None:
    good = shadow(1)
    assert [e.completion for e in build([good], [outcome(good, 1.0), correction(good, what)])] == [good.completion]


def test_one_answer_a_prompt_and_the_newest_of_equals() -> None:
    old, new = shadow(1), shadow(1, id="again", at=9.0, completion='{"newer":1}')
    assert [e.completion for e in build([old, new], [outcome(i, 1.0) for i in (old, new)])] == ['{"newer":1}']


def test_held_out_sources_never_train_even_if_the_client_says_otherwise() -> None:
    """A client without metadata, or with a wrong source, must not carry held-out tasks into training."""
    kept = shadow(1, "open")
    lies = [shadow(2, "held"), shadow(3, "held", task={}), shadow(4, "held", task={"source": "open"})]
    seen = [kept, *lies]
    old = build(lies, [outcome(i, 1.0) for i in lies])
    assert len(old) == 3
    version = prepare(agent(replay_share=1.0), seen, [outcome(i, 1.0) for i in seen], old, lambda s: s == "held")
    assert [e.completion for e in version.examples] == [kept.completion] and version.sources == ("open",)


def test_too_few_says_the_numbers_and_what_to_do() -> None:
    seen = [shadow(n) for n in range(5)]
    with pytest.raises(NotEnoughData, match=r"5 new examples.*demands 6.*interactions: 5.*lower training.min_examples"):
        build(seen, [outcome(i, 1.0) for i in seen], min_examples=6)
    with pytest.raises(NotEnoughData, match="0 new examples"):
        build([], [])


def test_the_cap_spreads_over_sources_and_prefers_the_newest() -> None:
    seen = [shadow(n, "big") for n in range(30)] + [shadow(n, "small") for n in range(2)]
    made = build(seen, [outcome(i, 1.0) for i in seen], max_examples=6)
    assert sorted(e.source for e in made) == ["big"] * 4 + ["small"] * 2
    assert {e.completion for e in made if e.source == "big"} == {f'{{"from":"big-{n}"}}' for n in (29, 28, 27, 26)}


def test_replay_is_a_share_of_the_new_and_never_repeats_them() -> None:
    past = [shadow(n) for n in range(20)]
    replay = build(past, [outcome(i, 1.0) for i in past])
    seen = [shadow(n) for n in range(16, 26)]
    version = prepare(agent(), seen, [outcome(i, 1.0) for i in seen], replay, never)
    older = [e for e in version.examples if e.replayed]
    assert len(version.examples) == 15 and len(older) == 5
    assert len({e.id for e in version.examples}) == 15
    assert {e.id for e in older} <= {e.id for e in replay}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.sampled_from("abcdefgh"), st.sampled_from([0.0, 0.5, 1.0])),
        min_size=1,
        unique_by=lambda t: t[:2],
    ),
    st.integers(1, 20),
    st.randoms(),
)
def test_laws(rows: list[tuple[int, str, float]], most: int, rng: random.Random) -> None:
    def held(source: str) -> bool:
        return side(source, 40) == "evaluation"

    seen = [shadow(n, source) for n, source, _ in rows]
    said = [outcome(i, score) for i, (_, _, score) in zip(seen, rows, strict=True)]
    spec = agent(max_examples=most)
    try:
        version = prepare(spec, seen, said, [], held)
    except NotEnoughData:
        assert all(score < 1 or held(source) for _, source, score in rows)
        return
    assert len(version.examples) <= most
    assert not any(held(e.source) for e in version.examples)
    assert all(e.quality >= 0.99 for e in version.examples)
    left = list(version.counts.values())[:-1]
    assert left == sorted(left, reverse=True) and version.counts["with replay"] == len(version.examples)
    # The order in which records are read from the lake changes nothing.
    rng.shuffle(seen)
    rng.shuffle(said)
    assert prepare(spec, seen, said, [], held).fingerprint == version.fingerprint


def test_a_saved_version_is_immutable_and_comes_back(tmp_path: Any) -> None:
    seen = [shadow(n) for n in range(5)]
    version = prepare(agent(), seen, [outcome(i, 1.0) for i in seen], [], never)
    path = save(version, tmp_path)
    before = path.stat().st_mtime_ns
    assert save(version, tmp_path) == path and path.stat().st_mtime_ns == before
    assert load(path) == version and load(path).fingerprint == version.fingerprint
    changed = msgspec.structs.replace(version, examples=version.examples[::-1])
    assert changed.fingerprint != version.fingerprint
