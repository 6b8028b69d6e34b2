"""The reconciler against replicas that speak vLLM's API over real sockets: they die, forget, fail and come back.

What real vLLM does is looked at in tests/e2e/test_cluster.py.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pawl import bootstrap
from pawl.errors import ModelFileError, ResourceError, ServerNotUp
from pawl.fleet.spec import RolloutSpec
from pawl.improvement import placing
from pawl.improvement.workplace import Workplace
from pawl.registry.memory_registry import MemoryRegistry
from pawl.rollout.control import Request
from pawl.rollout.route import Arm, Route
from pawl.rollout.state import Rollout
from pawl.serving import leases, vllm_adapters
from pawl.serving.desired import Lease, Need
from pawl.serving.reconciler import Reconciler
from pawl.serving.replicas_vllm import fixed
from pawl.settings import Settings
from tests.memory_place import Place
from tests.tiny_adapter import make_adapter
from tests.vllm_stand_in import Replica

AGENT = "functional-negative"


@pytest.fixture
def pair() -> Iterator[tuple[Replica, Replica]]:
    both = (Replica(), Replica())
    yield both
    for one in both:
        one.kill()


class Bench:
    """A reconciler with a clock of its own over both replicas."""

    def __init__(self, home: Path, pair: tuple[Replica, ...], *, slots: int = 12, evict: bool = True) -> None:
        self.home, self.now, self.pair = home, 1000.0, pair
        self.wanted: dict[str, Need] = {}
        self.made = Reconciler(
            lambda: fixed([r.url for r in pair], None),
            lambda: dict(self.wanted),
            slots=slots, home=str(home), evict=evict, drain_s=10.0, clock=lambda: self.now,
        )  # fmt: skip

    def want(self, *names: str) -> None:
        for name in names:
            if not (self.home / name).exists():
                make_adapter(self.home / name)
        self.wanted = {n: Need(n, str(self.home / n), ("a test",)) for n in names}

    def look(self, after_s: float = 1.0) -> list[frozenset[str]]:
        self.now += after_s
        views = self.made.look()
        return [views[replica.url].ready for replica in self.pair]


@pytest.fixture
def bench(tmp_path: Path, pair: tuple[Replica, Replica]) -> Bench:
    return Bench(tmp_path / "adapters", pair)


def test_what_is_needed_is_loaded_probed_drained_and_unloaded_everywhere(
    bench: Bench, pair: tuple[Replica, Replica]
) -> None:
    assert bench.look() == [{"base"}] * 2
    bench.want("a-v1", "a-v2")
    assert bench.look() == [{"base", "a-v1", "a-v2"}] * 2
    for replica in pair:
        assert replica.log == [("load", "a-v1"), ("load", "a-v2"), ("probe", "a-v1"), ("probe", "a-v2")]
    bench.look()
    assert len(pair[0].log) == 4, "nothing is done twice"
    bench.want("a-v2")
    pair[0].busy = {"a-v1"}
    assert bench.look() == [{"base", "a-v2"}] * 2, "no request is sent to it from now on"
    bench.look(6)
    assert [set(r.loaded) for r in pair] == [{"a-v1", "a-v2"}] * 2
    bench.look(6)
    assert [set(r.loaded) for r in pair] == [{"a-v1", "a-v2"}, {"a-v2"}], "the one in use stays until it is idle"
    pair[0].busy = set()
    bench.look(11)
    assert [set(r.loaded) for r in pair] == [{"a-v2"}] * 2
    assert bench.made.steps["unload", "ok"] == 2 and not [k for k in bench.made.steps if k[1] == "failed"]


def test_a_replica_that_comes_back_is_not_ready_before_its_adapters_are(
    bench: Bench, pair: tuple[Replica, Replica]
) -> None:
    bench.want("a-v1")
    bench.look()
    pair[0].kill()
    bench.look()
    ready = bench.look()
    assert ready == [frozenset(), {"base", "a-v1"}]
    assert not bench.made.views[pair[0].url].up and "does not answer" in bench.made.views[pair[0].url].why
    pair[0].start()
    pair[0].failing = 1
    assert bench.look() == [{"base"}, {"base", "a-v1"}], "the load failed: it has no adapter to answer with"
    assert bench.look(0.5) == [{"base"}, {"base", "a-v1"}] and pair[0].log[-1][0] != "load", "it is not tried at once"
    assert bench.look(1) == [{"base", "a-v1"}] * 2


def test_one_look_without_an_answer_is_no_outage(bench: Bench, pair: tuple[Replica, Replica]) -> None:
    bench.want("a-v1")
    bench.look()
    pair[1].sick = True
    assert bench.look()[1] == {"base", "a-v1"}
    assert bench.look()[1] == frozenset()
    assert "engine is dead" in bench.made.views[pair[1].url].why
    pair[1].sick = False
    assert bench.look()[1] == {"base", "a-v1"}


def test_a_silent_adapter_and_a_missing_folder_are_not_ready_and_hold_nobody_up(
    bench: Bench, pair: tuple[Replica, Replica]
) -> None:
    bench.want("a-v1", "b-v1")
    bench.wanted["c-v1"] = Need("c-v1", str(bench.home / "c-v1"), ("a test",))
    pair[0].mute = {"a-v1"}
    assert bench.look() == [{"base", "b-v1"}, {"base", "a-v1", "b-v1"}]
    failures = bench.made.views[pair[0].url].failures
    assert failures["a-v1"].times == 1 and "c-v1" in failures


def test_what_others_loaded_is_left_alone_and_only_the_gateways_hand_unloads(
    tmp_path: Path, pair: tuple[Replica, Replica]
) -> None:
    tasks = Bench(tmp_path / "adapters", pair, evict=False)
    tasks.want("a-v1")
    tasks.look()
    vllm_adapters.load(pair[0].url, "theirs", make_adapter(tmp_path / "elsewhere"))
    tasks.wanted = {}
    tasks.look(100)
    assert set(pair[0].loaded) == {"a-v1", "theirs"}
    gateways = Bench(tmp_path / "adapters", pair)
    gateways.look()
    gateways.look(100)
    assert [set(r.loaded) for r in pair] == [{"theirs"}, set()]


def test_a_new_hand_supposes_the_worst_of_the_slots_and_touches_what_is_needed_before_it_loads(
    tmp_path: Path, pair: tuple[Replica, Replica]
) -> None:
    old = Bench(tmp_path / "adapters", pair, slots=4)
    old.want("a-v1")
    old.look()
    new = Bench(tmp_path / "adapters", pair, slots=4)
    new.want("a-v1")
    new.look()
    pair[0].log.clear()
    new.want("a-v1", "b-v1")
    new.look()
    assert pair[0].log == [("probe", "a-v1"), ("load", "b-v1"), ("probe", "b-v1")]


def test_two_hands_at_once_do_no_harm(tmp_path: Path, pair: tuple[Replica, Replica]) -> None:
    import threading

    pair[0].load_s = pair[1].load_s = 0.05
    benches = [Bench(tmp_path / "adapters", pair) for _ in range(4)]
    for one in benches:
        one.want("a-v1", "b-v1")
    hands = [threading.Thread(target=one.look) for one in benches]
    for hand in hands:
        hand.start()
    for hand in hands:
        hand.join()
    for one in benches:
        assert one.look(3.0) == [{"base", "a-v1", "b-v1"}] * 2
    assert sorted(n for what, n in pair[0].log if what == "load") == ["a-v1", "b-v1"]


def test_settling_waits_for_every_replica_that_is_up(tmp_path: Path, pair: tuple[Replica, Replica]) -> None:
    bench = Bench(tmp_path / "adapters", pair)
    bench.made._clock = time.monotonic
    bench.want("a-v1", "b-v1")
    pair[0].failing = 1
    assert bench.made.settle(["a-v1"], within_s=10) == [r.url for r in pair]
    pair[1].kill()
    bench.look(), bench.look()
    assert bench.made.settle(["a-v1"], within_s=10) == [pair[0].url]
    pair[0].mute = {"c-v1"}
    bench.want("a-v1", "c-v1")
    with pytest.raises((ServerNotUp, ModelFileError), match="c-v1"):
        bench.made.settle(["c-v1"], within_s=0.3)
    pair[0].kill()
    with pytest.raises(ServerNotUp, match="does not answer"):
        Bench(tmp_path / "adapters", pair).made.settle(["a-v1"])


async def test_the_watch_goes_on_whatever_happens(
    bench: Bench, pair: tuple[Replica, Replica], caplog: pytest.LogCaptureFixture
) -> None:
    bench.made._clock = time.monotonic
    bench.want("a-v1")
    broken = True
    inner = bench.made._wanted

    def wanted() -> dict[str, Need]:
        if broken:
            raise RuntimeError("the database is away")
        return dict(inner())

    bench.made._wanted = wanted
    watching = asyncio.create_task(bench.made.watch())
    with caplog.at_level(logging.INFO, "pawl.serving"):
        await asyncio.sleep(0.3)
        broken = False
        for _ in range(40):
            await asyncio.sleep(0.1)
            if all("a-v1" in r.loaded for r in pair):
                break
    assert [set(r.loaded) for r in pair] == [{"a-v1"}] * 2 and not watching.done()
    watching.cancel()


# -- with the control database


@pytest.fixture
def place(tmp_path: Path, root: Path, pair: tuple[Replica, Replica]) -> Workplace:
    urls = ",".join(r.url for r in pair)
    return Workplace(Settings(home=tmp_path, fleet=root / "infra" / "fleet.yaml", vllm_urls=urls), AGENT)


def local(name: str) -> Arm:
    return Arm(name, "local", name, "local")


def test_routes_rollouts_leases_and_what_waits_are_read_from_the_database(place: Workplace) -> None:
    adapters = place.settings.adapters_dir
    for name in ("fn-v1", "fn-v2", "fn-v3"):
        make_adapter(adapters / name)
    place.control.put_route(Route(agent=AGENT, champion=local("fn-v1")))
    place.control.put_route(Route(agent="not-in-the-fleet", champion=local("x-v1")))
    place.control.save_rollout(
        Rollout(id="r", agent=AGENT, version="2", champion=local("fn-v1"), challenger=local("fn-v2"), stage="shadow",
                opened_at=1.0, stage_since=1.0, spec=RolloutSpec())
    )  # fmt: skip
    now = time.time()
    for version, expires in (("3", now + 60), ("4", now + 60), ("5", now - 1)):
        place.control.ask(
            Request(agent=AGENT, version=version, adapter=f"fn-v{version}", adapter_sha256=version, evidence="e",
                    asked_at=now, expires=expires)
        )  # fmt: skip
    leases.take(place.control, Lease("candidate-1", "/c", "evaluation", now + 60), now, lambda _: None)
    found = bootstrap.needs(place.settings, place.fleet, place.control)
    assert {n: w.firm for n, w in found.items()} == {
        "fn-v1": True, "fn-v2": True, "candidate-1": True, "fn-v3": False,
    }  # fmt: skip
    place.control.reject_adapter("3", AGENT, "no", now)
    leases.give_back(place.control, "candidate-1", now)
    assert set(bootstrap.needs(place.settings, place.fleet, place.control)) == {"fn-v1", "fn-v2"}


def test_an_adapter_is_placed_on_every_replica_or_refused_before_it_is_loaded(
    place: Workplace, pair: tuple[Replica, Replica], tmp_path: Path
) -> None:
    folder = make_adapter(tmp_path / "candidates" / "c" / "adapter")
    url = placing.place_adapter(place, "candidate-1", folder, "a test")
    assert url in {r.url for r in pair} and all(set(r.loaded) == {"candidate-1"} for r in pair)
    placing.release(place, "candidate-1")
    tight = Workplace(place.settings.model_copy(update={"vllm_cpu_loras": 1}), AGENT)
    place.control.put_route(Route(agent=AGENT, champion=local("fn-v1")))
    with pytest.raises(ResourceError, match=f"candidate-1 does not fit(.|\n)*champion of {AGENT}"):
        placing.place_adapter(tight, "candidate-1", folder, "a test")
    assert leases.held(place.control) == []


def test_a_restart_forgets_and_restoring_brings_back(place: Workplace, pair: tuple[Replica, Replica]) -> None:
    make_adapter(place.settings.adapters_dir / "fn-v1")
    place.control.put_route(Route(agent=AGENT, champion=local("fn-v1")))
    placing.restore(place)
    assert all(set(r.loaded) == {"fn-v1"} for r in pair)
    probes = [len(r.log) for r in pair]
    placing.restore(place)
    assert [len(r.log) for r in pair] == probes, "what is there is not asked again each minute"
    pair[0].kill(), pair[0].start()
    placing.restore(place)
    assert all(set(r.loaded) == {"fn-v1"} for r in pair)
    assert placing.a_replica(place) == pair[0].url
    pair[0].kill()
    assert placing.a_replica(place) == pair[1].url


def test_the_next_challenger_is_warm_before_its_first_percent(
    place: Workplace, pair: tuple[Replica, Replica], tmp_path: Path
) -> None:
    kept = Place(place.settings, AGENT, MemoryRegistry())
    version = kept.registry.register(AGENT, make_adapter(tmp_path / "trained"), {}, {})
    now = time.time()
    asked = Request(
        agent=AGENT, version=version.number, adapter=version.adapter, adapter_sha256=version.sha256, evidence="e",
        asked_at=now, expires=now + 60,
    )  # fmt: skip
    kept.control.ask(asked)
    placing.restore(kept)
    reconciler = bootstrap.reconciler(kept.settings, kept.fleet, kept.control, evict=True)
    reconciler.look()
    assert all(set(r.loaded) == {version.adapter} for r in pair)
    assert not reconciler.needs[version.adapter].firm, "it would give way"
    placing.present(kept, version)
    assert all([what for what, _ in r.log].count("load") == 1 for r in pair), "opening its rollout loads nothing"


def test_the_newest_labels_tell_what_vllm_is_busy_with() -> None:
    text = (
        'vllm:lora_requests_info{max_lora="2",running_lora_adapters="a,b",waiting_lora_adapters="c"} 1.7e+09\n'
        'vllm:lora_requests_info{max_lora="2",running_lora_adapters="old",waiting_lora_adapters=""} 1.6e+09\n'
    )
    assert vllm_adapters.in_use(text) == {"a", "b", "c"}
    assert vllm_adapters.in_use("nothing of it") == frozenset()
