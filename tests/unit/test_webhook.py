"""Which deliveries of a webhook are believed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawl.errors import NotAllowed
from pawl.registry.aliases import strayed
from pawl.registry.webhook import DELIVERY, MOST_AGE_S, SIGNATURE, TIMESTAMP, signature, verify

NOW = 1_800_000_000
SECRET = "a secret"
SAID = {
    "entity": "model_version_tag", "action": "set", "timestamp": "2027-01-15T08:00:00+00:00",
    "data": {"name": "agent", "version": "3", "key": "approval_code", "value": "pawl1.x.y"},
}  # fmt: skip
BODY = json.dumps(SAID).encode()


def headers(body: bytes = BODY, at: str = str(NOW), secret: str = SECRET, **more: str) -> dict[str, str]:
    return {SIGNATURE: signature(secret, "d-1", at, body), TIMESTAMP: at, DELIVERY: "d-1"} | more


def test_a_genuine_one() -> None:
    said = verify(SECRET, headers(), BODY, NOW)
    assert (said.id, said.at, said.event, said.data) == ("d-1", NOW, "model_version_tag.set", SAID["data"])


def test_the_signature_is_the_one_that_mlflow_makes() -> None:
    from mlflow.webhooks.delivery import _generate_hmac_signature

    assert signature(SECRET, "d-1", str(NOW), BODY) == _generate_hmac_signature(SECRET, "d-1", str(NOW), BODY.decode())


def test_several_signatures_while_a_secret_is_changed() -> None:
    both = f"{signature('old', 'd-1', str(NOW), BODY)} {signature(SECRET, 'd-1', str(NOW), BODY)}"
    assert verify(SECRET, headers(**{SIGNATURE: both}), BODY, NOW).id == "d-1"


@pytest.mark.parametrize(
    ("sent", "body", "now", "why"),
    [
        ({}, BODY, NOW, "not signed"),
        ({k: v for k, v in headers().items() if k != SIGNATURE}, BODY, NOW, "not signed"),
        (headers(secret="another"), BODY, NOW, "does not fit"),
        (headers(), BODY.replace(b'"3"', b'"4"'), NOW, "does not fit"),
        (headers(**{TIMESTAMP: str(NOW + 1)}), BODY, NOW, "does not fit"),
        (headers(**{DELIVERY: "d-2"}), BODY, NOW, "does not fit"),
        (headers(**{SIGNATURE: "v1,\u00e9"}), BODY, NOW, "does not fit"),
        (headers(), BODY, NOW + MOST_AGE_S + 1, "too old"),
        (headers(), BODY, NOW - 61, "too old"),
        (headers(at="nan"), BODY, NOW, "too old"),
        (headers(b"[]"), b"[]", NOW, "cannot be read"),
        (headers(b"{"), b"{", NOW, "cannot be read"),
    ],
)
def test_what_is_refused(sent: dict[str, str], body: bytes, now: float, why: str) -> None:
    with pytest.raises(NotAllowed, match=why):
        verify(SECRET, sent, body, now)


@pytest.mark.parametrize("late", [-60, 0, 130, MOST_AGE_S])
def test_retries_and_clocks_that_differ_are_taken(late: float) -> None:
    assert verify(SECRET, headers(), BODY, NOW + late).id == "d-1"


@given(st.binary(max_size=40), st.text(max_size=20), st.text(max_size=60))
def test_no_rubbish_gets_in(body: bytes, at: str, sent: str) -> None:
    with pytest.raises(NotAllowed):
        verify(SECRET, {SIGNATURE: sent, TIMESTAMP: at, DELIVERY: "d"}, body, NOW)


@pytest.mark.parametrize(
    ("expected", "found", "is_strayed"),
    [((0, ""), "3", False), ((1, "3"), "3", False), ((1, "3"), "4", True), ((2, "3"), "", True), ((2, ""), "3", True)],
)
def test_strayed(expected: tuple[int, str], found: str, is_strayed: bool) -> None:
    assert strayed(expected, found) is is_strayed
