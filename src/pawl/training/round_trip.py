"""Whether an exported model answers as the one it was made from: what is compared, and what may differ (pure)."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

To = Literal["adapter", "merged", "gguf"]
Quantize = Literal["f16", "bf16", "q8_0"]

PROMPTS, TOKENS = 8, 32
# 16 bits round: they may choose another token only where the original was undecided, its own the likelier by a factor
# of at most e^0.5 = 1.6. A 135M model with a trained adapter, merged in bfloat16, had one such in 100 tokens, the
# widest gap of them 0.25; in f16 none.
NEAR_TIE = 0.5
# Below that share of same tokens eight bits explain nothing: the conversion is broken.
LOSSY_FLOOR = 0.5
# The export must be nearer to the original than that share of the way back to the base model without its adapter.
MOST_LOST = 0.25
_NO_EFFECT = 1e-3  # nats: such an adapter changes nothing that could be lost


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A position at which the exported model prefers another token, after the same text."""

    prompt: int  # its number in the sample, from 0
    position: int  # of the answer's token, from 0
    expected: int  # token id of the original
    found: int  # of the exported model
    gap: float  # logits: by how much the original prefers its own


class RoundTrip(msgspec.Struct, frozen=True, kw_only=True):
    """The original's greedy answers, and the exported model's choice at each of their positions.

    The exported model sees the original's own tokens before each position, so that one difference does not bring on
    others; up to the first one this is exactly its own greedy answer.
    """

    prompts: int
    tokens: int
    same: int
    same_prompts: int  # rendered and tokenised alike by the exported tokenizer and template
    differences: tuple[Difference, ...]
    divergence: float  # nats a token, KL(original || exported), mean over the positions
    effect: float  # the same for the base model without the adapter: what the adapter changes

    @property
    def share(self) -> float:
        """Of tokens that are the same, 0..1."""
        return self.same / max(1, self.tokens)


def problem_of(trip: RoundTrip, *, lossy: bool) -> str | None:
    """Why an export must not be used; None where it may."""
    if trip.tokens == 0:
        return "no prompt of the dataset could be tried"
    if trip.same_prompts < trip.prompts:
        return f"{trip.prompts - trip.same_prompts} of {trip.prompts} prompts become other tokens"
    if not math.isfinite(trip.divergence):
        return "its answers are not finite"
    if trip.effect > _NO_EFFECT and trip.divergence > MOST_LOST * trip.effect:
        return (
            f"it is {trip.divergence:.3g} nats a token away from the original, and the base model without the adapter "
            f"{trip.effect:.3g}: what the adapter learnt is lost"
        )
    if lossy:
        if trip.share >= LOSSY_FLOOR:
            return None
        return f"only {trip.same} of {trip.tokens} greedy tokens are the same; eight bits do not explain that"
    wrong = [d for d in trip.differences if not d.gap <= NEAR_TIE]
    if not wrong:
        return None
    worst = max(wrong, key=lambda d: d.gap)
    return (
        f"{len(wrong)} of {trip.tokens} greedy tokens differ where the original was not undecided, the worst in prompt "
        f"{worst.prompt + 1} at token {worst.position + 1} by {worst.gap:.2f} logits"
    )


def told(trip: RoundTrip) -> str:
    """One line for people."""
    line = f"{trip.same} of {trip.tokens} greedy tokens over {trip.prompts} prompts are the same"
    if trip.differences:
        ties = ", ".join(f"prompt {d.prompt + 1} token {d.position + 1}: {d.gap:.3f}" for d in trip.differences[:5])
        more = f" and {len(trip.differences) - 5} more" if len(trip.differences) > 5 else ""
        line += f"; the others by the original's logit gap: {ties}{more}"
    return f"{line}; {trip.divergence:.2g} nats a token away, where the adapter moves it by {trip.effect:.2g}"
