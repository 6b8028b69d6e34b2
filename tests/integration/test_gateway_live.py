"""The gateway under clients, upstreams and operators that do not behave."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from pawl.lake.parquet_lake import ParquetLake
from pawl.lake.records import Interaction
from tests.integration.gateway_process import PROMPT, LiveGateway
from tests.waiting import until

AGENT = "functional-negative"
CHAT = "/v1/chat/completions"
ASK = {"model": AGENT, "messages": [{"role": "user", "content": PROMPT}]}


def answers(live: LiveGateway) -> list[Interaction]:
    lake = ParquetLake(live.settings.lake_dir, live.settings.journal_dir)
    return [i for i in lake.interactions(AGENT) if i.role == "answer"]


def connect(live: LiveGateway, body: dict[str, Any]) -> http.client.HTTPConnection:
    """A connection on which a request was sent and nothing read."""
    made = http.client.HTTPConnection(live.settings.gateway_host, live.settings.gateway_port, timeout=20)
    made.request("POST", CHAT, json.dumps(body), {"authorization": f"Bearer {live.key}"})
    return made


def test_odd_requests_get_an_error_in_shape_and_leave_the_others_alone(live: LiveGateway) -> None:
    deep = b"[" * 1000 + b"]" * 1000
    odd: list[tuple[Any, int]] = [
        ({**ASK, "model": [AGENT]}, 404),
        ({**ASK, "stream": True, "stream_options": "yes"}, 400),
        ({**ASK, "messages": ["hello"]}, 400),
        ([ASK], 400),
        (json.dumps({**ASK, "metadata": {"a": "DEEP"}}).encode().replace(b'"DEEP"', deep), 400),
        (json.dumps({**ASK, "messages": [{"content": "DEEP"}]}).encode().replace(b'"DEEP"', deep), 400),
    ]
    for body, status in odd:
        found, said = live.request(CHAT, body)
        assert (found, set(said["error"])) == (status, {"message", "type", "param", "code"})
    assert live.request(CHAT, ASK)[0] == 200


@pytest.mark.parametrize(
    ("payload", "stream"),
    [
        (b'{"choices":["x"]}', False),
        (b'{"choices":[{"message":null}]}', False),
        (b"[1]", False),
        (b"<html>", False),
        (b"data: [1]\n\ndata: [DONE]\n\n", True),
        (b'data: {"choices":"x"}\n\ndata: [DONE]\n\n', True),
        (b"data: {\n\n", True),
        (b"", True),
    ],
)
def test_an_upstream_that_talks_nonsense_is_named_and_recorded(live: LiveGateway, payload: bytes, stream: bool) -> None:
    def nonsense(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream" if stream else "application/json")
        handler.send_header("content-length", str(len(payload)))
        handler.end_headers()
        handler.wfile.write(payload)

    live.upstream.answer = nonsense  # type: ignore[method-assign]
    status, said = live.request(CHAT, {**ASK, "stream": stream})
    assert status == 502 and "upstream cloud" in said["error"]["message"]
    assert [(i.arm, i.completion) for i in answers(live)] == [("base", ""), ("big", "")]
    assert all(i.error for i in answers(live))


def test_feedback_finds_interactions_from_before_a_restart_in_journal_and_lake(live: LiveGateway) -> None:
    first = live.request(CHAT, ASK)[1]["id"]
    live.stop()
    ParquetLake(live.settings.lake_dir, live.settings.journal_dir).ingest()
    live.start()
    second = live.request(CHAT, ASK)[1]["id"]
    live.kill()
    live.start()
    body = [{"interaction": i, "kind": "rating", "score": 1.0} for i in (first, second)]
    assert live.request("/v1/feedback", body)[0] == 200
    assert live.request("/v1/feedback", {**body[0], "interaction": "chatcmpl-0"})[0] == 404


def test_who_hangs_up_is_recorded_and_charged_to_nobody(live: LiveGateway) -> None:
    live.upstream.delay_s = 3.0
    waiting = connect(live, ASK)
    until(lambda: len(live.upstream.asked) == 1)  # who is gone before that has cost nobody anything
    waiting.close()
    until(lambda: len(answers(live)) == 1)
    mine = answers(live)[0]
    assert (mine.status, mine.broken, mine.error) == (499, True, None)
    assert mine.latency_s < 2.5, "the upstream's answer was not waited for"


def test_an_idle_client_keeps_its_connection(live: LiveGateway) -> None:
    made = http.client.HTTPConnection(live.settings.gateway_host, live.settings.gateway_port, timeout=20)
    for _ in range(3):
        made.request("POST", CHAT, json.dumps(ASK), {"authorization": f"Bearer {live.key}"})
        answer = made.getresponse()
        assert answer.status == 200 and answer.getheader("x-pawl-arm") == "base"
        answer.read()


def test_sigterm_lets_running_requests_end(live: LiveGateway) -> None:
    live.upstream.delay_s = 1.0
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(live.request, CHAT, ASK)
        until(lambda: len(live.upstream.asked) == 1)
        live.process.send_signal(signal.SIGTERM)
        status, body = running.result(20)
    assert status == 200
    assert live.process.wait(20) in (0, -signal.SIGTERM)
    assert [i.id for i in answers(live)] == [body["id"]]
    assert not list(live.settings.journal_dir.glob("*.open"))


def test_a_taken_port_is_said_with_what_to_do(live: LiveGateway) -> None:
    env = os.environ | {
        "PAWL_HOME": str(live.home),
        "PAWL_FLEET": str(live.settings.fleet),
        "PAWL_GATEWAY_PORT": str(live.settings.gateway_port),
    }
    second = subprocess.run([sys.executable, "-m", "pawl.cli", "gateway"], env=env, capture_output=True, text=True)
    assert second.returncode != 0
    assert "PAWL_GATEWAY_PORT" in second.stderr + second.stdout


def test_feedback_keys_give_feedback_and_nothing_else(live: LiveGateway) -> None:
    key = live.control.create_key("feedback", "a test runner")[1]
    identity = live.request(CHAT, ASK)[1]["id"]
    assert live.request("/v1/feedback", {"interaction": identity, "kind": "rating", "score": 0.0}, key)[0] == 200
    assert live.request(CHAT, ASK, key)[0] == 403
    assert live.request("/v1/models", key=key)[0] == 403


def test_health_readiness_and_metrics_need_no_key(live: LiveGateway) -> None:
    live.request(CHAT, ASK)
    for path, holds in (("/healthz", "ok"), ("/readyz", "ready"), ("/metrics", 'pawl_interactions_total{agent="')):
        with urllib.request.urlopen(live.settings.gateway_url + path, timeout=10) as answer:
            assert holds in answer.read().decode()


def test_the_last_byte_waits_for_the_journal(live: LiveGateway) -> None:
    """Where the journal cannot be written, a whole answer is refused and a stream ends without `[DONE]`."""
    live.stop()
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); "
        "from pawl.cli import main; import sys; sys.argv = ['pawl', 'gateway']; sys.exit(main())"
    )
    env = os.environ | {
        "PAWL_HOME": str(live.home),
        "PAWL_FLEET": str(live.settings.fleet),
        "PAWL_GATEWAY_PORT": str(live.settings.gateway_port),
    }
    # Its output goes to a pipe, and the control database is only read: the limit meets the journal alone.
    live.process = subprocess.Popen([sys.executable, "-c", code], env=env, stderr=subprocess.DEVNULL)
    until(lambda: _is_up(live), 30)
    live.upstream.answers["base"] = "word " * 1000
    status, said = live.request(CHAT, ASK)
    assert status == 503 and "disk" in said["error"]["message"]
    made = connect(live, {**ASK, "stream": True})
    text = made.getresponse().read().decode()
    assert "word" in text and "disk" in text and "[DONE]" not in text
    live.upstream.answers["base"] = "short"
    assert live.request(CHAT, ASK)[0] == 200, "what fits is still taken"


def _is_up(live: LiveGateway) -> bool:
    try:
        with urllib.request.urlopen(live.settings.gateway_url + "/readyz", timeout=1):
            return True
    except (OSError, urllib.error.HTTPError):
        return False
