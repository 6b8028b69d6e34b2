"""The servers of the platform and what has to be done between them: command lines made in one place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pawl import bootstrap
from pawl.fleet.reach import bases, expanded
from pawl.fleet.spec import FleetSpec
from pawl.platform import prefect_server
from pawl.platform.own_commands import pawl
from pawl.platform.process import PYTHON, Server, file_number
from pawl.registry.webhook import encryption_key
from pawl.settings import Settings
from pawl.training.adapter_check import base_at_hand

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
ON_DEMAND = ("prometheus", "grafana")  # only where somebody asks for them


@dataclass(frozen=True)
class Step:
    """Something that is done once before or between servers, and again only when `done_as` gives another value."""

    name: str
    run: Callable[[], object]
    done_as: Callable[[], str]
    needs: tuple[str, ...] = ()
    told: str = ""  # what it does, for a dry run


@dataclass(frozen=True)
class Platform:
    """Everything that belongs on this machine, and what the settings say is elsewhere."""

    servers: tuple[Server, ...]
    steps: tuple[Step, ...]
    elsewhere: Mapping[str, str]  # name -> address


def mlflow(settings: Settings) -> Server:
    """The registry and tracking server on SQLite."""
    home = str(settings.home.resolve())
    env = {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        # Approval codes reach the gateway on loopback (mlflow/README.md says what the last one opens).
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
    }
    command = [
        PYTHON, "-m", "mlflow", "server", "--host", settings.host, "--port", str(settings.mlflow_port),
        "--workers", "1", "--backend-store-uri", f"sqlite:///{home}/mlflow.sqlite",
        "--artifacts-destination", f"{home}/mlflow-artifacts",
    ]  # fmt: skip
    return Server(
        name="mlflow",
        command=[*command, "--app-name", "basic-auth"] if settings.mlflow_accounts else command,
        health=f"{settings.mlflow_url}/health",
        home=settings.home,
        port=settings.mlflow_port,
        env=env,
        ready_s=120,
        late_env=lambda: {"MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": encryption_key(bootstrap.control(settings))},
        url=settings.mlflow_url,
        port_setting="PAWL_MLFLOW_PORT",
    )


def standin(settings: Settings) -> Server:
    """The STAND-IN for a cloud model."""
    return Server(
        name="standin",
        command=[PYTHON, "-m", "pawl.qe.standin", "--host", settings.host, "--port", str(settings.standin_port)],
        health=f"{settings.standin_url}/healthz",
        home=settings.home,
        port=settings.standin_port,
        url=settings.standin_url,
        port_setting="PAWL_STANDIN_PORT",
    )


def gateway(settings: Settings) -> Server:
    """The OpenAI-compatible gateway. Answers under way have 20 s when it ends, then shadows, audit and journal."""
    return Server(
        name="gateway",
        command=[PYTHON, "-m", "pawl.cli", "gateway"],
        health=f"{settings.gateway_url}/readyz",
        home=settings.home,
        port=settings.gateway_port,
        env=_places(settings),
        stop_s=60,
        url=f"{settings.gateway_url}/v1",
        port_setting="PAWL_GATEWAY_PORT",
        stops=0,
    )


def vllm(settings: Settings, url: str, name: str, share: Mapping[str, str]) -> Server:
    """One replica at `url` on this machine. `share`: the variables that give it its part of the processors."""
    at = urlsplit(url)
    port = at.port or 80
    host = at.hostname or settings.host
    return Server(
        name=name,
        command=[PYTHON, "-m", "pawl.serving.start_vllm", "--host", host, "--port", str(port)],
        health=f"{url}/health",
        home=settings.home,
        port=port,
        env={**_places(settings), **share},
        ready_s=600,
        stop_s=30,
        url=url,
        port_setting="PAWL_VLLM_URLS" if settings.vllm_urls else "PAWL_VLLM_PORT",
        needs=("base-model",),
    )


def replicas(settings: Settings, urls: tuple[str, ...], cores: tuple[int, ...], gpus: int) -> list[Server]:
    """The replicas of this machine: each on its own part of the cores, or on a GPU of its own where there are some."""
    shares = [gpu_share(n, len(urls), gpus) if gpus else core_share(n, len(urls), cores) for n in range(len(urls))]
    names = ["vllm" if n == 0 else f"vllm-{n + 1}" for n in range(len(urls))]
    return [vllm(settings, *one) for one in zip(urls, names, shares, strict=True)]


def core_share(number: int, of: int, cores: tuple[int, ...]) -> dict[str, str]:
    """The cores of one of several replicas (pure): vLLM binds its threads to them."""
    if of < 2 or len(cores) < of:
        return {}
    mine = cores[number * len(cores) // of : (number + 1) * len(cores) // of]
    return {"VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, mine))}


def gpu_share(number: int, of: int, gpus: int) -> dict[str, str]:
    """The GPU of one of several replicas (pure)."""
    return {} if of < 2 else {"CUDA_VISIBLE_DEVICES": str(number % gpus)}


def log_keeper(settings: Settings) -> Server:
    """Keeps logs within bounds."""
    also = [str((settings.home / "postgres" / "log").resolve())] if settings.prefect_database == "postgres" else []
    return Server(
        name="log-keeper",
        command=[PYTHON, "-m", "pawl.platform.log_keeper", str(settings.logs_dir.resolve()), *also],
        health=lambda: True,
        home=settings.home,
        stop_s=5,
        stops=4,
    )


def base_model(settings: Settings, fleet: FleetSpec) -> Step:
    """The base model's folder, made once."""
    return Step(
        "base-model",
        lambda: pawl(settings, "base"),  # a process of its own: what it needs of memory is given back
        lambda: f"{fleet.base_model.source} at {base_at_hand(fleet.base_model, settings.models_dir)}",
        told=f"pawl base: fetch or convert {fleet.base_model.source} into {settings.models_dir}, once",
    )


