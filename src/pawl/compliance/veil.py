"""Secrets that somebody put where names belong are not repeated (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterable

REMOVED = "(removed: looks like a secret)"
_SHORTEST = 8  # a shorter secret would be found in ordinary words
_SHAPES = re.compile(
    r"pawl_[A-Za-z0-9_-]{20,}|\bsk-[A-Za-z0-9_-]{16,}|\bAKIA[0-9A-Z]{16}\b|\bgh[opsu]_[A-Za-z0-9]{30,}"
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|(?<=://)[^/@\s:]+:[^/@\s]+(?=@)"
)


class Veil:
    """Takes out what is known to be a secret, and what has the shape of one."""

    def __init__(self, secrets: Iterable[str | None]) -> None:
        self._known = sorted({s for s in secrets if s and len(s) >= _SHORTEST}, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """The text without them."""
        for secret in self._known:
            text = text.replace(secret, REMOVED)
        return _SHAPES.sub(REMOVED, text)
