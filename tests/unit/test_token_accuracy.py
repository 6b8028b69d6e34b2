"""Token accuracy: counted by hand, asked of a small server that speaks as vLLM does, and never in anybody's way."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from pawl.evaluation.token_accuracy import PLACES, Counted, Reference, measure_tokens, places, token_accuracy


class Alphabet:
    """A model that would always write the next letter; tokens are characters, as a byte-level server has them."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.status, self.delay_s, self.window = 200, 0.0, 100
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """Silent."""

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                server.asked.append(self.path)
                time.sleep(server.delay_s)
                data = json.dumps(server.answer(self.path, body)).encode()
                self.send_response(server.status)
                self.send_header("content-length", str(len(data)))
                self.send_header("content-type", "application/json")
                self.end_headers()
                self.wfile.write(data)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, path: str, body: dict[str, Any]) -> Any:
        if path == "/tokenize":
            text = body["prompt"] if "prompt" in body else body["messages"][0]["content"] + ">"
            assert body.get("add_special_tokens", False) is False
            return {"tokens": [ord(c) for c in text], "max_model_len": self.window, "count": len(text)}
        assert path == "/v1/completions" and (body["max_tokens"], body["temperature"]) == (1, 0)
        # In any order: a choice tells which prompt it is of.
        return {"choices": [{"index": n, "token_ids": [ids[-1] + 1]} for n, ids in enumerate(body["prompt"])][::-1]}


@pytest.fixture
def alphabet() -> Iterator[Alphabet]:
    made = Alphabet()
    yield made
    made.server.shutdown()


def reference(n: int, completion: str) -> Reference:
    return Reference(f"i{n}", f"s{n}", [{"role": "user", "content": "go on"}], completion)


def test_only_the_reference_is_counted_and_nothing_is_asked_twice(alphabet: Alphabet, tmp_path: Path) -> None:
    rows = [reference(0, "abcd"), reference(1, "abxyz"), reference(2, "?@A")]  # "?" follows ">", which ends the prompt
    how: dict[str, Any] = {"model_hash": "m", "cache_dir": tmp_path}
    told: list[tuple[int, int]] = []
    found = measure_tokens(rows, "m", alphabet.url, **how, on_progress=lambda done, total: told.append((done, total)))
    assert found.problem == "" and told == [(1, 3), (2, 3), (3, 3)]
    assert found.counted == {"i0": Counted(4, 3), "i1": Counted(5, 3), "i2": Counted(3, 3)}
    asked = len(alphabet.asked)
    assert measure_tokens(rows, "m", alphabet.url, **how) == found and len(alphabet.asked) == asked
    measure_tokens(rows, "m", alphabet.url, **how | {"model_hash": "other"})
    assert len(alphabet.asked) == 2 * asked
    made = token_accuracy(rows, found.counted, 0.05)
    assert made.share is not None and made.share.mean == pytest.approx((3 / 4 + 3 / 5 + 1) / 3)
    assert (made.items, made.tokens, made.problem) == (3, 12, "") and 0 <= made.share.lower < made.share.upper <= 1
    assert token_accuracy(rows, {}, 0.05, "why").share is None


def test_of_a_long_reference_places_are_drawn_and_the_share_stays_that_of_all(alphabet: Alphabet) -> None:
    alphabet.window = 10_000
    # The first letter of each round is not foreseen.
    rows = [Reference(f"i{n}", f"s{n}", [{"role": "user", "content": "x"}], "abcdefgh" * 30) for n in range(60)]
    found = measure_tokens(rows, "m", alphabet.url, model_hash="m")
    assert {c.tokens for c in found.counted.values()} == {PLACES}
    made = token_accuracy(rows, found.counted, 0.05)
    assert made.share is not None and made.tokens == 60 * PLACES
    assert abs(made.share.mean - 7 / 8) < 3 * math.sqrt(7 / 64 / made.tokens)
    drawn = places(rows[0], 240)
    assert len(set(drawn)) == PLACES and drawn == sorted(drawn) == places(rows[0], 240) != places(rows[1], 240)
    assert places(rows[0], 5) == [0, 1, 2, 3, 4] and places(rows[0], 0) == []


def test_what_a_server_cannot_do_is_told_and_it_is_not_asked_on(alphabet: Alphabet, free_port: int) -> None:
    rows = [reference(n, "abcd") for n in range(20)]
    alphabet.status = 404
    found = measure_tokens(rows, "m", alphabet.url, model_hash="m")
    assert found.counted == {} and "0 of 20" in found.problem and "status 404" in found.problem
    assert len(alphabet.asked) == 4, "four references, one call each"
    nobody = measure_tokens(rows, "m", f"http://127.0.0.1:{free_port}", model_hash="m")
    assert nobody.counted == {} and "0 of 20" in nobody.problem
    alphabet.status, alphabet.window = 200, 10
    mixed = measure_tokens([reference(0, "ab"), reference(1, "abcdefgh")], "m", alphabet.url, model_hash="m")
    assert set(mixed.counted) == {"i0"} and "longer than the model reads" in mixed.problem


def test_the_time_is_bounded(alphabet: Alphabet) -> None:
    alphabet.delay_s = 0.1
    began = time.monotonic()
    found = measure_tokens([reference(n, "abcd") for n in range(40)], "m", alphabet.url, model_hash="m", seconds=0.8)
    assert time.monotonic() - began < 3.0
    assert 0 < len(found.counted) < 40 and "0.8 s" in found.problem
