"""A registry's webhook: whether a delivery is genuine and fresh (pure).

MLflow follows the Standard Webhooks specification: HMAC-SHA256 over delivery id, time and body, in its own headers.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from pawl.errors import NotAllowed
from pawl.rollout.control import ControlStore

SIGNATURE, TIMESTAMP, DELIVERY = "x-mlflow-signature", "x-mlflow-timestamp", "x-mlflow-delivery-id"
# MLflow tries a delivery four times, each up to 30 s, with pauses of up to 10 s, under one signature.
MOST_AGE_S = 600.0
MOST_AHEAD_S = 60.0  # clocks differ


class Delivery(NamedTuple):
    """What a genuine delivery says."""

    id: str
    at: float  # epoch seconds, when it was signed
    event: str  # e.g. "model_version_tag.set"
    data: dict[str, Any]


class _Body(msgspec.Struct):
    entity: str
    action: str
    data: dict[str, Any]


def encryption_key(control: ControlStore) -> str:
    """The Fernet key under which MLflow keeps webhooks' secrets. Without one it forgets them with its process."""
    return base64.urlsafe_b64encode(control.secret("mlflow-webhook-encryption")).decode()


def signature(secret: str, delivery: str, at: str, body: bytes) -> str:
    """The signature of a delivery, as its header carries it."""
    made = hmac.new(secret.encode(), f"{delivery}.{at}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(made).decode()}"


def verify(secret: str, headers: Mapping[str, str], body: bytes, now: float) -> Delivery:
    """What a delivery says; `headers` by lower-case name. NotAllowed where it is forged, altered, or too old.

    That it was not seen before is for the caller to say.
    """
    sent, at, delivery = (headers.get(h, "") for h in (SIGNATURE, TIMESTAMP, DELIVERY))
    if not (sent and at and delivery):
        raise NotAllowed("this delivery is not signed: `pawl registry webhook` gives the webhook its secret")
    expected = signature(secret, delivery, at, body)
    # A header may carry several signatures while a secret is changed.
    if not any(hmac.compare_digest(expected.encode(), one.encode("utf-8", "replace")) for one in sent.split()):
        raise NotAllowed("the signature does not fit: the body was altered, or the secret is another")
    signed = float(at) if at.isascii() and at.isdigit() else float("nan")
    if not -MOST_AHEAD_S <= now - signed <= MOST_AGE_S:
        raise NotAllowed("this delivery is too old, or the clocks differ by more than a minute")
    try:
        said = msgspec.json.decode(body, type=_Body)
    except msgspec.DecodeError as e:
        raise NotAllowed(f"a signed body that cannot be read: {e}") from e
    return Delivery(delivery, signed, f"{said.entity}.{said.action}", said.data)
