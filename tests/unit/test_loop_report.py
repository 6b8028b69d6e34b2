"""The loop's page: what it says, and that nothing written by a model or client can act in it."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from pawl.evaluation.report import GateDecision
from pawl.monitoring.loop_report import (
    MAX_TEXT,
    LoopReport,
    Setback,
    render,
    status,
    verdict_sentence,
    worst_first,
    write,
)
from tests.loop_page_data import START, at_the_end, at_the_gate, comparison, rollout

HOSTILE = (
    "<script>document.title='owned'</script></style></pre></title><img src=x onerror=alert(1)>"
    '"><a href="javascript:alert(1)" onclick=\'alert(2)\'>x</a>{{ 7*7 }}{% raw %}&lt;$\\frac{1}{0}$\x00\u202egnp.'
)


class Tags(HTMLParser):
    """Every element with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def tags(page: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Tags()
    parser.feed(page)
    return parser.seen


def images(page: str) -> list[str]:
    found = [str(a["src"]) for t, a in tags(page) if t == "img"]
    return [base64.b64decode(src.removeprefix("data:image/svg+xml;base64,")).decode() for src in found]


def test_what_models_and_clients_wrote_stays_text() -> None:
    honest, hostile = render(at_the_end()), render(at_the_end(HOSTILE))
    assert [t for t, _ in tags(hostile)] == [t for t, _ in tags(honest)]  # not one element more
    for tag, attributes in tags(hostile):
        assert tag != "script"
        assert not [a for a in attributes if a.startswith("on") or a == "style"], (tag, attributes)
    assert "&lt;script&gt;document.title=" in hostile
    assert "{{ 7*7 }}" in hostile  # a template in the text is not run either
    assert "\u202e" not in hostile and "\x00" not in hostile  # hidden characters are shown by number
    assert "\N{REPLACEMENT CHARACTER}202E" in hostile
    assert (
        "\N{REPLACEMENT CHARACTER}D800"
        in render(LoopReport(title="T", agent="a\ud800", generated_at=START)).encode().decode()
    )


def test_plots_are_whole_svg_without_scripts_or_outside_addresses() -> None:
    drawn = images(render(at_the_end(HOSTILE)))
    assert len(drawn) == 18  # nine plots, light and dark
    for svg in drawn:
        names = {e.tag.rsplit("}", 1)[-1] for e in ElementTree.fromstring(svg).iter()}
        assert not names & {"script", "foreignObject", "image", "a", "metadata"}
        assert not re.search(r"(href|url\()\s*=?\s*[\"']?(?!#|[\"']?#)https?:", svg)


def test_the_page_needs_nothing_from_outside() -> None:
    page = render(at_the_end())
    for tag, attributes in tags(page):
        assert tag not in {"link", "script", "iframe", "object", "embed", "form", "base"}
        for name in ("src", "href", "srcset", "action"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert "url(" not in page and "@import" not in page


def test_the_policy_allows_the_one_style_block_and_nothing_else() -> None:
    page = render(at_the_gate())
    styles = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert len(styles) == 1
    policy = next(a["content"] for t, a in tags(page) if t == "meta" and "http-equiv" in a)
    digest = base64.b64encode(hashlib.sha256(styles[0].encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    head, _ = page.split("<body>")
    assert head.index("Content-Security-Policy") < head.index("<title>")  # before anything it must cover


def test_what_stands_behind_the_verdict_is_on_the_page() -> None:
    page = render(at_the_gate())
    for said in (
        "Where it gained and where it lost", "missing <b>(protected)</b>", "wrongly accepted", "newly broken",
        "Both models pass 20, neither 3; the new one wins 6 and loses 1",
        "Tasks that must pass and did not: regression-3",
        "stated confidence is off by", "a true loss of 9.0 points", "about 310 tasks", "right where said, after",
    ):  # fmt: skip
        assert said in page, said


def test_every_section_can_be_missing() -> None:
    full = msgspec.structs.replace(at_the_end(), training=None)
    bare = {"title", "agent", "generated_at"}
    for field in msgspec.structs.fields(LoopReport):
        if field.name not in bare:
            empty = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
            assert full.title in render(msgspec.structs.replace(full, **{field.name: empty}))
    page = render(LoopReport(title="T", agent="a", generated_at=START))
    assert "has not been compared" in page and "No rollout has been opened" in page
    assert images(page) == []


def test_the_page_says_who_is_a_stand_in() -> None:
    page = render(at_the_end())
    assert "The cloud here is a STAND-IN" in page
    assert "32.0 points short of it" in page
    real = at_the_end()
    assert real.economics and real.distance
    real = msgspec.structs.replace(
        real,
        economics=msgspec.structs.replace(real.economics, stand_in=False),
        distance=msgspec.structs.replace(real.distance, stand_in=False),
    )
    assert "STAND-IN" not in render(real)


def test_warnings_of_the_data_and_red_lines_of_its_card_are_on_the_page() -> None:
    page = render(at_the_gate())
    assert "its interaction is in the lake (known): 3 row(s)" in page
    assert "volume for production: 400 examples, needed 10,000" in page


def test_status_and_verdict_follow_the_loop() -> None:
    gate, end = at_the_gate(), at_the_end()
    assert status(gate).label == "Waiting for approval"
    assert "waits for a person's yes" in verdict_sentence(gate)
    assert status(end).label == "In service"
    back = msgspec.structs.replace(end, rollout=rollout(rolled_back=True))
    assert status(back).tone == "bad"
    assert "taken back out by watchdog" in verdict_sentence(back)
    refused = msgspec.structs.replace(gate, gate=GateDecision(decision="reject", reasons=("worse",)))
    assert status(refused) == msgspec.structs.replace(status(refused), label="Refused by the gate", tone="bad")
    assert end.rollout is not None
    held = msgspec.structs.replace(end, rollout=msgspec.structs.replace(end.rollout, stage="20", held=True))
    assert status(held).label == "Rollout held"
    assert "on 20 % of the sessions" in verdict_sentence(held)
    assert verdict_sentence(msgspec.structs.replace(end, verdict="Just so.")) == "Just so."


def test_no_verdict_tells_more_than_the_comparison() -> None:
    for verdict, words in (
        ("worse", "is worse"),
        ("not_enough_evidence", "too little evidence"),
        ("not_worse", "as good"),
    ):
        gate = at_the_gate()
        assert gate.comparison is not None
        said = verdict_sentence(
            msgspec.structs.replace(gate, comparison=msgspec.structs.replace(gate.comparison, verdict=verdict))
        )
        assert words in said and "is better" not in said


def test_a_digest_that_does_not_fit_is_shouted() -> None:
    gate = at_the_gate()
    assert "do not approve it" not in render(gate)
    assert "do not approve it" in render(msgspec.structs.replace(gate, lineage={"report_digest": "0" * 64}))
    end = at_the_end()
    assert end.approval is not None
    other = msgspec.structs.replace(end, approval=msgspec.structs.replace(end.approval, evidence="f" * 64))
    assert "This is not the evidence on this page" in render(other)


def test_samples_are_the_worst_losses_and_capped() -> None:
    c = comparison()
    samples = worst_first(c)
    losses = [(s.challenger_score or 0) - (s.champion_score or 0) for s in samples]
    every = [(b.score or 0) - (a.score or 0) for a, b in zip(c.champion.items, c.challenger.items, strict=True)]
    assert losses == sorted(every)[:12]
    broken = msgspec.structs.replace(c.challenger.items[0], score=None)
    ungraded = msgspec.structs.replace(
        c, challenger=msgspec.structs.replace(c.challenger, items=(broken, *c.challenger.items[1:]))
    )
    assert worst_first(ungraded, limit=120)[-1].item == broken.item


def test_long_answers_are_cut_and_say_so() -> None:
    long = msgspec.structs.replace(at_the_gate(), comparison=comparison(text="y" * (MAX_TEXT * 3)), lineage={})
    page = render(long)
    assert "more characters" in page and "y" * MAX_TEXT not in page


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_none_do_not_break_the_page(bad: float) -> None:
    end = at_the_end()
    assert end.comparison and end.training
    odd = msgspec.structs.replace(
        end,
        comparison=msgspec.structs.replace(
            end.comparison, difference=msgspec.structs.replace(end.comparison.difference, mean=bad), p_better=bad
        ),
        training=msgspec.structs.replace(end.training, losses=(bad, 1.0, 0.5)),
        setbacks=(Setback(version="9", at=START, kind="rolled_back", reasons=(), rollback_s=bad),),
        samples=(),
    )
    assert "not known" in render(odd)


def test_the_same_data_gives_the_same_page(tmp_path: Path) -> None:
    first, second = write(at_the_end(), tmp_path / "a" / "one.html"), write(at_the_end(), tmp_path / "two.html")
    assert first.read_bytes() == second.read_bytes()
    assert [p.name for p in tmp_path.rglob("*.part")] == []
