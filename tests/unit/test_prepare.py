"""What becomes training data, and what never does."""

from __future__ import annotations

import random
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pawl.curation.candidates_duckdb import Candidates
from pawl.curation.dataset import DatasetVersion, Example, Split, load, save
from pawl.curation.datasheet import datasheet
from pawl.curation.focus import Focus
from pawl.curation.pool import HeldOut
from pawl.curation.prepare import Surroundings, contaminated, prepare
from pawl.curation.quality import qualities
from pawl.curation.split import side
from pawl.errors import NotEnoughData
from pawl.fleet.data import DataSpec, QualitySpec
from pawl.lake.parquet_lake import ParquetLake
from pawl.lake.records import Feedback, Interaction, Observation
from pawl.lake.window_duckdb import window
from pawl.qe.functional_negative.oracle import messages
from pawl.qe.functional_negative.task import FunctionalNegative
from pawl.qe.operations.operation import Operation
from pawl.qe.task import GenericTask
from pawl.qe.tasks import task_of
from pawl.scrubbing.scrub import Scrubbed

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}}
NOW = 1_800_000_000.0
AGENT = "functional-negative"


def spec(**more: Any) -> DataSpec:
    """Every prompt is its own: that texts resemble each other is tested apart."""
    alone = {"near_duplicate": 1.0, "semantic_duplicate": None, "max_source_share": 1.0, "hard_share": 0.0}
    return DataSpec(**{**alone, "min_examples": 1, "max_examples": 50, "replay_share": 0.5, "verify": False, **more})


class Lenient(FunctionalNegative):
    """Any answer is of the right form: the answers here tell where they come from."""

    def conforms(self, completion: str) -> bool:
        return True


def same(examples: Iterable[Sequence[str]]) -> Iterator[Scrubbed]:
    return (Scrubbed(tuple(texts), {}) for texts in examples)


def train(_source: str) -> Split:
    return "train"


def version_of(
    seen: Sequence[Interaction | Observation],
    said: Sequence[Feedback],
    made: DataSpec | None = None,
    quarantined: Mapping[str, Sequence[str]] = MappingProxyType({}),
    since: float | None = None,
    **around: Any,
) -> DatasetVersion:
    given = {"task": Lenient(), "side": train, "scrub": same, "now": NOW + 100, **around}
    with tempfile.TemporaryDirectory() as folder:
        lake = ParquetLake(Path(folder) / "lake", Path(folder) / "journal")
        lake.add([*seen, *said])
        made = made or spec()
        with window(lake, AGENT, since, late_days=made.late_days) as db:
            return prepare(AGENT, made, Candidates(db, made, quarantined), Surroundings(**given))


