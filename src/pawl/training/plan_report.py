"""A training's plan put together: whether it fits, and how people read it (pure)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from pawl.fleet.training import TrainingSpec
from pawl.training.machine import Machine
from pawl.training.plan import Disk, Load, Memory, Shape, flops_per_token
from pawl.training.policy import Violation

TIGHT = 0.9  # of what is free: the estimate is good for about as much
# Tokens a second of a 135M model by LoRA in bfloat16 on two cores, as measured; other sizes and machines in proportion.
_ROUGH_CPU = 500 * 4 * 135e6 / 2  # flops a second and core
_ROUGH_SHARE = 0.35  # of a GPU's peak; the usual share of dense training
# bfloat16 peaks without sparsity, flops a second, from the makers' data sheets; the first that is in the name
_PEAKS = (("H200", 989e12), ("H100", 989e12), ("A100", 312e12), ("L40S", 362e12), ("A10", 125e12), ("4090", 165e12))
_PEAK_UNKNOWN = 100e12


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """What the dataset is to the tokenizer."""

    examples: int  # that train
    counted: int  # of them read with the tokenizer; fewer: the rest is extrapolated
    used: int  # examples after the rule for long ones, pieces counted each
    long: int  # longer than training.max_tokens
    rule: str  # what happens to those
    per_epoch: int
    error: float = 0.0  # half width of the 95 % interval of per_epoch, as a share of it; 0 where all were counted
    longest: int = 0
    pairs: int = 0  # of preferences, that train


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """How fast, and how that is known."""

    tokens_per_s: float
    how: Literal["measured", "earlier run", "rough"]
    note: str = ""
    peak_mb: float = 0.0  # of memory, where steps were run


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a training will take. Bytes, seconds."""

    agent: str
    dataset: str
    base: str
    licence: str
    method: str
    parameters: int
    trained: int
    tokens: Tokens
    steps: int
    load: Load
    memory: Memory
    disk: Disk
    speed: Speed
    seconds: float
    machine: Machine
    notes: tuple[str, ...] = ()
    violations: tuple[Violation, ...] = ()
    problems: tuple[str, ...] = ()  # why it does not fit

    @property
    def good(self) -> bool:
        return not self.violations and not self.problems


def tokens_of(
    lengths: Sequence[int], kept: Sequence[int], examples: int, *, long: int, rule: str, pairs: int = 0
) -> Tokens:
    """From the examples that were read to all of them.

    `lengths`: tokens of each example read, by itself. `kept`: of what is left of them after the rule for long ones.
    The error is that of a mean over a sample without replacement (Cochran 1977, Sampling Techniques, equation 2.20).
    """
    n = len(lengths)
    scale = examples / n if n else 0.0
    error = 0.0
    if 1 < n < examples and any(lengths):
        mean = sum(lengths) / n
        variance = sum((x - mean) ** 2 for x in lengths) / (n - 1)
        error = 1.96 * math.sqrt(variance / n * (1 - n / examples)) / mean
    return Tokens(
        examples=examples,
        counted=n,
        used=round(len(kept) * scale),
        long=round(long * scale),
        rule=rule,
        per_epoch=round(sum(kept) * scale),
        error=error,
        longest=max(lengths, default=0),
        pairs=pairs,
    )


def steps_of(used: int, spec: TrainingSpec) -> int:
    """Optimiser steps, as `pawl.training.batches.schedule` makes them."""
    return max(1, round(math.ceil(used / spec.batch_size) * spec.epochs)) if used else 0


def rough_speed(shape: Shape, spec: TrainingSpec, machine: Machine) -> Speed:
    """By arithmetic from what was measured elsewhere: right within a factor of three or so."""
    cost = flops_per_token(shape, spec)
    if machine.gpu is not None:
        peak = next((p for n, p in _PEAKS if n in machine.gpu.name), _PEAK_UNKNOWN)
        return Speed(tokens_per_s=_ROUGH_SHARE * peak / cost, how="rough", note=f"35 % of {peak / 1e12:.0f} Tflop/s")
    rate = _ROUGH_CPU * machine.cores * (1.0 if machine.half else 0.5)
    return Speed(tokens_per_s=rate / cost, how="rough", note="by a 135M model on two cores; --measure times real steps")


