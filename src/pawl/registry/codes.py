"""Single-use approval codes: signed, so that a tag in a registry's UI can say who approves what (pure)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

import msgspec

from pawl.errors import ApprovalInvalid


class Code(msgspec.Struct, frozen=True, array_like=True):
    """What a code says. `expires` is in epoch seconds; the nonce is spent at first use."""

    agent: str
    version: str
    evidence: str
    by: str
    expires: float
    nonce: str


def make_code(secret: bytes, code: Code) -> str:
    """The code as text: base64url of its JSON, a dot, base64url of HMAC-SHA256 (RFC 2104) over that text."""
    body = _text(msgspec.json.encode(code))
    return f"{body}.{_sign(secret, body)}"


def read_code(secret: bytes, text: str) -> Code:
    """The code, if this secret signed it. ApprovalInvalid otherwise; the signature is compared in constant time."""
    body, _, signature = text.strip().partition(".")
    if not hmac.compare_digest(_sign(secret, body).encode(), signature.encode()):
        raise ApprovalInvalid("this is no code of this control database, or it was altered; make one anew")
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)), type=Code)
    except (msgspec.DecodeError, binascii.Error) as e:  # signed, but by another version of this program
        raise ApprovalInvalid("this code cannot be read; make one anew") from e


def _sign(secret: bytes, body: str) -> str:
    return _text(hmac.new(secret, body.encode(), hashlib.sha256).digest())


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
