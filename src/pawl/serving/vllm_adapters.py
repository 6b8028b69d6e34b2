"""Adapters on a running vLLM server: named once, verified by an answer, brought back after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Mapping
from typing import Any, TypeVar

import aiohttp

from pawl.errors import ModelFileError, ServerNotUp

T = TypeVar("T")

_TIMEOUT = aiohttp.ClientTimeout(total=120, connect=5)


def list_models(url: str) -> dict[str, str]:
    """Model name -> the path it was loaded from, of everything the server at `url` answers as. ServerNotUp."""
    return _run(_list(url))


def load_adapter(url: str, name: str, path: str) -> None:
    """Load the adapter in folder `path` under `name`. Loading the same again does nothing.

    A name that serves another folder is refused (ModelFileError): vLLM would go on answering from prefixes cached
    with the old weights. Names carry their content's hash, so that this never needs to happen.
    """
    _run(_load(url, name, path))


def verify(url: str, name: str) -> None:
    """Check that the server lists `name` and answers with it. ModelFileError or ServerNotUp where not."""
    _run(_verify(url, name))


def unload(url: str, name: str) -> None:
    """Forget an adapter; one that is not there is fine. Its memory is freed when its slot is needed."""
    _run(_unload(url, name))


def missing(wanted: Mapping[str, str], present: Collection[str]) -> dict[str, str]:
    """Those of `wanted` (name -> path) that are not present, in the order given (pure)."""
    return {name: path for name, path in wanted.items() if name not in present}


def reconcile(url: str, wanted: Mapping[str, str]) -> list[str]:
    """Load what is missing, verify it, and return its names. What is there already is left alone, unless it serves
    another folder: that is refused before anything is loaded."""
    return _run(_reconcile(url, wanted))


async def _list(url: str) -> dict[str, str]:
    found = await _call("GET", url, "/v1/models", None)
    return {str(m["id"]): str(m.get("root") or "") for m in found.get("data", ()) if isinstance(m, dict)}


async def _load(url: str, name: str, path: str) -> None:
    present = await _list(url)
    _refuse_other(present, name, path)
    if name not in present:
        await _call("POST", url, "/v1/load_lora_adapter", {"lora_name": name, "lora_path": path})


async def _verify(url: str, name: str) -> None:
    if name not in await _list(url):
        raise ModelFileError(f"the server at {url} does not list {name}; load it again")
    probe = {"model": name, "max_tokens": 1, "temperature": 0, "messages": [{"role": "user", "content": "ready?"}]}
    answer = await _call("POST", url, "/v1/chat/completions", probe)
    if answer.get("model") != name or not answer.get("choices"):
        raise ModelFileError(f"the server at {url} answered for {answer.get('model')!r} when {name} was asked")


async def _unload(url: str, name: str) -> None:
    if name in await _list(url):
        await _call("POST", url, "/v1/unload_lora_adapter", {"lora_name": name})


async def _reconcile(url: str, wanted: Mapping[str, str]) -> list[str]:
    present = await _list(url)
    for name, path in wanted.items():
        _refuse_other(present, name, path)
    loaded = missing(wanted, present)
    for name, path in loaded.items():
        await _load(url, name, path)
        await _verify(url, name)
    return list(loaded)


def _refuse_other(present: Mapping[str, str], name: str, path: str) -> None:
    if name in present and present[name] != path:
        raise ModelFileError(
            f"{name} is already served from {present[name]}, not from {path}. A name is never reused for other "
            "weights: give the new adapter a new name, or restart the server"
        )


async def _call(method: str, url: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
    try:
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT) as session,
            session.request(method, url + path, json=body) as answer,
        ):
            text = await answer.text()
            if answer.status == 200:
                # Loading and unloading answer in plain words.
                is_json = "json" in answer.content_type
                found = await answer.json() if is_json else {"text": text}
                return found if isinstance(found, dict) else {"text": found}
    except (aiohttp.ClientError, TimeoutError) as e:
        raise ServerNotUp(f"no answer from {url}{path} ({type(e).__name__}: {e}); is the server running?") from e
    if answer.status >= 500:
        raise ServerNotUp(f"{url}{path} failed with {answer.status}: {text[:300]}; look into the server's log")
    raise ModelFileError(
        f"{url}{path} refused {(body or {}).get('lora_name') or (body or {}).get('model') or 'the request'} "
        f"with {answer.status}: {text[:300]}; check that the adapter is whole and fits the base model and its rank"
    )


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end from code without an event loop, and from a thread of its own inside one."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
