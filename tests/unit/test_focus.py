"""Classes that what serves now fails in: which they are, and how the room is shared out among them."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pawl.curation.focus import Focus, check, failing, rooms
from pawl.curation.select import Pick, select
from pawl.evaluation.failures import failures
from pawl.evaluation.paired import compare
from pawl.evaluation.report import Comparison, ItemResult
from pawl.fleet.data import DataSpec
from pawl.improvement.failing_classes import classes_of


def focus(name: str, asked: int, failed: int) -> Focus:
    return Focus(name=name, asked=asked, failed=failed)


def test_those_that_fail_more_than_all_together_come_first() -> None:
    found = failing([focus("type", 40, 4), focus("range", 20, 15), focus("enum", 10, 5), focus("", 9, 9)])
    assert [c.name for c in found] == ["range", "enum"]
    assert failing([focus("type", 40, 0), focus("range", 20, 0)]) == ()
    assert failing([]) == ()


def test_where_all_fail_alike_all_are_failing() -> None:
    for asked in range(1, 60):
        for failed in range(1, asked + 1):
            assert len(failing([focus("a", asked, failed), focus("b", 3 * asked, 3 * failed)])) == 2


def test_one_wrong_answer_of_two_is_not_taken_for_half() -> None:
    found = failing([focus("rare", 2, 1), focus("range", 40, 18), focus("type", 60, 12)])
    assert [c.name for c in found] == ["range", "rare"]


CLASSES = st.lists(
    st.tuples(st.integers(1, 50), st.integers(0, 50)).map(lambda t: (t[0], min(t))), min_size=1, max_size=6
).map(lambda rows: [focus(f"c{n}", asked, failed) for n, (asked, failed) in enumerate(rows)])


@given(CLASSES, st.integers(0, 200))
def test_all_of_the_room_is_shared_out_and_no_more(classes: list[Focus], room: int) -> None:
    found = failing(classes)
    shared = rooms(found, room)
    assert sum(shared.values()) == (room if found else 0)
    overall = sum(c.failed for c in classes) / sum(c.asked for c in classes)
    assert all(c.failed / c.asked >= overall - 1e-9 for c in found)
    assert bool(found) == any(c.failed for c in classes)


def pick(name: str) -> Pick:
    return Pick("s", name, 0, 1.0, 0.0, 0, name)


def wide(**more: float) -> DataSpec:
    return DataSpec(**{"max_source_share": 1.0, "max_class_share": 1.0, "hard_share": 0.0, **more})


def taken(spec: DataSpec, *classes: Focus, most: int = 40) -> Counter[str]:
    picks = [pick(name) for name in ("type", "range", "enum", "length") for _ in range(60)]
    return Counter(picks[n].scenario for n in select(picks, most, spec, classes).rows)


def test_selection_gives_them_the_room_that_the_setting_keeps() -> None:
    assert set(taken(wide()).values()) == {10}
    steered = taken(wide(failing_share=0.5), focus("range", 10, 9))
    assert steered["range"] == 20 + 5 and sum(steered.values()) == 40
    two = taken(wide(failing_share=0.5), focus("range", 10, 9), focus("enum", 10, 9))
    assert two["range"] == two["enum"] == 15 and two["type"] == two["length"] == 5
    assert taken(wide(failing_share=0.0), focus("range", 10, 9)) == taken(wide())


def test_no_class_gets_more_than_its_share_however_much_it_fails() -> None:
    assert taken(wide(failing_share=0.5, max_class_share=0.3), focus("range", 10, 10))["range"] == 12
    assert taken(wide(failing_share=0.5), focus("unknown", 10, 10)) == taken(wide())


def judged() -> Comparison:
    def side(wrong: dict[int, str]) -> list[ItemResult]:
        return [
            ItemResult(
                item=f"i{n}", source=f"s{n % 5}", score=0.0 if n in wrong else 1.0, completion=wrong.get(n, "fine"),
                scenario="range" if n < 8 else "type" if n < 18 else "",
            )
            for n in range(20)
        ]  # fmt: skip

    old, new = side({0: "short", 1: "short", 2: "loops", 9: "short", 19: "loops"}), side({9: "loops", 10: "loops"})
    return compare(
        "a", ("old", old), ("new", new), margin=0.05, alpha=0.05, dataset="d", training_sources=set(),
        failures=failures(old, new, lambda a: a.completion, 0.5),
    )  # fmt: skip


def test_a_comparison_tells_what_each_side_got_wrong_of_each_class_and_how() -> None:
    found = {c.name: c for c in classes_of(judged(), "champion", 0.5)}
    assert found == {
        "range": Focus(name="range", asked=8, failed=3, ways={"loops": 1, "short": 2}),
        "type": Focus(name="type", asked=10, failed=1, ways={"short": 1}),
    }
    assert found["range"].told == "range: 3 of 8 wrong (short 2, loops 1)"
    assert [c.name for c in failing(found.values())] == ["range"]
    (challengers,) = failing(classes_of(judged(), "challenger", 0.5))
    assert (challengers.name, challengers.failed, challengers.ways) == ("type", 2, {"loops": 2})


def test_the_card_says_when_nothing_teaches_what_fails() -> None:
    classes = (focus("range", 8, 3), focus("type", 10, 9))
    (line,) = check(classes, ["range"] * 7)
    assert line.light == "red" and "range: 3 of 8 wrong, 7 examples" in line.value
    assert check(classes, ["range", "type"])[0].light == "green" and check((), ["range"]) == ()
