"""infra/compose: every container hardened, no way out of the server, no secret in the file. Where Docker's compose is
installed it reads the file itself; nothing is started here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pawl.fleet.load_yaml import load
from pawl.fleet.reach import bases, expanded
from pawl.gateway.access.privacy import leaks
from pawl.qe.tasks import names
from pawl.settings import Settings

Service = dict[str, Any]
PLACE = Path(__file__).resolve().parents[2] / "infra" / "compose"
PUBLISHED = {"gateway": 8700, "mlflow": 5000, "prefect-server": 4200, "prometheus": 9090, "grafana": 3000}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((PLACE / "compose.yaml").read_text())
    return loaded


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Service]:
    found: dict[str, Service] = compose["services"]
    return found


def has_plugin() -> bool:
    docker = shutil.which("docker")
    return bool(docker) and subprocess.run([str(docker), "compose", "version"], capture_output=True).returncode == 0


@pytest.mark.parametrize("files", [("compose.yaml",), ("compose.yaml", "gpu.yaml"), ("compose.yaml", "alerting.yaml")])
def test_docker_reads_it(files: tuple[str, ...], tmp_path: Path) -> None:
    if not has_plugin():
        pytest.skip("Docker's compose plugin is not installed: it reads the file")
    text = re.sub(r"^(\w*(?:PASSWORD|SECRET|KEY))=$", r"\1=x", (PLACE / ".env.example").read_text(), flags=re.M)
    (tmp_path / "env").write_text(text)
    line = ["docker", "compose", "--env-file", str(tmp_path / "env")]
    line += [a for f in files for a in ("-f", str(PLACE / f))]
    done = subprocess.run([*line, "config", "--quiet"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_all_that_a_server_needs_is_there(services: dict[str, Service]) -> None:
    wanted = {
        "postgres",
        "s3",
        "prefect-server",
        "prefect-worker",
        "mlflow",
        "gateway",
        "vllm",
        "prometheus",
        "alertmanager",
        "grafana",
    }
    assert wanted <= services.keys()


def test_every_container_is_hardened(services: dict[str, Service]) -> None:
    for name, service in services.items():
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"] and "mem_limit" in service, name
        assert not {"privileged", "pid", "ipc", "devices"} & service.keys(), name
        # One gives volumes to their users; it has no network and ends at once.
        if service["user"].split(":")[0] == "0":
            assert (name, service["network_mode"], service["restart"]) == ("volumes", "none", "no")
        else:
            assert "cap_add" not in service, name
        image = re.sub(r"\$\{\w+:-(.*)\}", r"\1", service["image"])
        assert re.fullmatch(r"[a-z0-9-]+(/[a-z0-9-]+)?:v?\d+\.\d+[\w.-]*", image), image
        assert not any("docker.sock" in str(v) for v in service.get("volumes", [])), name
    assert {n for n, s in services.items() if s["user"].startswith("0:")} == {"volumes"}


def test_there_is_no_way_out(compose: dict[str, Any], services: dict[str, Service]) -> None:
    networks = compose["networks"]
    assert networks["inside"] == networks["watch"] == {"internal": True}
    assert networks["edge"]["driver_opts"] == {"com.docker.network.bridge.enable_ip_masquerade": "false"}
    for name, service in services.items():
        assert service.get("network_mode") == "none" or set(service["networks"]) <= {"inside", "watch", "edge"}, name
        assert ("edge" in service.get("networks", [])) == ("ports" in service), name


def test_alerts_alone_may_leave_and_only_where_it_is_wanted(services: dict[str, Service]) -> None:
    more = yaml.safe_load((PLACE / "alerting.yaml").read_text())
    assert more == {"services": {"alertmanager": {"networks": ["out"]}}, "networks": {"out": {}}}
    # Whoever else could speak to Alertmanager could have it tell people outside whatever it likes.
    assert services["alertmanager"]["networks"] == ["watch"]
    assert {name for name, service in services.items() if "watch" in service.get("networks", [])} == {
        "prometheus", "alertmanager",
    }  # fmt: skip


def test_only_the_gateway_may_be_reached_from_elsewhere(services: dict[str, Service]) -> None:
    ports = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert ports.keys() == PUBLISHED.keys()
    for name, (published,) in ports.items():
        where = "${PAWL_LISTEN:-127.0.0.1}" if name == "gateway" else "127.0.0.1"
        assert published == f"{where}:{PUBLISHED[name]}:{PUBLISHED[name]}"


def test_what_it_waits_for_and_mounts_is_there(compose: dict[str, Any], services: dict[str, Service]) -> None:
    order: dict[str, set[str]] = {name: set(service.get("depends_on", {})) for name, service in services.items()}
    while order:  # no circle: something always waits for nothing
        free = {name for name, waits in order.items() if not waits & order.keys()}
        assert free, order
        order = {name: waits for name, waits in order.items() if name not in free}
    for service in services.values():
        for other, how in service.get("depends_on", {}).items():
            healthy = how["condition"] == "service_healthy"
            assert ("healthcheck" in services[other]) if healthy else True
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith(("./tls", "./alerting")):
                continue  # the operator's
            known = (PLACE / source).exists() if source.startswith(".") else source in compose["volumes"]
            assert known, volume


def test_no_secret_stands_in_it_and_every_one_is_asked_for() -> None:
    text = (PLACE / "compose.yaml").read_text()
    asked = dict(re.findall(r"\$\{(\w+)(:[?-])", text))
    example = dict(re.findall(r"^(\w+)=(.*)$", (PLACE / ".env.example").read_text(), re.M))
    assert example.keys() == asked.keys() and not any(example.values())
    for line in text.splitlines():
        found = re.match(r"\s+(\w*(?:PASSWORD|SECRET|_KEY)\w*): (.+)", line)
        if found and found[1] != "AWS_ACCESS_KEY_ID":
            assert re.search(r"\$\{\w+:[?]|\*s3-secret|/etc/pawl/tls/", found[2]), line


def test_prometheus_asks_as_its_own_configuration_does() -> None:
    own = yaml.safe_load((PLACE.parent / "prometheus" / "prometheus.yml").read_text())
    here = yaml.safe_load((PLACE / "prometheus.yml").read_text())
    assert [j["job_name"] for j in here["scrape_configs"]] == [j["job_name"] for j in own["scrape_configs"]]
    assert here["rule_files"] == own["rule_files"] and here["global"] == own["global"]
    for mine, theirs in zip(here["scrape_configs"], own["scrape_configs"], strict=True):
        renamed = theirs.get("metric_relabel_configs", [])
        assert all(rule in mine.get("metric_relabel_configs", []) for rule in renamed)
    for rules in here["rule_files"]:
        assert (PLACE.parent / "prometheus" / rules).exists()


def test_grafana_finds_its_dashboards_and_they_their_source(services: dict[str, Service]) -> None:
    grafana = PLACE.parent / "grafana"
    (own,) = yaml.safe_load((grafana / "provisioning" / "datasources" / "prometheus.yml").read_text())["datasources"]
    (here,) = yaml.safe_load((PLACE / "grafana-source.yaml").read_text())["datasources"]
    assert here["uid"] == own["uid"] and here["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((grafana / "provisioning" / "dashboards" / "pawl.yml").read_text())["providers"]
    assert provider["options"]["path"] == "$PAWL_DASHBOARDS"
    given = services["grafana"]["environment"]["PAWL_DASHBOARDS"]
    assert f"../grafana/dashboards:{given}:ro" in services["grafana"]["volumes"]


@pytest.fixture
def environment() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def test_the_fleet_is_strict_and_cannot_leave_its_hosts(
    compose: dict[str, Any], services: dict[str, Service], environment: None
) -> None:
    given = services["gateway"]["environment"]
    os.environ.update({k: v for k, v in given.items() if k.startswith("PAWL_")})
    settings = Settings()
    fleet = load(PLACE.parent / "kubernetes" / "base" / "fleet.yaml", names())
    urls = {name: bases(spec, settings.places) for name, spec in fleet.upstreams.items()}
    told = {
        "events": settings.prefect_api_url,
        "gateway.telemetry": expanded(fleet.gateway.telemetry.endpoint, settings.places),
    }
    assert urls == {"local": ("http://vllm:8000/v1",)} and leaks(fleet, urls, told) == []
    for url in (*settings.replica_urls, settings.mlflow_url, settings.prefect_api_url, str(settings.s3_endpoint)):
        name, port = re.findall(r"//([\w-]+):(\d+)", url)[0]
        assert port in str(services[name]["command"]), url
