"""Ways of failing: what is newly broken, what was mended."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pawl.evaluation.failures import MOST, failures
from pawl.evaluation.report import ItemResult


def answer(n: int, score: float | None, how: str = "") -> ItemResult:
    return ItemResult(item=f"i{n:03}", source=f"s{n % 4}", score=score, completion=how or "fine")


def by_text(a: ItemResult) -> str:
    return "" if a.completion == "odd" else a.completion


def test_each_item_counts_in_the_pattern_of_the_answer_that_failed() -> None:
    old = [answer(0, 0.0, "short"), answer(1, 0.0, "short"), answer(2, 1.0), answer(3, 0.0, "short"), answer(4, None)]
    new = [answer(0, 1.0), answer(1, 0.0, "loops"), answer(2, 0.2, "loops"), answer(3, 0.0, "short"), answer(4, 0.0)]
    loops, short = failures(old, new, by_text, 0.5)
    assert (loops.name, loops.champion, loops.challenger, loops.broken, loops.mended) == ("loops", 0, 2, 1, 0)
    assert loops.examples == ("i002", "i001"), "what is newly broken comes first"
    assert (short.name, short.champion, short.challenger, short.broken, short.mended) == ("short", 3, 1, 0, 1)
    assert short.sources == 3


def test_what_nobody_can_name_is_still_counted() -> None:
    old = [answer(0, 1.0), answer(1, 1.0)]
    new = [answer(0, 0.0, "odd"), answer(1, 0.0, " ")]
    assert [p.name for p in failures(old, new, lambda _: "", 0.5)] == ["no answer", "unnamed"]


def test_many_rare_ways_are_one() -> None:
    old = [answer(n, 1.0) for n in range(60)]
    new = [answer(n, 0.0, f"way {n % 30:02}") for n in range(60)]
    found = failures(old, new, by_text, 0.5)
    assert len(found) == MOST + 1 and found[0].name == "other" and found[0].broken == 20
    assert sum(p.challenger for p in found) == 60


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc"), st.booleans(), st.booleans()), max_size=30))
def test_nothing_is_counted_twice(rows: list[tuple[str, str, bool, bool]]) -> None:
    old = [answer(n, float(r[2]), r[0]) for n, r in enumerate(rows)]
    new = [answer(n, float(r[3]), r[1]) for n, r in enumerate(rows)]
    found = failures(old, new, by_text, 0.5)
    assert sum(p.champion for p in found) == sum(not r[2] for r in rows)
    assert sum(p.challenger for p in found) == sum(not r[3] for r in rows)
    assert sum(p.broken for p in found) == sum(r[2] and not r[3] for r in rows)
    assert sum(p.mended for p in found) == sum(r[3] and not r[2] for r in rows)
