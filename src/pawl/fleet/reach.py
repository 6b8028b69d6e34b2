"""How an upstream is reached: where it is on this machine, and its key."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pawl.fleet.upstream import UpstreamSpec


class NoKey(Exception):
    """An upstream's key cannot be had; the text says what to do."""


def expanded(url: str, places: Mapping[str, str]) -> str:
    """A URL with its `${PAWL_...}` replaced (pure)."""
    for key, value in places.items():
        url = url.replace("${" + key + "}", value)
    return url


def bases(spec: UpstreamSpec, places: Mapping[str, str]) -> tuple[str, ...]:
    """The base URL of each of an upstream's replicas (pure): `base_urls`, or `base_url`; where that names
    `${PAWL_VLLM_URL}`, once for each of the `PAWL_VLLM_URLS`."""
    if spec.base_urls:
        found = [expanded(url, places) for url in spec.base_urls]
    elif "${PAWL_VLLM_URL}" in spec.base_url and places.get("PAWL_VLLM_URLS"):
        found = [
            expanded(spec.base_url, {**places, "PAWL_VLLM_URL": url}) for url in places["PAWL_VLLM_URLS"].split(",")
        ]
    else:
        found = [expanded(spec.base_url, places)]
    return tuple(dict.fromkeys(url.rstrip("/") for url in found))


def key_of(spec: UpstreamSpec, where: str) -> str | None:
    """The key as its file or the environment has it now; None where the upstream wants none.

    NoKey otherwise; `where`: the place at which it must be exported, for the text.
    """
    if not spec.api_key_env and not spec.api_key_file:
        return None
    try:
        from_file = Path(spec.api_key_file).read_text().strip() if spec.api_key_file else None
    except OSError as e:
        raise NoKey(f"its key file cannot be read ({e.strerror}): see api_key_file") from e
    key = from_file or os.environ.get(spec.api_key_env or "")
    if not key:
        raise NoKey(f"its key is not set: export {spec.api_key_env} {where}")
    return key
