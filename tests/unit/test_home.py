"""The folder of everything Pawl writes on a machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pawl import bootstrap
from pawl.cli import app
from pawl.errors import ConfigError
from pawl.platform import facts_machine
from pawl.platform.run_lock import alone
from pawl.settings import Settings


def test_it_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "a" / "home")
    bootstrap.control(settings)
    assert settings.home.stat().st_mode & 0o077 == 0
    assert tmp_path.joinpath("a", "home", "control.sqlite").exists()


def test_one_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    tmp_path.chmod(0o775)
    bootstrap.control(settings)
    assert tmp_path.stat().st_mode & 0o777 == 0o775


@pytest.mark.parametrize("below", ["", "deeper/home"])
def test_where_a_file_is_there_can_be_none(tmp_path: Path, below: str) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    settings = Settings(home=file / below)
    for use in (lambda: bootstrap.control(settings), lambda: alone(settings.home, print).__enter__()):
        with pytest.raises(ConfigError, match=f"PAWL_HOME (?s:.)*{file} is no folder"):
            use()
    (found,) = facts_machine.home(settings)
    assert found.level == "fail" and "PAWL_HOME" in found.todo
    assert file.read_text() == "mine"


def test_the_commands_say_so(tmp_path: Path, root: Path) -> None:
    (tmp_path / "file").write_text("mine")
    env = {"PAWL_HOME": str(tmp_path / "file"), "PAWL_FLEET": str(root / "infra" / "fleet.yaml")}
    for line in (["up", "--dry-run"], ["down"], ["status"]):
        ran = CliRunner().invoke(app, line, env=env)
        assert isinstance(ran.exception, ConfigError), (line, ran.exception)


def test_the_lock_of_what_runs_makes_it_for_its_owner_alone(tmp_path: Path) -> None:
    with alone(tmp_path / "home", print):
        assert (tmp_path / "home").stat().st_mode & 0o077 == 0
    assert facts_machine.home(Settings(home=tmp_path / "home"))[0].level == "ok"
    assert facts_machine.home(Settings(home=tmp_path / "not" / "yet"))[0].level == "ok"
    assert not (tmp_path / "not").exists()
