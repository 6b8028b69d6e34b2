"""The way of an alert from Prometheus to people: the configurations lead on, and no address or password is in them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pawl.platform.watching import prometheus
from pawl.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "infra" / "compose"


@pytest.fixture(scope="module")
def alertmanager() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((COMPOSE / "alertmanager.yml").read_text())
    return loaded


@pytest.fixture(scope="module")
def alerts() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load((ROOT / "infra" / "prometheus" / "rules" / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def matched(matcher: str) -> tuple[str, str]:
    found = re.fullmatch(r'(\w+)="(\w+)"', matcher)
    assert found, matcher
    return found[1], found[2]


def receiver(alertmanager: dict[str, Any], severity: str) -> dict[str, Any]:
    """Who is told of an alert: of the first route that takes it, else of the one above."""
    top = alertmanager["route"]
    taken = [r for r in top["routes"] if {matched(m) for m in r["matchers"]} == {("severity", severity)}]
    name = (taken or [top])[0]["receiver"]
    (found,) = [r for r in alertmanager["receivers"] if r["name"] == name]
    return dict(found)


def test_people_are_told_of_all_that_needs_them(alertmanager: dict[str, Any]) -> None:
    for severity in ("critical", "warning"):
        told = receiver(alertmanager, severity)
        assert told["webhook_configs"][0]["send_resolved"] is True
    assert receiver(alertmanager, "info") == {"name": "nobody"}


def test_what_holds_alerts_back_names_alerts_and_their_labels(
    alertmanager: dict[str, Any], alerts: dict[str, dict[str, Any]]
) -> None:
    order = ["info", "warning", "critical"]
    for rule in alertmanager["inhibit_rules"]:
        ((_, strong),), ((_, weak),) = ([matched(m) for m in rule[f"{end}_matchers"]] for end in ("source", "target"))
        assert strong in alerts and weak in alerts and strong != weak
        # Never the one that wakes somebody in favour of one that does not.
        assert order.index(alerts[strong]["labels"]["severity"]) >= order.index(alerts[weak]["labels"]["severity"])
        for label in rule.get("equal", []):
            assert all(f"$labels.{label} " in alerts[name]["annotations"]["summary"] for name in (strong, weak)), rule


def test_addresses_and_passwords_stand_in_files_of_the_operators(alertmanager: dict[str, Any]) -> None:
    text = (COMPOSE / "alertmanager.yml").read_text()
    assert not re.search(r"https?://", text)
    secrets = re.findall(r"(\w*(?:url|password|secret|key)\w*): (\S+?)[,}]?$", text, re.M)
    secrets += re.findall(r"(\w*url\w*): ([^\s,]+),", text)
    assert {name for name, _ in secrets} >= {"url_file", "api_url_file", "auth_password_file"}
    services = yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"]
    (mounted,) = [v for v in services["alertmanager"]["volumes"] if v.startswith("./alerting:")]
    for name, value in secrets:
        assert name.endswith("_file") and value.startswith(mounted.split(":")[1] + "/"), name
    for kept_out in (".gitignore", "infra/images/Dockerfile.dockerignore"):
        assert re.search(r"^infra/compose/alerting/?$", (ROOT / kept_out).read_text(), re.M), kept_out


def test_composes_prometheus_sends_to_composes_alertmanager() -> None:
    config = yaml.safe_load((COMPOSE / "prometheus.yml").read_text())
    services = yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"]
    (target,) = config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    name, port = target.split(":")
    assert port == "9093" and set(services[name]["networks"]) & set(services["prometheus"]["networks"])


def test_alertmanager_takes_its_configuration() -> None:
    amtool = shutil.which("amtool")
    if amtool is None:
        pytest.skip("amtool is not installed: it checks Alertmanager's configuration")
    done = subprocess.run([amtool, "check-config", COMPOSE / "alertmanager.yml"], capture_output=True, text=True)
    if "field url_file not found" in done.stderr + done.stdout:
        pytest.skip("amtool is older than 0.26, which does not know url_file")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (None, None),
        ("http://127.0.0.1:9093", {"scheme": "http", "path_prefix": "/", "target": "127.0.0.1:9093"}),
        ("https://alerts.example/am", {"scheme": "https", "path_prefix": "/am", "target": "alerts.example"}),
    ],
)
def test_the_prometheus_of_pawl_up_sends_where_it_is_told(
    tmp_path: Path, given: str | None, sent: dict[str, str] | None
) -> None:
    settings = Settings(home=tmp_path, alertmanager=given)
    (tmp_path / "run").mkdir()
    server = prometheus(settings, ROOT, ["http://127.0.0.1:8710"])
    assert server.late_env is not None
    server.late_env()
    made = tmp_path / "run" / "prometheus.yml"
    config = yaml.safe_load(made.read_text())
    if sent is None:
        assert "alerting" not in config
    else:
        (one,) = config["alerting"]["alertmanagers"]
        target = sent.pop("target")
        assert one == sent | {"static_configs": [{"targets": [target]}]}
    if promtool := shutil.which("promtool"):
        done = subprocess.run([promtool, "check", "config", made], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_place_without_its_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="alertmanager"):
        Settings(alertmanager="127.0.0.1:9093")