def problems_of(spec: TrainingSpec, memory: Memory, disk: Disk, machine: Machine) -> list[str]:
    """Why it cannot run here; empty where it can."""
    free = machine.gpu.free if machine.gpu else machine.memory_free
    where = f"on {machine.gpu.name}" if machine.gpu else "here"
    found = []
    if spec.method == "qlora" and machine.gpu is None:
        found.append("method qlora needs a CUDA GPU, and here is none: take method: lora, or another machine")
    if memory.total > free:
        found.append(
            f"memory: {size(memory.total)} needed, {size(free)} free {where}. Lower training.max_tokens or batch_size, "
            "take method: qlora (GPU), a smaller base model, or a larger machine"
        )
    if disk.total > machine.disk_free:
        found.append(
            f"disk: {size(disk.total)} needed, {size(machine.disk_free)} free; free some, or set PAWL_HOME to a larger "
            "disk"
        )
    return found


def told(plan: Plan) -> str:
    """For people: figures, then the verdict."""
    t, m, d, here = plan.tokens, plan.memory, plan.disk, plan.machine
    about = "" if t.counted == t.examples else f" (from {t.counted:,} of them, ± {t.error:.1%})"
    rule = {"drop": "left out", "truncate": "cut at the prompt's beginning", "split": "learnt in pieces"}[t.rule]
    free = here.gpu.free if here.gpu else here.memory_free
    limited = " (a control group's limit)" if here.memory_limited and not here.gpu else ""
    rows = [
        ("dataset", f"{plan.dataset}: {t.examples:,} examples that train, {t.pairs:,} preference pairs"),
        ("base model", f"{plan.base}, {plan.parameters / 1e6:,.0f}M parameters, {plan.licence or 'licence not known'}"),
        (
            "method",
            f"{plan.method}, {plan.trained / 1e6:,.2f}M parameters trained ({plan.trained / plan.parameters:.2%})",
        ),
        ("tokens", f"{t.per_epoch:,} an epoch{about}; longest {t.longest:,}"),
        ("too long", f"about {t.long:,} over training.max_tokens, {rule}"),
        ("steps", f"{plan.steps:,}; at once {plan.load.rows} x {plan.load.longest} tokens"),
        ("memory", f"{size(m.total)} of {size(free)} free{limited}: {_parts(m)}"),
        ("time", f"{duration(plan.seconds)} at {plan.speed.tokens_per_s:,.0f} tokens/s ({_how(plan.speed)})"),
        ("disk", f"{size(d.total)} of {size(here.disk_free)} free: {_parts(d)}"),
    ]
    lines = [f"{name:11} {text}" for name, text in rows]
    lines += [f"{'note':11} {n}" for n in plan.notes]
    lines += [f"{'forbidden':11} {v}" for v in plan.violations]
    lines += [f"{'too large':11} {p}" for p in plan.problems]
    return "\n".join([*lines, "", _verdict(plan, m.total / max(1, free))])


def _verdict(plan: Plan, share: float) -> str:
    if plan.good:
        return "It fits, but tightly: the estimate may be a tenth too low." if share > TIGHT else "It fits."
    words = (["It is forbidden."] if plan.violations else []) + (["It does not fit."] if plan.problems else [])
    return " ".join(words)


def _how(speed: Speed) -> str:
    return f"{speed.how}: {speed.note}" if speed.note else speed.how


def _parts(of: Memory | Disk) -> str:
    return ", ".join(f"{name} {size(n)}" for name, n in msgspec.structs.asdict(of).items() if n)


def size(n: float) -> str:
    """Bytes for people."""
    return f"{n / 1e9:.1f} GB" if n >= 1e9 else f"{n / 1e6:.0f} MB"


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
