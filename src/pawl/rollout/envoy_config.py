"""Envoy's two files for an agent that it splits (pure): a bootstrap to start from, and routes whose weights Pawl moves.

Source: envoyproxy.io, v3 API: `config.bootstrap.v3.Bootstrap`, `config.route.v3.RouteConfiguration`
(`WeightedCluster.use_hash_policy`, `RouteAction.HashPolicy`), `config.core.v3.PathConfigSource.watched_directory`.
"""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Any

from pawl.rollout.traffic import Shares

ROUTES_TYPE = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
_EXTENSIONS = "type.googleapis.com/envoy.extensions.filters"
_MANAGER = f"{_EXTENSIONS}.network.http_connection_manager.v3.HttpConnectionManager"
Place = tuple[str, int]  # host, port


def routes(name: str, champion: str, challenger: str, session_header: str | None, split: Shares) -> dict[str, Any]:
    """A DiscoveryResponse with one RouteConfiguration that splits every request between two clusters.

    With `session_header` Envoy takes the remainder of that header's hash by the sum of the weights, so a session stays
    where it is and a rising share only moves sessions to the challenger; requests without the header are drawn each.
    """
    weighted: dict[str, Any] = {
        "clusters": [
            {"name": champion, "weight": split.champion},
            {"name": challenger, "weight": split.challenger},
        ]
    }
    # An answer of a model may take minutes, and a stream has no end that is known.
    action: dict[str, Any] = {"weighted_clusters": weighted, "timeout": "0s"}
    if session_header is not None:
        weighted["use_hash_policy"] = True
        action["hash_policy"] = [{"header": {"header_name": session_header}}]
    hosts = [{"name": name, "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": action}]}]
    # Envoy would take routes to clusters that it does not know, and answer 503.
    made = {"@type": ROUTES_TYPE, "name": name, "virtual_hosts": hosts, "validate_clusters": True}
    return {"version_info": "0", "resources": [made]}


def bootstrap(name: str, file: Path, *, listen: Place, admin: Place, clusters: dict[str, Place]) -> dict[str, Any]:
    """A whole configuration: one listener whose routes are those of `file`, read anew when it is replaced.

    `clusters`: where each cluster's server is, by the cluster's name.
    """
    source = {
        "resource_api_version": "V3",
        "path_config_source": {"path": str(file), "watched_directory": {"path": str(file.parent)}},
    }
    router = {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{_EXTENSIONS}.http.router.v3.Router"}}
    manager = {
        "@type": _MANAGER,
        "stat_prefix": "pawl",
        "rds": {"route_config_name": name, "config_source": source},
        "stream_idle_timeout": "0s",
        "http_filters": [router],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    listener = {"name": name, "address": _address(listen), "filter_chains": [{"filters": filters}]}
    return {
        "node": {"id": name, "cluster": "pawl"},  # without them Envoy subscribes to nothing
        "admin": {"address": _address(admin)},
        "static_resources": {
            "listeners": [listener],
            "clusters": [_cluster(called, place) for called, place in clusters.items()],
        },
    }


def _cluster(name: str, place: Place) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": _address(place)}}
    return {
        "name": name,
        "type": "STATIC" if _is_ip(place[0]) else "STRICT_DNS",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _address(place: Place) -> dict[str, Any]:
    return {"socket_address": {"address": place[0], "port_value": place[1]}}


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
