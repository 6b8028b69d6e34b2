"""A small base model made for a benchmark: its own tokenizer, trained from nothing on answers of another kind.

It knows the form of prompts and answers, and none of the weeks' tasks. On the 135M model the same sequences take
hours on two busy cores.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pawl.curation.dataset import Example
from pawl.training.chat_format_transformers import ChatFormat

_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make(
    folder: Path,
    examples: Sequence[Example],
    *,
    hidden: int,
    layers: int,
    vocabulary: int,
    steps: int,
    tell: Callable[[str], None],
) -> Path:
    """The model's folder, made once: `steps` batches of 8 examples, every token learnt."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    if (folder / "model.safetensors").exists():
        return folder
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    raw.decoder = decoders.ByteLevel()
    marks = ["<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=marks, initial_alphabet=alphabet, show_progress=False
    )
    texts = ["\n".join([*(m["content"] for m in e.messages), e.completion]) for e in examples]
    raw.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=marks[1], additional_special_tokens=marks[:1])
    tokenizer.chat_template = _TEMPLATE
    tokenizer.save_pretrained(str(folder))
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            intermediate_size=3 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=hidden // 32,
            num_key_value_heads=hidden // 32,
            pad_token_id=1,
            eos_token_id=1,
            bos_token_id=0,
            tie_word_embeddings=True,
            max_position_embeddings=1024,
        )
    )
    began, loss = time.monotonic(), 0.0
    for step, loss in enumerate(
        _train(model, [e.input_ids for e in ChatFormat(folder).encode_all(examples, 320).encoded], steps), 1
    ):
        if step % 100 == 0 or step == steps:
            tell(f"base model: step {step} of {steps}, loss {loss:.2f}, {time.monotonic() - began:.0f} s")
    model.save_pretrained(str(folder))
    return folder


def _train(model: Any, rows: list[list[int]], steps: int) -> Any:
    import torch

    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps, pct_start=0.1)
    rng = random.Random(0)
    model.train()
    for _ in range(steps):
        batch = rng.sample(rows, min(8, len(rows)))
        width = max(map(len, batch))
        ids = torch.tensor([r + [1] * (width - len(r)) for r in batch])
        labels = torch.tensor([r + [-100] * (width - len(r)) for r in batch])
        loss = model(input_ids=ids, labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        plan.step()
        yield float(loss.detach())
