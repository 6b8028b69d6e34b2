"""Several connections of one process to the control database, and other processes that come and go."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pawl.compliance.machine import readable_keys
from pawl.rollout.control_sqlite import SqliteControl

READ = """
import sys
from pathlib import Path
from pawl.rollout.control_sqlite import SqliteControl
control = SqliteControl(Path(sys.argv[1]))
print(control.pointer("kept"))
control.close()
"""


def seen_elsewhere(path: Path) -> str:
    """What another process reads, which then closes the file as the only one that it knows of would."""
    done = subprocess.run([sys.executable, "-c", READ, str(path)], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_opening_it_again_drops_no_lock_of_the_first_connection(tmp_path: Path) -> None:
    path = tmp_path / "control.sqlite"
    first = SqliteControl(path)
    first.move_pointer("kept", 0, "one")
    # POSIX locks belong to the process: closing any descriptor of the file would drop those of `first`, and the next
    # process to leave would take the log away from under it, with whatever is written to it later.
    second = SqliteControl(path)
    assert seen_elsewhere(path) == "(1, 'one')"
    first.move_pointer("kept", 1, "two")
    assert seen_elsewhere(path) == "(2, 'two')"
    second.move_pointer("kept", 2, "three")
    assert seen_elsewhere(path) == "(3, 'three')"
    assert path.stat().st_mode & 0o777 == 0o600


def test_looking_for_readable_keys_drops_none_either(tmp_path: Path) -> None:
    path = tmp_path / "control.sqlite"
    control = SqliteControl(path)
    control.move_pointer("kept", 0, "one")
    assert readable_keys([path, tmp_path / "control.sqlite-wal"]) == 0
    assert seen_elsewhere(path) == "(1, 'one')"
    control.move_pointer("kept", 1, "two")
    assert seen_elsewhere(path) == "(2, 'two')"
