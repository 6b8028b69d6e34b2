"""Serves the gateway with uvicorn until it is told to end, then drains."""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping

import uvicorn

from pawl.bootstrap import first_route, upstream_arm
from pawl.errors import ResourceError
from pawl.fleet.spec import FleetSpec
from pawl.gateway.access.audit_trail import AuditTrail
from pawl.gateway.access.auth import Identities
from pawl.gateway.app import Gateway
from pawl.gateway.assembly import Parts
from pawl.gateway.cascade import Grader
from pawl.lake.journal import Journal
from pawl.lake.parquet_lake import ParquetLake
from pawl.rollout.control import ControlStore
from pawl.settings import Settings


def build(
    settings: Settings, fleet: FleetSpec, control: ControlStore, graders: Mapping[str, Grader], lake: ParquetLake
) -> Gateway:
    """The application with its journal. ConfigError where the fleet's privacy could be left."""
    places = {
        "PAWL_VLLM_URL": settings.vllm_url, "PAWL_STANDIN_URL": settings.standin_url,
        "PAWL_MLFLOW_URL": settings.mlflow_url,
    }  # fmt: skip
    oidc = fleet.gateway.oidc
    services = {"gateway.oidc": oidc.jwks_url or oidc.issuer} if oidc else {}

    def identities(audit: AuditTrail) -> Identities:
        from pawl.gateway.access.oidc_jwt import OidcIdentities

        assert oidc is not None
        return OidcIdentities(oidc, lambda who, detail: audit.add("log-in", who, detail))

    parts = Parts(
        fleet,
        control,
        lake,
        Journal(settings.journal_dir, "gateway", settings.journal_sync),
        graders,
        places,
        lambda agent: first_route(fleet, agent),
        lambda name: upstream_arm(fleet, name),
        wait_for_disk=settings.journal_sync == "fsync",
        identities=identities if oidc else None,
        services=services,
    )
    return Gateway(parts)


def serve(
    settings: Settings, fleet: FleetSpec, control: ControlStore, graders: Mapping[str, Grader], lake: ParquetLake
) -> None:
    """Blocks. ResourceError where the port is taken."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.gateway_port))
    except OSError as e:
        raise ResourceError(
            f"port {settings.gateway_port} is taken: end what uses it, or set PAWL_GATEWAY_PORT to a free one"
        ) from e
    app = build(settings, fleet, control, graders, lake)
    config = uvicorn.Config(
        app, loop="uvloop", http="httptools", lifespan="on", access_log=False, log_level="warning",
        timeout_graceful_shutdown=20, server_header=False,
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[listener])
