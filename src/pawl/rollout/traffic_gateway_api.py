"""A split by the weights of a Kubernetes Gateway API HTTPRoute: for teams whose ingress splits between whole models.

Source: gateway-api.sigs.k8s.io, HTTPRoute v1, `rules[].backendRefs[].weight`. An HTTPRoute draws for each request: it
is not sticky, so a session's requests go to both sides, and evidence by session counts its first arm. Where that
matters, let Pawl's gateway split. Only weights are written, by PUT with the `resourceVersion` that was read, so that
nobody else's change is lost.
"""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any
from urllib.parse import quote

from pawl.errors import ConfigError, StaleWrite
from pawl.rollout.traffic import Shares, shares_of
from pawl.serving.kubernetes_rest import KubernetesApi

_TRIES = 5


class HttpRouteTraffic:
    """One HTTPRoute whose rules name a champion's and a challenger's Service."""

    def __init__(self, api: KubernetesApi, namespace: str, name: str, *, champion: str, challenger: str) -> None:
        """`champion`, `challenger`: names of the Services."""
        self._api, self._sides, self._name = api, (champion, challenger), f"{namespace}/{name}"
        self._path = f"/apis/gateway.networking.k8s.io/v1/namespaces/{quote(namespace)}/httproutes/{quote(name)}"

    def read(self) -> Shares:
        return split_of(self._api.get(self._path), *self._sides, self._name)

    def write(self, wanted: Shares) -> bool:
        for attempt in range(_TRIES):
            found = self._api.get(self._path)
            made = weighted(found, *self._sides, wanted)
            try:
                if split_of(found, *self._sides, self._name) == wanted:
                    return False
            except ConfigError:
                # The way back does not wait until somebody mends the rules.
                if 0 not in (wanted.champion, wanted.challenger) or made.get("spec") == found.get("spec"):
                    raise
            try:
                self._api.put(self._path, made)
            except StaleWrite:
                if attempt == _TRIES - 1:
                    raise
                continue
            split_of(made, *self._sides, self._name)  # what is still wrong is told
            return True
        raise AssertionError("unreachable")


def split_of(route: dict[str, Any], champion: str, challenger: str, name: str) -> Shares:
    """The split of the rules that name both (pure). ConfigError where none does, where they differ, or where another
    backend has a part beside them."""
    found = set()
    for ours in _rules(route, champion, challenger):
        weights: Counter[str] = Counter()  # a Service may be named twice, by two of its ports
        for ref in ours["backendRefs"]:
            weights[str(ref.get("name"))] += int(ref.get("weight", 1))
        if strange := {other for other, weight in weights.items() if weight} - {champion, challenger}:
            why = f"a rule splits between {champion}, {challenger} and {sorted(strange)}: two only"
            raise ConfigError(f"HTTPRoute {name}", [why])
        found.add(shares_of(weights[champion], weights[challenger]))
    if len(found) == 1:
        return found.pop()
    why = (
        f"its rules split differently: {sorted((s.champion, s.challenger) for s in found)}"
        if found
        else (f"no rule names both backends, {champion} and {challenger}")
    )
    raise ConfigError(f"HTTPRoute {name}", [why])


def weighted(route: dict[str, Any], champion: str, challenger: str, wanted: Shares) -> dict[str, Any]:
    """The same object with the wanted weights (pure). Its status is the controller's and is not sent."""
    made = copy.deepcopy(route)
    made.pop("status", None)
    for rule in _rules(made, champion, challenger):
        left = {champion: wanted.champion, challenger: wanted.challenger}
        for ref in rule["backendRefs"]:
            if ref.get("name") in left:
                ref["weight"], left[ref["name"]] = left[ref["name"]], 0  # all of it where it is named first
    return made


def _rules(route: dict[str, Any], champion: str, challenger: str) -> list[dict[str, Any]]:
    rules = route.get("spec", {}).get("rules", [])
    return [r for r in rules if {champion, challenger} <= {b.get("name") for b in r.get("backendRefs", [])}]
