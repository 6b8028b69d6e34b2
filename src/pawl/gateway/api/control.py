"""The control endpoint: what MLflow's signed webhook tells of approval codes and aliases."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from pawl.errors import NotAllowed
from pawl.gateway.wire import Receive, Refused, Scope, Send, read_body, send_json
from pawl.registry.aliases import ALIASES, alias_pointer, strayed
from pawl.registry.pasted import CODE_TAG, take_code
from pawl.registry.webhook import MOST_AGE_S, MOST_AHEAD_S, Delivery, verify
from pawl.rollout.control import ControlStore
from pawl.rollout.events import Event, Events

SECRET = "mlflow-webhook"  # noqa: S105 - the name of one
_MOST = 1 << 20  # bytes of a delivery
_ALIASES = ("model_version_alias.created", "model_version_alias.deleted")
log = logging.getLogger("pawl.control")


class ControlDesk:
    """Takes deliveries. It verifies and records by the control database alone; acting on it is for the flows.

    A delivery that is lost costs a minute: the flow `roll_out` looks at the tags itself.
    """

    def __init__(self, control: ControlStore, events: Events, now: Callable[[], float] = time.time) -> None:
        self._control, self._events, self._now = control, events, now
        self._seen: dict[str, float] = {}

    async def mlflow(self, scope: Scope, receive: Receive, send: Send, _: str) -> None:
        """POST /control/mlflow. 401 for what is not signed with our secret; a delivery counts once."""
        body = await read_body(receive, _MOST)
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        secret = await asyncio.to_thread(self._control.secret, SECRET)
        now = self._now()
        try:
            said = verify(secret.hex(), headers, body, now)
        except NotAllowed as e:
            log.warning("a delivery to /control/mlflow was refused: %s", e)
            raise Refused(401, str(e), "authentication_error", "invalid_signature") from e
        if self._seen.get(said.id) is not None:
            await send_json(send, 200, {"status": "seen before"})
            return
        status = await asyncio.to_thread(self._take, said, now)
        # Only now: a delivery that failed half-way is sent again under the same id.
        self._seen = {i: at for i, at in self._seen.items() if now - at <= MOST_AGE_S + MOST_AHEAD_S}
        self._seen[said.id] = now
        await send_json(send, 200, {"status": status})

    def _take(self, said: Delivery, now: float) -> str:
        agent, version = str(said.data.get("name", "")), str(said.data.get("version", ""))
        if said.event == "model_version_tag.set" and said.data.get("key") == CODE_TAG:
            return self._code(agent, version, str(said.data.get("value", "")), now)
        if said.event in _ALIASES:
            return self._alias(agent, said, version, now)
        return "nothing to do"

    def _code(self, agent: str, version: str, text: str, now: float) -> str:
        request = self._control.request(agent, version)
        if request is None:
            return "no approval is asked for this version"
        taken = take_code(self._control, request, text, now, "mlflow")
        if taken.fresh:
            log.info("%s version %s: %s", agent, version, taken.told())
            self._events.emit(taken.event(request, now))
        return taken.told()

    def _alias(self, agent: str, said: Delivery, version: str, now: float) -> str:
        alias = str(said.data.get("alias", ""))
        expected = self._control.pointer(alias_pointer(agent, alias))
        if alias not in ALIASES or not strayed(expected, version if said.event.endswith("created") else ""):
            return "as it should be"
        log.warning("%s@%s was moved by something else; it should name version %s", agent, alias, expected[1] or "none")
        self._events.emit(
            Event(
                name="pawl.alias.strayed",
                agent=agent,
                version=version or expected[1],
                at=now,
                detail={"alias": alias, "expected": expected[1], "found": version, "event": said.event},
            )
        )
        return "strayed"


def secret_of(control: ControlStore) -> str:
    """What MLflow's webhook must sign with."""
    return control.secret(SECRET).hex()