def shadow(n: int, source: str = "svc", **more: Any) -> Interaction:
    op = Operation(id=f"{source}.Op{n}", source=source, method="POST", path="/", schema=SCHEMA)
    base: dict[str, Any] = {
        "id": f"{source}-{n}",
        "at": NOW + n,
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


def outcome(i: Interaction, score: float | None, at: float = NOW, source: str = "grader", **more: Any) -> Feedback:
    base: dict[str, Any] = {"id": f"{i.id}-{source}-{at}", "at": at, "interaction": i.id, "agent": i.agent}
    return Feedback(**{**base, "kind": "outcome", "score": score, "source": source, **more})


def correction(i: Interaction, completion: Any, **more: Any) -> Feedback:
    return outcome(i, None, source="client", kind="correction", detail={"completion": completion}, **more)


def build(seen: list[Interaction], said: list[Feedback], **more: Any) -> list[Example]:
    return list(version_of(seen, said, spec(**more)).examples)


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
    version = version_of([good, bad, unknown], said)
    assert [e.completion for e in version.examples] == [good.completion]
    assert list(version.counts.values())[:4] == [3, 3, 2, 1]
    assert all(step.why for step in version.steps) and sum(s.dropped for s in version.steps) == 2


def test_the_last_word_of_each_voice_counts_then_their_mean() -> None:
    i = shadow(1)
    said = [outcome(i, 1.0, at=2.0), outcome(i, 0.0, at=1.0), outcome(i, 0.5, at=1.0, source="client")]
    weights = QualitySpec(grader=1, outcome=1, rating=0)
    assert qualities(said, weights) == {i.id: 0.75}
    unweighted = outcome(i, 0.0, at=9.0, kind="rating", source="someone")
    assert qualities([*said, unweighted], weights) == {i.id: 0.75}
    someone = outcome(i, 0.0, at=9.0, kind="rating", source="someone")
    assert qualities([*said, someone], QualitySpec(grader=1, outcome=1, rating=2)) == {i.id: 0.375}


def test_a_correction_outranks_every_answer_whoever_gave_it() -> None:
    cloud = shadow(1)
    local = shadow(1, id="local-1", arm_kind="local", role="answer", shadow_of=None, at=NOW + 0.5)
    said = [outcome(cloud, 1.0), outcome(local, 0.0), correction(local, '{"fixed":1}')]
    (only,) = build([cloud, local], said)
    assert only.completion == '{"fixed":1}' and only.interactions == ("local-1",)


@pytest.mark.parametrize("what", [None, 7, "", ["x"]])
def test_a_correction_that_is_no_text_is_ignored(what: Any) -> None:
    good = shadow(1)
    assert [e.completion for e in build([good], [outcome(good, 1.0), correction(good, what)])] == [good.completion]


def test_one_answer_a_prompt_and_the_newest_of_equals() -> None:
    old, new = shadow(1), shadow(1, id="again", at=NOW + 9.0, completion='{"newer":1}')
    assert [e.completion for e in build([old, new], [outcome(i, 1.0) for i in (old, new)])] == ['{"newer":1}']


def test_held_out_sources_never_train_even_if_the_client_says_otherwise() -> None:
    """A client without metadata, or with a wrong source, must not carry held-out tasks into training."""
    kept = shadow(1, "open")
    lies = [shadow(2, "held"), shadow(3, "held", task={}), shadow(4, "held", task={"source": "open"})]
    seen = [kept, *lies]
    old = build(lies, [outcome(i, 1.0) for i in lies])
    assert len(old) == 3
    version = version_of(
        seen,
        [outcome(i, 1.0) for i in seen],
        spec(replay_share=1.0),
        replay=old,
        side=lambda source: "test" if source == "held" else "train",
    )
    assert [e.completion for e in version.train] == [kept.completion] and version.sources == ("open",)
    assert {(e.source, e.split) for e in version.examples} == {("open", "train"), ("held", "test")}


def test_too_few_says_the_numbers_and_what_to_do() -> None:
    seen = [shadow(n) for n in range(5)]
    with pytest.raises(
        NotEnoughData, match=r"5 new training examples.*demands 6.*interactions: 5.*lower data.min_examples"
    ):
        build(seen, [outcome(i, 1.0) for i in seen], min_examples=6)
    with pytest.raises(NotEnoughData, match="0 new training examples"):
        build([], [])


def test_the_cap_spreads_over_sources_and_prefers_the_newest() -> None:
    seen = [shadow(n, "big") for n in range(30)] + [shadow(100 + n, "small") for n in range(2)]
    made = build(seen, [outcome(i, 1.0) for i in seen], max_examples=6, clusters=1)
    assert sorted(e.source for e in made) == ["big"] * 4 + ["small"] * 2
    assert {e.completion for e in made if e.source == "big"} == {f'{{"from":"big-{n}"}}' for n in (29, 28, 27, 26)}


def test_replay_is_a_share_of_the_new_and_never_repeats_them() -> None:
    past = [shadow(n) for n in range(20)]
    replay = build(past, [outcome(i, 1.0) for i in past])
    seen = [shadow(n) for n in range(16, 26)]
    version = version_of(seen, [outcome(i, 1.0) for i in seen], replay=replay)
    older = [e for e in version.examples if e.replayed]
    assert len(version.examples) == 15 and len(older) == 5
    assert len({e.id for e in version.examples}) == 15
    assert {e.id for e in older} <= {e.id for e in replay}


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 60), st.sampled_from("abcdefgh"), st.sampled_from([0.0, 0.5, 1.0])),
        min_size=1,
        unique_by=lambda t: t[0],
    ),
    st.integers(1, 20),
    st.randoms(),
)
def test_laws(rows: list[tuple[int, str, float]], most: int, rng: random.Random) -> None:
    def where(source: str) -> Split:
        return side(source, 20, 20)

    seen = [shadow(n, source) for n, source, _ in rows]
    said = [outcome(i, score) for i, (_, _, score) in zip(seen, rows, strict=True)]
    try:
        version = version_of(seen, said, spec(max_examples=most), side=where)
    except NotEnoughData:
        assert all(score < 1 or where(source) != "train" for _, source, score in rows)
        return
    assert len(version.train) <= most
    assert all(where(e.source) == e.split for e in version.examples)
    assert all(e.quality >= 0.99 for e in version.examples)
    left = [s.left for s in version.steps]
    assert left == sorted(left, reverse=True) and left[-1] == len(version.examples)
    assert left[0] - sum(s.dropped for s in version.steps) == len(version.examples)
    # The order in which records were written changes nothing.
    rng.shuffle(seen)
    rng.shuffle(said)
    assert version_of(seen, said, spec(max_examples=most), side=where).fingerprint == version.fingerprint


