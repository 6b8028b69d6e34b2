"""Security settings in force: what is configured, and what was measured on this machine (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import parse_qs, urlsplit

import msgspec

from pawl.compliance.facts import Channel, Finding, Light
from pawl.fleet.reach import bases, expanded
from pawl.fleet.spec import FleetSpec
from pawl.gateway.access.privacy import host, leaks
from pawl.gateway.access.tls import is_loopback
from pawl.settings import Settings

_SAFE_POSTGRES = "postgresql over TLS"


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What was looked at on this machine. None: could not be told."""

    encrypted: bool | None  # whether the file system under PAWL_HOME lies on an encrypted device
    plain_keys: int | None  # secrets of keys that stand readable in the control database
    database_mode: int | None  # permission bits of its file
    home_mode: int | None
    key_files: Mapping[str, int]  # permission bits of files with secrets, by what they are for
    sandbox: str | None  # the strongest level that works


def channels(settings: Settings, fleet: FleetSpec) -> tuple[Channel, ...]:
    """Every server that Pawl talks to."""
    spec, found = fleet.gateway, []
    for name, upstream in fleet.upstreams.items():
        cloud = upstream.kind == "cloud"
        said = ("prompts of requests that may leave" if cloud else "prompts") + (
            "; a stand-in for a cloud" if upstream.stand_in else ""
        )
        found += [_channel(f"upstream {name}", url, said, cloud=cloud) for url in bases(upstream, settings.places)]
    found.append(_channel("MLflow", settings.mlflow_url, "versions, reports with prompts and answers, figures"))
    found.append(
        _channel("Prefect", settings.prefect_api_url, "events: agents, versions, names of approvers; no texts")
    )
    if spec.telemetry.sample:
        said = "prompts and answers of open requests" if spec.telemetry.content else "figures of a sample of requests"
        found.append(_channel("telemetry", expanded(spec.telemetry.endpoint, settings.places), said))
    if spec.oidc:
        found.append(_channel("identity provider", spec.oidc.jwks_url or spec.oidc.issuer, "nothing; keys are fetched"))
    if settings.lake_url:
        place = settings.s3_endpoint or "https://s3.amazonaws.com"
        found.append(_channel("lake (S3)", place, "all that is recorded, texts included"))
    if settings.control_url:
        said = "routes, approvals, the audit log, digests of keys; no texts"
        found.append(_channel("control database", settings.control_url, said))
    if settings.finds_pods:
        found.append(_channel("Kubernetes", settings.kubernetes_api, "names of pods and routes"))
    return tuple(dict.fromkeys(found))


def _channel(name: str, url: str, carries: str, *, cloud: bool = False) -> Channel:
    where, scheme = host(url), url.split(":", 1)[0]
    if scheme == "kubernetes":  # pods found by label, each spoken to at its own address
        scheme = "http"
    if scheme.startswith("postgres"):
        modes = parse_qs(urlsplit(url).query).get("sslmode", [])
        scheme = _SAFE_POSTGRES if set(modes) & {"require", "verify-ca", "verify-full"} else "postgresql"
    return Channel(
        name=name,
        host=where,
        scheme=scheme,
        outside=bool(where) and not is_loopback(where),
        carries=carries,
        cloud=cloud,
    )


def findings(settings: Settings, fleet: FleetSpec, machine: Machine, talks: Sequence[Channel]) -> tuple[Finding, ...]:
    """Green is what holds, red what does not, grey what nobody can tell from here."""
    urls = {n: bases(u, settings.places) for n, u in fleet.upstreams.items()}
    open_doors = leaks(
        fleet, urls, {c.name: f"{c.scheme}://{c.host}" for c in talks if not c.name.startswith("upstream")}
    )
    return (
        _listener(settings),
        _client_certificates(settings),
        _plain_http(talks),
        _keys(machine),
        _file("the control database", machine.database_mode, 0o077, "readable by its owner alone"),
        _file("the home", machine.home_mode, 0o007, "closed to other users"),
        *(_file(f"{name}'s file", mode, 0o007, "closed to other users") for name, mode in machine.key_files.items()),
        _at_rest(settings, machine),
        _objects(settings),
        _sandbox(fleet, machine),
        Finding(
            name="privacy of the gateway",
            light=_private(fleet.gateway.privacy, open_doors),
            measured=False,
            found=_privacy(fleet) + ("; " + "; ".join(open_doors) if open_doors else ""),
        ),
        Finding(
            name="telemetry",
            light="red" if _sends_texts(fleet, talks) else "green",
            measured=False,
            found=_telemetry(fleet),
        ),
        Finding(
            name="accounts in MLflow",
            light="green" if settings.mlflow_accounts else "grey",
            measured=False,
            found="asked for"
            if settings.mlflow_accounts
            else "not asked for: whoever reaches MLflow may read and tag; the network must guard it",
        ),
        Finding(
            name="journal",
            light="grey",
            measured=False,
            found="survives power loss (fsync)"
            if settings.journal_sync == "fsync"
            else "survives kill -9; PAWL_JOURNAL_SYNC=fsync adds power loss",
        ),
    )


