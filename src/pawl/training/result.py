"""What training says while it runs and when it is done."""

from __future__ import annotations

import msgspec


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """One optimiser step. `loss` is the mean over the step's completion tokens, in nats."""

    step: int
    steps: int
    loss: float
    learning_rate: float
    tokens_per_s: float
    stage: str = "examples"  # pretraining, examples, preferences
    memory_mb: float = 0.0  # resident set on a CPU, allocated on a GPU


class StageResult(msgspec.Struct, frozen=True, kw_only=True):
    """One stage of a run. Losses as in TrainResult; in `preferences` they are the method's own."""

    name: str
    steps: int
    items: int  # examples, pairs, or packed sequences
    tokens: int
    seconds: float
    loss_first: float
    loss_last: float
    resumed_at: int = 0
    note: str = ""  # why it was left out, or what else a reader must know
    losses: tuple[tuple[int, float], ...] = ()  # (step, loss) of all steps, over all attempts where it was resumed


class TrainResult(msgspec.Struct, frozen=True, kw_only=True):
    """A finished run. Losses are means over the first and the last tenth of the steps, in nats a token."""

    adapter_dir: str
    steps: int
    examples: int  # used, after dropping
    dropped: int  # longer than max_tokens
    tokens: int  # seen by the model over all epochs, prompts included, padding not
    completion_tokens: int
    seconds: float  # of training itself, over all attempts where a run was resumed
    tokens_per_s: float
    loss_first: float
    loss_last: float
    parameters: int  # trained
    dtype: str  # of the frozen base weights
    resumed_at: int = 0  # the step this attempt started from
    started_from: str = ""  # name of the adapter that training continued, "" for a fresh one
    method: str = "lora"
    truncated: int = 0  # longer than max_tokens, cut at the prompt's beginning
    split: int = 0  # longer than max_tokens, learnt in pieces
    stages: tuple[StageResult, ...] = ()
    notes: tuple[str, ...] = ()
    validation_before: float | None = None  # mean nats a completion token over validation examples; None without any
    validation_after: float | None = None  # of what is kept: where adapters are averaged, of the average
    versions: dict[str, str] = {}  # of what computes: python, torch, transformers, peft, the machine
    peak_mb: float = 0.0
