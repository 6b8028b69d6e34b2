"""What fails a check is left out, shown, and let go by a person: from the frame to the command."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from pawl.commands.quarantine import MOST_SHOWN, quarantine
from pawl.errors import NotAllowed, PawlError
from pawl.rollout.control_sqlite import SqliteControl
from pawl.validation.frames_examples import examples
from pawl.validation.great_expectations_suite import validate_dataset


class Desk:
    """The command in a home of its own."""

    def __init__(self, home: Path, patch: pytest.MonkeyPatch) -> None:
        self.control = SqliteControl(home / "control.sqlite")
        self._patch = patch
        self._keys = {r: self.control.create_key(r, f"the {r}")[1] for r in ("operator", "admin", "client")}  # type: ignore[arg-type]
        self._app = typer.Typer()
        self._app.command("quarantine")(quarantine)
        self._app.command("other")(lambda: None)
        patch.setenv("PAWL_HOME", str(home))

    def pawl(self, role: str, *arguments: str) -> Result:
        self._patch.setenv("PAWL_API_KEY", self._keys[role])
        return CliRunner().invoke(self._app, ["quarantine", *arguments])


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(tmp_path, monkeypatch)


def test_what_a_check_sets_aside_can_be_seen_and_let_go(desk: Desk) -> None:
    rows = [{"id": f"e{n}", "quality": 0.5 + n, "source": "s", "completion": "{}", "messages": []} for n in range(2)]
    report = validate_dataset(examples(rows))
    aside = report.set_aside()
    assert set(aside) == {"e0", "e1"} and aside["e1"] == "quality is between 0 and 1"
    desk.control.quarantine(report.suite, "a", aside, 1.8e9)
    shown = desk.pawl("operator")
    assert "a  dataset: quality is between 0 and 1, 1 row(s)\n  e1  since 2027-01-15 08:00 UTC" in shown.stdout
    done = desk.pawl("operator", "--release", "e1", "--release", "e0")
    assert done.stdout == "2 row(s) let go; the next run checks them anew\n"
    assert desk.pawl("admin").stdout == "nothing is in the quarantine\n"
    (entry,) = desk.control.audit_log()
    assert (entry["event"], entry["by"]) == ("quarantine released", "the operator")
    assert entry["detail"] == {"agent": "", "rows": {"dataset": ["e1", "e0"]}, "released": 2}


def test_all_of_one_agent_are_let_go_and_others_stay(desk: Desk) -> None:
    desk.control.quarantine("interactions", "a", {f"i{n}": "status" for n in range(MOST_SHOWN + 2)}, 1.0)
    desk.control.quarantine("feedback", "a", {"f": "score"}, 1.0)
    desk.control.quarantine("feedback", "b", {"g": "score"}, 1.0)
    assert "... and 2 more" in desk.pawl("admin", "--agent", "a").stdout
    assert f"{MOST_SHOWN + 3} row(s) let go" in desk.pawl("admin", "--agent", "a", "--release-all").stdout
    assert [q.row for q in desk.control.quarantined()] == ["g"]


def test_what_is_not_there_is_said_and_nothing_is_let_go(desk: Desk) -> None:
    desk.control.quarantine("interactions", "a", {"i1": "status"}, 1.0)
    failed = desk.pawl("operator", "--release", "i1", "--release", "i2")
    assert isinstance(failed.exception, PawlError) and "i2" in str(failed.exception)
    assert len(desk.control.quarantined()) == 1 and desk.control.audit_log() == []


def test_a_client_may_neither_look_nor_let_go(desk: Desk) -> None:
    desk.control.quarantine("interactions", "a", {"i1": "status"}, 1.0)
    for arguments in ((), ("--release-all",)):
        failed = desk.pawl("client", *arguments)
        assert isinstance(failed.exception, NotAllowed) and "i1" not in failed.stdout
    assert len(desk.control.quarantined()) == 1
