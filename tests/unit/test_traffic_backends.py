"""Two backends that take turns: whoever is the champion keeps its traffic when it becomes so."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawl.errors import ConfigError, StaleWrite
from pawl.rollout import backends
from pawl.rollout.backends import Backends, Demand, placed
from pawl.rollout.control_sqlite import SqliteControl
from pawl.rollout.route import Arm, Route
from pawl.rollout.traffic import Shares


def arm(name: str) -> Arm:
    return Arm(name, "local", name, "local")


def route(champion: str, challenger: str = "", percent: int = 0) -> Route:
    return Route(agent="a", champion=arm(champion), challenger=arm(challenger) if challenger else None, percent=percent)


def test_a_challenger_that_won_stays_where_it_is() -> None:
    known, split = placed(route("base"), Backends())
    assert (known, split) == (Backends("base"), Shares(100, 0))
    known, split = placed(route("base", "v1", 20), known)
    assert (known, split) == (Backends("base", "v1"), Shares(80, 20))
    known, split = placed(route("v1"), known)  # done: nobody goes back to the base model
    assert (known, split) == (Backends("base", "v1"), Shares(0, 100))
    known, split = placed(route("v1", "v2", 20), known)
    assert (known, split) == (Backends("v2", "v1"), Shares(20, 80))
    known, split = placed(route("v1"), known)  # rolled back
    assert (known, split) == (Backends("v2", "v1"), Shares(0, 100))
    known, split = placed(route("v1", "v3", 50), known)
    assert (known, split) == (Backends("v3", "v1"), Shares(50, 50))


def test_while_one_backend_alone_was_in_use_the_champion_is_there() -> None:
    known, split = placed(route("merged"), Backends("base"))
    assert (known, split) == (Backends("merged"), Shares(100, 0))
    assert placed(route("v2", "v3", 20), Backends("", "v1")) == (Backends("v3", "v2"), Shares(20, 80))


@given(st.lists(st.tuples(st.lists(st.integers(0, 100), max_size=5), st.booleans()), max_size=8))
def test_each_model_gets_the_share_that_the_route_gives_it(rollouts: list[tuple[list[int], bool]]) -> None:
    known, champion = Backends(), "v0"
    for n, (stages, won) in enumerate(rollouts, 1):
        challenger = f"v{n}"
        for percent in (0, *stages):
            known, split = placed(route(champion, challenger, percent), known)
            served = {known.champion: split.champion, known.challenger: split.challenger}
            assert served == {champion: 100 - percent, challenger: percent}
        champion = challenger if won else champion
        known, split = placed(route(champion), known)
        assert {known.champion: split.champion, known.challenger: split.challenger}[champion] == 100


def test_a_champion_that_stands_nowhere_moves_nothing(tmp_path: Path) -> None:
    control = SqliteControl(tmp_path / "control.sqlite")
    assert backends.follow(control, route("v1", "v2", 20)) == Demand(Shares(80, 20), Shares(80, 20))
    with pytest.raises(ConfigError, match=r"base answers now, .* stand v1 and v2.*pawl traffic place"):
        backends.follow(control, route("base"))
    assert backends.read(control, "a") == Backends("v1", "v2"), "what is known stays as it was"
    assert backends.say(control, "a", Backends("v1", "base")) == Backends("v1", "v2")
    assert backends.follow(control, route("base")).now == Shares(0, 100)


def test_what_is_known_outlives_the_process_and_another_writer(tmp_path: Path) -> None:
    one, other = SqliteControl(tmp_path / "control.sqlite"), SqliteControl(tmp_path / "control.sqlite")
    backends.follow(one, route("v1", "v2", 100))
    assert backends.follow(other, route("v2")).now == Shares(0, 100)
    assert backends.follow(one, route("v2", "v3", 20)).now == Shares(20, 80)
    assert backends.read(other, "a") == Backends("v3", "v2")
    with pytest.raises(StaleWrite):
        other.move_pointer("traffic-backends/a", 1, "{}")
