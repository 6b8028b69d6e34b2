"""Which runs count as dead, and how often one is started again."""

from __future__ import annotations

import msgspec
import pytest

from pawl.improvement.crashed_runs import Patience, SeenRun, Verdict, silent_throughout, verdict

PATIENCE = Patience(silent_s=120, pending_s=1800, waiting_s=90_000, within_s=86_400, most=3)
NOW = 1e6


def seen(state: str, ago: float, heard: float | None = None, times: int = 0, flow: str = "improve-fleet") -> SeenRun:
    heard_at = None if heard is None else NOW - heard
    return SeenRun(id="r", flow=flow, state=state, since=NOW - ago, heard=heard_at, times=times)  # type: ignore[arg-type]


def in_cluster(run: SeenRun) -> SeenRun:
    return msgspec.structs.replace(run, in_cluster=True)


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (seen("running", 60), "alive"),  # it has not had the time for a heartbeat
        (seen("running", 7200, heard=30), "alive"),
        (seen("running", 7200, heard=121), "start again"),
        (seen("running", 7200), "start again"),
        (seen("running", 7200, times=2), "start again"),
        (seen("running", 7200, times=3), "give up"),
        (seen("running", 7200, flow="roll-out"), "mark"),  # the next one comes within a minute
        (seen("pending", 600), "alive"),
        (seen("pending", 1801), "start again"),
        (in_cluster(seen("pending", 86_400)), "alive"),  # its pod waits for a GPU that another training has
        (in_cluster(seen("pending", 90_001)), "start again"),
        (in_cluster(seen("running", 7200)), "start again"),
        (seen("crashed", 1), "start again"),
        (seen("crashed", 1, times=3), "give up"),
        (seen("crashed", 90_000), "alive"),  # history
        (seen("crashed", 1, flow="roll-out"), "alive"),
    ],
)
def test_verdicts(run: SeenRun, expected: Verdict) -> None:
    assert verdict(run, NOW, PATIENCE, ("improve-fleet",)) == expected


def test_without_heartbeats_silence_says_nothing() -> None:
    none_sent = msgspec.structs.replace(PATIENCE, silent_s=None)
    assert verdict(seen("running", 7200), NOW, none_sent, ("improve-fleet",)) == "alive"
    assert verdict(seen("pending", 1801), NOW, none_sent, ("improve-fleet",)) == "start again"


class Played:
    """A clock that sleeping moves on, and runs that are heard of at a moment of it."""

    def __init__(self, heard_at: dict[str, float], stumbles_at: float = float("inf"), for_s: float = 0.0) -> None:
        self.now, self.heard_at, self.stumbles_at, self.for_s = 0.0, heard_at, stumbles_at, for_s

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def lives(self, run: str) -> bool:
        if self.now >= self.stumbles_at:
            self.now, self.stumbles_at = self.now + self.for_s, float("inf")
        return self.now >= self.heard_at.get(run, float("inf"))

    def silent(self, *runs: str) -> tuple[str, ...]:
        return silent_throughout(runs, self.lives, for_s=90, gap_s=30, clock=lambda: self.now, sleep=self.sleep)


def test_a_silence_counts_where_it_goes_on() -> None:
    # Prefect is back after an outage: the first heartbeats come while it is listened for them.
    played = Played({"lives": 25.0, "late": 88.0})
    assert played.silent("lives", "dead", "late") == ("dead",) and played.now == 90
    assert Played({}).silent() == ()
    alone = Played({"lives": 25.0})
    assert alone.silent("lives") == () and alone.now == 25, "nobody is waited for"


@pytest.mark.parametrize(("for_s", "named"), [(10.0, ("dead",)), (60.0, ())])
def test_nobody_is_dead_where_prefect_could_not_hear(for_s: float, named: tuple[str, ...]) -> None:
    assert Played({}, stumbles_at=40, for_s=for_s).silent("dead") == named
