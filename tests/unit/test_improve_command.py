"""`pawl improve`: which deployment it starts, with what, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import typer
from click.exceptions import BadParameter

from pawl.commands.improve import chosen

SAID: dict[str, Any] = {
    "agent": "", "everyone": False, "days": None, "week": "", "weeks": 0, "dry_run": False, "when_busy": "wait",
    "now": 1e6,
}  # fmt: skip


def test_an_agent_alone_learns_from_all_or_the_latest_days() -> None:
    assert chosen(**SAID | {"agent": "a"}) == ("improve-agent/now", {"agent": "a", "when_busy": "wait"})
    _, parameters = chosen(**SAID | {"agent": "a", "days": 2.0, "when_busy": "cancel"})
    assert parameters == {"agent": "a", "when_busy": "cancel", "since": 1e6 - 2 * 86400}


def test_a_dry_run_is_of_what_the_command_would_do() -> None:
    for said in ({"agent": "a"}, {"agent": "a", "days": 2.0}):
        _, real = chosen(**SAID | said)
        deployment, dry = chosen(**SAID | said | {"dry_run": True})
        assert deployment == "improve-fleet/weekly" and dry["dry_run"] and dry["agents"] == ["a"]
        assert dry["since"] == real.get("since", 0.0), "the same traffic"
    for whole in ({"everyone": True}, {"agent": "a", "week": "2026-11-15"}, {"agent": "a", "weeks": 3}):
        deployment, real = chosen(**SAID | whole)
        assert chosen(**SAID | whole | {"dry_run": True}) == (deployment, real | {"dry_run": True})


def test_whole_weeks_are_the_weekly_run() -> None:
    usual = {"agents": None, "weeks_back": 1, "dry_run": False, "when_busy": "wait"}
    weekly = "improve-fleet/weekly"
    assert chosen(**SAID | {"everyone": True}) == (weekly, usual)
    assert chosen(**SAID | {"everyone": True, "weeks": 4, "dry_run": True}) == (
        weekly, usual | {"weeks_back": 4, "dry_run": True},
    )  # fmt: skip
    assert chosen(**SAID | {"agent": "a", "week": "2026-11-15"}) == (
        weekly, usual | {"agents": ["a"], "week": "2026-11-15"},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({}, "name one agent"),
        ({"agent": "a", "everyone": True}, "name one agent"),
        ({"everyone": True, "days": 7.0}, "--days is for one agent"),
        ({"agent": "a", "days": 7.0, "week": "2026-11-15"}, "--days is for one agent"),
        ({"agent": "a", "week": "2026-11-15", "weeks": 2}, "say one of them"),
        ({"agent": "a", "week": "last"}, "write one as 2026-11-15"),
    ],
)
def test_what_contradicts_itself_is_refused(said: dict[str, Any], why: str) -> None:
    with pytest.raises((BadParameter, typer.BadParameter), match=why):
        chosen(**SAID | said)
