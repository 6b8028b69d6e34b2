"""What an adapter is, by content."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pawl.errors import ModelFileError

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
WHOLE_MODEL = ("config.json", "model.safetensors")  # full weights, where no adapter was trained


def adapter_sha256(folder: Path) -> str:
    """sha256 (hex) over the sorted names, sizes and contents of the files that make an adapter, or full weights.

    Other files (a README, checkpoints) do not change what is served and do not count. ModelFileError where one of
    the two is missing.
    """
    digest = hashlib.sha256()
    whole = not (folder / ADAPTER_FILES[0]).exists() and (folder / WHOLE_MODEL[0]).exists()
    for name in sorted(WHOLE_MODEL if whole else ADAPTER_FILES):
        path = folder / name
        try:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").digest()
            size = path.stat().st_size
        except OSError as e:
            raise ModelFileError(f"{folder} is no adapter: {name} cannot be read ({e.strerror}); train it again") from e
        digest.update(f"{name}\0{size}\0".encode() + content)
    return digest.hexdigest()
