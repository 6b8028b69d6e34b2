"""Adapters on a vLLM replica: loaded under immutable names, verified by listing and by an answer."""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pawl.errors import ModelFileError, ServerNotUp
from pawl.serving.plan import Listed
from pawl.training.adapter_check import check_once

_TRIES = 3
_LOOK_S = 5.0
_WORK_S = 120.0
# Of each set of labels the value is the time it was written: the newest tells what runs and what waits now.
_IN_USE = re.compile(r"^vllm:lora_requests_info\{([^}]*)\} ([0-9.eE+]+)$", re.MULTILINE)
_NAMES = re.compile(r'(?:running|waiting)_lora_adapters="([^"]*)"')


def list_models(url: str) -> dict[str, str | None]:
    """Model names on the replica, each with the folder it was loaded from. ServerNotUp where it does not answer."""
    return {name: model.root for name, model in listed(url).items()}


def listed(url: str) -> dict[str, Listed]:
    """Model names on the replica; adapters are those that name a parent. ServerNotUp where it does not answer."""
    rows = _call(url, "/v1/models", within_s=_LOOK_S)["data"]
    return {str(m["id"]): Listed(m.get("root"), m.get("parent") is not None) for m in rows}


def demand_health(url: str) -> None:
    """ServerNotUp where the replica does not answer, or says that its engine is dead."""
    try:
        _fetch(url, "/health", None, _LOOK_S)
    except urllib.error.HTTPError as e:
        if e.code == 503:
            raise ServerNotUp(f"vLLM at {url} says that its engine is dead; its log says why") from e
        # Other servers have no such path; what they list says enough.


def busy(url: str) -> frozenset[str]:
    """The adapters with requests that run or wait; empty where the replica does not tell."""
    try:
        text = _fetch(url, "/metrics", None, _LOOK_S).decode(errors="replace")
    except urllib.error.HTTPError:
        return frozenset()
    return in_use(text)


def in_use(metrics: str) -> frozenset[str]:
    """The adapters in use by vLLM's own metrics (pure)."""
    latest = max(_IN_USE.findall(metrics), key=lambda found: float(found[1]), default=("", ""))[0]
    return frozenset(n for names in _NAMES.findall(latest) for n in names.split(",") if n)


def missing(wanted: Mapping[str, str], present: Collection[str]) -> dict[str, str]:
    """What must be loaded (pure)."""
    return {name: path for name, path in wanted.items() if name not in present}


def reconcile(url: str, wanted: Mapping[str, str], base_dir: Path | None = None) -> list[str]:
    """Make every adapter (name -> folder) answer on one replica; returns the names that had to be loaded.

    For a cluster see `reconciler.py`. Files are looked at before vLLM is told of them, once for each folder; with the
    base model's names and shapes where `base_dir` has them. ModelFileError where they are not sound, where vLLM refuses
    them, or where a name already stands for another folder (stale prefixes would be served for it).
    """
    present = list_models(url)
    for name, path in wanted.items():
        if name in present and present[name] not in (None, path):
            raise ModelFileError(f"{name} is loaded from {present[name]}, not from {path}; names are never reused")
    loaded = missing(wanted, present)
    for path in loaded.values():
        check_once(Path(path), base_dir)
    for name, path in loaded.items():
        for attempt in range(_TRIES):
            try:
                load(url, name, Path(path), base_dir)
                break
            except ServerNotUp:
                if attempt == _TRIES - 1:
                    raise
                time.sleep(2**attempt)
    for name in loaded:
        verify(url, name)
    return list(loaded)


def load(url: str, name: str, folder: Path, base_dir: Path | None = None) -> None:
    """Load one adapter, after a look at its files. Nothing happens where another process was first."""
    check_once(folder, base_dir)
    try:
        _call(url, "/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})
    except ModelFileError:
        if list_models(url).get(name) != str(folder):
            raise


def verify(url: str, name: str) -> None:
    """One token from the adapter, after it is listed. ServerNotUp where it gives none."""
    if name not in list_models(url):
        raise ServerNotUp(f"vLLM at {url} does not list {name} after loading it; look at its log")
    body = {"model": name, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1, "temperature": 0}
    if not _call(url, "/v1/chat/completions", body).get("choices"):
        raise ServerNotUp(f"vLLM at {url} lists {name} but does not answer with it; look at its log")


def unload(url: str, name: str) -> None:
    """Take an adapter off the replica; nothing happens where it is not there."""
    if name not in list_models(url):
        return
    try:
        _call(url, "/v1/unload_lora_adapter", {"lora_name": name})
    except ModelFileError:
        if name in list_models(url):  # else another process was first
            raise


def _call(url: str, path: str, body: dict[str, Any] | None = None, within_s: float = _WORK_S) -> Any:
    try:
        text = _fetch(url, path, None if body is None else json.dumps(body).encode(), within_s)
    except urllib.error.HTTPError as e:
        said = e.read()[:500].decode(errors="replace")
        if e.code < 500:
            raise ModelFileError(f"vLLM at {url} refused {path} ({e.code}): {said}") from e
        raise ServerNotUp(f"vLLM at {url} failed on {path} ({e.code}): {said}") from e
    try:
        return json.loads(text)
    except ValueError:  # load and unload answer in words
        return {"text": text.decode(errors="replace")}


def _fetch(url: str, path: str, data: bytes | None, within_s: float) -> bytes:
    """The body. HTTPError as it comes, ServerNotUp where there is no answer."""
    request = urllib.request.Request(url + path, data, {"content-type": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=within_s) as answer:  # noqa: S310 - the cluster's own address
            found: bytes = answer.read()
            return found
    except urllib.error.HTTPError:
        raise
    except (urllib.error.URLError, OSError, http.client.HTTPException) as e:
        raise ServerNotUp(f"vLLM at {url} does not answer ({e}); start it and try again") from e
