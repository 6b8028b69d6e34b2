"""Rules, runbooks, dashboards and the page of metrics agree with the code that makes the metrics."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from typer.main import get_command

from infra.grafana.boards import BOARDS
from infra.grafana.panels import queries, rendered
from pawl.cli import app
from pawl.gateway.metrics import Metrics
from pawl.gateway.routing.load import LoadBook
from pawl.monitoring.metrics_reference import GPU, VLLM, families, page
from pawl.monitoring.month_prometheus import QUERIES

promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian: prometheus)")
RULES = "infra/prometheus/rules"
ONLY_PROMETHEUS = {"up", "ALERTS", "process_resident_memory_bytes"}


def rules(root: Path, name: str) -> list[dict[str, Any]]:
    return [r for g in YAML(typ="safe").load((root / RULES / f"{name}.yml").read_text())["groups"] for r in g["rules"]]


def known() -> set[str]:
    """Every series that a gateway, vLLM or the GPU's exporter tells."""
    found = set(ONLY_PROMETHEUS | GPU.keys())
    for name, histogram in [(f.name, f.kind == "histogram") for f in families()] + [
        (n, n.endswith("_seconds")) for n in VLLM
    ]:
        found |= {name + part for part in ("_bucket", "_sum", "_count")} if histogram else {name}
    return found