def _listener(settings: Settings) -> Finding:
    if settings.tls_cert and settings.tls_key:
        return Finding(
            name="the gateway's listener", light="green", found=f"TLS on {settings.gateway_host}", measured=False
        )
    near = is_loopback(settings.gateway_host)
    said = "plain HTTP on loopback: only this machine reaches it" if near else "plain HTTP beyond this machine"
    return Finding(name="the gateway's listener", light="green" if near else "red", found=said, measured=False)


def _client_certificates(settings: Settings) -> Finding:
    on = settings.tls_client_ca is not None
    said = "demanded" if on else "not demanded: callers show a key or a token of the identity provider"
    return Finding(name="client certificates", light="green" if on else "grey", found=said, measured=False)


def _plain_http(talks: Iterable[Channel]) -> Finding:
    outside = [c for c in talks if c.outside]
    plain = [f"{c.name} at {c.host}" for c in outside if c.scheme not in ("https", _SAFE_POSTGRES)]
    if plain:
        return Finding(
            name="connections to other machines",
            light="red",
            measured=False,
            found=f"not encrypted: {'; '.join(plain)} (unless by a service mesh, which Pawl does not see)",
        )
    said = f"all {len(outside)} by TLS" if outside else "there are none"
    return Finding(name="connections to other machines", light="green", found=said, measured=False)


def _keys(machine: Machine) -> Finding:
    if machine.plain_keys is None:
        return Finding(
            name="API keys",
            light="grey",
            measured=False,
            found="stored as SHA-256 digests; this database could not be searched for readable ones",
        )
    bad = machine.plain_keys > 0
    said = (
        f"{machine.plain_keys} readable secrets stand in the control database: revoke those keys"
        if bad
        else ("the control database was searched: it holds no readable secret, only SHA-256 digests")
    )
    return Finding(name="API keys", light="red" if bad else "green", found=said, measured=True)


def _file(what: str, mode: int | None, forbidden: int, good: str) -> Finding:
    if mode is None:
        return Finding(name=what, light="grey", found="not on this machine", measured=False)
    bad = bool(mode & forbidden)
    said = f"mode {mode:04o}: other users may read it" if bad else f"{good} (mode {mode:04o})"
    return Finding(name=what, light="red" if bad else "green", found=said, measured=True)


def _at_rest(settings: Settings, machine: Machine) -> Finding:
    name = "encryption at rest, PAWL_HOME"
    if machine.encrypted:
        return Finding(name=name, light="green", found="the device below is encrypted (dm-crypt)", measured=True)
    if settings.disk_encryption:
        said = f"as told by PAWL_DISK_ENCRYPTION: {settings.disk_encryption}"
        return Finding(name=name, light="green", found=said, measured=False)
    return Finding(
        name=name,
        light="grey",
        measured=False,
        found="not known: no encrypted device was found below it. Where a volume or a disk encrypts itself, "
        "say so in PAWL_DISK_ENCRYPTION",
    )


def _objects(settings: Settings) -> Finding:
    name = "encryption at rest, the lake's objects"
    if settings.lake_url is None:
        return Finding(name=name, light="grey", found="they lie under PAWL_HOME, see above", measured=False)
    if settings.s3_encryption:
        return Finding(name=name, light="green", found=f"each is written with {settings.s3_encryption}", measured=False)
    return Finding(
        name=name,
        light="grey",
        measured=False,
        found="not asked for by Pawl (PAWL_S3_ENCRYPTION); the bucket's own default is not known here",
    )


def _sandbox(fleet: FleetSpec, machine: Machine) -> Finding:
    least = fleet.sandbox.least
    said = f"the strongest level that works here: {machine.sandbox or 'none'}; demanded: {least or 'nothing'}"
    light: Light = (
        "grey" if machine.sandbox is None else "red" if machine.sandbox == "guard" and least != "guard" else "green"
    )
    if machine.sandbox == "guard":
        said += "; the guard does not stop an attack by generated code"
    return Finding(name="sandbox for generated code", light=light, found=said, measured=machine.sandbox is not None)


def _private(mode: str, open_doors: Sequence[str]) -> Light:
    return "red" if open_doors else "green" if mode in ("local_only", "strict") else "grey"


def _privacy(fleet: FleetSpec) -> str:
    own = [f"{a.name} {a.privacy}" for a in fleet.agents if a.privacy != "open"]
    return f"{fleet.gateway.privacy}" + (f"; agents: {', '.join(own)}" if own else "")


def _sends_texts(fleet: FleetSpec, talks: Iterable[Channel]) -> bool:
    spec = fleet.gateway.telemetry
    return bool(spec.sample and spec.content and any(c.outside for c in talks if c.name == "telemetry"))


def _telemetry(fleet: FleetSpec) -> str:
    spec = fleet.gateway.telemetry
    if not spec.sample:
        return "off"
    return f"{spec.sample:.0%} of calls, {'prompts and answers too' if spec.content else 'figures only'}"
