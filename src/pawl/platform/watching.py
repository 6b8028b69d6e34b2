"""Prometheus and Grafana on this machine, where they are installed: their files are made from those in infra/."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pawl.platform.process import Server
from pawl.settings import Settings


def prometheus(settings: Settings, root: Path, replicas: Sequence[str]) -> Server:
    """Prometheus with Pawl's rules, asking the servers of this machine."""
    config = settings.home / "run" / "prometheus.yml"

    def written() -> dict[str, str]:
        config.write_text(_configured(settings, root, replicas))
        return {}

    url = f"http://{settings.host}:{settings.prometheus_port}"
    command = [
        shutil.which("prometheus") or "prometheus", f"--config.file={config.resolve()}",
        f"--storage.tsdb.path={(settings.home / 'prometheus').resolve()}",
        f"--web.listen-address={settings.host}:{settings.prometheus_port}", "--storage.tsdb.retention.time=90d",
    ]  # fmt: skip
    return Server(
        name="prometheus",
        command=command,
        health=f"{url}/-/ready",
        home=settings.home,
        port=settings.prometheus_port,
        ready_s=60,
        late_env=written,
        url=url,
        port_setting="PAWL_PROMETHEUS_PORT",
    )


def grafana(settings: Settings, root: Path) -> Server:
    """Grafana with Pawl's dashboards."""
    made = settings.home / "run" / "grafana"

    def written() -> dict[str, str]:
        for part in ("dashboards", "datasources"):
            (made / part).mkdir(parents=True, exist_ok=True)
            for source in (root / "infra" / "grafana" / "provisioning" / part).glob("*.yml"):
                text = source.read_text().replace("127.0.0.1:9090", f"{settings.host}:{settings.prometheus_port}")
                (made / part / source.name).write_text(text)
        return {}

    url = f"http://{settings.host}:{settings.grafana_port}"
    env = {
        "GF_SERVER_HTTP_ADDR": settings.host,
        "GF_SERVER_HTTP_PORT": str(settings.grafana_port),
        "GF_PATHS_PROVISIONING": str(made.resolve()),
        "GF_PATHS_DATA": str((settings.home / "grafana").resolve()),
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        "GF_SECURITY_DISABLE_GRAVATAR": "true",
        "PAWL_DASHBOARDS": str((root / "infra" / "grafana" / "dashboards").resolve()),
    }
    command = [shutil.which("grafana") or "grafana", "server", "--homepath", "/usr/share/grafana"]
    return Server(
        name="grafana", command=command, health=f"{url}/api/health", home=settings.home, port=settings.grafana_port,
        env=env, late_env=written, url=url, port_setting="PAWL_GRAFANA_PORT",
    )  # fmt: skip


def _configured(settings: Settings, root: Path, replicas: Sequence[str]) -> str:
    from io import StringIO

    from ruamel.yaml import YAML

    source = root / "infra" / "prometheus" / "prometheus.yml"
    yaml = YAML()
    tree: Any = yaml.load(source.read_text())
    tree["rule_files"] = [str((source.parent / name).resolve()) for name in tree["rule_files"]]
    targets = {
        "pawl-gateway": [urlsplit(settings.gateway_url).netloc],
        "vllm": [urlsplit(url).netloc for url in replicas],
    }
    for job in tree["scrape_configs"]:
        if job["job_name"] in targets:
            job["static_configs"] = [{"targets": targets[job["job_name"]]}]
        if job["job_name"] == "pawl-gateway" and settings.tls_cert:
            job["scheme"] = "https"
            job["tls_config"] = {"ca_file": str(settings.tls_cert.resolve()), "server_name": "gateway"}
    if settings.alertmanager:
        place = urlsplit(settings.alertmanager)
        told = {
            "scheme": place.scheme,
            "path_prefix": place.path or "/",
            "static_configs": [{"targets": [place.netloc]}],
        }
        tree["alerting"] = {"alertmanagers": [told]}
    out = StringIO()
    yaml.dump(tree, out)
    return out.getvalue()