def deployments(settings: Settings, root: Path) -> Step:
    """What prefect.yaml says, in Prefect."""
    return Step(
        "deployments",
        lambda: prefect_server.deploy(settings, root),
        lambda: prefect_server.deployed_as(settings, root),
        needs=("prefect",),
        told="prefect deploy --all, when prefect.yaml or a flow changed",
    )


def webhook(settings: Settings) -> Step:
    """MLflow tells the gateway of approval codes and moved aliases."""
    return Step(
        "webhook",
        lambda: pawl(settings, "registry", "webhook"),
        lambda: f"{settings.mlflow_url} to {settings.gateway_url}, {file_number(settings.home / 'mlflow.sqlite')}",
        needs=("mlflow", "gateway"),
        told=f"pawl registry webhook: {settings.mlflow_url} tells {settings.gateway_url} of codes and aliases",
    )


def platform(settings: Settings, fleet: FleetSpec) -> Platform:
    """What `pawl up` starts here, by the settings and the fleet; in the order in which people think of it."""
    root, elsewhere = settings.root.resolve(), {}
    servers: list[Server] = []
    steps: list[Step] = []
    if settings.mlflow_address:
        elsewhere["mlflow"] = settings.mlflow_url
    else:
        servers.append(mlflow(settings))
    if settings.prefect_address:
        elsewhere["prefect"] = settings.prefect_api_url
    else:
        database = prefect_server.database(settings)
        servers += [database] if database else []
        servers.append(prefect_server.server(settings, root))
    steps.append(deployments(settings, root))
    servers.append(prefect_server.worker(settings, root))
    if any(u.stand_in and expanded(u.base_url, settings.places).startswith(settings.standin_url)
           for u in fleet.upstreams.values()):  # fmt: skip
        servers.append(standin(settings))
    urls = () if settings.finds_pods else _local_urls(settings, fleet)
    here = tuple(u for u in urls if urlsplit(u).hostname in _LOOPBACK)
    if here:
        steps.append(base_model(settings, fleet))
        servers += replicas(settings, here, _cores(), len(list(Path("/dev").glob("nvidia[0-9]*"))))
    away = [settings.vllm_urls] if settings.finds_pods else [u for u in urls if u not in here]
    elsewhere |= {f"vllm at {u}": u for u in away}
    servers.append(gateway(settings))
    if not settings.tls_cert and not settings.mlflow_accounts:
        # With a certificate MLflow would have to trust it, with accounts its administrator has to ask
        # (docs/deploying.md, mlflow/README.md).
        steps.append(webhook(settings))
    if shutil.which("prometheus"):
        from pawl.platform.watching import prometheus

        servers.append(prometheus(settings, root, here))
    if shutil.which("grafana"):
        from pawl.platform.watching import grafana

        servers.append(grafana(settings, root))
    servers.append(log_keeper(settings))
    return Platform(tuple(servers), tuple(steps), elsewhere)


def _local_urls(settings: Settings, fleet: FleetSpec) -> tuple[str, ...]:
    return tuple(u.removesuffix("/v1") for u in bases(fleet.upstreams[fleet.local_upstream], settings.places))


def _places(settings: Settings) -> dict[str, str]:
    """Where things are: the same for servers that are started from elsewhere. Adapters' folders go by their path."""
    return {"PAWL_HOME": str(settings.home.resolve()), "PAWL_FLEET": str(settings.fleet.resolve())}


def _cores() -> tuple[int, ...]:
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()
