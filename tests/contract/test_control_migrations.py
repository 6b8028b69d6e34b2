"""The control database's schema up and down with rows in it, on SQLite and on a real PostgreSQL; and from one to the
other."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from pawl import bootstrap
from pawl.cli import app
from pawl.errors import PawlError, StaleWrite
from pawl.fleet.limits import KeyTerms
from pawl.rollout.control import Approval, AuditEntry, Request, Spent
from pawl.rollout.control_copy import TABLES, copy
from pawl.rollout.control_postgres import PostgresControl
from pawl.rollout.control_schema import CURRENT, FIRST, MIGRATIONS, REVISIONS
from pawl.rollout.control_sql import SqlControl as Store
from pawl.rollout.control_sqlite import SqliteControl
from pawl.rollout.migrations_alembic.migrate_alembic import Migrations
from pawl.rollout.route import Route
from pawl.rollout.state import Decision, move
from pawl.settings import Settings
from tests.contract.test_control import BASE, At, at, rollout
from tests.postgres_embedded import Postgres

__all__ = ["at"]  # pytest finds the fixture by its name here


def fill(control: Store) -> dict[str, str]:
    """Rows in every table; the secrets of the keys by their names."""
    secrets = {}
    for name in ("first", "second"):
        key, secrets[name] = control.create_key("client", name, KeyTerms(agents=("a",)))
    control.revoke_key(key.id)
    control.put_route(Route(agent="other", champion=BASE))
    opened = control.save_rollout(rollout(), AuditEntry("rollout opened", "roll_out", {"n": 1.5, "ü": None}, 10.25))
    control.save_rollout(move(opened, Decision(action="rollback", reason="worse"), by="watchdog", now=20.0))
    control.save_rollout(rollout("r2", opened_at=30.0))
    asked = Request(
        agent="agent", version="1", adapter="a", adapter_sha256="s", evidence="e", asked_at=1.0, expires=9.0
    )
    for version in ("1", "2"):
        control.ask(msgspec.structs.replace(asked, version=version))
    for name in ("x", "y"):
        control.record_approval(
            Approval(
                id=name, agent="agent", version="1", evidence="e", verdict="approved", by=name, at=3.0, expires=9.0
            )
        )
    control.spend_code("nonce", 1.0)
    control.reject_adapter("hash", "agent", "why: it's 100% worse?", 1.0)
    control.secret("approval")
    control.spend([Spent("key:k", "2026-11", 0.1 + 0.2, 10, 1)])
    control.move_pointer("p", 0, "v\n\\x00")
    control.quarantine("interactions", "agent", {"i1": "status", "i2": "cost"}, 1e-7)
    control.release("interactions", ["i1"], "ann", 1763683200.123456)
    control.audit_many([AuditEntry(f"entry {n}", "ann", {"n": n / 3}, 1763683200.1 + n) for n in range(20)])
    return secrets


def everything(control: Store) -> dict[str, Any]:
    """What the port tells of all of it."""
    return {
        "routes": control.routes(),
        "rollouts": control.rollouts(),
        "requests": control.requests(),
        "approvals": control.approvals("agent", "1"),
        "keys": control.keys(),
        "spending": control.spending(["2026-11"]),
        "pointer": control.pointer("p"),
        "rejection": control.rejection("hash"),
        "secret": control.secret("approval"),
        "quarantined": control.quarantined(),
        "audit": control.audit_log(),
        "whole": control.verify_audit(),
    }


def migrations(at: At) -> Migrations:
    return bootstrap.migrations(at.settings)


def tables(at: At) -> set[str]:
    if at.settings.control_url:
        return {str(n) for (n,) in at.raw("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}
    return {str(n) for (n,) in at.raw("SELECT name FROM sqlite_master WHERE type = 'table'")} - {"sqlite_sequence"}


def test_down_and_up_again_every_row_is_as_it_was(at: At) -> None:
    control = at.open()
    secrets = fill(control)
    before = everything(control)
    assert before["whole"] is None
    control.close()
    copied = migrations(at).downgrade(FIRST)
    assert (copied is not None) == (at.settings.control_url is None)
    assert migrations(at).current() == FIRST and "audit_head" not in tables(at)
    assert at.raw("SELECT COUNT(*) FROM audit") == [(len(before["audit"]),)]
    migrations(at).upgrade()
    again = at.open()
    assert everything(again) == before and migrations(at).current() == CURRENT
    assert again.find_key(secrets["first"]) is not None and again.find_key(secrets["second"]) is None
    # All goes on: the chain, the order of rows, the guards.
    again.audit("after", "ann", {}, 1.0)
    again.put_route(msgspec.structs.replace(before["routes"][1], percent=0))
    assert again.verify_audit() is None and len(again.audit_log()) == len(before["audit"]) + 1
    with pytest.raises(StaleWrite):
        again.save_rollout(rollout("r3"))
    with pytest.raises(Exception, match="append-only"):
        at.raw("DELETE FROM audit")


def test_an_end_that_was_cut_off_before_still_shows_after_an_upgrade(tmp_path: Path) -> None:
    """SQLite keeps the last number it gave, which the upgrade takes over."""
    control = SqliteControl(tmp_path / "c.sqlite")
    fill(control)
    control.close()
    found = Migrations(tmp_path / "c.sqlite")
    found.downgrade(FIRST)
    raw = sqlite3.connect(tmp_path / "c.sqlite")
    raw.execute("DROP TRIGGER audit_is_never_cut")
    raw.execute("DELETE FROM audit WHERE seq > 15")
    raw.commit()
    raw.close()
    found.upgrade()
    assert "missing" in (SqliteControl(tmp_path / "c.sqlite").verify_audit() or "")


@pytest.mark.parametrize("steps", range(1, len(MIGRATIONS) + 1))
def test_a_file_of_any_schema_before_alembic_is_copied_and_adopted(tmp_path: Path, steps: int) -> None:
    path = tmp_path / "control.sqlite"
    old = sqlite3.connect(path)
    for step in MIGRATIONS[:steps]:
        for statement in step:
            old.execute(statement)
    old.execute("INSERT INTO rejections VALUES ('hash', 'agent', 'worse', 1.0)")
    old.execute(f"PRAGMA user_version = {steps}")
    old.commit()
    old.close()
    control = SqliteControl(path)
    assert control.rejection("hash") == "worse" and Migrations(path).current() == CURRENT
    (kept,) = tmp_path.glob("control.sqlite.0001-*")
    assert sqlite3.connect(kept).execute("PRAGMA user_version").fetchone() == (steps,)
    assert kept.stat().st_mode & 0o777 == 0o600
    control.close()
    SqliteControl(path)
    assert len(list(tmp_path.glob("control.sqlite.0001-*"))) == 1, "what is up is not copied again"


def test_a_new_file_has_the_schema_that_alembic_makes(tmp_path: Path) -> None:
    SqliteControl(tmp_path / "new.sqlite").close()
    Migrations(tmp_path / "alembic.sqlite").upgrade()

    def schema(name: str) -> list[tuple[str, str]]:
        found = sqlite3.connect(tmp_path / name).execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
        return sorted((str(n), re.sub(r"\s*([(),])\s*", r"\1", " ".join(s.split()))) for n, s in found)

    assert schema("new.sqlite") == schema("alembic.sqlite")


def test_processes_that_open_an_old_file_at_once_bring_it_up_once(tmp_path: Path) -> None:
    path = tmp_path / "control.sqlite"
    SqliteControl(path).audit("before", "me", {}, 1.0)
    Migrations(path).downgrade(FIRST)
    script = "import sys, pathlib; from pawl.rollout.control_sqlite import SqliteControl as C; "
    script += "C(pathlib.Path(sys.argv[1])).audit('opened', 'child', {}, 1.0)"
    children = [subprocess.Popen([sys.executable, "-c", script, str(path)]) for _ in range(2)]
    assert [child.wait(60) for child in children] == [0, 0]
    control = SqliteControl(path)
    assert control.verify_audit() is None and len(control.audit_log()) == 3


def test_a_server_without_or_with_another_schema_is_said_what_to_do(postgres: Postgres) -> None:
    url = postgres.database("template0")
    with pytest.raises(PawlError, match="`pawl database upgrade` as its owner makes it"):
        PostgresControl(url)
    assert Migrations(url).current() is None
    Migrations(url).upgrade(FIRST)
    with pytest.raises(PawlError, match=f"has schema {FIRST}, this Pawl wants {CURRENT}"):
        PostgresControl(url)
    Migrations(url).upgrade()
    Migrations(url).upgrade()
    PostgresControl(url)
    with pytest.raises(PawlError, match="no way back"):
        Migrations(url).downgrade(CURRENT)
    postgres.run("UPDATE alembic_version SET version_num = '9999'", url)
    with pytest.raises(PawlError, match="newer Pawl"):
        PostgresControl(url)
    with pytest.raises(PawlError, match="newer Pawl"):
        Migrations(url).upgrade()


def test_an_upgrade_that_fails_leaves_what_was(postgres: Postgres) -> None:
    url = postgres.database()
    Migrations(url).downgrade(FIRST)
    postgres.run("CREATE FUNCTION audit_moves_its_head() RETURNS int LANGUAGE sql AS 'SELECT 1'", url)  # in its way
    with pytest.raises(PawlError, match="nothing of it was kept"):
        Migrations(url).upgrade()
    assert Migrations(url).current() == FIRST
    assert postgres.run("SELECT to_regclass('audit_head')", url) == [(None,)]


def test_the_statements_can_be_run_by_hand(at: At, postgres: Postgres) -> None:
    control = at.open()
    fill(control)
    before = everything(control)
    control.close()
    found = migrations(at)
    for text in (found.sql(CURRENT, FIRST), found.sql(FIRST, CURRENT)):
        if at.settings.control_url:
            postgres.run(text, at.settings.control_url)
        else:
            sqlite3.connect(at.settings.control_db, isolation_level=None).executescript(text)
    assert everything(at.open()) == before
    if at.settings.control_url:
        empty = postgres.database("template0")
        postgres.run(Migrations(empty).sql(None, CURRENT), empty)
        fill(PostgresControl(empty))


def test_a_file_moves_to_postgres_with_all_its_rows(tmp_path: Path, postgres: Postgres) -> None:
    source, url = SqliteControl(tmp_path / "c.sqlite"), postgres.database()
    secrets = fill(source)
    before, target = everything(source), PostgresControl(url)
    told = AuditEntry("control database copied", "ann", {}, 1.0)
    done = copy(source, target, told)
    assert not done.already and all(done.rows[table] > 0 for table in TABLES), "no table of the test is empty"
    after = everything(target)
    (entry,) = after["audit"][len(before["audit"]) :]
    assert entry["event"] == told.event and entry["detail"]["rows"] == done.rows
    assert {**after, "audit": after["audit"][:-1]} == before
    assert target.find_key(secrets["first"]) is not None and target.rotate_key(target.keys()[0].id, 0.0)
    moved = before["rollouts"][0]
    target.save_rollout(move(moved, Decision(action="rollback", reason="worse"), by="watchdog", now=40.0))
    assert everything(source) == before
    with pytest.raises(PawlError, match="holds other rows"):
        copy(source, target, told)
    columns = {table: ", ".join(c) for table, c in _columns(tmp_path / "c.sqlite").items()}
    assert {table: columns for table, (columns, _) in TABLES.items()} == {t: columns[t] for t in TABLES}
    assert columns.keys() - TABLES.keys() == {"clock", "audit_head", "alembic_version", "sqlite_sequence"}


def _columns(path: Path) -> dict[str, list[str]]:
    db = sqlite3.connect(path)
    names = [n for (n,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {n: [row[1] for row in db.execute(f"PRAGMA table_info({n})")] for n in names}


def test_a_move_that_is_cut_short_has_moved_nothing_and_runs_again(tmp_path: Path, postgres: Postgres) -> None:
    url = postgres.database()
    fill(SqliteControl(tmp_path / "control.sqlite"))
    script = (
        "import os, signal, sys, pathlib\n"
        "from pawl.rollout.control import AuditEntry\n"
        "from pawl.rollout.control_copy import copy\n"
        "from pawl.rollout.control_postgres import PostgresControl\n"
        "from pawl.rollout.control_sqlite import SqliteControl\n"
        "def say(table, rows):\n"
        "    if table == 'quarantine': os.kill(os.getpid(), signal.SIGKILL)\n"
        "told = AuditEntry('c', 'c', {}, 1.0)\n"
        "copy(SqliteControl(pathlib.Path(sys.argv[1])), PostgresControl(sys.argv[2]), told, say)\n"
    )
    child = subprocess.run([sys.executable, "-c", script, str(tmp_path / "control.sqlite"), url])
    assert child.returncode == -9
    assert postgres.run("SELECT COUNT(*) FROM audit", url) == [(0,)] and PostgresControl(url).keys() == []
    env = {"PAWL_HOME": str(tmp_path)}
    for said in ("rows moved, the audit log is whole", "moved before: nothing was done"):
        ran = CliRunner().invoke(app, ["database", "copy", "--to", url], env=env)
        assert ran.exit_code == 0 and said in ran.stdout, ran.output


def test_a_dry_run_looks_at_the_target_and_writes_nothing(tmp_path: Path, postgres: Postgres) -> None:
    fill(SqliteControl(tmp_path / "control.sqlite"))
    env, url = {"PAWL_HOME": str(tmp_path)}, postgres.database()

    def dry(to: str) -> Result:
        return CliRunner().invoke(app, ["database", "copy", "--to", to, "--dry-run"], env=env)

    refused = {
        "mysql://x": "postgresql://USER@HOST",
        "postgresql://nobody@127.0.0.1:9/none": "cannot be reached",
        postgres.database("template0"): "pawl database upgrade",
    }
    for to, why in refused.items():
        ran = dry(to)
        assert isinstance(ran.exception, PawlError) and why in str(ran.exception), (to, ran.output, ran.exception)
    for _ in range(2):
        ran = dry(url)
        assert ran.exit_code == 0 and "the target is empty, in the right schema" in ran.stdout, ran.output
    assert CliRunner().invoke(app, ["database", "copy", "--to", url], env=env).exit_code == 0
    assert "has them all: nothing would be done" in dry(url).stdout
    SqliteControl(tmp_path / "control.sqlite").create_key("client", "late")
    ran = dry(url)
    assert isinstance(ran.exception, PawlError) and "holds other rows" in str(ran.exception)


def test_a_broken_chain_is_not_moved(tmp_path: Path, postgres: Postgres) -> None:
    source = SqliteControl(tmp_path / "c.sqlite")
    fill(source)
    raw = sqlite3.connect(tmp_path / "c.sqlite")
    raw.execute("DROP TRIGGER audit_is_never_changed")
    raw.execute("UPDATE audit SET by = 'eve' WHERE seq = 2")
    raw.commit()
    target = PostgresControl(postgres.database())
    with pytest.raises(PawlError, match="was changed"):
        copy(source, target, AuditEntry("c", "c", {}, 1.0))
    assert target.keys() == []


def test_the_commands(at: At, postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in at.environment.items():
        monkeypatch.setenv(name, value)

    def run(*line: str) -> str:
        ran = CliRunner().invoke(app, ["database", *line])
        assert ran.exit_code == 0, (line, ran.output, ran.exception)
        return ran.stdout

    at.open().audit("before", "me", {}, 1.0)
    assert json.loads(run("current", "--json"))["revision"] == CURRENT and "as it should be" in run("current")
    asked = CliRunner().invoke(app, ["database", "downgrade", "--to", FIRST], input="n\n")
    assert asked.exit_code == 1 and json.loads(run("current", "--json"))["revision"] == CURRENT
    assert "DROP TABLE audit_head" in run("downgrade", "--to", FIRST, "--sql")
    assert f"is {FIRST}" in run("downgrade", "--to", FIRST, "--yes")
    assert "`pawl database upgrade`" in run("current") and "CREATE TABLE audit_head" in run("upgrade", "--sql")
    assert f"was {FIRST} and is {CURRENT}" in run("upgrade")
    assert at.open().verify_audit() is None
    unknown = CliRunner().invoke(app, ["database", "upgrade", "--to", "0009"])
    assert isinstance(unknown.exception, PawlError) and "there are: 0001" in str(unknown.exception)
    given = CliRunner().invoke(app, ["database", "grants", "--gateway", "nobody_g", "--flow", "nobody_f"])
    assert isinstance(given.exception, PawlError)
    assert 'GRANT SELECT, INSERT ON public.audit TO "g"' in run("grants", "--gateway", "g", "--flow", "f", "--sql")
    assert list(REVISIONS) == sorted(REVISIONS)


def test_settings_show_no_password() -> None:
    settings = Settings(control_url="postgresql://pawl:hunter2@db/pawl")
    assert "hunter2" not in repr(settings) and "hunter2" not in str(settings)
    for wrong in ("mysql://pawl:hunter2@db/pawl", "postgresql://pawl:hun%ter2@db/pawl", "postgres pawl hunter2"):
        with pytest.raises(PawlError, match="postgresql://USER@HOST") as e:
            PostgresControl(wrong)
        assert "hun" not in str(e.value)
