"""Ports for servers that a test starts later, or kills and starts again.

They lie below those that the kernel gives to whoever asks for any (32768 and up on Linux), so that no connection and no
other server takes one in between; tests that run in several processes have ranges of their own.
"""

from __future__ import annotations

import itertools
import os
import socket

_FIRST, _MANY, _PROCESSES = 20_000, 1_500, 8
_mine = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _PROCESSES
_next = itertools.count(os.getpid())  # another session beside this one begins elsewhere


def free_port() -> int:
    """A port that nobody listens at, another one each time."""
    for n in itertools.islice(_next, _MANY):
        port = _FIRST + _mine * _MANY + n % _MANY
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError(f"all of the {_MANY} ports of these tests are taken")
