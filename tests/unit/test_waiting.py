"""The tests' own clock: it counts what others take, not what the machine takes away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.waiting import Took, until

STOPPED = """
import sys, time
from tests.waiting import Took
with Took() as took:
    print("go", flush=True)
    while took.seconds < 0.5:
        time.sleep(0.05)
print(took.seconds, flush=True)
"""


def test_it_counts_what_is_waited_for() -> None:
    with Took() as took:
        time.sleep(0.3)
    assert 0.2 < took.seconds < 0.6 and took.seconds == took.seconds


def test_what_never_comes_is_told() -> None:
    with pytest.raises(AssertionError, match="in time"):
        until(lambda: None, 0.1, 0.01)
    assert until(lambda: "here") == "here"


def test_a_process_that_stood_still_has_waited_less() -> None:
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", STOPPED], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "go\n"
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(2)
    os.kill(process.pid, signal.SIGCONT)
    took = float(process.stdout.read())
    assert process.wait(10) == 0 and took < 1.5 < 2.3 < time.monotonic() - began
