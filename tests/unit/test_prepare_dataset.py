"""From interactions and feedback to a dataset version: what trains, what does not, and that it is the same twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pawl.curation import dataset as datasets
from pawl.curation.prepare import outcomes, prepare
from pawl.errors import NotEnoughData
from pawl.fleet.spec import AgentSpec, TrainingSpec
from pawl.lake.records import Feedback, Interaction

AGENT = AgentSpec(
    name="functional-negative",
    task="functional-negative",
    training=TrainingSpec(min_examples=1, max_examples=10, replay_share=0.5),
)


def interaction(n: int, **more: Any) -> Interaction:
    source = more.pop("source", f"s{n}")
    messages = [{"role": "user", "content": f'POST / {source}.Op{n}\n{{"type":"object"}}'}]
    defaults: dict[str, Any] = {
        "id": f"i{n}", "at": float(n), "agent": AGENT.name, "session": f"x{n}", "key_id": "k", "arm": "stand-in",
        "arm_kind": "cloud", "role": "shadow", "shadow_of": f"a{n}", "messages": messages, "completion": f"c{n}",
        "finish_reason": "stop", "task": {"source": source},
    }  # fmt: skip
    return Interaction(**{**defaults, **more})


def outcome(n: int, score: float, at: float = 100.0, source: str = "grader", **more: Any) -> Feedback:
    return Feedback(
        id=f"f{n}-{at}-{source}", at=at, interaction=f"i{n}", agent=AGENT.name, kind="outcome", score=score,
        source=source, **more,
    )  # fmt: skip


def built(interactions: list[Interaction], feedback: list[Feedback], **more: Any) -> datasets.DatasetVersion:
    return prepare(AGENT, interactions, feedback, more.get("replay", []), more.get("held_out", lambda s: False))


def test_only_passed_answers_of_the_cloud_train() -> None:
    seen = [interaction(1), interaction(2), interaction(3, arm_kind="local"), interaction(4, broken=True)]
    seen += [interaction(5, finish_reason="length"), interaction(6, status=500)]
    made = built(seen, [outcome(n, 0.5 if n == 2 else 1.0) for n in range(1, 7)])
    assert [e.completion for e in made.examples] == ["c1"]
    assert made.examples[0].interactions == ("i1", "a1")


def test_missing_outcomes_are_neither_success_nor_failure() -> None:
    with pytest.raises(NotEnoughData, match="min_examples"):
        built([interaction(1)], [])


def test_held_out_sources_never_train_whatever_the_client_says() -> None:
    lying = interaction(2, source="secret", task={"source": "harmless"})
    made = built([interaction(1), lying], [outcome(1, 1.0), outcome(2, 1.0)], held_out=lambda s: s == "secret")
    assert {e.source for e in made.examples} == {"s1"}


def test_a_correction_outranks_other_answers_to_the_same_prompt() -> None:
    correction = Feedback(
        id="f9", at=5.0, interaction="i1", agent=AGENT.name, kind="correction", detail={"completion": "by a person"}
    )
    made = built([interaction(1)], [outcome(1, 1.0), correction])
    assert [e.completion for e in made.examples] == ["by a person"]


def test_the_latest_outcome_of_a_reporter_counts_and_reporters_are_averaged() -> None:
    said = [outcome(1, 0.0, 1.0), outcome(1, 1.0, 2.0), outcome(1, 0.5, 1.5, "client")]
    assert outcomes(said) == {"i1": 0.75}


def test_the_cap_takes_from_all_sources_in_turn() -> None:
    seen = [interaction(n, source="big") for n in range(30)] + [interaction(40 + n) for n in range(5)]
    made = built(seen, [outcome(i.id and int(i.id[1:]), 1.0) for i in seen])
    assert len(made.examples) == 10
    assert sum(e.source == "big" for e in made.examples) == 5


def test_replay_adds_older_examples_and_never_held_out_ones() -> None:
    old = built([interaction(n) for n in range(20, 30)], [outcome(n, 1.0) for n in range(20, 30)])
    made = built(
        [interaction(n) for n in range(1, 5)],
        [outcome(n, 1.0) for n in range(1, 5)],
        replay=list(old.examples),
        held_out=lambda s: s == "s21",
    )
    replayed = [e for e in made.examples if e.replayed]
    assert len(replayed) == 2
    assert "s21" not in {e.source for e in replayed}
    assert list(made.counts.values())[-1] == 6


def test_the_same_input_gives_the_same_fingerprint_and_file(tmp_path: Path) -> None:
    seen, said = [interaction(n) for n in range(6)], [outcome(n, 1.0) for n in range(6)]
    one, two = built(seen, said), built(list(reversed(seen)), list(reversed(said)))
    assert one.fingerprint == two.fingerprint
    path = datasets.save(one, tmp_path)
    assert datasets.save(two, tmp_path) == path
    assert datasets.load(path) == one
    assert built(seen[:-1], said).fingerprint != one.fingerprint
