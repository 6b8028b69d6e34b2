"""The content hash that names an adapter."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pawl.errors import ModelFileError

FILES = ("adapter_config.json", "adapter_model.safetensors")


def adapter_sha256(folder: Path) -> str:
    """sha256 over name, length and content of the adapter's two files. ModelFileError where one is missing."""
    digest = hashlib.sha256()
    for name in FILES:
        path = folder / name
        if not path.is_file():
            raise ModelFileError(f"{folder} is no adapter: {name} is missing; train or download it again")
        digest.update(f"{name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
