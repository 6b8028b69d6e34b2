"""Every endpoint as the official client, LangChain and the API's own document meet it."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import openai
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import ignored_auth

from tests.integration.gateway_process import FLEET, PROMPT, LiveGateway
from tests.ports import free_port
from tests.waiting import until

AGENT = "functional-negative"
ASK: list[Any] = [{"role": "user", "content": PROMPT}]
WEATHER: Any = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
CALL = {"id": "call_1", "function": {"name": "weather", "arguments": '{"city":"Paris"}'}}
EMBEDDINGS = """
gateway:
  embeddings: {{upstream: local, model: small-embedder}}
"""


def answers(live: LiveGateway) -> list[Any]:
    return [i for i in live.recorded() if i.role == "answer"]


# -- chat


def test_fields_pass_through_and_come_back(live: LiveGateway) -> None:
    answer = live.client().chat.completions.create(
        model=AGENT,
        messages=[{"role": "system", "content": "s"}, *ASK, {"role": "assistant", "content": "a"}, *ASK],
        n=2,
        stop=["x"],
        seed=7,
        logprobs=True,
        top_logprobs=2,
        temperature=0.1,
        response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}},
        extra_body={"guided_regex": "a*"},
    )
    assert [c.index for c in answer.choices] == [0, 1]
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None and logprobs.content[0].logprob == -0.5
    _, sent, _ = live.upstream.asked[0]
    assert (sent["n"], sent["stop"], sent["seed"], sent["guided_regex"]) == (2, ["x"], 7, "a*")
    assert len(sent["messages"]) == 4 and sent["response_format"]["type"] == "json_schema"


@pytest.mark.parametrize("stream", [False, True])
def test_tool_calls_come_through_and_are_recorded(live: LiveGateway, stream: bool) -> None:
    live.upstream.calls["base"] = [CALL]
    made = live.client().chat.completions.create(model=AGENT, messages=ASK, tools=[WEATHER], stream=stream)  # type: ignore[call-overload]
    if stream:
        deltas = [c.choices[0].delta.tool_calls[0] for c in made if c.choices and c.choices[0].delta.tool_calls]
        assert deltas[0].function.name == "weather"
        assert "".join(d.function.arguments for d in deltas) == CALL["function"]["arguments"]  # type: ignore[index]
    else:
        assert made.choices[0].message.tool_calls[0].function.name == "weather"
    mine = answers(live)[0]
    assert mine.tool_calls == [{"id": "call_1", "type": "function", **{"function": CALL["function"]}}]


# -- the other endpoints


@pytest.mark.parametrize("stream", [False, True])
def test_text_completions(live: LiveGateway, stream: bool) -> None:
    made = live.client().completions.create(model=AGENT, prompt="Say", stream=stream)  # type: ignore[call-overload]
    text = "".join(c.choices[0].text for c in made) if stream else made.choices[0].text
    assert text == "I am base"
    mine = answers(live)[0]
    assert (mine.endpoint, mine.completion, mine.messages) == (
        "completions", "I am base", [{"role": "user", "content": "Say"}],
    )  # fmt: skip
    assert live.upstream.asked[0][0] == "/v1/completions"


def test_responses_whole_and_streamed(live: LiveGateway) -> None:
    live.upstream.calls["base"] = [CALL]
    tools: Any = [{"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False}]
    made = live.client().responses.create(model=AGENT, instructions="be brief", input="Where?", tools=tools)
    assert made.output_text == "I am base" and made.id.startswith("resp_")
    assert made.usage is not None and made.usage.input_tokens == 3
    assert [item.type for item in made.output] == ["message", "function_call"]
    events = list(live.client().responses.create(model=AGENT, input="Where?", stream=True))
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == "I am base"
    assert [events[0].type, events[-1].type] == ["response.created", "response.completed"]
    assert {i.id for i in answers(live)} == {made.id, events[-1].response.id}  # type: ignore[union-attr]
    assert all(i.endpoint == "responses" for i in answers(live))
    with pytest.raises(openai.BadRequestError, match="whole conversation"):
        live.client().responses.create(model=AGENT, input="again", previous_response_id=made.id)


def test_a_responses_stream_that_breaks_says_so(live: LiveGateway) -> None:
    live.upstream.breaking.add("base")
    events = list(live.client().responses.create(model=AGENT, input="Where?", stream=True))
    assert events[-1].type == "response.failed"
    assert answers(live)[0].broken


def test_embeddings_are_a_local_models(gateway: Any) -> None:
    live = gateway(FLEET + EMBEDDINGS)
    made = live.client().embeddings.create(model="small-embedder", input="a text", encoding_format="float")
    assert made.data[0].embedding == [0.5, 0.25] and made.model == "small-embedder"
    mine = live.recorded("embeddings")[0]
    assert (mine.endpoint, mine.arm, mine.prompt_tokens, mine.completion) == ("embeddings", "small-embedder", 3, "")
    assert "small-embedder" in [m.id for m in live.client().models.list()]
    with pytest.raises(openai.NotFoundError):
        live.client().embeddings.create(model=AGENT, input="a text")


def test_embeddings_of_a_real_model_through_the_gateway(gateway: Any, tmp_path: Path) -> None:
    """A small BERT with random weights: real tokens, real layers, no meaning."""

    import numpy as np
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = {w: n for n, w in enumerate(["[PAD]", "[UNK]", "a", "text", "another", "one"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(tmp_path)
    config = BertConfig(vocab_size=6, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    BertModel(config).save_pretrained(tmp_path)
    port = free_port()
    command = [sys.executable, "-m", "pawl.cli", "embeddings", str(tmp_path), "--name", "tiny", "--port", str(port)]
    server = subprocess.Popen(command)
    try:
        up = f"  embedder: {{{{kind: local, base_url: 'http://127.0.0.1:{port}/v1'}}}}\nagents:"
        live = gateway(FLEET.replace("agents:", up) + "gateway: {{embeddings: {{upstream: embedder, model: tiny}}}}\n")
        client = live.client()

        def ready() -> bool:
            try:
                return bool(client.embeddings.create(model="tiny", input="a text").data)
            except openai.APIStatusError:
                return False

        until(ready, 90)
        texts = ["a text", "another one", "a text"]
        floats = client.embeddings.create(model="tiny", input=texts, encoding_format="float")
        packed = client.embeddings.create(model="tiny", input=texts)  # the client asks for base64 by itself
        vectors = np.array([d.embedding for d in floats.data])
        assert vectors.shape == (3, 16) and floats.usage.prompt_tokens == 6
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
        np.testing.assert_allclose(vectors, [d.embedding for d in packed.data], rtol=1e-6)
        np.testing.assert_allclose(vectors[0], vectors[2], rtol=1e-5)
        assert not np.allclose(vectors[0], vectors[1], rtol=1e-2)
        with pytest.raises(openai.BadRequestError, match="token ids"):
            client.embeddings.create(model="tiny", input=[[1, 2]])
    finally:
        server.terminate()
        server.wait(20)


def test_without_an_embedding_model_the_endpoint_says_what_to_set(live: LiveGateway) -> None:
    with pytest.raises(openai.NotFoundError, match=r"gateway\.embeddings"):
        live.client().embeddings.create(model="x", input="a text")


# -- batches


def lines(count: int, **more: Any) -> bytes:
    rows = [
        {"custom_id": f"c{n}", "method": "POST", "url": "/v1/chat/completions",
         "body": {"model": AGENT, "messages": ASK, **more}}
        for n in range(count)
    ]  # fmt: skip
    return b"".join(json.dumps(r).encode() + b"\n" for r in rows)


def batch(live: LiveGateway, data: bytes) -> Any:
    file = live.client().files.create(file=("in.jsonl", io.BytesIO(data)), purpose="batch")
    return live.client().batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"for": "ci"}
    )


def ended(live: LiveGateway, batch_id: str) -> Any:
    until(lambda: live.client().batches.retrieve(batch_id).status in ("completed", "cancelled", "failed"), 30)
    return live.client().batches.retrieve(batch_id)


def test_a_batch_is_answered_line_by_line(live: LiveGateway) -> None:
    data = lines(20) + lines(1, messages=[]).replace(b'"c0"', b'"wrong"')
    made = ended(live, batch(live, data).id)
    assert (made.status, made.request_counts.completed, made.request_counts.failed) == ("completed", 20, 1)
    out = [json.loads(x) for x in live.client().files.content(made.output_file_id).text.splitlines()]
    assert sorted(r["custom_id"] for r in out) == sorted(f"c{n}" for n in range(20))
    assert all(r["response"]["body"]["choices"][0]["message"]["content"] == "I am base" for r in out)
    bad = json.loads(live.client().files.content(made.error_file_id).text)
    assert (bad["custom_id"], bad["response"]["status_code"]) == ("wrong", 400)
    assert {r["response"]["body"]["id"] for r in out} == {i.id for i in answers(live)}
    assert [b.id for b in live.client().batches.list()] == [made.id] and made.metadata == {"for": "ci"}


def test_a_batch_survives_kill_minus_nine_and_answers_each_line_once(live: LiveGateway) -> None:
    live.upstream.delay_s = 0.05
    made = batch(live, lines(150))
    until(lambda: live.client().batches.retrieve(made.id).request_counts.completed > 20)
    live.kill()
    live.start()
    done = ended(live, made.id)
    out = [json.loads(x) for x in live.client().files.content(done.output_file_id).text.splitlines()]
    assert sorted(r["custom_id"] for r in out) == sorted(f"c{n}" for n in range(150))
    assert len(answers(live)) <= 150 + 2 * 8, "at most what was under way is asked again"


def test_a_batch_can_be_cancelled_and_belongs_to_its_key(live: LiveGateway) -> None:
    live.upstream.delay_s = 0.3
    made = batch(live, lines(200))
    other = live.client(live.control.create_key("client", "another")[1])
    with pytest.raises(openai.NotFoundError):
        other.batches.retrieve(made.id)
    with pytest.raises(openai.NotFoundError):
        other.files.content(made.input_file_id)
    assert live.client().batches.cancel(made.id).status == "cancelling"
    done = ended(live, made.id)
    assert done.status == "cancelled" and done.request_counts.completed < 200
    with pytest.raises(openai.ConflictError):
        live.client().batches.cancel(made.id)


def test_a_batch_keeps_to_the_privacy_it_was_made_with(live: LiveGateway) -> None:
    live.upstream.failing.add("base")  # the cloud stands behind it
    file = live.client().files.create(file=("in.jsonl", io.BytesIO(lines(3))), purpose="batch")
    asked: Any = {"input_file_id": file.id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    with pytest.raises(openai.BadRequestError, match="x-pawl-privacy"):
        live.client().batches.create(**asked, extra_headers={"x-pawl-privacy": "secret"})
    made = live.client().batches.create(**asked, extra_headers={"x-pawl-privacy": "local_only"})
    done = ended(live, made.id)
    assert done.request_counts.failed == 3 and "big" not in live.upstream.models()
    assert {i.privacy for i in answers(live)} == {"local_only"}


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[1]\n", lines(1) + lines(1), lines(1, stream=True), lines(1).replace(b"POST", b"GET"),
     lines(1).replace(b"chat/completions", b"embeddings")],
)  # fmt: skip
def test_a_batch_with_a_wrong_line_is_refused_whole(live: LiveGateway, data: bytes) -> None:
    with pytest.raises(openai.BadRequestError, match=r"line"):
        batch(live, data)


# -- other clients


def test_the_javascript_client(live: LiveGateway) -> None:
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("node and npm are not installed: the JavaScript client is not tried")
    live.upstream.calls["base"] = [CALL]
    folder = Path(__file__).parent / "javascript"
    installed = subprocess.run(
        ["npm", "ci", "--no-audit", "--no-fund", "--silent"], cwd=folder, capture_output=True, text=True, timeout=180
    )
    if installed.returncode != 0:
        pytest.skip(f"the JavaScript client cannot be installed here: {installed.stderr.strip()[-200:]}")
    done = subprocess.run(
        ["node", "client.mjs", f"{live.settings.gateway_url}/v1", live.key, AGENT],
        cwd=folder, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said == {"whole": "I am base", "streamed": "I am base", "response": "I am base", "models": [AGENT],
                    "refused": 404, "tool": "weather"}  # fmt: skip


def test_langchain(live: LiveGateway) -> None:
    from langchain_openai import ChatOpenAI
    from pydantic import SecretStr

    model = ChatOpenAI(
        model=AGENT, base_url=f"{live.settings.gateway_url}/v1", api_key=SecretStr(live.key), max_retries=0
    )
    assert model.invoke("Say").content == "I am base"
    assert "".join(str(c.content) for c in model.stream("Say")) == "I am base"
    live.upstream.calls["base"] = [CALL]
    called = model.bind_tools([WEATHER]).invoke("Where?")
    assert called.tool_calls[0]["args"] == {"city": "Paris"}  # type: ignore[attr-defined]


def test_the_apis_own_document_holds_under_generated_requests(live: LiveGateway) -> None:
    schema = schemathesis.openapi.from_url(f"{live.settings.gateway_url}/openapi.json")
    tried: list[str] = []
    for operation in schema.get_all_operations():
        api = operation.ok()
        tried.append(f"{api.method.upper()} {api.path}")

        @given(case=api.as_strategy())
        @settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        def try_it(case: Any) -> None:
            # The key goes into every call, so the check that wants calls without one cannot see; other tests do.
            case.call_and_validate(headers={"authorization": f"Bearer {live.operator}"}, excluded_checks=[ignored_auth])

        try_it()
    assert len(tried) >= 15
