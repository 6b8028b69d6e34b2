"""Trials with Optuna over a loss that is known: the order, pruning, the budget, and being killed."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import optuna
import pytest

from pawl.errors import NotAllowed, ResourceError, TrainingFailed
from pawl.fleet.training import SearchSpec, TrainingSpec
from pawl.training.search import Trial, best_of, values_of
from pawl.training.search_optuna import Reporter, RunTrial, search
from pawl.workers.port import Done

PRESENT = TrainingSpec(learning_rate=3e-4)
SPACE = SearchSpec(ranks=(8, 16), learning_rates=(1e-4, 1e-2), epochs=(1.0, 3.0))


def loss_of(spec: TrainingSpec) -> float:
    """Lowest at a learning rate of 2e-3, and lower with more epochs."""
    return 1.0 + math.log10(spec.learning_rate / 2e-3) ** 2 + 0.1 / spec.epochs


def run(number: int, spec: TrainingSpec, watch: Reporter) -> float:
    watch.validation(0.0, 100.0)  # what it starts from prunes nobody
    for quarter in (1, 2, 3):
        watch.step()
        watch.validation(quarter / 4, loss_of(spec) + 1.0 / quarter)
    return loss_of(spec)


def searched(storage: Path, run_trial: RunTrial = run, trials: int = 8, minutes: float = 10.0) -> list[Trial]:
    return search(storage, "k", PRESENT, SPACE, run_trial, trials=trials, minutes=minutes, continues=False)


def told(trials: list[Trial]) -> list[tuple[object, ...]]:
    """What must not depend on interruptions: everything but numbers and times."""
    return [(tuple(values_of(t.spec).items()), t.state, t.loss, t.points, t.present) for t in trials]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[Trial]:
    """An uninterrupted search, to compare with."""
    return searched(tmp_path_factory.mktemp("whole") / "s.sqlite3")


def test_the_first_trial_is_what_the_agent_has(whole: list[Trial]) -> None:
    assert [t.present for t in whole] == [True] + [False] * 7 and whole[0].spec == PRESENT
    assert len({t.spec.learning_rate for t in whole}) == 8
    best = best_of(whole)
    assert best is not None and best.loss is not None and best.loss < loss_of(PRESENT) - 0.3
    assert all(t.spec.alpha == 2 * t.spec.rank for t in whole)


def test_trials_that_lag_behind_are_pruned(whole: list[Trial]) -> None:
    pruned = [t for t in whole if t.state == "pruned"]
    assert pruned and all(t.points[-1][0] < 100 and t.points[0][0] == 25 and "median" in t.why for t in pruned)
    complete = [t for t in whole if t.state == "complete"]
    assert all(len(t.points) == 3 for t in complete)
    assert min(loss_of(t.spec) for t in pruned) > min(t.loss for t in complete if t.loss is not None)


def test_the_same_search_gives_the_same_trials(whole: list[Trial], tmp_path: Path) -> None:
    assert told(searched(tmp_path / "s.sqlite3")) == told(whole)


def test_a_finished_search_tries_nothing_and_a_longer_one_goes_on(whole: list[Trial], tmp_path: Path) -> None:
    storage = tmp_path / "s.sqlite3"
    assert told(searched(storage, trials=4)) == told(whole)[:4]

    def never(*_: object) -> float:
        raise AssertionError

    assert told(searched(storage, never, trials=4)) == told(whole)[:4]
    assert told(searched(storage)) == told(whole)


@pytest.mark.parametrize("which", ["first", "last complete"])
def test_stopped_in_a_trial_it_ends_with_the_same_trials(whole: list[Trial], tmp_path: Path, which: str) -> None:
    at = 0 if which == "first" else max(i for i, t in enumerate(whole) if t.state == "complete")
    seen = 0

    def stop(number: int, spec: TrainingSpec, watch: Reporter) -> float:
        nonlocal seen
        seen += 1
        if seen == at + 1:
            watch.validation(0.25, loss_of(spec) + 1.0)
            raise KeyboardInterrupt
        return run(number, spec, watch)

    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path / "s.sqlite3", stop)
    assert told(searched(tmp_path / "s.sqlite3")) == told(whole)


def test_killed_in_a_trial_it_ends_with_the_same_trials(whole: list[Trial], tmp_path: Path) -> None:
    code = """
        import os, signal, sys
        from pathlib import Path
        from tests.unit.test_search_optuna import run, searched

        def kill(number, spec, watch):
            if number == 4:
                watch.validation(0.25, 1.5)
                os.kill(os.getpid(), signal.SIGKILL)
            return run(number, spec, watch)

        searched(Path(sys.argv[1]), kill)
    """
    storage = tmp_path / "s.sqlite3"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(storage)], env=environment, timeout=120)
    assert done.returncode == -signal.SIGKILL
    found = searched(storage)
    again = next(t for t in found if t.number == 5)  # the fourth's number belongs to the one that was cut off
    assert (25, 1.5) in again.points  # what that one had told is not forgotten
    # So the tried one has another value there, and is else the same; so are those before it.
    assert told(found)[:4] == told(whole)[:4] and values_of(again.spec) == values_of(whole[4].spec)
    study = optuna.load_study(study_name="k", storage=f"sqlite:///{storage}")
    assert [t.number for t in study.trials if t.state == optuna.trial.TrialState.FAIL] == [4]


def test_settings_that_always_end_the_process_are_given_up(tmp_path: Path) -> None:
    attempts: list[float] = []

    def fatal(number: int, spec: TrainingSpec, watch: Reporter) -> float:
        if not watch.first and len(attempts) < 3:
            attempts.append(spec.learning_rate)
            raise MemoryError
        return run(number, spec, watch)

    for _ in range(3):
        with pytest.raises(MemoryError):
            searched(tmp_path / "s.sqlite3", fatal, trials=3)
    found = searched(tmp_path / "s.sqlite3", fatal, trials=3)
    assert len(set(attempts)) == 1
    assert [(t.state, t.why) for t in found][1:] == [("failed", "cut off 3 times"), ("complete", "")]


def test_settings_that_cannot_be_trained_are_told_and_the_search_goes_on(tmp_path: Path) -> None:
    def wild(number: int, spec: TrainingSpec, watch: Reporter) -> float:
        if number == 2:
            raise TrainingFailed("the loss became nan")
        return run(number, spec, watch)

    found = searched(tmp_path / "a.sqlite3", wild, trials=4)
    assert [t.state for t in found].count("failed") == 1 and found[2].why == "the loss became nan"

    def broken(*_: object) -> float:
        raise TrainingFailed("the loss became nan")

    with pytest.raises(TrainingFailed):
        searched(tmp_path / "b.sqlite3", broken)


def test_no_trial_begins_after_the_budget_and_one_far_over_it_ends(tmp_path: Path) -> None:
    def slow(number: int, spec: TrainingSpec, watch: Reporter) -> float:
        for _ in range(60 if number == 1 else 2):
            time.sleep(0.1)
            watch.step()
        return loss_of(spec)

    began = time.monotonic()
    found = searched(tmp_path / "s.sqlite3", slow, minutes=1.2 / 60)
    assert time.monotonic() - began < 5
    assert [t.state for t in found] == ["complete", "pruned"] and "minutes" in found[1].why
    # What is used counts over attempts.
    assert told(searched(tmp_path / "s.sqlite3", slow, minutes=1.2 / 60)) == told(found)


def test_a_budget_too_small_for_the_present_settings_is_told(tmp_path: Path) -> None:
    def slow(number: int, spec: TrainingSpec, watch: Reporter) -> float:
        while True:
            time.sleep(0.02)
            watch.step()

    with pytest.raises(ResourceError, match="more minutes"):
        searched(tmp_path / "s.sqlite3", slow, minutes=0.1 / 60)
    assert len(searched(tmp_path / "s.sqlite3", trials=2)) == 2  # with more it goes on


def test_present_settings_outside_the_space_are_the_first_trial_too(tmp_path: Path) -> None:
    present = PRESENT.model_copy(update={"rank": 64, "alpha": 128})
    found = search(tmp_path / "s.sqlite3", "k", present, SPACE, run, trials=6, minutes=1.0, continues=True)
    assert found[0].present and found[0].spec == present
    assert all(t.spec.rank in SPACE.ranks and t.spec.start == "base" for t in found[1:])


def test_one_search_at_a_time(tmp_path: Path) -> None:
    def inner(number: int, spec: TrainingSpec, watch: Reporter) -> float:
        with pytest.raises(NotAllowed, match="another search"):
            searched(tmp_path / "s.sqlite3")
        return run(number, spec, watch)

    assert len(searched(tmp_path / "s.sqlite3", inner, trials=1)) == 1


def test_another_question_begins_anew_in_the_same_file(tmp_path: Path) -> None:
    storage = tmp_path / "s.sqlite3"
    searched(storage, trials=3)
    other = search(storage, "other", PRESENT, SPACE, run, trials=2, minutes=1.0, continues=False)
    assert [t.number for t in other] == [0, 1]


class Threads:
    """Two pieces at a time, as on two machines; how Ray does it: tests/contract/test_workers.py."""

    elsewhere = True

    def slots(self, *, trains: bool = False) -> int:
        return 2

    def run(self, work: Any, pieces: Any, told: Any, *, trains: bool = False) -> Any:
        lock, waiting, running = Lock(), enumerate(pieces), {}

        def one_at_a_time(number: int, said: Any) -> Any:
            with lock:
                return told(number, said)

        with ThreadPoolExecutor(2) as pool:
            while True:
                while len(running) < 2 and (found := next(waiting, None)):
                    running[pool.submit(work, partial(one_at_a_time, found[0]), *found[1])] = found[0]
                if not running:
                    return
                for ended in wait(running, return_when=FIRST_COMPLETED).done:
                    error = ended.exception()
                    yield Done(running.pop(ended), None if error else ended.result(), error)


def test_trials_beside_each_other_are_as_many_and_none_is_tried_twice(tmp_path: Path) -> None:
    at_once: list[int] = []
    most = 0

    def slow(number: int, spec: TrainingSpec, watch: Reporter) -> float:
        nonlocal most
        at_once.append(number)
        most = max(most, len(at_once))
        time.sleep(0.05)
        watch.validation(0.25, loss_of(spec) + 1.0)
        at_once.remove(number)
        return loss_of(spec)

    found = search(
        tmp_path / "s.sqlite3", "k", PRESENT, SPACE, slow, trials=8, minutes=10.0, continues=False, workers=Threads()
    )
    assert [t.number for t in found] == list(range(8)) and most == 2
    assert len({t.spec.model_dump_json() for t in found}) == 8
    assert best_of(found) is not None and found[0].present
