"""Whether an agent may learn from a request: what the client says of it, and its key's terms (pure).

Denied by any of them is denied: a client's `yes` does not lift what its key's terms forbid.
"""

from __future__ import annotations

from typing import Any

from pawl.fleet.limits import KeyTerms
from pawl.gateway.wire import Refused
from pawl.lake.records import Consent

_WORDS = {"yes": True, "no": False}


def consent(body: dict[str, Any], terms: KeyTerms) -> Consent:
    """What is recorded of a request: `denied`, `granted`, or empty where nobody said anything.

    `body`: as the client sent it. It says so by OpenAI's `store` (only an explicit true or false counts) or by
    `metadata.learn`, "yes" or "no". Refused(400) for any other `learn`: a misspelt no must not pass as a yes.
    """
    metadata = body.get("metadata")
    learn = metadata.get("learn") if isinstance(metadata, dict) else None
    if isinstance(learn, str):
        learn = _WORDS.get(learn.strip().lower(), learn)
    if learn is not None and not isinstance(learn, bool):
        raise Refused(400, '`metadata.learn` must be "yes" or "no"')
    said = [learn, body.get("store")]
    if not terms.learn or any(s is False for s in said):
        return "denied"
    return "granted" if any(s is True for s in said) else ""
