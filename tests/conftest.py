"""What all tests share: an empty home, the fleet, and what this machine lacks, said out loud."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Importing the large libraries anew in every process takes many seconds without bytecode.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture
def root() -> Path:
    """The project's root."""
    return ROOT


@pytest.fixture
def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
