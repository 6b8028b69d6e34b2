"""What the launcher asks of Linux that Python 3.11 has no function for: namespaces, Landlock, filters, orphans.

Landlock: linux/landlock.h; the system calls have these numbers on all architectures. Fields that a kernel's version
of Landlock does not know must not be passed to it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import stat
import struct
from collections.abc import Sequence
from pathlib import Path

_NEW_UTS, _NEW_IPC, _NEW_USER, _NEW_PID, _NEW_NET = 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000
_SET_PDEATHSIG, _SET_SECCOMP, _SET_CHILD_SUBREAPER, _SET_NO_NEW_PRIVS = 1, 22, 36, 38
_FILTER = 2  # of seccomp
_CAPABILITIES = 0x20080522  # the third version of their form
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_PATH_BENEATH = 1
_WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE = 1 << 1, 1 << 2, 1 << 3, 1 << 14
# The rights over files by version of Landlock: 13 at first, then REFER, TRUNCATE, and (from 5) IOCTL_DEV.
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
_ALL_RIGHTS = 16


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _done(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def unshare() -> None:
    """Leaves the network, the other processes and the IPC of this machine behind; takes effect for children.

    Raises:
        OSError: the kernel does not let this user make namespaces.
    """
    user, group = os.geteuid(), os.getegid()
    _done(_libc().unshare(_NEW_USER | _NEW_PID | _NEW_NET | _NEW_IPC | _NEW_UTS), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def die_with_parent() -> None:
    """This process is killed when the one that started it ends."""
    _libc().prctl(_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def adopt_orphans() -> bool:
    """Processes whose parents end become children of this one. False where the system cannot."""
    try:
        return Path("/proc/self").exists() and _libc().prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    except (OSError, AttributeError):
        return False


def landlock(readable: Sequence[str], listable: Sequence[str], writable: Sequence[str]) -> None:
    """From here on this process reads below `readable`, writes below `writable`, and executes nothing.

    Below `listable` it may see what is there.

    Raises:
        OSError: the kernel has no Landlock.
    """
    libc = _libc()
    version = _done(libc.syscall(_CREATE_RULESET, None, 0, 1), "Landlock")
    rights = (1 << _RIGHTS.get(version, _ALL_RIGHTS)) - 1
    # Files; from version 4 binding and connecting TCP; from 6 abstract sockets and signals of others.
    fields = struct.pack("=QQQ", rights, 3, 3)[: 8 if version < 4 else 16 if version < 6 else 24]
    rules = _done(libc.syscall(_CREATE_RULESET, fields, len(fields), 0), "Landlock")
    reads = dict.fromkeys(listable, _READ_DIR) | dict.fromkeys(readable, _READ_FILE | _READ_DIR)
    for path, allowed in (reads | dict.fromkeys(writable, rights & ~1)).items():  # all but execution
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        if not stat.S_ISDIR(os.fstat(opened).st_mode):
            allowed &= _WRITE_FILE | _READ_FILE | _TRUNCATE
        rule = struct.pack("=Qi", allowed & rights, opened)
        _done(libc.syscall(_ADD_RULE, rules, _PATH_BENEATH, rule, 0), f"Landlock, {path}")
        os.close(opened)
    _done(libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
    _done(libc.syscall(_RESTRICT_SELF, rules, 0), "Landlock")
    os.close(rules)


def drop_capabilities() -> None:
    """Gives up what making namespaces brought: within them this process could do whatever root may.

    Raises:
        OSError: the kernel refuses.
    """
    header, none = struct.pack("=Ii", _CAPABILITIES, 0), bytes(24)
    _done(_libc().capset(header, none), "capabilities")


def refuse_calls(program: bytes) -> None:
    """From here on the system calls that the filter refuses fail; an empty filter refuses nothing.

    Raises:
        OSError: the kernel has no such filters.
    """
    if not program:
        return
    libc = _libc()
    lines = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: how many lines of eight bytes, and where they are.
    told = struct.pack("@HP", len(program) // 8, ctypes.addressof(lines))
    _done(libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
    _done(libc.prctl(_SET_SECCOMP, _FILTER, told, 0, 0), "seccomp")
