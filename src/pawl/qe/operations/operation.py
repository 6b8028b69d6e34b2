"""An HTTP operation with the JSON Schema of its body: the task of the API-testing agents."""

from __future__ import annotations

from typing import Any

import msgspec


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One task. `source` is what train and evaluation are split by (a service, an API)."""

    id: str  # e.g. "acm.AddTagsToCertificate"
    source: str  # e.g. "acm"
    method: str
    path: str
    schema: dict[str, Any]  # JSON Schema 2020-12, references resolved
