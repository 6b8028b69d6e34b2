"""How many tokens of a known right answer a model would have written itself, each after the right ones before it.

Teacher forcing, at places drawn from each reference: the model is given the prompt and the reference up to there, and
writes one token, greedily. That asks for nothing but plain completions of token ids, and for `/tokenize`, which vLLM
has and OpenAI's API has not. One call with `prompt_logprobs` would tell all places at once; but vLLM 0.32 with adapters
on a CPU dies of it as soon as another request is in the batch, and what is measured here is the server that serves.

The reference is tokenised by itself, as training does, so that no token lies half in the prompt. Where the turn ends is
not asked.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgspec

from pawl.curation.files import write_whole
from pawl.evaluation.clustered import clustered_mean
from pawl.evaluation.report import TokenAccuracy
from pawl.qe.item import Messages

PLACES = 8  # of one reference, all asked in one call
GIVE_UP = 4  # references that came to nothing, before any did
SECONDS = 120.0  # for one model: a figure that decides nothing may not hold up the evaluation
_CALL_S = 60.0


class Reference(NamedTuple):
    """A right answer to one item."""

    item: str
    source: str
    messages: Messages
    completion: str


class Counted(msgspec.Struct, frozen=True):
    """Of one reference."""

    tokens: int  # that were asked about
    first: int  # of those, the model's first choice


class Measured(NamedTuple):
    """By item, and why some are missing; "" where none is."""

    counted: dict[str, Counted]
    problem: str


def measure_tokens(
    references: Sequence[Reference],
    model: str,
    url: str,
    *,
    model_hash: str,
    api_key: str | None = None,
    cache_dir: Path | None = None,
    seconds: float = SECONDS,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Measured:
    """Ask one model about these references until the time is up; what was counted once is kept and not asked again.

    `url` ends before /v1. Nothing is raised for what the server does: the problem is told. A server that answers
    nothing usable to the first few is not asked further.
    """
    return asyncio.run(_all(references, model, url, model_hash, api_key, cache_dir, seconds, on_progress))


def places(reference: Reference, tokens: int) -> list[int]:
    """Which of its tokens are asked about: all, or PLACES drawn at random, the same ones each time (pure)."""
    if tokens <= PLACES:
        return list(range(tokens))
    return sorted(random.Random(f"{reference.item} {reference.completion}").sample(range(tokens), PLACES))


def token_accuracy(
    references: Sequence[Reference], counted: Mapping[str, Counted], alpha: float, problem: str = ""
) -> TokenAccuracy:
    """The mean share over these references, each counting alike, with an interval over sources (pure)."""
    known = [(r.source, counted[r.item]) for r in references if r.item in counted and counted[r.item].tokens]
    rows = [(source, c.first / c.tokens) for source, c in known]
    return TokenAccuracy(
        share=clustered_mean(rows, alpha, (0.0, 1.0)) if rows else None,
        items=len(rows),
        tokens=sum(c.tokens for _, c in known),
        problem=problem,
    )


async def _all(
    references: Sequence[Reference],
    model: str,
    url: str,
    model_hash: str,
    api_key: str | None,
    cache_dir: Path | None,
    seconds: float,
    on_progress: Callable[[int, int], None],
) -> Measured:
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    counted: dict[str, Counted] = {}
    problem, until = "", time.monotonic() + seconds
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=_CALL_S)) as session:

        async def one(reference: Reference) -> Counted | str:
            path = _path(cache_dir, model_hash, reference)
            kept = _kept(path)
            if kept is not None:
                return kept
            left = until - time.monotonic()
            if left <= 0:
                return f"the {seconds:g} s for it were over"
            try:
                async with asyncio.timeout(left):
                    made = await _count(session, reference, model, url)
            except TimeoutError:
                return f"the {seconds:g} s for it were over"
            except (aiohttp.ClientError, OSError, ValueError, LookupError, TypeError, AttributeError) as e:
                return f"{type(e).__name__}: {e}"
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(path, msgspec.json.encode(made))
            return made

        for done, reference in enumerate(references, start=1):
            made = await one(reference)
            if isinstance(made, Counted):
                counted[reference.item] = made
            else:
                problem = problem or made
            on_progress(done, len(references))
            if not counted and done >= GIVE_UP:
                break
    if not problem:
        return Measured(counted, "")
    return Measured(counted, f"{len(counted)} of {len(references)} references were measured: {problem}"[:300])


async def _count(session: aiohttp.ClientSession, reference: Reference, model: str, url: str) -> Counted:
    asked = {"model": model, "messages": reference.messages, "add_generation_prompt": True}
    prompt = await _post(session, f"{url}/tokenize", asked)
    told = {"model": model, "prompt": reference.completion, "add_special_tokens": False}
    written = await _post(session, f"{url}/tokenize", told)
    ids = [int(n) for n in (*prompt["tokens"], *written["tokens"])]
    if len(ids) >= int(prompt["max_model_len"]):
        raise ValueError("an item and its reference are longer than the model reads at once")
    right = ids[len(prompt["tokens"]) :]
    at = places(reference, len(right))
    if not at:
        raise ValueError("a reference without a token")
    body = {
        "model": model,
        "prompt": [prompt["tokens"] + right[:k] for k in at],
        "max_tokens": 1,
        "temperature": 0,
        "return_token_ids": True,
    }
    found = await _post(session, f"{url}/v1/completions", body)
    said = {int(c["index"]): list(c["token_ids"]) for c in found["choices"]}
    return Counted(len(at), sum(said[n][:1] == [right[k]] for n, k in enumerate(at)))


async def _post(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> Any:
    async with session.post(url, json=body) as reply:
        if reply.status != 200:
            raise ValueError(f"{url} answers with status {reply.status}")
        return await reply.json()


def _path(cache_dir: Path | None, model_hash: str, reference: Reference) -> Path | None:
    if cache_dir is None:
        return None
    told = msgspec.json.encode((model_hash, reference.messages, reference.completion), order="deterministic")
    key = hashlib.sha256(told).hexdigest()
    return cache_dir / key[:2] / f"{key}.tokens.json"


def _kept(path: Path | None) -> Counted | None:
    try:
        return None if path is None else msgspec.json.decode(path.read_bytes(), type=Counted)
    except (OSError, msgspec.DecodeError):
        return None
