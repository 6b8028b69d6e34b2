"""What a run may take, and what came of it."""

from __future__ import annotations

import msgspec

MIB = 1024 * 1024


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a run may take. Bytes and seconds; processor time, memory and open files are by process."""

    wall_s: float = 20.0
    cpu_s: int = 10
    memory: int = 512 * MIB
    file: int = 8 * MIB  # the largest file it may write
    disk: int = 32 * MIB  # all its files together; kept by level `bubblewrap` alone
    processes: int = 16
    forks: int = 400  # in all, where only Python's own fork can be counted
    open_files: int = 64
    output: int = 256 * 1024  # of stdout and of stderr each; a run that writes more is ended


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a run. Text that is not UTF-8 is replaced by U+FFFD."""

    status: int | None  # the exit status; None where it was killed
    stdout: str
    stderr: str
    seconds: float  # by the wall, start included
    killed_by: str = ""  # "wall", "cpu", "output", or "signal N"; "" where it ended by itself

    @property
    def ok(self) -> bool:
        """Whether it ended by itself, with status 0."""
        return self.status == 0
