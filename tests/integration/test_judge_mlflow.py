"""MLflow's judge in front of a real, small server that speaks the OpenAI API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from pawl.evaluation.judge_mlflow import MlflowJudge
from pawl.evaluation.preferring import preferred
from tests.integration.openai_upstream import Upstream


class Judging(Upstream):
    """Prefers the answer that says `right`; `always` makes it say one word whatever it is shown."""

    always: str | None = None

    def answer(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        shown = json.dumps(body["messages"])
        first, second = shown.split("first answer")[1].split("second answer")[:2]
        word = self.always or ("first" if "right" in first else "second" if "right" in second else "tie")
        self.answers[body["model"]] = json.dumps({"result": word, "rationale": "it is"})
        super().answer(handler, body)


@pytest.fixture
def server() -> Iterator[Judging]:
    made = Judging()
    yield made
    made.server.shutdown()


def judge(server: Judging, key: str | None = None) -> MlflowJudge:
    return MlflowJudge("big", f"http://127.0.0.1:{server.port}/v1", "Take the right one. {{ inputs }}", key)


def test_it_prefers_in_both_orders(server: Judging) -> None:
    asks = judge(server, "a-key")
    assert preferred(asks, "what?", "wrong", "right").value == 1.0
    assert preferred(asks, "what?", "right", "wrong").value == 0.0
    assert preferred(asks, "what?", "one", "two").value == 0.5
    path, body, headers = server.asked[0]
    assert path == "/v1/chat/completions" and body["model"] == "big" and body["temperature"] == 0
    assert {k.lower(): v for k, v in headers.items()}["authorization"] == "Bearer a-key"
    assert "Take the right one." in json.dumps(body["messages"])


def test_a_server_without_a_key_does_not_get_that_of_another(server: Judging, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-server")
    assert preferred(judge(server), "what?", "wrong", "right").value == 1.0
    assert "sk-of-another-server" not in json.dumps([dict(h) for _, _, h in server.asked])


def test_one_that_goes_by_the_order_says_nothing(server: Judging) -> None:
    server.always = "first"
    found = preferred(judge(server), "what?", "wrong", "right")
    assert (found.value, found.turned) == (0.5, True)


@pytest.mark.parametrize("always", ["neither", ""])
def test_another_word_or_none_is_the_judges_failure(server: Judging, always: str) -> None:
    server.always = always or "maybe"
    assert "judge failed" in preferred(judge(server), "what?", "wrong", "right").problem


@pytest.mark.slow  # MLflow tries ten times, with pauses
def test_a_server_that_is_down_is_the_judges_failure(server: Judging) -> None:
    server.failing.add("big")
    assert "judge failed" in preferred(judge(server), "what?", "wrong", "right").problem
