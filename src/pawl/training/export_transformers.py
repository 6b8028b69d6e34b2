"""Loads a model as it leaves, and looks at its greedy answers: the vendor's part of the round trip."""

from __future__ import annotations

import contextlib
import gc
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pawl.errors import ModelFileError
from pawl.training.chat_format_transformers import _text
from pawl.training.modelfile import Render
from pawl.training.round_trip import Difference, RoundTrip

if TYPE_CHECKING:
    import torch


def load(folder: Path, gguf: str | None = None) -> Any:
    """A causal model in float32, to be asked and not trained; from a GGUF file of the folder where one is named.

    ModelFileError where it cannot be loaded.
    """
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    # Without dequantize=True 8-bit weights would stay packed.
    how = {"gguf_file": gguf, "quantization_config": GgufConfig(dequantize=True)} if gguf else {}
    try:
        # Reading a GGUF file draws a bar of its own, whatever logging says.
        with contextlib.redirect_stderr(io.StringIO()) if gguf else contextlib.nullcontext():
            model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32, **how)
    except (OSError, ValueError, KeyError, RuntimeError, NotImplementedError) as e:
        raise ModelFileError(f"{gguf or folder.name} cannot be loaded again by transformers ({e})") from e
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def tokenizer(folder: Path, gguf: str | None = None) -> Any:
    """The folder's tokenizer, or the one inside a GGUF file. ModelFileError where it cannot be loaded."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(folder), **({"gguf_file": gguf} if gguf else {}))
    except (OSError, ValueError, KeyError, RuntimeError, NotImplementedError) as e:
        raise ModelFileError(f"the tokenizer of {gguf or folder.name} cannot be loaded again ({e})") from e


def prompt_of(tokens: Any, messages: Sequence[dict[str, Any]]) -> list[int]:
    """Token ids up to where the assistant begins to write, by a tokenizer's own template; [] where it has none."""
    if not getattr(tokens, "chat_template", None):
        return []
    text = rendering(tokens)([{**m, "content": _text(m.get("content"))} for m in messages], True)
    return list(tokens(text, add_special_tokens=False)["input_ids"])


def ends_of(model: Any, tokens: Any) -> set[int]:
    """Ids that end an answer."""
    ends = getattr(model.generation_config, "eos_token_id", None)
    found = set(ends if isinstance(ends, list) else [ends]) | {tokens.eos_token_id}
    return {int(e) for e in found if e is not None}


def rendering(tokens: Any) -> Render:
    """How the tokenizer's chat template writes a conversation."""
    return lambda messages, generate: str(
        tokens.apply_chat_template(list(messages), add_generation_prompt=generate, tokenize=False)
    )


def end_texts(tokens: Any) -> list[str]:
    """Texts that end an answer: the end token, and what the template writes after a turn where that is a token."""
    said = rendering(tokens)([{"role": "user", "content": "?"}, {"role": "assistant", "content": "answered"}], False)
    tail = said.rpartition("answered")[2].strip()
    found = [tail] if tail and tail in tokens.get_vocab() else []
    return list(dict.fromkeys([*found, *([tokens.eos_token] if tokens.eos_token else [])]))


class Answer(NamedTuple):
    """One greedy answer of the original."""

    prompt: list[int]
    said: list[int]  # token ids, the end token too
    logits: torch.Tensor  # that each was chosen by, float32 (tokens, vocabulary), on the CPU
    effect: float  # nats, KL(original || base without the adapter), summed over the tokens


def answer(model: Any, prompt: Sequence[int], most: int, ends: set[int]) -> Answer:
    """What a model with an adapter says, greedily, in at most `most` tokens."""
    import torch

    said: list[int] = []
    rows: list[torch.Tensor] = []
    ids, cache = torch.tensor([list(prompt)], device=model.device), None
    with torch.inference_mode():
        while len(said) < most and not (said and said[-1] in ends):
            out = model(input_ids=ids, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            rows.append(out.logits[0, -1].float().cpu())
            said.append(int(rows[-1].argmax()))
            ids = torch.tensor([[said[-1]]], device=model.device)
    logits = torch.stack(rows)
    with model.disable_adapter():
        plain = _logits(model, prompt, said)
    return Answer(list(prompt), said, logits, _divergence(logits, plain))


def compare(model: Any, answers: Sequence[Answer], same_prompts: int, on_prompt: Callable[[int], None]) -> RoundTrip:
    """What an exported model would have said at each position of the original's answers."""
    differences: list[Difference] = []
    away = 0.0
    for n, a in enumerate(answers):
        found = _logits(model, a.prompt, a.said)
        away += _divergence(a.logits, found)
        for at, (mine, other) in enumerate(zip(a.said, found.argmax(-1).tolist(), strict=True)):
            if mine != other:
                known = other < a.logits.shape[1]  # a vocabulary may be padded
                gap = float(a.logits[at, mine] - a.logits[at, other]) if known else float("inf")
                differences.append(Difference(prompt=n, position=at, expected=mine, found=other, gap=gap))
        on_prompt(n + 1)
    tokens = sum(len(a.said) for a in answers)
    return RoundTrip(
        prompts=len(answers),
        tokens=tokens,
        same=tokens - len(differences),
        same_prompts=same_prompts,
        differences=tuple(differences),
        divergence=away / max(1, tokens),
        effect=sum(a.effect for a in answers) / max(1, tokens),
    )


def _logits(model: Any, prompt: Sequence[int], said: Sequence[int]) -> torch.Tensor:
    """float32 (tokens, vocabulary): what the model thinks at each position of an answer that is given."""
    import torch

    ids = torch.tensor([[*prompt, *said[:-1]]], device=model.device)
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 :].float().cpu()
    return found


def _divergence(one: torch.Tensor, two: torch.Tensor) -> float:
    import torch

    width = min(one.shape[1], two.shape[1])
    p, q = (torch.log_softmax(x[:, :width].double(), -1) for x in (one, two))
    return float((p.exp() * (p - q)).sum())


def forget() -> None:
    """Gives back the memory of models that nothing refers to any more."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
