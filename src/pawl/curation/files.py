"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from pawl.lake.journal import sync_folder


def write_whole(path: Path, data: bytes) -> None:
    """Put `data` in the place of what is there, durably. A reader sees the one or the other. OSError as it comes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        Path(part).replace(path)
        sync_folder(path.parent)
    finally:
        Path(part).unlink(missing_ok=True)
