"""Envoy's route file as data: what is read out of it, what is written into it, and how a fleet asks for it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pawl.errors import ConfigError
from pawl.fleet.serving import EnvoySpec, HttpRouteSpec, ServingSpec
from pawl.rollout.envoy_config import bootstrap, routes
from pawl.rollout.traffic import Shares
from pawl.rollout.traffic_envoy import routes_of, split_of, weighted

PERCENT = st.integers(0, 100)


def file_of(*weights: tuple[int, int]) -> dict[str, Any]:
    """A route file with one route for each pair of weights, and one that is nobody's business."""
    made = routes("agent", "old", "new", "x-session", Shares(100, 0))
    (host,) = made["resources"][0]["virtual_hosts"]
    (ours,) = host["routes"]
    host["routes"] = [{"match": {"path": "/health"}, "direct_response": {"status": 200}}]
    for champion, challenger in weights:
        route = copy.deepcopy(ours)
        pair = [{"name": "old", "weight": champion}, {"name": "new", "weight": challenger}]
        route["route"]["weighted_clusters"]["clusters"] = pair
        host["routes"].append(route)
    host["routes"].append({"match": {"prefix": "/other"}, "route": {"cluster": "elsewhere"}})
    return made


@given(percent=PERCENT, before=st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=1, max_size=3))
def test_what_is_written_is_what_is_read(percent: int, before: list[tuple[int, int]]) -> None:
    there, wanted = file_of(*before), Shares(100 - percent, percent)
    kept = copy.deepcopy(there)
    made = weighted(there, "old", "new", wanted)
    assert there == kept, "what was given is left as it was"
    assert split_of(routes_of(json.dumps(made).encode(), "f"), "old", "new", "f") == wanted
    assert weighted(made, "old", "new", wanted) == made
    back = weighted(made, "old", "new", Shares(1, 1))
    assert back == weighted(kept, "old", "new", Shares(1, 1)), "nothing but weights differs"


@given(champion=st.integers(0, 10_000), challenger=st.integers(0, 10_000))
def test_all_and_nothing_mean_exactly_that(champion: int, challenger: int) -> None:
    (made,) = file_of((champion, challenger))["resources"]
    found = split_of(made, "old", "new", "f")
    assert (found.challenger == 0) == (challenger == 0)
    assert (found.champion == 0) == (champion == 0)
    assert found.champion + found.challenger == (100 if champion + challenger else 0)


def test_routes_that_disagree_or_are_malformed_are_named() -> None:
    (two,) = file_of((50, 50), (80, 20))["resources"]
    with pytest.raises(ConfigError, match=r"split differently: \[\(50, 50\), \(80, 20\)\]"):
        split_of(two, "old", "new", "f")
    for hosts in ({}, [[]], [{"routes": {"a": 1}}], [{"routes": [{"route": {"weighted_clusters": []}}]}], None):
        with pytest.raises(ConfigError, match="names both old and new"):
            split_of({"virtual_hosts": hosts}, "old", "new", "f")
    with pytest.raises(ConfigError, match="no whole numbers"):
        split_of(file_of((-1, 5))["resources"][0], "old", "new", "f")


def test_two_agents_may_share_a_file() -> None:
    made = file_of((90, 10))
    (host,) = made["resources"][0]["virtual_hosts"]
    (theirs,) = routes("agent", "a", "b", None, Shares(70, 30))["resources"][0]["virtual_hosts"]
    host["routes"] += theirs["routes"]
    ours = weighted(made, "old", "new", Shares(0, 100))["resources"][0]
    assert split_of(ours, "old", "new", "f") == Shares(0, 100)
    assert split_of(ours, "a", "b", "f") == Shares(70, 30)


def test_sessions_are_kept_together_only_where_a_header_says_so() -> None:
    def action(header: str | None) -> Any:
        (made,) = routes("a", "old", "new", header, Shares(80, 20))["resources"]
        return made["virtual_hosts"][0]["routes"][0]["route"]

    assert action("x-s")["hash_policy"] == [{"header": {"header_name": "x-s"}}]
    assert action("x-s")["weighted_clusters"]["use_hash_policy"] is True
    assert "hash_policy" not in action(None) and "use_hash_policy" not in action(None)["weighted_clusters"]


def test_a_bootstrap_finds_servers_by_address_and_by_name() -> None:
    places = {"old": ("10.0.0.1", 8000), "new": ("models.example", 8000)}
    made = bootstrap("a", Path("/r/a.json"), listen=("0.0.0.0", 1), admin=("127.0.0.1", 2), clusters=places)
    kinds = {c["name"]: c["type"] for c in made["static_resources"]["clusters"]}
    assert kinds == {"old": "STATIC", "new": "STRICT_DNS"}
    assert made["admin"]["address"]["socket_address"]["address"] == "127.0.0.1"


def test_a_fleet_names_one_engine_that_can_be_used() -> None:
    good = {"routes": "/etc/envoy/routes/a.json", "champion": "old", "challenger": "new"}
    assert EnvoySpec.model_validate(good).admin == "http://127.0.0.1:9901"
    for change, why in (
        ({"routes": "/a.yaml"}, r"\*.json"),
        ({"admin": "127.0.0.1:9901"}, "admin is like"),
        ({"challenger": "old"}, "two clusters"),
    ):
        with pytest.raises(ValidationError, match=why):
            EnvoySpec.model_validate(good | change)
    kubernetes = HttpRouteSpec(namespace="n", name="r", champion="old", challenger="new")
    with pytest.raises(ValidationError, match="http_route or envoy, not both"):
        ServingSpec.model_validate({"envoy": good, "http_route": kubernetes.model_dump()})
