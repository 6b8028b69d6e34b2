"""Wires ports to adapters; the only place that names both."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pawl.errors import ConfigError, SourceError
from pawl.fleet.load_yaml import load as load_fleet
from pawl.fleet.spec import AgentSpec, FleetSpec
from pawl.rollout.control import ControlStore
from pawl.rollout.route import Arm, Route
from pawl.rollout.state import TERMINAL
from pawl.settings import Settings

if TYPE_CHECKING:
    from pawl.lake.parquet_lake import ParquetLake
    from pawl.qe.task import Task
    from pawl.registry.port import Registry
    from pawl.registry.run_log import RunLogs
    from pawl.rollout.events import Events
    from pawl.rollout.migrations_alembic.migrate_alembic import Migrations
    from pawl.rollout.traffic import TrafficEngine
    from pawl.serving.desired import Need
    from pawl.serving.reconciler import Reconciler
    from pawl.serving.replicas import Replicas
    from pawl.workers.port import Workers

Grader = Callable[[list[dict[str, Any]], str], float]


def fleet(settings: Settings) -> FleetSpec:
    """The fleet of this machine; its word on the sandbox holds for this process."""
    from pawl import sandbox
    from pawl.qe.tasks import find_modules_in, names

    find_modules_in(settings.fleet.parent, Path.cwd())
    spec = load_fleet(settings.fleet, names())
    sandbox.demand(spec.sandbox.least)
    return spec


def home(settings: Settings) -> Path:
    """The folder of everything Pawl writes here, made for its owner alone: prompts and keys' hashes lie in it.

    One that is there keeps its mode: a mounted volume is shared on purpose.
    """
    return home_at(settings.home)


def home_at(path: Path) -> Path:
    """The same for a folder that was given. ConfigError where there can be none."""
    demand_home(path)
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as e:
        raise ConfigError("PAWL_HOME", [f"{path} cannot be made: {e.strerror or e}; name a folder of your own"]) from e
    return path


def demand_home(path: Path) -> None:
    """ConfigError where neither a folder is nor one can be made; makes nothing."""
    if problem := home_problem(path):
        raise ConfigError("PAWL_HOME", [problem])


def home_problem(path: Path) -> str | None:
    """Why there can be no such folder, None where there is one or can be."""
    there = next((p for p in (path.absolute(), *path.absolute().parents) if p.exists() or p.is_symlink()), path)
    if not there.is_dir():
        return f"{there} is no folder: name one that is, or one that can be made"
    if there != path.absolute() and not os.access(there, os.W_OK | os.X_OK):
        return f"{there} does not let this user make {path.name} in it: name another, or run Pawl as its owner"
    return None


def control(settings: Settings) -> ControlStore:
    """The control database: a SQLite file, or PostgreSQL."""
    home(settings)
    if settings.control_url:
        from pawl.rollout.control_postgres import PostgresControl

        return PostgresControl(settings.control_url)
    from pawl.rollout.control_sqlite import SqliteControl

    return SqliteControl(settings.control_db)


def migrations(settings: Settings) -> Migrations:
    """What brings the control database's schema up and down."""
    from pawl.rollout.migrations_alembic.migrate_alembic import Migrations

    return Migrations(settings.control_url or settings.control_db)


def lake(settings: Settings) -> ParquetLake:
    """The lake: a folder, or S3 with its manifest's pointer in the control database."""
    from pawl.lake.parquet_lake import ParquetLake

    if settings.lake_url is None:
        return ParquetLake(settings.lake_dir, settings.journal_dir)
    from pawl.lake.manifest import PointedManifest
    from pawl.lake.objects_boto3 import S3Store

    store = S3Store(
        settings.lake_url,
        settings.lake_dir / "fetched",
        endpoint=settings.s3_endpoint,
        encryption=settings.s3_encryption,
    )
    manifests = PointedManifest(store, control(settings))
    return ParquetLake(settings.lake_dir, settings.journal_dir, store=store, manifests=manifests)


def registry(settings: Settings) -> Registry:
    """The model registry."""
    # Artifacts go through the server, so neither side needs the other's paths; bars on stdout help nobody in a worker.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    _mlflow_account(settings)
    from pawl.registry.mlflow_registry import MlflowRegistry

    return MlflowRegistry(settings.mlflow_url)


def runs(settings: Settings) -> RunLogs:
    """Where training and searches write how they go."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    _mlflow_account(settings)
    from pawl.registry.mlflow_runs import MlflowRuns

    return MlflowRuns(settings.mlflow_url)


def workers(settings: Settings) -> Workers:
    """What runs the pieces of evaluations and searches: this process, or Ray.

    ConfigError where a cluster's machines could not write to the control database.
    """
    if not settings.ray:
        from pawl.workers.here import Here

        return Here()
    from pawl.workers.workers_ray import LOCAL, RayWorkers

    if settings.ray != LOCAL and not settings.control_url:
        problem = "a Ray cluster's machines share the control database: put it on PostgreSQL, and set PAWL_CONTROL_URL"
        raise ConfigError("PAWL_RAY", [problem])
    return RayWorkers(settings.ray)


def _mlflow_account(settings: Settings) -> None:
    """What trains and promotes here does so under the promotion account, unless the environment names another."""
    if settings.mlflow_accounts and "MLFLOW_TRACKING_USERNAME" not in os.environ:
        password = mlflow_password(settings, settings.mlflow_promoter)  # refused, it leaves no name without one
        os.environ["MLFLOW_TRACKING_USERNAME"] = settings.mlflow_promoter
        os.environ["MLFLOW_TRACKING_PASSWORD"] = password


def mlflow_password(settings: Settings, account: str) -> str:
    """The password of one of Pawl's own MLflow accounts; it is kept in the control database alone."""
    return control(settings).secret(f"mlflow-account-{account}").hex()


