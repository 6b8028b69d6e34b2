"""Serves the gateway with uvicorn until it is told to end, then drains."""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping

import uvicorn

from pawl.bootstrap import first_route
from pawl.errors import ResourceError
from pawl.fleet.spec import FleetSpec
from pawl.gateway.app import Gateway
from pawl.gateway.shadows import Grader
from pawl.lake.journal import Journal
from pawl.lake.parquet_lake import ParquetLake
from pawl.rollout.control import ControlStore
from pawl.settings import Settings


def build(
    settings: Settings, fleet: FleetSpec, control: ControlStore, graders: Mapping[str, Grader], lake: ParquetLake
) -> Gateway:
    """The application with its journal."""
    places = {"PAWL_VLLM_URL": settings.vllm_url, "PAWL_STANDIN_URL": settings.standin_url}
    journal = Journal(settings.journal_dir, "gateway", settings.journal_sync)
    return Gateway(
        fleet,
        control,
        lake,
        journal,
        graders,
        places,
        lambda agent: first_route(fleet, agent),
        wait_for_disk=settings.journal_sync == "fsync",
    )


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