def test_a_saved_version_is_immutable_and_comes_back(tmp_path: Path) -> None:
    seen = [shadow(n) for n in range(5)]
    version = version_of(seen, [outcome(i, 1.0) for i in seen])
    path = save(version, tmp_path)
    before = path.stat().st_mtime_ns
    assert save(version, tmp_path) == path and path.stat().st_mtime_ns == before
    assert load(path) == version and load(path).fingerprint == version.fingerprint
    changed = msgspec.structs.replace(version, examples=version.examples[::-1])
    assert changed.fingerprint != version.fingerprint


VOICES = st.builds(
    lambda n, at, i, kind, source, key, score: Feedback(
        id=f"f{n}", at=NOW + at, interaction=f"svc-{i}", agent=AGENT, kind=kind, source=source, key_id=key, score=score
    ),
    st.integers(0, 10**6),
    st.integers(0, 3),
    st.integers(0, 2),
    st.sampled_from(["outcome", "rating", "accepted", "correction"]),
    st.sampled_from(["grader", "client", "review:ann", "review:bob"]),
    st.sampled_from(["", "k1", "k2"]),
    st.sampled_from([None, -1.0, 0.0, 0.25, 1.0, 2.0]),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(VOICES, max_size=12, unique_by=lambda f: f.id), st.sampled_from([(1, 1, 0.5, 0.5, 2), (0, 1, 0, 3, 0)]))
def test_sql_and_python_agree_on_the_quality(said: list[Feedback], w: tuple[float, ...]) -> None:
    names = ("grader", "outcome", "accepted", "rating", "review")
    weights = QualitySpec(**dict(zip(names, w, strict=True)))
    with tempfile.TemporaryDirectory() as folder:
        lake = ParquetLake(Path(folder) / "lake", Path(folder) / "journal")
        lake.add(said)
        with window(lake, AGENT) as db:
            Candidates(db, spec(quality=weights))
            found = dict(db.execute("SELECT interaction, quality FROM known").fetchall())
    assert found == pytest.approx(qualities(said, weights))


def test_late_feedback_brings_an_older_interaction_back() -> None:
    old, older, new = shadow(1, at=NOW - 5 * 86_400), shadow(2, at=NOW - 50 * 86_400), shadow(3)
    # What was said in time about the late one counts beside the late word.
    early = outcome(old, 0.0, at=NOW - 4 * 86_400)
    said = [early, *(outcome(i, 1.0, at=NOW + 9) for i in (old, older, new))]
    made = version_of([old, older, new], said, spec(late_days=30), since=NOW)
    assert {e.completion for e in made.examples} == {old.completion, new.completion}
    second = outcome(old, 0.0, at=NOW - 4 * 86_400, source="client")
    made = version_of([old, older, new], [*said, second], spec(late_days=30), since=NOW)
    assert {e.completion for e in made.examples} == {new.completion}


