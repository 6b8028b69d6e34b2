"""Telemetry: what a real MLflow server received over OTLP, and what never goes in."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.gateway_process import FLEET, PROMPT, LiveGateway
from tests.waiting import until

AGENT = "functional-negative"
ASK = {"model": AGENT, "messages": [{"role": "user", "content": PROMPT}]}


@pytest.mark.servers
@pytest.mark.parametrize("content", [False, True])
def test_mlflow_gets_a_trace_of_each_call(gateway: Callable[..., LiveGateway], mlflow_url: str, content: bool) -> None:
    from mlflow import MlflowClient

    store = MlflowClient(tracking_uri=mlflow_url)
    experiment = store.create_experiment(f"gateway, content {content}")
    telemetry = f"sample: 1.0, endpoint: '{mlflow_url}/v1/traces', experiment_id: '{experiment}', content: {content}"
    live = gateway(FLEET.replace("    shadow: cloud\n", "") + f"gateway: {{{{telemetry: {{{{{telemetry}}}}}}}}}\n")
    identities = [live.request("/v1/chat/completions", ASK)[1]["id"] for _ in range(3)]
    live.upstream.failing.add("base")
    live.request("/v1/chat/completions", ASK)
    live.stop()  # what waits is sent

    def spans() -> list[Any]:
        found = store.search_traces(locations=[experiment], max_results=50)
        return [span for trace in found for span in trace.data.spans]

    until(lambda: len(spans()) == 4, 20)
    good = [s for s in spans() if "error.type" not in s.attributes]
    assert sorted(s.attributes["gen_ai.response.id"] for s in good) == sorted(identities)
    one = good[0]
    assert one.name == "chat base" and one.attributes["gen_ai.request.model"] == AGENT
    assert (one.attributes["gen_ai.usage.input_tokens"], one.attributes["gen_ai.usage.output_tokens"]) == (3, 2)
    (bad,) = [s for s in spans() if "error.type" in s.attributes]
    assert bad.attributes["error.type"] == "500"
    told = json.dumps([s.attributes for s in spans()])
    assert ("I am base" in told) is content, "prompts and answers go in only where the fleet says so"


def test_telemetry_that_is_down_holds_nothing_up(gateway: Callable[..., LiveGateway]) -> None:
    live = gateway(FLEET + "gateway: {{telemetry: {{sample: 1.0, endpoint: 'http://127.0.0.1:9/v1/traces'}}}}\n")
    for _ in range(5):
        assert live.request("/v1/chat/completions", ASK)[0] == 200
