"""A small server for /v1/embeddings with a local model: mean pooling over the last hidden states, unit length.

That is how sentence-transformers' usual models are trained (Reimers and Gurevych 2019, Sentence-BERT, section 3); a
model that needs another pooling belongs on vLLM (`--runner pooling`), which speaks the same API.
"""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from transformers import AutoModel, AutoTokenizer

from pawl.errors import ModelFileError

MOST_TEXTS = 2048
_BATCH = 32


class Embedder:
    """One model on the processor."""

    def __init__(self, source: str) -> None:
        """`source`: a local folder, or a Hugging Face id that is in the cache. ModelFileError where it cannot load."""
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(source)
            self._model: Any = AutoModel.from_pretrained(source).eval()
        except (OSError, ValueError) as e:
            raise ModelFileError(f"the embedding model {source} cannot be loaded: {e}") from e
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._most = min(self._tokenizer.model_max_length, getattr(self._model.config, "max_position_embeddings", 512))

    def embed(self, texts: list[str]) -> tuple[npt.NDArray[np.float32], int]:
        """(texts x dimensions, unit length; tokens used). Longer texts are cut at the model's context."""
        rows, used = [], 0
        for start in range(0, len(texts), _BATCH):
            inputs = self._tokenizer(
                texts[start : start + _BATCH], padding=True, truncation=True, max_length=self._most, return_tensors="pt"
            )
            with torch.inference_mode():
                states = self._model(**inputs).last_hidden_state
            mask = inputs["attention_mask"].unsqueeze(-1)
            means = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
            rows.append(torch.nn.functional.normalize(means.float(), dim=1).numpy())
            used += int(mask.sum())
        return np.concatenate(rows), used


def app(embedder: Embedder, name: str) -> FastAPI:
    """The server of one embedder."""
    made = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    turn = asyncio.Lock()  # the model uses every core: two batches at once would only slow each other down

    @made.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @made.post("/v1/embeddings")
    async def embeddings(body: dict[str, Any]) -> JSONResponse:
        texts = body.get("input")
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
            return _refused("`input` must be a text or a list of texts; token ids are not taken")
        if len(texts) > MOST_TEXTS:
            return _refused(f"`input` may hold {MOST_TEXTS} texts, not {len(texts)}")
        if body.get("dimensions") is not None:
            return _refused("`dimensions` cannot be chosen: this model has one length")
        async with turn:
            vectors, used = await asyncio.to_thread(embedder.embed, texts)
        packed = body.get("encoding_format") == "base64"
        rows = [
            {"object": "embedding", "index": n, "embedding": _packed(v) if packed else v.tolist()}
            for n, v in enumerate(vectors)
        ]
        return JSONResponse(
            {"object": "list", "data": rows, "model": name, "usage": {"prompt_tokens": used, "total_tokens": used}}
        )

    return made


def serve(source: Path | str, name: str, host: str, port: int) -> None:
    """Blocks."""
    uvicorn.run(app(Embedder(str(source)), name), host=host, port=port, log_level="warning", access_log=False)


def _packed(vector: npt.NDArray[np.float32]) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def _refused(message: str) -> JSONResponse:
    error = {"message": message, "type": "invalid_request_error", "param": "input", "code": None}
    return JSONResponse({"error": error}, 400)