def test_what_is_in_quarantine_neither_teaches_nor_speaks() -> None:
    good, bad, judged = (shadow(n) for n in range(3))
    said = [outcome(i, 1.0) for i in (good, bad, judged)]
    made = version_of([good, bad, judged], said, quarantined={"interactions": [bad.id], "feedback": [said[2].id]})
    assert {e.completion for e in made.examples} == {good.completion}
    # An id of the other table is another row.
    made = version_of([good], said[:1], quarantined={"feedback": [good.id], "interactions": [said[0].id]})
    assert {e.completion for e in made.examples} == {good.completion}


def words(n: int, amount: int = 80) -> str:
    rng = random.Random(n)
    return " ".join(f"w{rng.randrange(5000)}" for _ in range(amount))


def asked(n: int, text: str, source: str = "svc", **more: Any) -> Interaction:
    return shadow(n, source, messages=[{"role": "user", "content": text}], **more)


def test_near_duplicates_give_way_to_better_newer_and_corrected_ones() -> None:
    seen = [asked(1, words(1) + " one"), asked(2, words(1) + " two"), asked(3, words(2))]
    said = [outcome(i, 1.0) for i in seen]
    made = version_of(seen, said, spec(near_duplicate=0.9), task=GenericTask())
    assert {e.completion for e in made.examples} == {seen[1].completion, seen[2].completion}
    said.append(correction(seen[0], "corrected"))
    made = version_of(seen, said, spec(near_duplicate=0.9), task=GenericTask())
    assert {e.completion for e in made.examples} == {"corrected", seen[2].completion}


def test_nothing_near_a_held_out_task_or_a_held_out_example_trains() -> None:
    seen = [asked(n, words(n), "svc") for n in range(6)] + [asked(9, words(5) + " more", "held")]
    held = [HeldOut(words(0) + " evaluated", "test"), HeldOut(words(1), "validation")]

    def where(source: str) -> Split:
        return "test" if source == "held" else "train"

    made = version_of(
        seen, [outcome(i, 1.0) for i in seen], spec(near_duplicate=0.9), task=GenericTask(), side=where, held_out=held
    )
    assert {e.completion for e in made.train} == {seen[n].completion for n in (2, 3, 4)}
    assert {e.completion for e in made.examples if e.split == "test"} == {seen[6].completion}
    assert contaminated(made, held, GenericTask(), 0.9) == set()
    # What slips in all the same is found: nothing here believes the steps before.
    spoilt = msgspec.structs.replace(made, examples=(*made.examples, msgspec.structs.replace(made.train[0], id="x",
        messages=[{"role": "user", "content": words(1)}])))  # fmt: skip
    assert contaminated(spoilt, held, GenericTask(), 0.9) == {"x"}


def test_semantic_duplicates_go_too() -> None:
    text = "delete the account of a tenant after the last invoice was paid"
    other = "after the last invoice was paid delete the account of a tenant"
    seen = [asked(1, text), asked(2, other), *(asked(n, words(n)) for n in range(3, 9))]
    said = [outcome(i, 1.0) for i in seen]
    made = version_of(seen, said, spec(semantic_duplicate=0.8, clusters=1), task=GenericTask())
    assert {e.completion for e in made.examples} == {i.completion for i in seen[1:]}
    assert len(version_of(seen, said, spec(clusters=1), task=GenericTask()).examples) == 8


def replacing(secret: str) -> Callable[[Iterable[Sequence[str]]], Iterator[Scrubbed]]:
    """A scrubber that knows one secret."""

    def scrub(examples: Iterable[Sequence[str]]) -> Iterator[Scrubbed]:
        for texts in examples:
            found = sum(t.count(secret) for t in texts)
            yield Scrubbed(tuple(t.replace(secret, "<SECRET_1>") for t in texts), {"SECRET": found} if found else {})

    return scrub


