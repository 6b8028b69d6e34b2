"""Pawl's own commands, run as processes."""

from __future__ import annotations

import os
import subprocess

from pawl.errors import PawlError
from pawl.platform.process import PYTHON
from pawl.settings import Settings


def pawl(settings: Settings, *arguments: str, within_s: float = 1800) -> str:
    """What `pawl ...` prints. PawlError with what it said where it fails."""
    env = os.environ | {"PAWL_HOME": str(settings.home.resolve()), "PAWL_FLEET": str(settings.fleet.resolve())}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(
        [PYTHON, "-m", "pawl.cli", *arguments],
        env=env, capture_output=True, text=True, timeout=within_s, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode != 0:
        raise PawlError(f"`pawl {' '.join(arguments)}` failed:\n{(done.stderr or done.stdout).strip()[-1500:]}")
    return done.stdout
