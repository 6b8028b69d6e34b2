"""What a training will need, by arithmetic: parameters, memory, disk, steps (pure; bytes and seconds throughout).

Activations are counted tensor by tensor as autograd keeps them in a layer of the Llama kind (attention with grouped
keys, gated MLP, RMS norms), after Korthikanti et al. (arXiv 2205.05198, section 4), for frozen weights with an adapter
beside them. tests/unit/test_plan.py holds the count against what autograd really keeps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from pawl.fleet.training import TrainingSpec
from pawl.training.adapter_tensors import Linear

NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)  # a weight and its share of two levels of constants (QLoRA, section 3)
PROCESS = 760_000_000  # resident with torch, transformers, peft and a trainer, without any model (measured)
CUDA_CONTEXT = 600_000_000
# What allocators hold beyond what lives, and what lives for a moment only: on a CPU fitted to peaks of real runs of a
# 135M model by LoRA, DoRA and full fine-tuning (all within 15 %); on a GPU, where freed blocks are used again, assumed.
SLACK_CPU, SLACK_CUDA = 1.4, 1.2
KEPT = 3  # checkpoints on disk at once: two, and the one that is being written
MODULES = 7  # linear layers of a block: q, k, v, o, gate, up, down


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """The base model, as far as memory goes by it."""

    parameters: int
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    linear: dict[str, Linear]  # by name, the output head apart
    stored: int | None = None  # bytes of the weights, where they are quantised already


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """The largest that is computed at once."""

    rows: int  # examples
    longest: int  # tokens of each, padding included
    completion: int  # of them learnt, in all rows together

    @property
    def tokens(self) -> int:
        return self.rows * self.longest


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """At the peak of a step, on the device that computes. Bytes."""

    process: int  # the libraries; on a GPU its context
    weights: int
    trained: int  # what is trained, where it lies beside the weights
    gradients: int
    optimizer: int
    activations: int
    logits: int
    held: int = 0  # by elastic weight consolidation: the earlier weights and how much each matters

    @property
    def total(self) -> int:
        return sum(msgspec.structs.astuple(self))


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """Written by the run; bytes."""

    base: int  # the base model, where it must be fetched first
    checkpoints: int
    result: int  # the adapter, or the whole model where that is trained
    merged: int

    @property
    def total(self) -> int:
        return sum(msgspec.structs.astuple(self))


def shape_of(
    config: Mapping[str, Any], linear: Mapping[str, Linear], parameters: int, stored: int | None = None
) -> Shape:
    """From a model's config.json, its linear layers and the number of its parameters. KeyError where one is missing."""
    config = {**config, **config.get("text_config", {})}  # models that see have their text part apart
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    return Shape(
        parameters=parameters,
        layers=int(config["num_hidden_layers"]),
        hidden=hidden,
        intermediate=int(config.get("intermediate_size") or 4 * hidden),
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or hidden // heads),
        vocab=int(config["vocab_size"]),
        linear={n: s for n, s in linear.items() if not n.endswith("lm_head")},
        stored=stored,
    )


def targeted(shape: Shape, spec: TrainingSpec) -> list[Linear]:
    """The layers that the adapter sits on: all linear ones, those of such names, or those that a pattern matches."""
    wanted = spec.target_modules
    if wanted == "all-linear":
        return list(shape.linear.values())
    if isinstance(wanted, str):
        return [s for n, s in shape.linear.items() if re.fullmatch(wanted, n)]
    return [s for n, s in shape.linear.items() if any(n == w or n.endswith(f".{w}") for w in wanted)]


def trained_parameters(shape: Shape, spec: TrainingSpec) -> int:
    """Numbers that training changes.

    LoRA has rank * (inputs + outputs) a layer; DoRA adds a magnitude an output; AdaLoRA, at the rank it
    begins with, a value a rank and their number.
    """
    if spec.method == "full":
        return shape.parameters
    rank = spec.greatest_rank
    layers = targeted(shape, spec)
    found = sum(rank * (s.inputs + s.outputs) for s in layers)
    if spec.method == "dora":
        found += sum(s.outputs for s in layers)
    if spec.method == "adalora":
        found += (rank + 1) * len(layers)
    return found


def memory(shape: Shape, spec: TrainingSpec, load: Load, *, cuda: bool, half: bool, shards: int = 1) -> Memory:
    """What the peak of a training step needs.

    `half`: computed in bfloat16 rather than float32. `shards`: devices that the weights and all that is kept of them
    are spread over (FSDP); then one block at a time is gathered, and blocks are computed twice instead of kept.
    """
    width = 2 if half else 4
    full = spec.method == "full"
    count = trained_parameters(shape, spec)
    trained = 0 if full else 4 * count
    weights = _weights(shape, spec, width)
    block = weights // max(1, shape.layers)
    kept = weights // shards + (block if shards > 1 else 0)
    activations = _activations(shape, spec, load, width, fused=cuda, again=shards > 1 or spec.method == "qlora")
    return Memory(
        process=CUDA_CONTEXT if cuda else PROCESS,
        weights=kept,
        trained=trained // shards,
        gradients=4 * count // shards,
        optimizer=8 * count // shards,
        activations=round(activations * (SLACK_CUDA if cuda else SLACK_CPU)),
        # bfloat16: the logits, in float32, their softmax; float32: the first two are one, the gradient is wider.
        logits=load.completion * shape.vocab * (10 if half else 12),
        held=8 * count if spec.ewc else 0,
    )