def test_every_text_of_a_prompt_and_of_pairs_is_scrubbed() -> None:
    prompt = [
        {"role": "system", "content": "for hunter2"},
        {"role": "user", "content": [{"type": "text", "text": "I am hunter2"}, {"type": "image", "n": 1}]},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"arguments": '{"p":"hunter2"}'}}]},
    ]
    good = shadow(1, messages=prompt, completion="hello hunter2")
    bad = shadow(2, messages=prompt, completion="go away hunter2")
    made = version_of(
        [good, bad], [outcome(good, 1.0), outcome(bad, 0.0)], task=GenericTask(), scrub=replacing("hunter2")
    )
    assert b"hunter2" not in msgspec.json.encode(made)
    (only,), (pair,) = made.examples, made.pairs
    assert only.messages[1]["content"][1] == {"type": "image", "n": 1} and only.completion == "hello <SECRET_1>"
    assert (pair.chosen, pair.rejected, pair.gap) == ("hello <SECRET_1>", "go away <SECRET_1>", 1.0)
    assert made.scrubbed == {"SECRET": 9}


def test_the_oracle_refuses_what_is_wrong_however_good_its_feedback_was() -> None:
    good = (
        '{"test_cases":[{"name":"a","payload":{"n":"x"},"expected_status":400},'
        '{"name":"b","payload":[],"expected_status":400},{"name":"c","payload":{"n":1.5},"expected_status":400}]}'
    )
    seen = [shadow(1, completion=good), shadow(2, completion="{}")]
    grade = task_of(AGENT).grade(seen[0].messages, good)
    assert grade is not None and grade.score < 1
    said = [outcome(i, 1.0) for i in seen]
    made = version_of(seen, said, spec(verify=True, min_quality=grade.score))
    assert [e.completion for e in made.examples] == [good]
    # Nor is a refused correction a chosen answer; and what is not of the agent's form is not even asked about.
    poison = correction(seen[0], '{"test_cases":[]}')
    made = version_of(seen, [outcome(seen[0], 0.0), said[1], poison], spec(verify=False, min_quality=0.0))
    assert [p.chosen for p in made.pairs] == ['{"test_cases":[]}']
    made = version_of([*seen, shadow(3, completion=good)], [outcome(seen[0], 0.0), said[1], poison,
                      outcome(shadow(3), 1.0)], spec(verify=True, min_quality=grade.score))  # fmt: skip
    assert made.pairs == ()
    made = version_of(seen, said, task=task_of(AGENT))
    assert made.counts["in form"] == 1


def test_pairs_prefer_a_correction_then_what_shadowed() -> None:
    local = shadow(1, id="local", arm_kind="local", role="answer", shadow_of=None, completion="bad")
    cloud = shadow(1, id="cloud", shadow_of="local", completion="good")
    alone = shadow(2, id="alone", arm_kind="local", role="answer", shadow_of=None, completion="wrong")
    fixed = outcome(alone, 0.9, source="client", kind="correction", detail={"completion": "right"})
    said = [outcome(local, 0.2), outcome(cloud, 1.0), outcome(alone, 0.1), fixed]
    made = version_of([local, cloud, alone], said, spec(min_quality=0.5))
    found = {p.origin: (p.chosen, p.rejected, p.gap) for p in made.pairs}
    assert found == {"shadow": ("good", "bad", 0.8), "correction": ("right", "wrong", pytest.approx(0.8))}
    assert version_of([local, cloud, alone], said, spec(min_quality=0.5, preference_gap=0.9)).pairs == ()


def test_hard_prompts_are_told_by_what_the_champion_answered() -> None:
    hard = shadow(1, id="hard")
    easy = [shadow(n, id=f"easy{n}") for n in range(2, 30)]
    wrong = shadow(1, id="local", arm_kind="local", role="answer", shadow_of=None, at=NOW - 9)
    said = [outcome(wrong, 0.0), *(outcome(i, 1.0) for i in (hard, *easy))]
    made = version_of([hard, wrong, *easy], said, spec(hard_share=0.5, max_examples=2, half_life_days=1))
    assert "hard" in {e.interactions[0] for e in made.examples}
    made = version_of([hard, wrong, *easy], said, spec(hard_share=0.0, max_examples=2))
    assert "hard" not in {e.interactions[0] for e in made.examples}


