"""Who calls: API keys from the control database, and tokens of an identity provider."""

from __future__ import annotations

import time
from typing import Protocol

from pawl.fleet.limits import KeyTerms
from pawl.gateway.wire import Refused, Scope, header
from pawl.rollout.control import ControlStore, Key

OPERATORS = frozenset({"operator", "approver", "admin"})
CLIENTS = OPERATORS | {"client"}
FEEDBACK = CLIENTS | {"feedback"}
_KEEP_S = 1.0  # a revoked key stops working within this time
_KEEP_MOST = 10_000


class Identities(Protocol):
    """Tokens of an identity provider."""

    async def key_of(self, token: str) -> Key | None:
        """The caller a token names; None where it is no valid token. Never raises."""
        ...


class Doorkeeper:
    """Looks keys up in the control database and keeps them for a second."""

    def __init__(self, control: ControlStore, identities: Identities | None = None) -> None:
        self._control, self._identities = control, identities
        self._known: dict[str, tuple[float, Key | None]] = {}
        self.terms: dict[str, KeyTerms] = {}  # of every key that was let in, by its id

    async def admit(self, scope: Scope, roles: frozenset[str]) -> Key:
        """The caller's key. Refused(401) without a valid one, Refused(403) for another role."""
        value = header(scope, b"authorization") or ""
        if value[:7].lower() != "bearer " or not value[7:].strip():
            raise Refused(401, "send a key as `Authorization: Bearer ...`; `pawl keys create client NAME` makes one",
                          "authentication_error", "invalid_api_key")  # fmt: skip
        key = await self._find(value[7:].strip())
        if key is None:
            raise Refused(401, "this key is unknown, expired or revoked", "authentication_error", "invalid_api_key")
        if key.role not in roles:
            raise Refused(403, f"a key of role {key.role} may not do this; it needs {', '.join(sorted(roles))}",
                          "permission_error", "insufficient_permissions")  # fmt: skip
        return key

    async def _find(self, secret: str) -> Key | None:
        now = time.monotonic()
        known = self._known.get(secret)
        if known and now - known[0] < _KEEP_S:
            return known[1]
        if len(self._known) >= _KEEP_MOST:
            self._known.clear()
        found = None
        if self._identities is not None and secret.count(".") == 2:
            found = await self._identities.key_of(secret)
        if found is None:
            found = self._control.find_key(secret)
        self._known[secret] = (now, found)
        if found is not None:
            self.terms[found.id] = found.terms
        return found
