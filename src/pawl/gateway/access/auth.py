"""Who calls: API keys from the control database, and tokens of an identity provider."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from pawl.errors import ControlUnavailable
from pawl.fleet.limits import KeyTerms
from pawl.gateway.wire import Refused, Scope, header
from pawl.rollout.control import ControlStore, Key

OPERATORS = frozenset({"operator", "approver", "admin"})
CLIENTS = OPERATORS | {"client"}
FEEDBACK = CLIENTS | {"feedback"}
_KEEP_S = 1.0  # a revoked key stops working within this time
_KEEP_MOST = 10_000
# A key that was good goes on for so long while the database cannot be asked. Nobody can revoke one there either.
_GRACE_S = 600.0
_PATIENCE_S = 0.25  # so long a request waits to hear whether a key is still good


class Identities(Protocol):
    """Tokens of an identity provider."""

    async def key_of(self, token: str) -> Key | None:
        """The caller a token names; None where it is no valid token. Never raises."""
        ...


class Doorkeeper:
    """Looks keys up in the control database, in a thread of its own, and keeps them for a second."""

    def __init__(self, control: ControlStore, identities: Identities | None = None) -> None:
        self._control, self._identities = control, identities
        self._known: dict[str, tuple[float, Key | None]] = {}
        self._asking: dict[str, asyncio.Task[Key | None]] = {}
        self._lookups = ThreadPoolExecutor(1, thread_name_prefix="keys")
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
        if self._identities is not None and secret.count(".") == 2:
            found = await self._identities.key_of(secret)
            if found is not None:
                return self._remember(secret, found)
        good = known[1] if known and now - known[0] < _GRACE_S else None
        try:
            return await asyncio.wait_for(self._look_up(secret), _PATIENCE_S if good else None)
        except (ControlUnavailable, TimeoutError) as e:
            if good is None:
                raise Refused(503, "keys cannot be looked up now: try again in a moment", "server_error",
                              "control_database_unavailable", [(b"retry-after", b"1")]) from e  # fmt: skip
            return good

    async def _look_up(self, secret: str) -> Key | None:
        """Requests that come with one key at once ask once; what comes too late for them is for the next."""
        asking = self._asking.get(secret)
        if asking is None:
            loop = asyncio.get_running_loop()
            asking = self._asking[secret] = loop.create_task(self._ask(loop, secret))
            asking.add_done_callback(lambda done: done.cancelled() or done.exception())  # it may be nobody's by then
        return await asyncio.shield(asking)

    async def _ask(self, loop: asyncio.AbstractEventLoop, secret: str) -> Key | None:
        try:
            return self._remember(secret, await loop.run_in_executor(self._lookups, self._control.find_key, secret))
        finally:
            del self._asking[secret]

    def _remember(self, secret: str, found: Key | None) -> Key | None:
        if len(self._known) >= _KEEP_MOST:
            self._known.clear()
        self._known[secret] = (time.monotonic(), found)
        if found is not None:
            self.terms[found.id] = found.terms
        return found
