"""Under which licence a base model may be used: as stated, as its files say, or as is well known."""

from __future__ import annotations

import json
import re
from importlib import metadata
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pawl.training.base_model_transformers import WHEEL

_SPDX = {s.lower(): s for s in ("Apache-2.0", "MIT", "BSD-3-Clause", "CC-BY-4.0", "CC-BY-NC-4.0", "CC-BY-SA-4.0")}
# Hugging Face ids -> licence, as their model cards say it; the first that fits. Ids that are not SPDX's are the Hub's.
_KNOWN = (
    (r"huggingfacetb/smollm[23]?-.*", "Apache-2.0"),
    (r"qwen/qwen2\.5-(coder-)?3b.*", "qwen-research"),
    (r"qwen/qwen2\.5-72b.*", "qwen"),
    (r"qwen/qwen2\.5-(coder-)?(0\.5|1\.5|7|14|32)b.*", "Apache-2.0"),
    (r"qwen/qwen3-.*", "Apache-2.0"),
    (r"microsoft/phi-4.*", "MIT"),
    (r"ibm-granite/granite-.*", "Apache-2.0"),
    (r"mistralai/devstral-small-.*", "Apache-2.0"),
    (r"meta-llama/(meta-)?llama-3\.([123])-.*", r"llama3.\2"),
    (r"meta-llama/meta-llama-3-.*", "llama3"),
    (r"google/gemma-.*", "gemma"),
)


def licence_of(source: str, folder: Path | None, stated: str) -> str:
    """The base model's licence, by its SPDX id where it has one; empty where nobody says it.

    `source`: as fleet.yaml has it. `folder`: the model's files, where they are here already. `stated`:
    base_model.licence, which outweighs all else. Then the installed wheel's metadata, the front matter of the folder's
    README.md, its config.json, and what is known of the name.
    """
    found = stated or (_of_wheel() if source == WHEEL else "")
    if not found and folder is not None:
        found = _of_card(folder / "README.md") or _of_config(folder / "config.json")
    found = found or _of_name(source) or (_of_name(_named(folder)) if folder is not None else "")
    return _SPDX.get(found.lower(), found)


def _of_wheel() -> str:
    try:
        about = metadata.metadata(WHEEL)
    except metadata.PackageNotFoundError:
        return "Apache-2.0"  # what all its versions up to 0.1.2 say
    named = (about[field] for field in ("License-Expression", "License") if field in about)
    return next((n.strip() for n in named if n.strip()), "")


def _of_name(source: str) -> str:
    for pattern, licence in _KNOWN:
        if match := re.fullmatch(pattern, source.lower()):
            return match.expand(licence)
    return ""


def _of_card(path: Path) -> str:
    """`license` of a model card's front matter; with `license: other` its `license_name`."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    front = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    if front is None:
        return ""
    try:
        told = YAML(typ="safe", pure=True).load(front.group(1))
    except YAMLError:
        return ""
    if not isinstance(told, dict):
        return ""
    said = _word(told.get("license"))
    return _word(told.get("license_name")) or said if said.lower() == "other" else said


def _of_config(path: Path) -> str:
    return _word(_config(path).get("license"))


def _named(folder: Path) -> str:
    return _word(_config(folder / "config.json").get("_name_or_path"))


def _config(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _word(said: Any) -> str:
    """One licence; of several all must be allowed, so that they are named together and fit no single id."""
    if isinstance(said, list):
        return " AND ".join(str(s) for s in said)
    return said.strip() if isinstance(said, str) else ""
