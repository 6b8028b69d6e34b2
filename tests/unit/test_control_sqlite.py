"""The control database: compare-and-swap, what survives, who sees what, and the audit chain."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from pathlib import Path

import msgspec
import pytest

from pawl.errors import PawlError
from pawl.rollout.control import Key
from pawl.rollout.control_schema import MIGRATIONS
from pawl.rollout.control_sqlite import SqliteControl
from pawl.rollout.route import Arm, Route

BASE = Arm("base", "local", "base", "local")
CLOUD = Arm("stand-in", "cloud", "stand-in", "cloud")
NEW = Arm("agent-v1-aaaaaaaa", "local", "agent-v1-aaaaaaaa", "local")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "control.sqlite"


@pytest.fixture
def control(path: Path) -> SqliteControl:
    return SqliteControl(path)


def test_the_file_and_its_companions_are_the_owners_alone(path: Path) -> None:
    before = os.umask(0)
    try:
        SqliteControl(path).audit("opened", "me", {}, 1.0)
    finally:
        os.umask(before)
    modes = {p.name: p.stat().st_mode & 0o777 for p in path.parent.iterdir()}
    assert set(modes.values()) == {0o600} and len(modes) == 3, modes


def test_a_wider_mode_is_narrowed(path: Path) -> None:
    SqliteControl(path).close()
    path.chmod(0o644)
    SqliteControl(path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_keys_are_found_by_their_secret_and_stored_without_it(control: SqliteControl, path: Path) -> None:
    key, secret = control.create_key("approver", "ann")
    assert secret.startswith("pawl_") and control.find_key(secret) == key
    assert control.find_key(secret[:-1]) is None and control.find_key("") is None
    control.close()
    stored = b"".join(p.read_bytes() for p in path.parent.iterdir())
    assert secret.encode() not in stored and key.id.encode() in stored


def test_a_database_of_the_first_schema_is_brought_up_with_its_keys_and_routes(path: Path) -> None:
    path.parent.mkdir()
    old = sqlite3.connect(path)
    for statement in MIGRATIONS[0]:
        old.execute(statement)
    digest = hashlib.sha256(b"pawl_old").hexdigest()
    old.execute("INSERT INTO keys (id, role, name, sha256, revoked) VALUES ('key-1', 'client', 'ci', ?, 0)", (digest,))
    old.execute("INSERT INTO keys (id, role, name, sha256, revoked) VALUES ('key-2', 'admin', 'ann', 'x', 1)")
    body = msgspec.json.encode(Route(agent="a", revision=3, champion=Arm("base", "local", "base", "local")))
    old.execute("INSERT INTO routes VALUES ('a', 3, ?)", (body,))
    old.execute("PRAGMA user_version = 1")
    old.commit()
    old.close()
    control = SqliteControl(path)
    assert control.find_key("pawl_old") == Key(id="key-1", role="client", name="ci")
    assert [(k.id, k.revoked) for k in control.keys()] == [("key-1", False), ("key-2", True)]  # noqa: SIM118
    route = control.route("a")
    assert route is not None and route.revision == 3 and control.put_route(route).revision == 4


def test_a_newer_schema_is_refused_and_garbage_is_named(path: Path, tmp_path: Path) -> None:
    SqliteControl(path).close()
    raw = sqlite3.connect(path)
    raw.execute("PRAGMA user_version = 99")
    raw.commit()
    raw.close()
    with pytest.raises(PawlError, match="newer Pawl"):
        SqliteControl(path)
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"this is no database" * 100)
    with pytest.raises(PawlError, match="garbage"):
        SqliteControl(garbage)