def test_bug_reports_with_a_cause_teach_agents_that_ask_for_them() -> None:
    def bug(n: int, at: float, **more: Any) -> Observation:
        base = {
            "title": "it fails",
            "text": "on Mondays",
            "root_cause": "a cron",
            "component": "shop",
            "resolved": True,
        }
        return Observation(
            **{"id": f"o{n}", "at": NOW + at, "agent": AGENT, "kind": "bug", "ref": "shop#1", **base, **more}
        )

    seen = [bug(1, 0, root_cause="nobody knows"), bug(2, 5), bug(3, 1, ref="shop#2", resolved=False)]
    made = version_of(seen, [], spec(teachers=("bugs",)), task=GenericTask())
    (only,) = made.examples
    assert (only.completion, only.kind, only.source, only.interactions) == ("a cron", "bug", "shop", ("o2",))
    assert only.messages == [{"role": "user", "content": "it fails\n\non Mondays"}]
    with pytest.raises(NotEnoughData):
        version_of(seen, [], spec(), task=GenericTask())


def test_sources_of_the_regression_suite_never_train() -> None:
    seen = [shadow(1, "kept"), shadow(2, "reserved")]
    made = version_of(seen, [outcome(i, 1.0) for i in seen], reserved=frozenset({"reserved"}))
    assert {e.source for e in made.examples} == {"kept"}


def test_the_clock_changes_nothing_but_the_card() -> None:
    seen = [shadow(n, at=NOW - n * 86_400) for n in range(6)]
    said = [outcome(i, 1.0) for i in seen]
    one, two = (version_of(seen, said, now=NOW + later) for later in (0, 9 * 86_400))
    assert one.fingerprint == two.fingerprint and one.card != two.card
    assert len({e.weight for e in one.examples}) == 6


def test_two_clients_are_two_voices() -> None:
    i = shadow(1)
    said = [outcome(i, 1.0, source="client", key_id="a"), outcome(i, 0.0, source="client", key_id="b", at=NOW + 1)]
    said[1] = msgspec.structs.replace(said[1], id="other")
    assert qualities(said, QualitySpec()) == {i.id: 0.5}
    assert version_of([i], said, spec(min_quality=0.4)).examples[0].quality == 0.5


def test_replay_of_what_is_known_to_be_wrong_by_now() -> None:
    past = [shadow(n) for n in range(4)]
    replay = build(past, [outcome(i, 1.0) for i in past])
    new = [shadow(n) for n in range(10, 30)]
    said = [*(outcome(i, 1.0) for i in new), outcome(past[0], 0.0), correction(past[1], "better")]
    made = version_of(new, said, spec(replay_share=1.0), replay=replay)
    assert {e.interactions[0] for e in made.examples if e.replayed} == {"svc-2", "svc-3"}


def test_texts_that_scrubbing_makes_alike_do_not_meet_across_the_split() -> None:
    secret = " ".join(f"hunter{n}" for n in range(40))
    mine = asked(1, f"{secret} tell me about the invoice", "svc")
    theirs = asked(2, f"{secret.replace('hunter', 'gatherer')} tell me about the invoice", "held")
    other = asked(3, words(9))

    def scrub(examples: Iterable[Sequence[str]]) -> Iterator[Scrubbed]:
        for texts in examples:
            yield Scrubbed(tuple(re.sub(r"(hunter|gatherer)", "x", t) for t in texts), {"SECRET": 1})

    def where(source: str) -> Split:
        return "test" if source == "held" else "train"

    seen = [mine, theirs, other]
    made = version_of(
        seen, [outcome(i, 1.0) for i in seen], spec(near_duplicate=0.9), task=GenericTask(), side=where, scrub=scrub
    )
    assert {e.interactions[0] for e in made.train} == {other.id}
    assert contaminated(made, [], GenericTask(), 0.9) == set()


