"""Serves the gateway with uvicorn until it is told to end, then drains."""

from __future__ import annotations

import errno
import gc
import logging
import socket
from collections.abc import Mapping

import uvicorn

from pawl.bootstrap import events, first_route, reconciler, traffic_engines, upstream_arm
from pawl.errors import ResourceError
from pawl.fleet.reach import expanded
from pawl.fleet.spec import FleetSpec
from pawl.gateway.access.audit_trail import AuditTrail
from pawl.gateway.access.auth import Identities
from pawl.gateway.access.privacy import host
from pawl.gateway.access.tls import certificates
from pawl.gateway.app import Gateway
from pawl.gateway.assembly import Parts, SpanSink
from pawl.gateway.auto import Picker
from pawl.gateway.cascade import Grader
from pawl.gateway.chains import Promise
from pawl.lake.journal import Journal
from pawl.lake.parquet_lake import ParquetLake
from pawl.rollout.control import ControlStore
from pawl.settings import Settings


def build(
    settings: Settings,
    fleet: FleetSpec,
    control: ControlStore,
    graders: Mapping[str, Grader],
    lake: ParquetLake,
    promises: Mapping[str, Promise] | None = None,
) -> Gateway:
    """The application with its journal. ConfigError where the fleet's privacy could be left."""
    oidc = fleet.gateway.oidc
    services = {"events": settings.prefect_api_url}
    services |= {"gateway.oidc": oidc.jwks_url or oidc.issuer} if oidc else {}
    if settings.finds_pods or any(a.serving.http_route for a in fleet.agents):
        services["kubernetes"] = settings.kubernetes_api
    services |= {f"the Envoy of {a.name}": a.serving.envoy.admin for a in fleet.agents if a.serving.envoy}
    telemetry = fleet.gateway.telemetry
    if telemetry.sample:
        services["gateway.telemetry"] = expanded(telemetry.endpoint, settings.places)

    def identities(audit: AuditTrail) -> Identities:
        from pawl.gateway.access.oidc_jwt import OidcIdentities

        assert oidc is not None
        return OidcIdentities(oidc, lambda who, detail: audit.add("log-in", who, detail))

    parts = Parts(
        fleet,
        settings.home,
        control,
        lake,
        Journal(settings.journal_dir, "gateway", settings.journal_sync),
        graders,
        settings.places,
        lambda agent: first_route(fleet, agent),
        lambda name: upstream_arm(fleet, name),
        events(settings),
        wait_for_disk=settings.journal_sync == "fsync",
        identities=identities if oidc else None,
        services=services,
        spans=_spans(fleet, services["gateway.telemetry"]) if telemetry.sample else None,
        promises=promises,
        picker=_picker(settings) if fleet.auto else None,
        cluster=reconciler(settings, fleet, control, evict=True),
        finds_replicas=settings.finds_pods,
        engines=traffic_engines(settings, fleet),
    )
    return Gateway(parts)


def _picker(settings: Settings) -> Picker:
    # Imported here: scikit-learn is only for gateways that pick agents.
    from pawl.learning.picker_sklearn import FilePicker

    return FilePicker(settings.home / "auto.npz")


def _spans(fleet: FleetSpec, endpoint: str) -> SpanSink:
    # Imported here: a gateway without telemetry starts without it.
    from pawl.gateway.spans_opentelemetry import Spans

    providers = {u.model: u.catalogue or n for n, u in fleet.upstreams.items() if u.model}
    inside = host(endpoint) in fleet.gateway.allow_hosts
    return Spans(fleet.gateway.telemetry, endpoint, providers, inside=inside)


def serve(
    settings: Settings,
    fleet: FleetSpec,
    control: ControlStore,
    graders: Mapping[str, Grader],
    lake: ParquetLake,
    promises: Mapping[str, Promise] | None = None,
) -> None:
    """Blocks. ResourceError where the port is taken, ConfigError where TLS or privacy forbid to start."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    secured = certificates(settings)
    app = build(settings, fleet, control, graders, lake, promises)
    if secured is not None:
        app.also("certificates", secured.follow)
    listener = _listen(settings)
    config = uvicorn.Config(
        app, loop="uvloop", http="httptools", lifespan="on", access_log=False, log_level="warning",
        timeout_graceful_shutdown=20, server_header=False, proxy_headers=False,
        ssl_context_factory=(lambda _config, _default: secured.context) if secured else None,
    )  # fmt: skip
    # What exists by now stays for ever: the collector need not walk it again and again while requests wait. What
    # requests leave behind is freed by counting; cycles are rare.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    uvicorn.Server(config).run(sockets=[listener])


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.gateway_host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.gateway_host, settings.gateway_port))
    except OSError as e:
        listener.close()
        if e.errno != errno.EADDRINUSE:
            raise ResourceError(f"cannot bind to {settings.gateway_host}: {e.strerror}; see PAWL_GATEWAY_HOST") from e
        raise ResourceError(
            f"port {settings.gateway_port} is taken: end what uses it, or set PAWL_GATEWAY_PORT to a free one"
        ) from e
    return listener