def events(settings: Settings) -> Events:
    """Who is told what happens around approvals."""
    from pawl.rollout.prefect_api import PrefectApi

    return PrefectApi(settings.prefect_api_url)


def needs(settings: Settings, spec: FleetSpec, store: ControlStore) -> dict[str, Need]:
    """The adapters that must be on every replica now, by the control database."""
    from pawl.serving import desired, leases

    now, folder = time.time(), settings.adapters_dir.resolve()
    names = {a.name for a in spec.agents}
    upstream = spec.upstreams[spec.local_upstream]
    open_ones = (store.open_rollout(name) for name in names)
    waiting = []
    for request in store.requests():
        there = now < request.expires and request.agent in names and (folder / request.adapter).is_dir()
        if not there or store.rejection(request.adapter_sha256) is not None:
            continue
        if all(r.version != request.version or r.stage not in TERMINAL for r in store.rollouts(request.agent)):
            waiting.append(desired.Waiting(request.adapter, request.agent))
    return desired.needs(
        [r for r in store.routes() if r.agent in names],
        [r for r in open_ones if r is not None],
        leases.held(store),
        waiting,
        upstream=spec.local_upstream,
        base=upstream.model or spec.base_model.served_name,
        folder=folder,
        now=now,
    )


def replicas(settings: Settings, spec: FleetSpec) -> Replicas:
    """The replicas of the serving cluster: those of the fleet's local upstream, or the pods of PAWL_VLLM_URLS."""
    from pawl.fleet.reach import bases
    from pawl.serving.replicas_vllm import fixed
    from pawl.training.adapter_check import base_at_hand

    base_dir = base_at_hand(spec.base_model, settings.models_dir)
    if settings.finds_pods:
        from pawl.serving.kubernetes_rest import KubernetesApi
        from pawl.serving.replicas_kubernetes import PodReplicas, where

        api = KubernetesApi(settings.kubernetes_api, settings.kubernetes_account)
        return PodReplicas(api, where(settings.vllm_url), base_dir)
    urls = [url.removesuffix("/v1") for url in bases(spec.upstreams[spec.local_upstream], settings.places)]
    found = fixed(urls, base_dir)
    return lambda: found


def traffic_engines(settings: Settings, spec: FleetSpec) -> dict[str, TrafficEngine]:
    """What splits an agent's requests beside the gateway, by agent."""
    from pawl.rollout.traffic_envoy import EnvoyTraffic
    from pawl.rollout.traffic_gateway_api import HttpRouteTraffic
    from pawl.serving.kubernetes_rest import KubernetesApi

    api = KubernetesApi(settings.kubernetes_api, settings.kubernetes_account)
    made: dict[str, TrafficEngine] = {}
    for agent in spec.agents:
        if (at := agent.serving.http_route) is not None:
            made[agent.name] = HttpRouteTraffic(
                api, at.namespace, at.name, champion=at.champion, challenger=at.challenger
            )
        elif (own := agent.serving.envoy) is not None:
            made[agent.name] = EnvoyTraffic(own.routes, own.admin, champion=own.champion, challenger=own.challenger)
    return made


def reconciler(settings: Settings, spec: FleetSpec, store: ControlStore, *, evict: bool = False) -> Reconciler:
    """The serving cluster's: every replica of the fleet's local upstream. `evict`: it may unload too, as the gateway's
    does; others only load."""
    from pawl.serving.reconciler import Reconciler

    return Reconciler(
        replicas(settings, spec),
        lambda: needs(settings, spec, store),
        slots=settings.vllm_cpu_loras,
        home=f"{settings.home.resolve()}/",
        evict=evict,
        drain_s=settings.vllm_drain_s,
    )


def graders(spec: FleetSpec) -> Mapping[str, Grader]:
    """The oracles that are quick enough for the gateway, by agent name. SourceError says that a prompt has no grade."""

    def scorer(task: Task) -> Grader:
        def score(messages: list[dict[str, Any]], completion: str) -> float:
            grade = task.grade(messages, completion)
            if grade is None:
                raise SourceError(f"not a prompt that {task.name} can grade")
            return grade.score

        return score

    return {name: scorer(task) for name, task in tasks(spec).items() if task.instant and task.name != "generic"}


def tasks(spec: FleetSpec) -> Mapping[str, Task]:
    """The task of each agent, by agent name."""
    from pawl.qe.tasks import task_of

    return {a.name: task_of(a.task) for a in spec.agents}


def upstream_arm(spec: FleetSpec, name: str) -> Arm:
    """The arm of an upstream itself: the base model on the serving cluster, or a provider's model."""
    upstream = spec.upstreams[name]
    if upstream.kind == "local":
        served = spec.base_model.served_name
        return Arm(served, name, served, "local")
    model = upstream.model or name
    return Arm(model, name, model, "cloud")


def first_route(spec: FleetSpec, agent: AgentSpec) -> Route:
    """The route of an agent that no rollout has touched yet."""
    shadows = (upstream_arm(spec, agent.shadow),) if agent.shadow else ()
    return Route(agent=agent.name, champion=upstream_arm(spec, agent.first_champion), shadows=shadows)


def current_route(spec: FleetSpec, store: ControlStore, agent: AgentSpec) -> Route:
    """The route in force."""
    return store.route(agent.name) or first_route(spec, agent)
