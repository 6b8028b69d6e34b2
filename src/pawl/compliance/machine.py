"""What can be measured of this machine's guards: encryption below a folder, permissions, secrets that lie readable."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from pawl.compliance.security import Machine
from pawl.fleet.spec import FleetSpec
from pawl.settings import Settings

_BLOCKS = Path("/sys/dev/block")


def look(settings: Settings, fleet: FleetSpec) -> Machine:
    """Measure; takes a second or two for the sandbox."""
    from pawl import sandbox

    secrets = {f"upstream {n}'s key": Path(u.api_key_file) for n, u in fleet.upstreams.items() if u.api_key_file}
    secrets |= {"the certificate's key": settings.tls_key} if settings.tls_key else {}
    modes = {name: mode for name, path in secrets.items() if (mode := mode_of(path)) is not None}
    database = settings.control_db
    files = [] if settings.control_url else [database, database.with_name(f"{database.name}-wal")]
    return Machine(
        encrypted=is_encrypted(settings.home),
        plain_keys=readable_keys(files),
        database_mode=mode_of(database) if files else None,
        home_mode=mode_of(settings.home),
        key_files=modes,
        sandbox=sandbox.strongest(),
    )


def mode_of(path: Path) -> int | None:
    """Its permission bits; None where it is not there."""
    try:
        return path.stat().st_mode & 0o777
    except OSError:
        return None


def readable_keys(files: Iterable[Path]) -> int | None:
    """How many different secrets of API keys stand in these files; None where none of the files is there.

    A process of its own looks. Whoever closes a file drops all POSIX locks that its process holds on it (fcntl(2)),
    SQLite's on the control database too, and what another connection here writes afterwards could be lost.
    """
    command = [sys.executable, "-m", "pawl.compliance.plain_keys", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True)
    return int(done.stdout) if done.returncode == 0 and done.stdout.strip() else None


def is_encrypted(folder: Path, blocks: Path = _BLOCKS) -> bool | None:
    """Whether a file system lies on a dm-crypt device (LUKS), however deep below; None where that is not seen.

    Never False: a disk or a cloud's volume may encrypt itself without the kernel knowing. `blocks`: where the kernel
    tells of devices.
    """
    try:
        device = folder.stat().st_dev
    except OSError:
        return None
    return True if _crypt(blocks / f"{os.major(device)}:{os.minor(device)}") else None


def _crypt(device: Path) -> bool:
    try:
        if (device / "dm" / "uuid").read_text().startswith("CRYPT-"):
            return True
    except OSError:
        pass
    try:
        below = [p.resolve() for p in (device / "slaves").iterdir()]
    except OSError:
        return False
    # A volume over several devices is encrypted where all of them are.
    return bool(below) and all(_crypt(p) for p in below)
