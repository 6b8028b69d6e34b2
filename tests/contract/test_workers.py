"""What all that runs pieces of work keeps: this process, and a real Ray cluster whose nodes are killed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pawl.errors import ConfigError, NotEnoughData
from pawl.improvement.judging import judge
from pawl.improvement.workplace import Workplace
from pawl.settings import Settings
from pawl.workers.here import Here
from pawl.workers.port import Tell, Workers
from tests.integration.test_judging import candidate
from tests.integration.test_judging import fleet as fleet
from tests.integration.test_judging import serve as serve
from tests.ray_cluster import RayCluster, ray_of


@pytest.fixture(scope="module")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    before = dict(os.environ)
    made = RayCluster(tmp_path_factory.mktemp("ray"))
    os.environ.update(made.environment)
    made.node(cpus=2)
    yield made
    import ray

    ray.shutdown()
    made.stop()
    for name in made.environment:
        os.environ.pop(name)
    os.environ.update(before)


@pytest.fixture(params=["here", "ray"])
def workers(request: pytest.FixtureRequest) -> Workers:
    return Here() if request.param == "here" else ray_of(request.getfixturevalue("ray_cluster"))


def square(tell: Tell, number: int) -> int:
    return int(tell(number)) ** 2


def ask_until_told_off(tell: Tell, patience: int) -> str:
    try:
        for turn in range(patience):
            tell(turn)
    except NotEnoughData as e:
        return f"stopped: {e}"
    return "not stopped"


def fails(tell: Tell) -> None:
    raise ConfigError("fleet.yaml", ["a", "b"])


def slow(tell: Tell, mark: Path, seconds: float) -> int:
    tell("begun")
    time.sleep(seconds)
    mark.write_text("done")
    return os.getpid()


def home_of(tell: Tell, place: Workplace) -> Path:
    return place.settings.home


def test_each_piece_comes_back_and_its_questions_are_answered(workers: Workers) -> None:
    asked: list[int] = []

    def told(number: int, said: Any) -> int:
        assert number == said
        asked.append(said)
        return int(said) + 1

    found = {d.number: d.get() for d in workers.run(square, ((n,) for n in range(5)), told)}
    assert found == {n: (n + 1) ** 2 for n in range(5)} and sorted(asked) == list(range(5))


def test_an_answer_that_raises_raises_in_the_piece(workers: Workers) -> None:
    def told(number: int, said: int) -> None:
        if said == 3:
            raise NotEnoughData("three is enough")

    (done,) = workers.run(ask_until_told_off, [(9,)], told)
    assert done.get() == "stopped: three is enough"


def test_what_a_piece_raises_comes_back_as_what_it_is_and_stops_nothing_else(workers: Workers) -> None:
    ended = list(workers.run(fails, [(), ()], lambda *_: None))
    assert len(ended) == 2
    for done in ended:
        with pytest.raises(ConfigError) as error:
            done.get()
        assert error.value.problems == ["a", "b"] and "2 problem(s)" in str(error.value)


def test_pieces_are_taken_as_there_is_room(workers: Workers) -> None:
    taken: list[int] = []

    def pieces() -> Iterator[tuple[int]]:
        for n in range(6):
            taken.append(n)
            yield (n,)

    for ended, _ in enumerate(workers.run(square, pieces(), lambda _, said: said)):
        assert len(taken) <= ended + workers.slots()
    assert taken == list(range(6))


@pytest.mark.servers
def test_who_stops_asking_stops_the_pieces(ray_cluster: RayCluster, tmp_path: Path) -> None:
    marks = [tmp_path / "a", tmp_path / "b"]
    running = ray_of(ray_cluster).run(slow, [(marks[0], 0.0), (marks[1], 2.0)], lambda *_: None)
    assert next(running).number == 0
    running.close()
    time.sleep(3)
    assert marks[0].exists() and not marks[1].exists()


@pytest.mark.servers
def test_a_node_that_dies_costs_its_pieces_another_try(ray_cluster: RayCluster, tmp_path: Path) -> None:
    import ray

    workers = ray_of(ray_cluster)
    assert workers.slots() == 2 == workers.slots(trains=True)
    doomed, begun = ray_cluster.node(cpus=2), []
    while ray.cluster_resources().get("CPU") != 4:
        time.sleep(0.1)
    fresh = ray_of(ray_cluster)
    assert fresh.slots() == 4

    def told(number: int, said: str) -> None:
        begun.append(number)
        if len(begun) == 4:  # all run, two of them there
            ray_cluster.kill(doomed)

    pieces = [(tmp_path / str(n), 3.0) for n in range(4)]
    found = {d.number: d.get() for d in fresh.run(slow, pieces, told)}
    assert sorted(found) == [0, 1, 2, 3] and all((tmp_path / str(n)).exists() for n in range(4))
    assert len(begun) == 6, "two of them began twice"


@pytest.mark.servers
def test_a_machine_without_our_folder_says_so(ray_cluster: RayCluster, tmp_path: Path) -> None:
    there = Workplace(Settings(home=tmp_path, control_url="postgresql://u:hunter2@db/x", api_key="k"), "a")
    gone = Workplace(Settings(home=tmp_path / "gone"), "a")
    first, second = sorted(ray_of(ray_cluster).run(home_of, [(there,), (gone,)], lambda *_: None))
    assert first.get() == tmp_path
    with pytest.raises(ConfigError, match="gone is not there: mount"):
        second.get()


@pytest.mark.servers
def test_an_evaluation_in_shards_is_that_of_one_process(ray_cluster: RayCluster, serve: Any) -> None:
    place, models = serve(0.1, 0.95)
    shown: list[tuple[int, int]] = []
    place.__dict__["workers"] = ray_of(ray_cluster)
    comparison, decision = judge(
        place, candidate(place, ("elsewhere",)), lambda _, done, total, __: shown.append((done, total))
    )
    asked = sorted(models.asked)
    assert (60, 60) in shown and len({done for done, total in shown if total == 60}) > 30
    for kept in (place.settings.home / "answers").rglob("*.json"):
        kept.unlink()
    models.asked.clear()
    alone = Workplace(place.settings, place.agent_name)
    again, decided = judge(alone, candidate(alone, ("elsewhere",)), lambda *_: None)
    assert sorted(models.asked) == asked and decided == decision
    assert [(i.item, i.score, i.completion) for i in again.challenger.items] == [
        (i.item, i.score, i.completion) for i in comparison.challenger.items
    ]


def test_what_travels_has_no_secrets(tmp_path: Path) -> None:
    import pickle

    place = Workplace(Settings(home=tmp_path, control_url="postgresql://u:hunter2@db/x", api_key="a key"), "a")
    sent = pickle.dumps(place)
    assert b"hunter2" not in sent and b"a key" not in sent
    assert pickle.loads(sent).settings.home == tmp_path
