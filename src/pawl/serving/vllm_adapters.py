"""Adapters on a vLLM replica: loaded under immutable names, verified by listing and by an answer."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pawl.errors import ModelFileError, ServerNotUp
from pawl.training.adapter_check import check_once

_TRIES = 3


def list_models(url: str) -> dict[str, str | None]:
    """Model names on the replica, each with the folder it was loaded from. ServerNotUp where it does not answer."""
    return {str(m["id"]): m.get("root") for m in _call(url, "/v1/models")["data"]}


def missing(wanted: Mapping[str, str], present: Collection[str]) -> dict[str, str]:
    """What must be loaded (pure)."""
    return {name: path for name, path in wanted.items() if name not in present}


def reconcile(url: str, wanted: Mapping[str, str], base_dir: Path | None = None) -> list[str]:
    """Make every adapter (name -> folder) answer on the replica; returns the names that had to be loaded.

    Files are looked at before vLLM is told of them, once for each folder; with the base model's names and shapes
    where `base_dir` has them. ModelFileError where they are not sound, where vLLM refuses them, or where a name
    already stands for another folder (stale prefixes would be served for it).
    """
    present = list_models(url)
    for name, path in wanted.items():
        if name in present and present[name] not in (None, path):
            raise ModelFileError(f"{name} is loaded from {present[name]}, not from {path}; names are never reused")
    loaded = missing(wanted, present)
    for path in loaded.values():
        check_once(Path(path), base_dir)
    for name, path in loaded.items():
        _load(url, name, path)
    for name in loaded:
        verify(url, name)
    return list(loaded)


def verify(url: str, name: str) -> None:
    """One token from the adapter, after it is listed. ServerNotUp where it gives none."""
    if name not in list_models(url):
        raise ServerNotUp(f"vLLM at {url} does not list {name} after loading it; look at its log")
    body = {"model": name, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1, "temperature": 0}
    if not _call(url, "/v1/chat/completions", body).get("choices"):
        raise ServerNotUp(f"vLLM at {url} lists {name} but does not answer with it; look at its log")


def unload(url: str, name: str) -> None:
    """Take an adapter off the replica; nothing happens where it is not there."""
    if name in list_models(url):
        _call(url, "/v1/unload_lora_adapter", {"lora_name": name})


def _load(url: str, name: str, path: str) -> None:
    for attempt in range(_TRIES):
        try:
            _call(url, "/v1/load_lora_adapter", {"lora_name": name, "lora_path": path})
            return
        except ServerNotUp:
            if attempt == _TRIES - 1:
                raise
            time.sleep(2**attempt)


def _call(url: str, path: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"content-type": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310 - the cluster's own address
            text = answer.read()
    except urllib.error.HTTPError as e:
        said = e.read()[:500].decode(errors="replace")
        if e.code < 500:
            raise ModelFileError(f"vLLM at {url} refused {path} ({e.code}): {said}") from e
        raise ServerNotUp(f"vLLM at {url} failed on {path} ({e.code}): {said}") from e
    except (urllib.error.URLError, OSError) as e:
        raise ServerNotUp(f"vLLM at {url} does not answer ({e}); start it and try again") from e
    try:
        return json.loads(text)
    except ValueError:  # load and unload answer in words
        return {"text": text.decode(errors="replace")}
