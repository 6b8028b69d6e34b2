"""Clients of the fleet: the official openai package with only the base URL changed, and feedback by outcome."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import openai

from pawl.qe.item import Item
from pawl.qe.task import Task


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
    """A number of clients that ask an agent, find out what its answers are worth, and report the outcome."""

    def __init__(
        self,
        gateway_url: str,
        secret: str,
        agent: str,
        task: Task,
        max_tokens: int,
        concurrency: int,
        corrected: Callable[[Item], str | None] = lambda item: None,
    ) -> None:
        """`corrected`: what the right answer turned out to be later, where somebody found out."""
        self._corrected = corrected
        self._url, self._secret, self._agent, self._task = gateway_url, secret, agent, task
        self._max_tokens, self._concurrency = max_tokens, concurrency

    def play(
        self,
        work: Iterable[tuple[str, Item]],
        on_answer: Callable[[Played], None],
        stop: Callable[[], bool] = lambda: False,
    ) -> Played:
        """Send (session, item) pairs until they end or `stop` says so; every answer is reported back."""
        return asyncio.run(self._play(iter(work), on_answer, stop))

    async def _play(self, work, on_answer, stop) -> Played:  # type: ignore[no-untyped-def]
        played = Played()
        async with openai.AsyncOpenAI(
            base_url=f"{self._url}/v1", api_key=self._secret, max_retries=1, timeout=180
        ) as client:

            async def one() -> None:
                for session, item in work:
                    if stop():
                        return
                    try:
                        score = await self._ask(client, session, item)
                        played.answered += 1
                        played.score += score
                    except openai.OpenAIError:
                        played.failed += 1
                    on_answer(played)

            await asyncio.gather(*(one() for _ in range(self._concurrency)))
        return played

    async def _ask(self, client: openai.AsyncOpenAI, session: str, item: Item) -> float:
        streamed = session.endswith(("0", "5"))  # some clients stream, some do not
        answer = await client.chat.completions.create(
            model=self._agent,
            messages=item.messages,  # type: ignore[arg-type]
            max_tokens=self._max_tokens,
            temperature=0,
            metadata={"id": item.id, "source": item.source},
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
        grade = await asyncio.to_thread(self._task.grade, item.messages, text, item.truth)
        if grade is None:
            raise AssertionError(f"{self._task.name} cannot grade its own item {item.id}")
        detail = {"problem": grade.problem, "metrics": grade.metrics}
        told: list[dict[str, object]] = [
            {"interaction": identity, "kind": "outcome", "score": grade.score, "detail": detail}
        ]
        right = await asyncio.to_thread(self._corrected, item)
        if right is not None:
            told.append({"interaction": identity, "kind": "correction", "score": 1.0, "detail": {"completion": right}})
        await asyncio.to_thread(self.feedback, told)
        return grade.score

    def feedback(self, body: list[dict[str, object]]) -> None:
        """POST /v1/feedback."""
        request = urllib.request.Request(  # noqa: S310 - loopback
            f"{self._url}/v1/feedback",
            json.dumps(body).encode(),
            {"content-type": "application/json", "authorization": f"Bearer {self._secret}"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - loopback
            answer.read()