def named(expression: str) -> set[str]:
    """The series in an expression: names before a selector or alone, never labels, functions or grouping."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\b(by|on|group_left|without|ignoring) *\([^)]*\)", "", bare)
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]", "", bare)
    words = re.findall(r"[A-Za-z_][\w:]*(?! *\()\b", bare)
    return {w for w in words if ":" in w or "_" in w or w in ONLY_PROMETHEUS} - {"group_left"}


def unknown(expressions: list[str], series: set[str]) -> set[str]:
    return {name for e in expressions for name in named(e)} - series


def test_series_in_an_expression_are_found() -> None:
    found = named('sum by (agent) (rate(pawl_x_total{agent="pawl_no"}[5m])) / on (pawl_no2) agent:pawl_y:p95 > 0')
    assert found == {"pawl_x_total", "agent:pawl_y:p95"}
    assert unknown(["rate(pawl_requests[5m])"], known()) == {"pawl_requests"}, "as Prometheus stores it: with _total"


def test_the_page_of_metrics_is_current(root: Path) -> None:
    command = "python -m pawl.monitoring.metrics_reference infra/prometheus > docs/metrics.md"
    assert (root / "docs" / "metrics.md").read_text() == page(root / "infra" / "prometheus"), f"run {command}"


def test_metric_names_are_unique_and_say_what_they_are() -> None:
    made = families()
    assert len({f.name for f in made}) == len(made) > 50
    assert [f.name for f in made if not f.what or not f.name.startswith("pawl_")] == []


def test_rules_ask_only_for_what_is_told(root: Path) -> None:
    recorded = [r["record"] for r in rules(root, "recording")]
    assert len(set(recorded)) == len(recorded)
    asked = [r["expr"] for name in ("recording", "alerts") for r in rules(root, name)]
    assert unknown(asked, known() | set(recorded)) == set()


def test_dashboards_ask_only_for_what_is_told_or_recorded(root: Path) -> None:
    recorded = {r["record"] for r in rules(root, "recording")}
    assert unknown([e for b in BOARDS for _, e in queries(b)], known() | recorded) == set()


def test_the_months_report_asks_only_for_what_is_told() -> None:
    assert unknown(list(QUERIES), known()) == set()
    metrics = Metrics()
    metrics.ended("a", "ok", 0.1)
    edges = [float(e) for e in re.findall(r'pawl_request_seconds_bucket{agent="a",le="([\d.]+)"', metrics.text(
        {}, {}, LoadBook({}), 0.0).decode())]  # fmt: skip
    assert {2.0, 5.0} <= set(edges), "the bounds of p50 and p95 are edges, so that they can be shown to hold"


def test_every_recorded_series_is_asked_for_by_somebody(root: Path) -> None:
    asked = [r["expr"] for name in ("recording", "alerts") for r in rules(root, name)]
    asked += [e for b in BOARDS for _, e in queries(b)]
    used = {name for e in asked for name in named(e)}
    assert {r["record"] for r in rules(root, "recording")} - used == set()


def test_every_alert_has_a_severity_a_summary_and_a_runbook_that_exists(root: Path) -> None:
    alerts = rules(root, "alerts")
    assert {r["labels"]["severity"] for r in alerts} == {"critical", "warning", "info"}
    for rule in alerts:
        path, _, heading = rule["annotations"]["runbook"].partition("#")
        text = (root / path).read_text()
        headings = {h.lower().replace(",", "").replace(" ", "-") for h in re.findall(r"^## (.+)$", text, re.M)}
        assert not heading or heading in headings, f"{rule['alert']}: {path} has no heading {heading}"
        assert rule["annotations"]["summary"], rule["alert"]
        if not heading and path != "docs/runbooks/replica-down.md":
            assert rule["alert"] in text, f"{path} does not name {rule['alert']}, which leads to it"


def test_runbooks_name_commands_and_pages_that_exist(root: Path) -> None:
    pawl = get_command(app)
    for path in (root / "docs" / "runbooks").glob("*.md"):
        text = path.read_text()
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
            assert (path.parent / link).exists(), f"{path.name} links to {link}"
        for said in re.findall(r"`pawl ([a-z][a-z -]*)", text):
            command, words = pawl, said.split()
            while words and hasattr(command, "commands"):
                assert words[0] in command.commands, f"{path.name}: pawl {said}"
                command = command.commands[words.pop(0)]


@pytest.mark.parametrize("board", BOARDS, ids=lambda b: b.name)
def test_dashboards_are_current_and_fill_no_place_twice(root: Path, board: Any) -> None:
    path = root / "infra" / "grafana" / "dashboards" / f"{board.name}.json"
    assert path.read_text() == rendered(board), "run python -m infra.grafana"
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(path.read_text())["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert at["x"] + at["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells


def test_the_provisioning_names_the_source_and_folder_that_dashboards_use(root: Path) -> None:
    folder = root / "infra" / "grafana" / "provisioning"
    (source,) = YAML(typ="safe").load((folder / "datasources" / "prometheus.yml").read_text())["datasources"]
    used = set(re.findall(r'"type": "prometheus",\s+"uid": "(\w+)"', rendered(BOARDS[0])))
    assert used == {source["uid"]}
    assert len(list((root / "infra" / "grafana" / "dashboards").glob("*.json"))) == len(BOARDS) == 4


def test_vllm_tells_the_metrics_that_are_named() -> None:
    found = importlib.util.find_spec("vllm")
    if found is None or found.origin is None:
        pytest.skip("vllm is not installed")
    told = (Path(found.origin).parent / "v1" / "metrics" / "loggers.py").read_text()
    assert [name for name in VLLM if f'"{name.removesuffix("_total")}"' not in told] == []


@promtool
def test_prometheus_takes_the_configuration(root: Path) -> None:
    done = subprocess.run(
        ["promtool", "check", "config", root / "infra/prometheus/prometheus.yml"], capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()


@promtool
def test_rules_do_on_recorded_series_what_they_say(root: Path) -> None:
    files = sorted((root / "infra" / "prometheus" / "tests").glob("*_test.yml"))
    done = subprocess.run(["promtool", "test", "rules", *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@promtool
def test_a_threshold_that_moves_is_noticed(root: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(root / "infra" / "prometheus", tmp_path / "prometheus")
    path = copy / "rules" / "alerts.yml"
    path.write_text(path.read_text().replace("ratio15m > 0.05", "ratio15m > 0.08"))
    done = subprocess.run(["promtool", "test", "rules", copy / "tests" / "requests_test.yml"], capture_output=True)
    assert done.returncode != 0


def test_every_alert_is_tested(root: Path) -> None:
    tested = "".join(p.read_text() for p in (root / "infra" / "prometheus" / "tests").glob("*_test.yml"))
    fired = set(re.findall(r"alertname: (\w+)\n", tested))
    assert {r["alert"] for r in rules(root, "alerts")} - fired == set()
