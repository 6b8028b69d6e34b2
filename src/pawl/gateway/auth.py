"""Who may call: bearer keys, known by their hash, with a role."""

from __future__ import annotations

import time

from pawl.gateway.wire import Refused, Scope, header
from pawl.rollout.control import ControlStore, Key

OPERATORS = frozenset({"operator", "approver", "admin"})
CLIENTS = OPERATORS | {"client"}
FEEDBACK = CLIENTS | {"feedback"}
_KEEP_S = 1.0  # a revoked key stops working within this time
_KEEP_MOST = 10_000


class Doorkeeper:
    """Looks keys up in the control database and keeps them for a second."""

    def __init__(self, control: ControlStore) -> None:
        self._control = control
        self._known: dict[str, tuple[float, Key | None]] = {}

    def admit(self, scope: Scope, roles: frozenset[str]) -> Key:
        """The caller's key. Refused(401) without a valid one, Refused(403) for another role."""
        value = header(scope, b"authorization") or ""
        if value[:7].lower() != "bearer " or not value[7:].strip():
            raise Refused(401, "send a key as `Authorization: Bearer ...`; `pawl keys create client NAME` makes one",
                          "authentication_error", "invalid_api_key")  # fmt: skip
        key = self._find(value[7:].strip())
        if key is None:
            raise Refused(401, "this key is unknown or revoked", "authentication_error", "invalid_api_key")
        if key.role not in roles:
            raise Refused(403, f"a key of role {key.role} may not do this; it needs {', '.join(sorted(roles))}",
                          "permission_error", "insufficient_permissions")  # fmt: skip
        return key

    def _find(self, secret: str) -> Key | None:
        now = time.monotonic()
        known = self._known.get(secret)
        if known and now - known[0] < _KEEP_S:
            return known[1]
        if len(self._known) >= _KEEP_MOST:
            self._known.clear()
        found = self._control.find_key(secret)
        self._known[secret] = (now, found)
        return found
