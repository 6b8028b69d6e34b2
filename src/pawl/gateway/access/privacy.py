"""Where a request may go: the narrowest of server, agent, key and request (pure). Fail-closed.

open        every upstream
local_only  upstreams of kind local
strict      upstreams of kind local on an allow-listed host; what could leave it is refused when the gateway starts
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import urlsplit

from pawl.fleet.limits import Privacy
from pawl.fleet.spec import AgentSpec, FleetSpec

MODES: tuple[Privacy, ...] = ("open", "local_only", "strict")


def narrowest(modes: Iterable[str | None]) -> Privacy:
    """The narrowest mode named; None names none. A mode that is not known is as narrow as can be."""
    return MODES[max((MODES.index(m) if m in MODES else len(MODES) - 1 for m in modes if m is not None), default=0)]


def reachable(fleet: FleetSpec, urls: Mapping[str, Sequence[str]]) -> dict[Privacy, frozenset[str]]:
    """The upstreams that each mode may reach. `urls`: base URLs of each upstream's servers, expanded; all of them must
    be on the list."""
    local = {n for n, u in fleet.upstreams.items() if u.kind == "local"}
    allowed = {n for n in local if all(host(url) in fleet.gateway.allow_hosts for url in urls[n])}
    return {"open": frozenset(fleet.upstreams), "local_only": frozenset(local), "strict": frozenset(allowed)}


def host(url: str) -> str:
    """The host of a URL, empty where it has none."""
    return urlsplit(url).hostname or ""


def leaks(fleet: FleetSpec, urls: Mapping[str, Sequence[str]], services: Mapping[str, str]) -> list[str]:
    """Every way in which a strict configuration could leave its allow-list; empty where there is none.

    `services`: other addresses the gateway itself talks to (telemetry, identity provider), by what they are for.
    Only reading the configuration finds these before the first request does.
    """
    problems = []
    everything = fleet.gateway.privacy == "strict"
    for agent in fleet.agents:
        if everything or agent.privacy == "strict":
            problems += [
                f"agent {agent.name} is strict, but {field} names {name}, which is {what}"
                for field, name in _named(fleet, agent)
                if (what := _outside(fleet, name, urls[name]))
            ]
    embeddings = fleet.gateway.embeddings
    if everything and embeddings and (what := _outside(fleet, embeddings.upstream, urls[embeddings.upstream])):
        problems.append(
            f"gateway.privacy is strict, but gateway.embeddings names {embeddings.upstream}, which is {what}"
        )
    if everything or any(a.privacy == "strict" for a in fleet.agents):
        problems += [
            f"privacy is strict, but {purpose} goes to {url}, which is not in gateway.allow_hosts"
            for purpose, url in services.items()
            if host(url) not in fleet.gateway.allow_hosts
        ]
    return problems


def _named(fleet: FleetSpec, agent: AgentSpec) -> list[tuple[str, str]]:
    """(field, upstream) of all that an agent names, and the cluster that its adapters are served on."""
    return [*agent.upstreams(), ("the fleet", fleet.local_upstream)]


def _outside(fleet: FleetSpec, name: str, urls: Sequence[str]) -> str | None:
    if fleet.upstreams[name].kind == "cloud":
        return "a cloud upstream"
    strange = [host(url) for url in urls if host(url) not in fleet.gateway.allow_hosts]
    return f"on {', '.join(strange)}, not in gateway.allow_hosts" if strange else None
