"""The evaluation runner against a real HTTP server on loopback."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from pawl.errors import ServerNotUp
from pawl.evaluation.report import ItemResult
from pawl.evaluation.runner import answer_items
from pawl.qe.item import Grade, Item

ITEMS = [
    Item(id=f"i{n}", source=f"s{n % 2}", messages=[{"role": "user", "content": f"say {n}"}], truth={"n": n})
    for n in range(6)
]


class Server:
    """Answers with the prompt's last word; `broken` prompts get a 500; counts what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.broken: set[str] = set()
        self.instead: list[tuple[int, str]] = []  # status and body of the next answers
        self.most_at_once = 0
        self._now = 0
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        assert self._up.wait(10)

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.asked.append(body)
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        await asyncio.sleep(0.02)
        self._now -= 1
        text = body["messages"][-1]["content"]
        if self.instead:
            status, said = self.instead.pop(0)
            return web.Response(status=status, text=said, headers={"retry-after": "0.01"})
        if text in self.broken:
            return web.Response(status=500, text="out of order")
        message = {"role": "assistant", "content": text.split()[-1]}
        return web.json_response({"choices": [{"message": message}], "usage": {"completion_tokens": 1}})

    def _serve(self) -> None:
        async def up() -> None:
            app = web.Application()
            app.router.add_post("/v1/chat/completions", self._answer)
            runner = web.AppRunner(app)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            self._up.set()

        self._loop.run_until_complete(up())
        self._loop.run_forever()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.stop()


def grade(item: Item, text: str) -> Grade:
    return Grade(score=1.0 if text == str(item.truth["n"]) else 0.0, conforms=True)


def run(server: Server, cache: Path | None, model_hash: str = "h", **more: Any) -> list[ItemResult]:
    return answer_items(
        ITEMS,
        "m",
        server.url,
        max_tokens=9,
        cache_dir=cache,
        model_hash=model_hash,
        grade=more.pop("grade", grade),
        **more,
    )


def test_asks_greedily_and_grades_in_order(server: Server) -> None:
    said: list[tuple[int, int]] = []
    found = run(server, None, on_progress=lambda done, total: said.append((done, total)))
    assert [r.item for r in found] == [i.id for i in ITEMS] and all(r.score == 1.0 for r in found)
    assert [r.completion for r in found] == [str(n) for n in range(6)] and found[0].completion_tokens == 1
    assert all(b["temperature"] == 0 and b["max_tokens"] == 9 and b["model"] == "m" for b in server.asked)
    assert said == [(n, 6) for n in range(1, 7)]


def test_no_more_than_asked_for_at_once(server: Server) -> None:
    run(server, None, concurrency=2)
    assert server.most_at_once == 2


def test_kept_answers_cost_nothing_and_another_model_asks_anew(server: Server, tmp_path: Path) -> None:
    first = run(server, tmp_path)
    asked = len(server.asked)
    assert run(server, tmp_path) == first and len(server.asked) == asked
    run(server, tmp_path, model_hash="other")
    assert len(server.asked) == 2 * asked


def test_an_interrupted_evaluation_continues(server: Server, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise Stop

    with pytest.raises(Stop):
        run(server, tmp_path, concurrency=1, on_progress=stop)
    before = len(server.asked)
    assert before < 6
    assert all(r.score == 1.0 for r in run(server, tmp_path))
    # The one that was under way when it stopped may be asked twice.
    assert len(server.asked) - before in (6 - before, 6 - before + 1)


def test_a_models_failure_is_a_failure_and_is_not_kept(server: Server, tmp_path: Path) -> None:
    server.broken = {"say 4"}
    found = run(server, tmp_path)
    assert found[4].score == 0.0 and "500" in found[4].problem
    assert [r.score for r in found[:4]] == [1.0] * 4
    server.broken = set()
    assert run(server, tmp_path)[4].score == 1.0


def test_a_busy_server_is_asked_again_and_then_is_an_outage(server: Server, tmp_path: Path) -> None:
    server.instead = [(429, ""), (503, ""), (429, "")]
    assert all(r.score == 1.0 for r in run(server, tmp_path, concurrency=1))
    server.instead = [(503, "")] * 6
    found = run(server, None, concurrency=1)
    assert found[0].score is None and "busy" in found[0].problem and [r.score for r in found[1:]] == [1.0] * 5


@pytest.mark.parametrize("said", ["[]", "{}", '{"choices":[]}', '{"choices":[{"message":null}]}', "no JSON"])
def test_an_answer_that_is_none_is_a_failure_of_one_item(server: Server, said: str) -> None:
    server.instead = [(200, said)] * 2
    found = run(server, None, concurrency=1)
    assert found[0].score == 0.0 and found[0].problem and [r.score for r in found[1:]] == [1.0] * 5


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_key_or_an_unknown_name_says_nothing_of_a_model(server: Server, status: int) -> None:
    server.instead = [(status, "who are you?")]
    with pytest.raises(ServerNotUp, match=rf"status {status}: who are you\?; check key and name"):
        run(server, None, concurrency=1)


def test_the_oracles_failure_is_invalid_and_never_zero(server: Server) -> None:
    def fails(item: Item, text: str) -> Grade:
        if item.id == "i2":
            raise RuntimeError("no schema")
        return grade(item, text)

    found = run(server, None, grade=fails)
    assert found[2].score is None and "no schema" in found[2].problem
    assert sum(r.score == 1.0 for r in found) == 5


@pytest.mark.parametrize(
    "grade",
    [
        Grade(score=float("nan"), conforms=True),
        Grade(score=float("inf"), conforms=True),
        Grade(score=50.0, conforms=True),
        Grade(score=-0.1, conforms=True),
        Grade(score=1.0, conforms=True, metrics={"coverage": float("nan")}),
        Grade(score=1.0, conforms=True, label="a", said="a", confidence=2.0),
    ],
)
def test_a_figure_that_is_no_share_is_the_oracles_failure(server: Server, grade: Grade) -> None:
    found = answer_items(ITEMS[:1], "m", server.url, max_tokens=9, model_hash="h", grade=lambda item, text: grade)
    assert found[0].score is None and found[0].completion == "0" and not found[0].metrics
    assert "the oracle failed" in found[0].problem and "0..1" in found[0].problem


def test_a_server_that_is_not_there_is_no_answer_of_the_model(server: Server) -> None:
    url = server.url
    server.stop()
    with pytest.raises(ServerNotUp, match="continues"):
        answer_items(ITEMS, "m", url.rsplit(":", 1)[0] + ":1", max_tokens=9, model_hash="h", grade=grade)
