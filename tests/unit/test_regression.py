"""The regression suite: which failures become tests for good."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pawl.curation.dataset import Split
from pawl.curation.regression import Failure, Suite, change, failures, grown, load, marked, must_pass
from pawl.errors import LakeError
from pawl.qe.task import GenericTask


class Failing(GenericTask):
    """Says how an answer failed by its first word."""

    def cluster_key(self, messages: list[dict[str, Any]], completion: str) -> str:
        return completion.split()[0]


TASK = Failing()


def failure(n: int, source: str, how: str = "short", at: float | None = None) -> Failure:
    messages = [{"role": "user", "content": f"task {n}"}]
    return Failure(f"i{n}", f"prompt{n}", source, float(n) if at is None else at, messages, f"{how} answer")


def sides(source: str) -> Split:
    return "test" if source.startswith("held") else "train"


def grow(suite: Suite, seen: list[Failure], most: int = 10, **more: Any) -> Suite:
    return grown(suite, seen, TASK, sides, most=most, now=9.0, **more)


def test_failures_of_held_out_sources_come_first_and_reserve_nothing() -> None:
    seen = [failure(n, "held1") for n in range(5)] + [failure(n, f"free{n}") for n in range(5, 105)]
    made = grow(Suite(agent="a"), seen, most=5)
    assert {i.source for i in made.items} == {"held1"} and made.reserved == ()


def test_at_most_one_training_source_in_twenty_is_reserved_and_none_that_has_trained() -> None:
    seen = [failure(n, f"free{n % 40}") for n in range(400)]
    made = grow(Suite(agent="a"), seen, most=300)
    assert len(made.reserved) == 2 and {i.source for i in made.items} == set(made.reserved)
    assert len(made.items) == 20
    trained = frozenset(f"free{n}" for n in range(40))
    assert grow(Suite(agent="a"), seen, trained=trained).items == ()
    again = grow(made, [failure(1000 + n, f"free{n % 40}") for n in range(400)], most=300)
    assert again.reserved == made.reserved


def test_a_frequent_failure_does_not_fill_the_suite() -> None:
    seen = [failure(n, f"held{n % 3}", "often") for n in range(100)] + [
        failure(200 + n, "held9", "rare") for n in range(3)
    ]
    made = grow(Suite(agent="a"), seen, most=12)
    assert Counter(i.cluster for i in made.items) == {"often": 9, "rare": 3}
    assert set(Counter(i.source for i in made.items if i.cluster == "often").values()) == {3}


def test_what_is_in_it_stays_and_nothing_comes_twice() -> None:
    first = grow(Suite(agent="a"), [failure(n, "held") for n in range(4)])
    more = grow(first, [failure(n, "held") for n in range(12)])
    assert more.items[:4] == first.items and len(more.items) == 10
    assert len({i.id for i in more.items}) == 10
    assert grow(more, [failure(99, "held")]) == more


def test_it_survives_the_disk_and_says_when_it_does_not(tmp_path: Path) -> None:
    made = grow(Suite(agent="a"), [failure(1, "held")])
    assert change(tmp_path, "a", lambda before: made) == made
    assert load(tmp_path, "a") == made
    assert load(tmp_path, "b") == Suite(agent="b")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(LakeError, match="restore it"):
        load(tmp_path, "a")


def test_the_prompts_own_source_counts_before_the_clients() -> None:
    class Named(Failing):
        def source_of(self, messages: list[dict[str, Any]]) -> str | None:
            return "named" if "x" in messages[0]["content"] else None

    rows = [("i1", "p", "said", 1.0, '[{"role":"user","content":"x"}]', "a"),
            ("i2", "q", "said", 1.0, '[{"role":"user","content":"y"}]', "a"),
            ("i3", "r", "", 1.0, '[{"role":"user","content":"y"}]', "a")]  # fmt: skip
    assert [f.source for f in failures(rows, Named())] == ["named", "said", "prompt-r"]


def test_two_that_change_it_at_once_lose_nothing(tmp_path: Path) -> None:
    def add(n: int) -> None:
        change(tmp_path, "a", lambda suite: grow(suite, [failure(n, "held")], most=99))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40)))
    assert len(load(tmp_path, "a").items) == 40
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".part"] == []


def test_what_must_pass_is_marked_by_hand_or_in_the_spec_and_never_forgotten() -> None:
    suite = grow(Suite(agent="a"), [failure(n, "held") for n in (10, 11, 2)])
    assert must_pass(suite) == ()
    one = marked(suite, ["prompt2"], True)
    assert must_pass(one) == ("prompt2",) and must_pass(marked(one, ["prompt2"], False)) == ()
    assert must_pass(one, ["prompt1"]) == ("prompt10", "prompt11", "prompt2")
    assert must_pass(one, ["gone"]) == ("gone", "prompt2"), "what is not there has not passed"
    assert must_pass(grow(one, [failure(77, "held")])) == ("prompt2",), "growing keeps the mark"
    for name in ("prompt1", "gone"):
        with pytest.raises(LakeError, match="regression list a"):
            marked(suite, [name], True)
