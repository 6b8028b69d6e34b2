"""Single-use approval codes: a person's yes or no that can travel through a registry's tag or a form (pure).

A code is `pawl1.<payload>.<HMAC-SHA256>` in unpadded base64url. It carries what is answered, how, by whom and until
when; that it was not used before is for the control database to say.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from typing import Literal

import msgspec

from pawl.errors import ApprovalInvalid

PREFIX = "pawl1"
MOST_REASON = 500  # characters: a code must fit into a tag


class Code(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What a code says."""

    agent: str
    version: str
    evidence: str  # digest of the report that the person saw
    by: str
    key_id: str  # the key it was made with; revoking the key voids it
    expires: float  # epoch seconds
    nonce: str
    # At the end, so that codes of before are still read: they all said yes.
    verdict: Literal["approved", "rejected"] = "approved"
    reason: str = ""


def make_code(
    secret: bytes,
    *,
    agent: str,
    version: str,
    evidence: str,
    by: str,
    key_id: str,
    expires: float,
    verdict: Literal["approved", "rejected"] = "approved",
    reason: str = "",
) -> str:
    """A fresh code, signed with the control database's secret."""
    code = Code(
        agent=agent,
        version=version,
        evidence=evidence,
        by=by,
        key_id=key_id,
        expires=expires,
        nonce=secrets.token_urlsafe(12),
        verdict=verdict,
        reason=reason[:MOST_REASON],
    )
    payload = _text(msgspec.json.encode(code))
    return f"{PREFIX}.{payload}.{_text(_sign(secret, payload))}"


def read_code(secret: bytes, text: str) -> Code:
    """What a genuine code says. ApprovalInvalid for anything else; expiry and reuse are the caller's to check."""
    parts = text.strip().split(".")
    if len(parts) != 3 or parts[0] != PREFIX or not text.isascii():
        raise ApprovalInvalid("this is no approval code: paste all of what `pawl approve --code` printed")
    _, payload, signature = parts
    # The signature is over the text, so nothing unsigned is parsed and no second spelling of a payload is accepted.
    if not hmac.compare_digest(_text(_sign(secret, payload)).encode(), signature.encode()):
        raise ApprovalInvalid("this code was altered, or made by another installation: make a new one")
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)), type=Code)
    except (msgspec.DecodeError, binascii.Error) as e:
        raise ApprovalInvalid("this code is of another version of Pawl: make a new one") from e


def _sign(secret: bytes, payload: str) -> bytes:
    return hmac.new(secret, f"{PREFIX}.{payload}".encode(), hashlib.sha256).digest()


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
