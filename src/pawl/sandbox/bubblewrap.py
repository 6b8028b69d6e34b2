"""The command line that starts a program inside bubblewrap."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from pawl.qe.item import CannotGrade
from pawl.sandbox import python_files
from pawl.sandbox.outcome import Limits

BOX = "/box"  # the working folder
OWN = "/pawl"  # the launcher and its settings
GRANTED = "/granted"  # packages
# Devices without a memory of their own; a whole /dev would bring a writable /dev/shm without a size.
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
# User ids of a run where Pawl is root: rarely given out, and within what containers usually map.
_USERS = (40_000, 59_999)


def command(
    files: Mapping[str, int],
    own: Mapping[str, int],
    packages: Sequence[Path],
    limits: Limits,
    program: Sequence[str],
    refused: int | None = None,
) -> list[str]:
    """`bwrap ... program`. `files` and `own`: path below `BOX` or `OWN` -> file descriptor with the content.

    `refused`: a file descriptor with the filter of system calls (`system_calls.program`), where there is one.

    Raises:
        CannotGrade: there is no bwrap.
    """
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise CannotGrade("bwrap is not installed: apt-get install bubblewrap")
    line = [bwrap, "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    line += ["--die-with-parent", "--new-session", "--hostname", "box", "--cap-drop", "ALL"]
    if os.geteuid() == 0:
        # Root is exempt from limits on processes, in a user namespace too, so the launcher becomes somebody else.
        line += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        line += ["--unshare-user", "--disable-userns", "--uid", "65534", "--gid", "65534"]
    line += ["--seccomp", str(refused)] if refused is not None else []
    python = python_files.interpreter()
    read = python_files.readable()
    # Where bwrap makes the folders above a place itself, they can be its own user's alone.
    for folder in sorted({str(p) for place in [*read, python, *map(Path, _DEVICES)] for p in place.parents} - {"/"}):
        line += [] if _below(Path(folder), read) else ["--perms", "0755", "--dir", folder]
    for path in read:
        line += ["--symlink", str(path.readlink())] if path.is_symlink() else ["--ro-bind", str(path)]
        line += [str(path)]
    if not _below(python, read):
        line += ["--ro-bind", str(python), str(python)]
    for path in python_files.hidden():
        line += ["--tmpfs", str(path), "--remount-ro", str(path)]
    line += ["--perms", "0755", "--dir", GRANTED]
    for inside, path in python_files.search_path(packages, GRANTED).items():
        line += ["--ro-bind", str(path), inside]
    for device in _DEVICES:
        line += ["--dev-bind", device, device]
    line += ["--size", str(limits.disk), "--perms", "0777", "--tmpfs", BOX]
    for folder in sorted({str(p) for f in files for p in Path(f).parents} - {"."}):
        line += ["--perms", "0777", "--dir", f"{BOX}/{folder}"]
    for name, descriptor in files.items():
        line += ["--perms", "0666", "--file", str(descriptor), f"{BOX}/{name}"]
    for name, descriptor in own.items():
        line += ["--perms", "0444", "--ro-bind-data", str(descriptor), f"{OWN}/{name}"]
    return [*line, "--remount-ro", "/", "--chdir", BOX, "--", *program]


def _below(path: Path, places: Sequence[Path]) -> bool:
    return any(place == path or place in path.parents for place in places)


def user() -> int | None:
    """The user id that the launcher is to take inside; None where bwrap has taken one already."""
    return random.randint(*_USERS) if os.geteuid() == 0 else None
