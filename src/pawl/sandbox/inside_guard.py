"""An audit hook that refuses what generated code has no business with. PEP 578; the events are Python's own table.

It sees what the interpreter announces. What it cannot see is in the package's docstring.
"""

from __future__ import annotations

import mmap
import os
import signal
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# Events refused whatever their arguments; those that end in a dot, with all that follow.
_NEVER = ("socket.", "ctypes.", "gc.get_", "pty.", "syslog.", "winreg.", "webbrowser.", "ftplib.", "smtplib.")
_NEVER_EXACTLY = {
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "subprocess.Popen", "os.killpg",
    "resource.setrlimit", "resource.prlimit", "os.forkpty", "cpython.run_command", "sqlite3.enable_load_extension",
    "sqlite3.load_extension",
}  # fmt: skip
# Event -> which arguments are paths, and which one (if any) is the descriptor of the folder they are relative to.
_CHANGES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "os.remove": ((0,), (1,)),
    "os.rmdir": ((0,), (1,)),
    "os.mkdir": ((0,), (2,)),
    "os.rename": ((0, 1), (2, 3)),
    "os.link": ((0, 1), (2, 3)),
    "os.symlink": ((1,), (2,)),
    "os.truncate": ((0,), ()),
    "os.chmod": ((0,), (2,)),
    "os.chown": ((0,), (3,)),
    "os.lchown": ((0,), ()),
    "os.utime": ((0,), (3,)),
    "os.setxattr": ((0,), ()),
    "os.removexattr": ((0,), ()),
    "os.chflags": ((0,), ()),
}
# What Python announces to nobody, of `os` and `signal`: it goes.
_UNANNOUNCED = (
    "mknod", "mkfifo", "chroot", "memfd_create", "pidfd_open", "pidfd_send_signal", "setpriority", "sched_setaffinity",
    "sched_setparam", "sched_setscheduler", "setns", "unshare",
)  # fmt: skip
_OWNERS = (8, 15)  # of fcntl: F_SETOWN and F_SETOWN_EX, by which the kernel signals another process
_LOOKS = {"os.listdir", "os.scandir", "os.listxattr", "os.getxattr"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


_Hook = Callable[[str, tuple[Any, ...]], None]


def install(readable: Sequence[str], listable: Sequence[str], writable: Sequence[str], forks: int) -> None:
    """Puts the guard on, for good.

    Files below `readable` may be read and below `writable` changed; the folders `listable` themselves may be listed.
    `forks`: how many this process and all that come of it may make together.
    """
    _without_unannounced(tuple(readable) + tuple(writable), tuple(writable))
    sys.addaudithook(_hook(tuple(readable) + tuple(writable), tuple(listable), tuple(writable), forks))


def _below(path: Any, folder: Any, places: tuple[str, ...]) -> bool:
    """Whether what a path leads to, links followed, lies in one of the places."""
    if isinstance(path, int):
        return True  # a descriptor: it was opened under this guard
    text = os.fsdecode(path)
    if isinstance(folder, int) and folder >= 0 and not text.startswith("/"):
        text = f"{Path(f'/proc/self/fd/{folder}').readlink()}/{text}"
    real = os.path.realpath(text)
    return any(real == p or real.startswith(p + "/") for p in places)


def _without_unannounced(readable: tuple[str, ...], writable: tuple[str, ...]) -> None:
    # `os` and `signal` have it from modules that are built in; they are not imported, as not every system has them.
    for owner in (os, sys.modules.get("posix"), signal, sys.modules.get("_signal")):
        for name in _UNANNOUNCED:
            if hasattr(owner, name):
                delattr(owner, name)
    opened = os.open

    def open_(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        # The audit event does not tell the folder that a path is relative to.
        places = writable if flags & _WRITING else readable
        if dir_fd is not None and not _below(path, dir_fd, places):
            raise PermissionError(f"the sandbox does not open {path!r}")
        return opened(path, flags, mode, dir_fd=dir_fd)

    open_.__name__ = "open"
    os.supports_dir_fd.discard(opened)
    os.supports_dir_fd.add(open_)
    for owner in (os, sys.modules.get("posix")):
        if owner is not None:
            owner.open = open_  # type: ignore[attr-defined]


def _hook(readable: tuple[str, ...], listable: tuple[str, ...], writable: tuple[str, ...], forks: int) -> _Hook:
    made = mmap.mmap(-1, 8)  # shared with all children
    below, realpath, fsdecode, getpid, own = _below, os.path.realpath, os.fsdecode, os.getpid, os.getpid()

    def hook(event: str, given: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = given
            places = writable if isinstance(flags, int) and flags & _WRITING else readable
            if not below(path, None, places):
                raise PermissionError(f"the sandbox does not open {path!r}")
        elif event in _LOOKS:
            place = "." if given[0] is None else given[0]
            if not below(place, None, readable) and realpath(fsdecode(place)) not in listable:
                raise PermissionError(f"the sandbox does not look into {given[0]!r}")
        elif event in _CHANGES:
            paths, folders = _CHANGES[event]
            for n, place in enumerate(paths):
                folder = given[folders[n]] if n < len(folders) and folders[n] < len(given) else None
                if not below(given[place], folder, writable):
                    raise PermissionError(f"the sandbox does not change {given[place]!r}")
        elif event == "os.fork":
            (count,) = struct.unpack("q", made[:])
            made[:] = struct.pack("q", count + 1)
            if count >= forks:
                raise BlockingIOError("the sandbox makes no more processes")
        elif event == "os.kill":
            if given[0] not in (own, getpid()):
                raise PermissionError("the sandbox does not signal others")
        elif event == "fcntl.fcntl" and given[1] in _OWNERS:
            raise PermissionError("the sandbox does not signal others")
        elif event in _NEVER_EXACTLY or event.startswith(_NEVER):
            raise PermissionError(f"the sandbox does not do {event}")

    return hook
