"""Clients of the fleet: the official openai package with only the base URL changed, and feedback by outcome."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import openai

from pawl.qe.functional_negative import oracle as task
from pawl.qe.operations.operation import Operation


@dataclass
class Played:
    """What clients saw."""

    answered: int = 0
    failed: int = 0
    score: float = 0.0

    @property
    def mean(self) -> float:
        return self.score / self.answered if self.answered else 0.0


class Clients:
    """A number of clients that ask for test cases, run them against the schema, and report the outcome."""

    def __init__(self, gateway_url: str, secret: str, agent: str, max_tokens: int, concurrency: int) -> None:
        self._url, self._secret, self._agent = gateway_url, secret, agent
        self._max_tokens, self._concurrency = max_tokens, concurrency

    def play(
        self,
        work: Iterable[tuple[str, Operation]],
        on_answer: Callable[[Played], None],
        stop: Callable[[], bool] = lambda: False,
    ) -> Played:
        """Send (session, operation) pairs until they end or `stop` says so; every answer is reported back."""
        return asyncio.run(self._play(iter(work), on_answer, stop))

    async def _play(self, work, on_answer, stop) -> Played:  # type: ignore[no-untyped-def]
        played = Played()
        async with openai.AsyncOpenAI(
            base_url=f"{self._url}/v1", api_key=self._secret, max_retries=1, timeout=180
        ) as client:

            async def one() -> None:
                for session, operation in work:
                    if stop():
                        return
                    try:
                        score = await self._ask(client, session, operation)
                        played.answered += 1
                        played.score += score
                    except openai.OpenAIError:
                        played.failed += 1
                    on_answer(played)

            await asyncio.gather(*(one() for _ in range(self._concurrency)))
        return played

    async def _ask(self, client: openai.AsyncOpenAI, session: str, operation: Operation) -> float:
        streamed = session.endswith(("0", "5"))  # some clients stream, some do not
        answer = await client.chat.completions.create(
            model=self._agent,
            messages=task.messages(operation),  # type: ignore[arg-type]
            max_tokens=self._max_tokens,
            temperature=0,
            metadata={"id": operation.id, "source": operation.source},
            extra_headers={"x-pawl-session": session},
            stream=streamed,
        )
        if streamed:
            identity, text = "", ""
            async for chunk in answer:  # type: ignore[union-attr]
                identity = chunk.id
                for choice in chunk.choices:
                    text += choice.delta.content or ""
        else:
            identity, text = answer.id, answer.choices[0].message.content or ""  # type: ignore[union-attr]
        grade = task.grade(operation.schema, text)
        cases = [{"name": c.name, "outcome": c.outcome} for c in grade.cases]
        await asyncio.to_thread(
            self.feedback,
            {"interaction": identity, "kind": "outcome", "score": grade.score, "detail": {"cases": cases}},
        )
        return grade.score

    def feedback(self, body: dict[str, object] | list[dict[str, object]]) -> None:
        """POST /v1/feedback."""
        request = urllib.request.Request(  # noqa: S310 - loopback
            f"{self._url}/v1/feedback",
            json.dumps(body).encode(),
            {"content-type": "application/json", "authorization": f"Bearer {self._secret}"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - loopback
            answer.read()
