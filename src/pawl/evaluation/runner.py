"""A model answers the evaluation's items; answers are kept, so that nothing is asked twice."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from pawl.errors import ServerNotUp
from pawl.evaluation.report import ItemResult
from pawl.qe.item import Grade, Item

UNGRADED = "the oracle cannot grade this item"  # the problem of an answer that nobody can score
_TRIES = 2
_BUSY, _BUSY_TRIES, _LONGEST_PAUSE_S = (429, 503), 6, 30.0  # that a server is full says nothing of a model
_NOT_ALLOWED = (401, 403, 404)
_ROUNDING = 1e-9


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A model's answer. `problem` is set where it failed to give one."""

    completion: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    latency_s: float = 0.0
    problem: str = ""
    outage: bool = False  # the server was too busy all the time: not the model's failure


def answer_items(
    items: Sequence[Item],
    model: str,
    url: str,
    *,
    max_tokens: int,
    model_hash: str,
    grade: Callable[[Item, str], Grade | None],
    cache_dir: Path | None = None,
    concurrency: int = 32,
    graders: int = 1,
    api_key: str | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[ItemResult]:
    """Greedy answers of one model behind an OpenAI-compatible server, graded.

    `url` ends before /v1. A model that fails on an item scores 0 there; an oracle that fails, or a server that is busy
    all the time, makes the item invalid (score None). `graders` of them are graded at a time.
    ServerNotUp where the server cannot be reached, refuses the key or does not know the model.
    """
    keys = [_key(i, model_hash, max_tokens) for i in items]
    answers = asyncio.run(
        _answer_all(items, keys, model, url, max_tokens, cache_dir, concurrency, api_key, on_progress)
    )
    # Oracles that run code or a browser wait for processes of their own.
    with ThreadPoolExecutor(graders) as pool:
        return list(pool.map(partial(_graded, grade), items, answers))


async def _answer_all(
    items: Sequence[Item],
    keys: list[str],
    model: str,
    url: str,
    max_tokens: int,
    cache_dir: Path | None,
    concurrency: int,
    api_key: str | None,
    on_progress: Callable[[int, int], None],
) -> list[Answer]:
    turn, done = asyncio.Semaphore(concurrency), 0
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}

    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=600)) as session:

        async def one(item: Item, key: str) -> Answer:
            nonlocal done
            kept = _kept(cache_dir, key)
            if kept is None:
                async with turn:
                    kept = await _ask(session, item, model, url, max_tokens)
                if not kept.problem:
                    _keep(cache_dir, key, kept)
            done += 1
            on_progress(done, len(items))
            return kept

        return list(await asyncio.gather(*(one(i, k) for i, k in zip(items, keys, strict=True))))


async def _ask(session: aiohttp.ClientSession, item: Item, model: str, url: str, max_tokens: int) -> Answer:
    body = {"model": model, "messages": item.messages, "max_tokens": max_tokens, "temperature": 0}
    problem, failed, busy = "", 0, 0
    while failed < _TRIES and busy < _BUSY_TRIES:
        began = time.perf_counter()
        try:
            async with session.post(f"{url}/v1/chat/completions", json=body) as reply:
                if reply.status in _BUSY:
                    problem = f"status {reply.status}: it was busy each of {_BUSY_TRIES} times"
                    busy += 1
                    await asyncio.sleep(_pause(reply.headers.get("retry-after"), busy))
                    continue
                if reply.status in _NOT_ALLOWED:
                    said = (await reply.text())[:200]
                    raise ServerNotUp(f"{url} answers {model!r} with status {reply.status}: {said}; check key and name")
                if reply.status != 200:
                    problem = f"status {reply.status}: {(await reply.text())[:200]}"
                    failed += 1
                    continue
                found = _answer(await reply.json())
        except aiohttp.ClientConnectorError as e:
            raise ServerNotUp(f"{url} does not answer; start it and run the evaluation again, it continues") from e
        except (aiohttp.ClientError, TimeoutError, ValueError, LookupError, TypeError, AttributeError) as e:
            problem = f"{type(e).__name__}: {e}"
            failed += 1
            continue
        return msgspec.structs.replace(found, latency_s=time.perf_counter() - began)
    return Answer(problem=problem, outage=busy >= _BUSY_TRIES)


def _answer(found: Any) -> Answer:
    """What a server said; any error of looking things up where that is no answer."""
    usage = found.get("usage") or {}
    return Answer(
        # Half a surrogate pair cannot be stored as UTF-8.
        completion=(found["choices"][0]["message"].get("content") or "").encode(errors="replace").decode(),
        prompt_tokens=int(usage.get("prompt_tokens") or 0),
        completion_tokens=int(usage.get("completion_tokens") or 0),
    )


def _pause(retry_after: str | None, tries: int) -> float:
    """Seconds until a busy server is asked again: as it says, at most half a minute, else 0.5, 1, 2, ..."""
    try:
        return min(_LONGEST_PAUSE_S, max(0.0, float(retry_after or "")))
    except ValueError:
        return float(min(_LONGEST_PAUSE_S, 0.5 * 2 ** (tries - 1)))


def _graded(grade: Callable[[Item, str], Grade | None], item: Item, answer: Answer) -> ItemResult:
    prompt = "\n".join(str(m.get("content", "")) for m in item.messages)
    result = ItemResult(
        item=item.id,
        source=item.source,
        scenario=item.scenario,
        prompt=prompt,
        completion=answer.completion,
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
        latency_s=answer.latency_s,
        score=0.0,
        problem=answer.problem,
    )
    if answer.problem:
        return msgspec.structs.replace(result, score=None) if answer.outage else result
    try:
        found = grade(item, answer.completion)
    except Exception as e:  # an oracle's outage must not look like a model's failure
        problem = f"the oracle failed: {type(e).__name__}: {e}"
        return msgspec.structs.replace(result, score=None, problem=problem)
    if found is None:
        return msgspec.structs.replace(result, score=None, problem=UNGRADED)
    if wrong := _no_shares(found):
        return msgspec.structs.replace(result, score=None, problem=f"the oracle failed: not within 0..1: {wrong}")
    return msgspec.structs.replace(
        result,
        score=found.score,
        conforms=found.conforms,
        problem=found.problem,
        metrics=found.metrics,
        label=found.label,
        said=found.said,
        confidence=found.confidence,
    )


def _no_shares(found: Grade) -> str:
    """Figures of a grade that are not within 0..1, as no number is: one of them would spoil every mean."""
    figures = {"score": found.score, **found.metrics}
    if found.confidence is not None:
        figures["confidence"] = found.confidence
    return ", ".join(f"{name} {value}" for name, value in figures.items() if not -_ROUNDING <= value <= 1 + _ROUNDING)


def _key(item: Item, model_hash: str, max_tokens: int) -> str:
    told = msgspec.json.encode((model_hash, item.messages, max_tokens, 0.0), order="deterministic")
    return hashlib.sha256(told).hexdigest()


def _kept(cache_dir: Path | None, key: str) -> Answer | None:
    if cache_dir is None:
        return None
    try:
        return msgspec.json.decode((cache_dir / key[:2] / f"{key}.json").read_bytes(), type=Answer)
    except (OSError, msgspec.DecodeError):
        return None


def _keep(cache_dir: Path | None, key: str, answer: Answer) -> None:
    if cache_dir is None:
        return
    path = cache_dir / key[:2] / f"{key}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_bytes(msgspec.json.encode(answer))
    part.replace(path)
