"""A refusal reaches a client that is still sending: the rest of its body is read and thrown away, within bounds."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from pawl.gateway import wire
from pawl.gateway.wire import Hearing, Refused, send_refusal

TOO_LARGE = Refused(413, "too large", code="request_too_large")


def parts(*sizes: int) -> list[dict[str, Any]]:
    last = len(sizes) - 1
    return [{"type": "http.request", "body": b"x" * n, "more_body": i < last} for i, n in enumerate(sizes)]


class Client:
    """Sends what it is given, then nothing more; remembers what it was told, and what it had sent by then."""

    def __init__(self, messages: list[dict[str, Any]], pause_s: float = 0) -> None:
        self._left, self._pause_s = messages, pause_s
        self.told: list[tuple[dict[str, Any], int]] = []

    async def receive(self) -> dict[str, Any]:
        if not self._left:
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(self._pause_s)
        return self._left.pop(0)

    async def send(self, message: dict[str, Any]) -> None:
        self.told.append((message, len(self._left)))


def refuse(client: Client, heard_first: int = 0) -> float:
    async def run() -> float:
        heard = Hearing(client.receive)
        for _ in range(heard_first):
            await heard()
        began = time.monotonic()
        await send_refusal(client.send, TOO_LARGE, heard)
        return time.monotonic() - began

    return asyncio.run(run())


def test_the_answer_goes_out_at_once_and_ends_when_all_was_sent() -> None:
    client = Client(parts(10, 10, 10))
    refuse(client, heard_first=1)
    (start, _), (body, left), (end, left_at_end) = client.told
    assert start["status"] == 413 and dict(start["headers"])[b"content-length"] == str(len(body["body"])).encode()
    assert body["more_body"] and left == 2, "before the rest was read"
    assert end == {"type": "http.response.body", "body": b""} and left_at_end == 0


def test_a_request_that_is_all_here_is_answered_in_one() -> None:
    client = Client(parts(10))
    refuse(client, heard_first=1)
    assert [message.get("more_body") for message, _ in client.told] == [None, False]


def test_a_client_that_left_is_not_waited_for() -> None:
    client = Client([*parts(10, 10)[:1], {"type": "http.disconnect"}])
    assert refuse(client) < 1


@pytest.mark.parametrize(("messages", "pause_s"), [(parts(10, 10)[:1], 0.0), (parts(*[1] * 1000), 0.01)])
def test_one_that_stops_or_trickles_is_left(
    messages: list[dict[str, Any]], pause_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "_QUIET_S", 0.1)
    monkeypatch.setattr(wire, "_LINGER_S", 0.4)
    client = Client(messages, pause_s)
    assert 0.08 < refuse(client) < 3
    assert client.told[-1][0] == {"type": "http.response.body", "body": b""}