def _weights(shape: Shape, spec: TrainingSpec, width: int) -> int:
    if shape.stored is not None:
        return shape.stored
    if spec.method == "full":
        return 4 * shape.parameters
    if spec.method == "qlora":
        packed = sum(s.inputs * s.outputs for s in shape.linear.values())
        # peft puts what is not packed (embeddings, head, norms) into float32.
        return round(packed * NF4_BITS / 8) + 4 * (shape.parameters - packed)
    return width * shape.parameters


def layer_activations(shape: Shape, spec: TrainingSpec, load: Load, width: int, *, fused: bool) -> int:
    """What autograd keeps of one block. `width`: bytes of a number that is computed in. `fused`: no scores are kept."""
    h, middle = shape.hidden, shape.intermediate
    a, k = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    full = spec.method == "full"
    # Inputs of the layers and what the norms keep in float32, then the gated MLP's four.
    each = (18 if width == 2 else 16) * h + 4 * width * middle
    # Queries, keys and values; unless fused, keys and values for every head, and each row's scores and their softmax.
    if fused:
        each += (6 * a + 4 * k if width == 2 else 8 * a + 8 * k) + 4 * shape.heads
    else:
        each += 4 * width * a + shape.heads * load.longest * (6 if width == 2 else 4)
    changed = trained_parameters(shape, spec)
    if full:
        each += 8 * h
        changed = sum(s.inputs * s.outputs for s in shape.linear.values())
    else:
        each += MODULES * spec.greatest_rank * width
        if spec.dropout:
            each += 2 * width * (5 * h + a + middle)  # a mask and what it lets through, before each layer
        if spec.method == "dora":
            each += (14 * h + 10 * a + 11 * middle) * width // 2  # each layer's own output, to be scaled
    casts = 2 * changed // shape.layers if width == 2 else 0  # of what is trained, which lies in float32
    return each * load.tokens + casts


def _activations(shape: Shape, spec: TrainingSpec, load: Load, width: int, *, fused: bool, again: bool) -> int:
    """Of all blocks, and once more of one: gradients of what a block keeps live beside it. `again`: computed twice."""
    one = layer_activations(shape, spec, load, width, fused=fused)
    if again:
        return 4 * shape.hidden * load.tokens * shape.layers + 2 * one
    return one * (shape.layers + 1)


def disk(shape: Shape, spec: TrainingSpec, *, fetched: bool) -> Disk:
    """What is written: checkpoints hold what is trained and two moments in float32. `fetched`: the base is here."""
    count = trained_parameters(shape, spec)
    stored = shape.stored if shape.stored is not None else 2 * shape.parameters
    return Disk(
        base=0 if fetched else stored,
        checkpoints=12 * count * KEPT,
        result=4 * count,
        merged=2 * shape.parameters if spec.merged else 0,
    )


def largest_load(lengths: Sequence[tuple[int, int]], batch_size: int, portion: int | None) -> Load:
    """The most that a step holds at once. `lengths`: (tokens, completion tokens) of each example.

    `portion`: tokens that a CPU takes at once of a batch (whole rows, at least one); None: all of it.
    """
    longest = max(n for n, _ in lengths)
    rows = min(batch_size, len(lengths))
    if portion is not None:
        rows = min(rows, max(1, portion // longest))
    most = sorted((c for _, c in lengths), reverse=True)[:rows]
    return Load(rows=rows, longest=longest, completion=sum(most))


def pretrain_loads(spec: TrainingSpec, portion: int | None) -> list[Load]:
    """What a step of pre-training on text holds at once, every token of it learnt; empty where there is no such stage.

    `portion`: as in `largest_load`.
    """
    if spec.pretrain is None:
        return []
    longest = spec.pretrain.max_tokens
    full = [(longest, longest - 1)] * spec.pretrain.batch_size
    return [largest_load(full, spec.pretrain.batch_size, portion)]


def flops_per_token(shape: Shape, spec: TrainingSpec) -> float:
    """Of forward and backward: 2 a parameter forward, 2 for gradients of inputs, 2 for those of trained weights.

    Kaplan et al. (arXiv 2001.08361, section 2.1). QLoRA computes the forward pass twice.
    """
    passes = 6 if spec.method == "full" else 4
    return float((passes + 2 * (spec.method == "qlora")) * shape.parameters + 6 * trained_parameters(shape, spec))