def test_pairs_are_checked_like_examples() -> None:
    held = asked(1, words(1), "held")
    good = asked(2, words(1) + " more", "svc", id="good", completion="good")
    bad = asked(2, words(1) + " more", "svc", id="bad", completion="bad")
    kept = asked(3, words(3), "svc")

    def where(source: str) -> Split:
        return "test" if source == "held" else "train"

    said = [outcome(i, 1.0) for i in (held, good, kept)] + [outcome(bad, 0.0)]
    made = version_of([held, good, bad, kept], said, spec(near_duplicate=0.9), task=GenericTask(), side=where)
    assert made.pairs == ()
    alone = version_of([good, bad, kept], said, spec(near_duplicate=0.9), task=GenericTask(), side=where)
    assert [p.chosen for p in alone.pairs] == ["good"] and alone.sources == ("svc",)


def test_a_mail_address_is_no_source_and_no_source_is_the_prompt() -> None:
    plain = asked(1, words(1), task={"source": "team/billing"})
    mail = asked(2, words(2), task={"source": "ann@corp.com"})
    none = asked(3, words(3), task={})
    made = version_of([plain, mail, none], [outcome(i, 1.0) for i in (plain, mail, none)], task=GenericTask())
    named = {e.interactions[0]: e.source for e in made.examples}
    assert named[plain.id] == "team/billing"
    assert named[mail.id].startswith("prompt-") and named[none.id].startswith("prompt-")
    assert named[mail.id] != named[none.id]


def test_a_calibrated_quality_takes_the_place_of_the_raw_one() -> None:
    seen = [shadow(1), shadow(2)]
    said = [outcome(seen[0], 0.5), outcome(seen[1], 1.0)]
    with tempfile.TemporaryDirectory() as folder:
        lake = ParquetLake(Path(folder) / "lake", Path(folder) / "journal")
        lake.add([*seen, *said])
        with window(lake, AGENT) as db:
            found = Candidates(db, spec(min_quality=0.0), calibrate=lambda q: q / 2)
            rows = [c for batch, _ in found.prompts() for c in batch]
    assert [c.quality for c in rows] == [0.25, 0.5]


def test_classes_that_fail_get_more_room_in_training_and_nowhere_else() -> None:
    seen = [asked(n, words(n, 12), f"s{n % 20}") for n in range(400)]
    said = [outcome(i, 1.0) for i in seen]
    classes = {words(n, 12): "rare" if n % 8 == 0 else "common" for n in range(400)}

    def where(source: str) -> Split:
        return "test" if source in ("s0", "s1", "s2", "s3") else "train"

    def made(*focus: Focus, most: int = 140) -> DatasetVersion:
        given_ = spec(max_examples=most, failing_share=0.25, max_class_share=1.0)
        return version_of(seen, said, given_, task=GenericTask(), side=where, classes=classes, focus=focus)

    def rare(version: DatasetVersion, split: Split) -> int:
        return sum(classes[e.messages[0]["content"]] == "rare" for e in version.examples if e.split == split)

    failing = Focus(name="rare", asked=10, failed=8, ways={"short": 8})
    plain, steered = made(), made(failing)
    assert len(plain.train) == len(steered.train) == 140
    assert rare(steered, "train") >= 35 > 25 > rare(plain, "train")
    assert [e.id for e in steered.examples if e.split == "test"] == [e.id for e in plain.examples if e.split == "test"]
    assert plain.focus == () and [c.name for c in steered.focus] == ["rare"]
    sheet = datasheet(steered)
    assert "| room for what fails | up to 25%: rare: 8 of 10 wrong (short 8) held-out items |" in sheet
    assert re.search(r"failing classes \| green \| rare: 8 of 10 wrong \(short 8\), [34][0-9] examples", sheet)
    assert "room for what fails | none" in datasheet(plain) and "failing classes" not in datasheet(plain)
    assert steered.spec["failing_share"] == 0.25
    # Also where there is so much that most of it is not looked at closely.
    assert rare(made(failing, most=40), "train") >= 10 > rare(made(most=40), "train")
    again = msgspec.json.decode(msgspec.json.encode(steered), type=DatasetVersion)
    assert again == steered and again.fingerprint == steered.fingerprint
