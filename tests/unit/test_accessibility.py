"""The form of answers, the score, pages and sources: all that needs no browser."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawl.errors import SourceError
from pawl.fleet.source import TaskSourceSpec
from pawl.qe.accessibility import browser_chromium, oracle
from pawl.qe.accessibility.oracle import Page, said, score
from pawl.qe.accessibility.simulated_pages import AREAS, CLEAN, PARTS, area, pages
from pawl.qe.item import CannotGrade, Item
from pawl.qe.tasks import task_of

task = task_of("accessibility-advocate")
ONE, TWO, THREE = ("image-alt", 3), ("label", 5), ("list", 7)


@pytest.mark.parametrize(
    ("truth", "given_", "unread", "f1"),
    [
        (set(), set(), 0, 1.0),
        (set(), {ONE}, 0, 0.0),
        (set(), set(), 1, 0.0),
        ({ONE}, set(), 0, 0.0),
        ({ONE, TWO}, {ONE, TWO}, 0, 1.0),
        ({ONE, TWO}, {ONE}, 0, 2 / 3),
        ({ONE}, {ONE, TWO, THREE}, 0, 0.5),
        ({ONE}, {("image-alt", 4)}, 0, 0.0),
        ({ONE}, {ONE}, 8, 0.2),
    ],
)
def test_f1_by_hand(truth: Any, given_: Any, unread: int, f1: float) -> None:
    assert score(truth, given_, unread).f1 == pytest.approx(f1)


NAMED = st.sets(st.tuples(st.sampled_from(["image-alt", "label", "list"]), st.integers(0, 4)), max_size=6)


@given(NAMED, NAMED)
def test_the_score_is_symmetric_bounded_and_full_only_for_the_truth(truth: Any, other: Any) -> None:
    got = score(truth, other)
    assert got.f1 == pytest.approx(score(other, truth).f1)
    assert (got.f1 == 1.0) == (truth == other)
    assert min(got.precision, got.recall) - 1e-9 <= got.f1 <= max(got.precision, got.recall) + 1e-9
    assert got.rules >= (got.f1 == 1.0)


def test_a_right_rule_at_the_wrong_element_shows_in_the_figures() -> None:
    got = score({ONE}, {("image-alt", 9)})
    assert got.f1 == 0 and got.rules == 1.0


def test_prompts_are_read_back_in_both_content_forms() -> None:
    page = Page("shop/a1", "<!doctype html><p>Hi</p>")
    asked = oracle.messages(page)
    assert oracle.page_of(asked) == page and page.source == "shop" == task.source_of(asked)
    parts = [asked[0], {"role": "user", "content": [{"type": "text", "text": asked[1]["content"]}]}]
    assert oracle.page_of(parts) == page and task.content_of(parts) == page.html


@pytest.mark.parametrize("text", ["", "PAGE a/b", "PAGE a/b\nno markup", "page a/b\n<p>", "<p>", "PAGE a b\n<p>"])
def test_foreign_prompts_are_none_of_this_task(text: str) -> None:
    asked = [{"role": "user", "content": text}]
    assert oracle.page_of(asked) is None and task.grade(asked, '{"violations":[]}') is None
    assert oracle.page_of([{"role": "user", "content": "PAGE a/b\n<p>" + "x" * oracle.LONGEST_PAGE}]) is None


def test_an_answer_is_read_as_far_as_it_is_one() -> None:
    assert said(oracle.told([("image-alt", "img")])) == ([("image-alt", "img")], 1, "")
    assert said('{"violations":[7,{"rule":"a"},{"rule":1,"target":"b"}]}') == ([("", "")] * 3, 3, "")
    many = oracle.told([("label", f"#i{n}") for n in range(90)])
    assert len(said(many)[0]) == 40 and said(many)[1] == 90
    assert said("{}")[2] == oracle.NO_LIST == said("[]")[2] and said("\ud800")[2].startswith("not JSON")
    assert task.conforms(oracle.told([])) and not task.conforms("{}") and not task.conforms(many)


def test_the_class_of_an_answer_is_the_rarest_area_that_it_names() -> None:
    asked = oracle.messages(Page("a/b", "<p>"))
    assert task.scenario_of(asked, oracle.told([])) == CLEAN
    assert task.scenario_of(asked, oracle.told([("image-alt", "img"), ("aria-roles", "p")])) == "aria"
    assert task.scenario_of(asked, oracle.told([("made-up", "img")])) == "other"
    assert task.scenario_of(asked, "no") == ""


def test_simulated_pages_are_many_short_and_told_apart() -> None:
    made = pages()
    assert len(made) > 400 and len({m.page.source for m in made}) >= 20
    assert len({m.page.html for m in made}) == len(made) and max(len(m.page.html) for m in made) < 800
    planted = {rule for m in made for rule in m.planted}
    assert planted >= {rule for part in PARTS.values() for rule in part if rule}
    assert planted <= {rule for rules in AREAS.values() for rule in rules}
    clean = sum(not m.planted for m in made)
    assert 0.15 < clean / len(made) < 0.4
    assert set(map(area, (m.planted for m in made))) == {*AREAS, CLEAN}
    # A name must not tell what is wrong.
    assert not any(word in m.page.id for m in made for word in ("clean", "right", *m.planted))


def test_right_twins_differ_from_their_pages_in_the_faults_alone() -> None:
    by_title: dict[tuple[str, str], list[bool]] = {}
    for m in pages():
        heading = m.page.html.partition("<h1>")[2].partition("<")[0]
        by_title.setdefault((m.page.source, heading), []).append(not m.planted)
    assert all(any(kinds) and not all(kinds) for kinds in by_title.values())


def test_a_folder_of_pages_is_a_source(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "my cart.html").write_text("<p>cart</p>\n")
    (tmp_path / "home.HTM").write_text("<p>home</p>")
    (tmp_path / "notes.txt").write_text("<p>no page</p>")
    (tmp_path / "empty.html").write_text("")
    (tmp_path / "long.html").write_text("<p>" * oracle.LONGEST_PAGE)
    found = task.items(TaskSourceSpec(kind="html", location=str(tmp_path)))
    assert [(i.id, i.source) for i in found] == [("home/home", "home"), ("shop/my-cart", "shop")]
    assert oracle.page_of(found[1].messages) == Page("shop/my-cart", "<p>cart</p>")


def test_an_unusable_folder_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="location"):
        task.items(TaskSourceSpec(kind="html"))
    with pytest.raises(SourceError, match="is not a folder"):
        task.items(TaskSourceSpec(kind="html", location=str(tmp_path / "no")))
    with pytest.raises(SourceError, match=r"no \.html file"):
        task.items(TaskSourceSpec(kind="html", location=str(tmp_path)))
    (tmp_path / "a.html").write_bytes(b"<p>\xff")
    with pytest.raises(SourceError, match="UTF-8"):
        task.items(TaskSourceSpec(kind="html", location=str(tmp_path)))


def test_without_a_browser_nothing_is_graded_and_the_text_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert browser_chromium.installed() is None
    item = task.items(TaskSourceSpec())[0]
    for answer in ("", "no", oracle.told([])):
        with pytest.raises(CannotGrade, match="Install it"):
            task.grade(item.messages, answer)
    fresh = [item.messages[0], {"role": "user", "content": "PAGE a/b\n<p>never seen before</p>"}]
    assert task.cluster_key(fresh, oracle.told([])) == ""
    assert task.reference(Item(id="a/b", source="a", messages=fresh), random.Random(1)) is None
    assert task.conforms(orjson.dumps({"violations": []}).decode())
