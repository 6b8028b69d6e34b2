"""A real gateway in a process of its own, between real clients and a real, small upstream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pawl.registry.memory_registry import MemoryRegistry
from pawl.settings import Settings
from tests.integration.gateway_process import FLEET, LiveGateway
from tests.integration.openai_upstream import Upstream
from tests.integration.promotion_place import AGENT, Cluster, Place
from tests.ports import free_port


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """A real HTTP server."""
    made = Upstream()
    yield made
    made.server.shutdown()


@pytest.fixture
def gateway(tmp_path: Path, free_port: int, upstream: Upstream) -> Iterator[Callable[..., LiveGateway]]:
    """Starts a gateway with a fleet of the test's own."""
    started: list[LiveGateway] = []

    def start(fleet: str = FLEET, **env: str) -> LiveGateway:
        started.append(LiveGateway(tmp_path / "home", free_port, upstream, fleet, env))
        return started[-1]

    yield start
    for made in started:
        if made.process.poll() is None:
            made.stop()


@pytest.fixture
def live(gateway: Callable[..., LiveGateway]) -> LiveGateway:
    """A running gateway with the usual fleet and an empty home."""
    return gateway()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    yield made
    made.server.shutdown()


@pytest.fixture
def place(tmp_path: Path, root: Path, cluster: Cluster) -> Place:
    settings = Settings(
        home=tmp_path, fleet=root / "infra" / "fleet.yaml", vllm_port=int(cluster.server.server_address[1])
    )
    return Place(settings, AGENT, MemoryRegistry())


@pytest.fixture
def two(tmp_path: Path, upstream: Upstream) -> Iterator[list[LiveGateway]]:
    """Two gateways on one control database and one lake."""
    made = []
    for _ in range(2):
        made.append(LiveGateway(tmp_path / "home", free_port(), upstream, FLEET.replace("    shadow: cloud\n", "")))
    yield made
    for live in made:
        live.stop()
