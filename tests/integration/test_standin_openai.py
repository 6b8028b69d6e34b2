"""The stand-in as a process of its own, spoken to by the official client."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import openai
import pytest

from pawl.fleet.spec import TaskSourceSpec
from pawl.qe.functional_negative.oracle import grade, messages
from pawl.qe.operations import sources
from pawl.qe.operations.operation import Operation
from tests.ports import free_port


def start(port: int, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pawl.qe.standin", "--port", str(port), "--latency-ms", "0", *more]
    process = subprocess.Popen(command)
    for _ in range(300):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1) as answer:
                assert json.load(answer) == {"status": "ok", "stand_in": True}
                return process
        except OSError:
            assert process.poll() is None, "the stand-in died at its start"
            time.sleep(0.1)
    process.kill()
    raise AssertionError("the stand-in did not answer within 30 s")


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(10)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    port = free_port()
    process = start(port, "--seed", "3", "--faulty", "0.15")
    yield f"http://127.0.0.1:{port}/v1"
    stop(process)


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key="any", max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def operations() -> list[Operation]:
    return sources.load(TaskSourceSpec())[::60]


def test_answers_score_as_its_faults_say(client: openai.OpenAI, operations: list[Operation]) -> None:
    scores = []
    for op in operations:
        done = client.chat.completions.create(model="stand-in", messages=messages(op), max_tokens=192)  # type: ignore[arg-type]
        scores.append(grade(op.schema, done.choices[0].message.content or "").score)
    right = sum(s == 1 for s in scores) / len(scores)
    assert len(scores) > 90 and 0.7 < right < 0.97  # 0.85 +- 4 standard errors


def test_it_says_what_it_is_and_that_usage_is_estimated(client: openai.OpenAI, operations: list[Operation]) -> None:
    done = client.chat.completions.create(model="gpt-x", messages=messages(operations[0]))  # type: ignore[arg-type]
    text = done.choices[0].message.content or ""
    assert done.model == "stand-in" and "stand-in" in (done.system_fingerprint or "")
    assert done.choices[0].finish_reason == "stop" and done.usage is not None
    asked = "".join(m["content"] for m in messages(operations[0]))
    assert done.usage.completion_tokens == -(-len(text) // 4)
    assert done.usage.prompt_tokens == -(-len(asked) // 4)
    assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens
    assert "stand-in" in done.usage.model_dump()["estimated"]
    assert [m.id for m in client.models.list()] == ["stand-in"]
    out = subprocess.run(
        [sys.executable, "-m", "pawl.qe.standin", "--help"], capture_output=True, text=True, check=True
    )
    assert "STAND-IN" in out.stdout


def test_stream_says_the_same_as_the_whole(client: openai.OpenAI, operations: list[Operation]) -> None:
    ask = messages(operations[1])
    whole = client.chat.completions.create(model="m", messages=ask)  # type: ignore[arg-type]
    stream = client.chat.completions.create(
        model="m",
        messages=ask,  # type: ignore[arg-type]
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert chunks[-1].usage is not None and whole.usage is not None
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert len({c.id for c in chunks}) == 1 and len(chunks) > 4


def test_ids_differ_and_answers_do_not(client: openai.OpenAI, operations: list[Operation]) -> None:
    ask = messages(operations[2])
    one, two = (client.chat.completions.create(model="m", messages=ask) for _ in "ab")  # type: ignore[arg-type]
    assert one.id != two.id and one.choices[0].message.content == two.choices[0].message.content


def test_the_seed_survives_a_restart_and_another_seed_answers_otherwise(
    url: str, client: openai.OpenAI, operations: list[Operation], free_port: int
) -> None:
    other = start(free_port, "--seed", "4", "--faulty", "0")
    try:
        with openai.OpenAI(base_url=f"http://127.0.0.1:{free_port}/v1", api_key="any") as second:
            pairs = [
                [c.chat.completions.create(model="m", messages=messages(o)).choices[0].message.content for c in both]  # type: ignore[arg-type]
                for o in operations[:20]
                for both in [(client, second)]
            ]
    finally:
        stop(other)
    assert any(a != b for a, b in pairs)
    assert all(grade(o.schema, b or "").score == 1 for o, (_, b) in zip(operations, pairs, strict=False))


def test_max_tokens_cuts_and_says_so(client: openai.OpenAI, operations: list[Operation]) -> None:
    done = client.chat.completions.create(model="m", messages=messages(operations[3]), max_tokens=10)  # type: ignore[arg-type]
    assert done.choices[0].finish_reason == "length" and done.usage is not None
    assert done.usage.completion_tokens == 10


def test_what_it_does_not_know_is_refused_in_openais_form(url: str, client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="only knows the built-in tasks"):
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Tell me a joke"}])
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="m", input="x")
    for body in (b"", b"{", b"[]", b'{"messages":1}', b'{"messages":[1]}'):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(f"{url}/chat/completions", data=body))
        assert refused.value.code == 400 and "message" in json.load(refused.value)["error"]
