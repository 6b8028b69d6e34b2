"""Every step of every agent gets its turn, and what failed is named with its agent and its reason."""

from __future__ import annotations

import logging

import pytest
from prefect.exceptions import Abort, CancelledRun, Pause, PausedRun, TerminationSignal

from pawl.errors import PawlError, ResourceError
from tasks.attempts import Attempts

NO_ROOM = "two does not fit; take one off"


class Agents:
    """The steps of three agents: of one nothing works, of another one step."""

    def __init__(self) -> None:
        self.tried: list[tuple[str, str]] = []

    def opens(self, agent: str) -> str:
        self.tried.append((agent, "opens"))
        if agent == "two":
            raise ResourceError(NO_ROOM)
        return self._unless_gone(agent)

    def ticks(self, agent: str) -> str:
        self.tried.append((agent, "ticks"))
        return self._unless_gone(agent)

    @staticmethod
    def _unless_gone(agent: str) -> str:
        if agent == "gone":
            raise KeyError("version 7")
        return agent


def test_every_step_is_tried_and_what_failed_is_named(caplog: pytest.LogCaptureFixture) -> None:
    agents, attempt = Agents(), Attempts()
    with caplog.at_level(logging.ERROR, "pawl.promotion"):
        came = [(attempt(agents.opens, a), attempt(agents.ticks, a)) for a in ("gone", "two", "three")]
    assert came == [(None, None), (None, "two"), ("three", "three")]
    assert agents.tried == [(a, step) for a in ("gone", "two", "three") for step in ("opens", "ticks")]
    with pytest.raises(PawlError) as failed:
        attempt.finish()
    assert str(failed.value).splitlines()[1:] == [
        "gone, opens, ticks: KeyError: 'version 7'",
        f"two, opens: {NO_ROOM}",
    ]
    assert str(failed.value).startswith("3 of 6 steps failed")
    assert isinstance(failed.value.__cause__, KeyError), "whose traceback is the first failure's"
    assert [r.getMessage().split(" failed")[0] for r in caplog.records] == ["gone: opens", "gone: ticks", "two: opens"]


def test_nothing_is_raised_where_nothing_failed() -> None:
    attempt = Attempts()
    assert attempt(lambda agent: (agent,), "one") == ("one",) and attempt(lambda _: None, "one") is None
    attempt.finish()
    Attempts().finish()


@pytest.mark.parametrize(
    "signal",
    [KeyboardInterrupt(), SystemExit(), TerminationSignal(15), Abort(), Pause(), CancelledRun("x"), PausedRun("x")],
    ids=lambda s: type(s).__name__,
)
def test_who_ends_or_pauses_the_run_ends_or_pauses_it(signal: BaseException) -> None:
    def stopped(agent: str) -> None:
        raise signal

    attempt = Attempts()
    with pytest.raises(type(signal)):
        attempt(stopped, "one")
    attempt.finish()
