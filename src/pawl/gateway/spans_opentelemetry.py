"""Calls to models as OpenTelemetry spans, by the semantic conventions for generative AI, over OTLP/HTTP.

Spans are made from the records, after the answer: a request pays for none of it. Which are sent is drawn at random.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.util.types import AttributeValue

from pawl import __version__
from pawl.fleet.spec import TelemetrySpec
from pawl.lake.records import Interaction

_OPERATIONS = {"chat": "chat", "responses": "chat", "completions": "text_completion", "embeddings": "embeddings"}


class Spans:
    """Sends a sample of interactions; what cannot be sent is dropped by the exporter and never holds traffic up."""

    def __init__(
        self,
        spec: TelemetrySpec,
        endpoint: str,
        providers: Mapping[str, str],
        *,
        inside: bool,
        exporter: SpanExporter | None = None,
    ) -> None:
        """`endpoint`: expanded; `inside`: its host is allow-listed. `providers`: by arm, in the conventions' names."""
        self._spec, self._providers, self._inside = spec, providers, inside
        headers = {"x-mlflow-experiment-id": spec.experiment_id}
        self._out = exporter or OTLPSpanExporter(endpoint=endpoint, headers=headers, timeout=5)
        resource = Resource.create({"service.name": "pawl-gateway", "service.version": __version__})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(self._out))
        self._tracer = self._provider.get_tracer("pawl.gateway", __version__)

    def notice(self, made: Interaction) -> None:
        """Perhaps send this one."""
        if random.random() >= self._spec.sample:
            return
        if made.privacy != "open" and not self._inside:
            return  # even figures tell that somebody asked
        content = self._spec.content and made.privacy == "open"
        span = self._tracer.start_span(
            f"{_OPERATIONS[made.endpoint]} {made.arm}",
            kind=SpanKind.CLIENT,
            start_time=int(made.at * 1e9),
            attributes=attributes(made, self._providers.get(made.arm, made.arm_kind), content=content),
        )
        if made.error is not None:
            # The message of an upstream may repeat what was asked; its status tells enough.
            span.set_status(Status(StatusCode.ERROR, f"status {made.status}"))
        span.end(int((made.at + made.latency_s) * 1e9))

    def close(self) -> None:
        """Send what waits, for at most the exporter's timeout."""
        self._provider.shutdown()


def attributes(made: Interaction, provider: str, *, content: bool) -> dict[str, AttributeValue]:
    """The attributes of one interaction's span (pure). `content`: prompts and answers too."""
    found: dict[str, AttributeValue] = {
        "gen_ai.operation.name": _OPERATIONS[made.endpoint],
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": made.agent,
        "gen_ai.response.model": made.arm,
        "gen_ai.response.id": made.id,
        "gen_ai.usage.input_tokens": made.prompt_tokens,
        "gen_ai.usage.output_tokens": made.completion_tokens,
        "pawl.role": made.role,
        "pawl.reason": made.reason,
        "pawl.privacy": made.privacy,
        "pawl.cost_usd": made.cost_usd,
        "pawl.route_revision": made.route_revision,
    }
    if made.finish_reason:
        found["gen_ai.response.finish_reasons"] = [made.finish_reason]
    if made.first_token_s is not None:
        found["gen_ai.response.time_to_first_chunk"] = made.first_token_s
    if made.error is not None:
        found["error.type"] = str(made.status)
    if made.rollout:
        found["pawl.rollout"], found["pawl.stage"] = made.rollout, made.stage or ""
    if content:
        found["gen_ai.input.messages"] = json.dumps(made.messages, ensure_ascii=False)
        found["gen_ai.output.messages"] = json.dumps([{"role": "assistant", "content": made.completion}])
    return found
