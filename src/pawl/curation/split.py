"""The split by source: a source is in training or in evaluation, never in both (pure)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal

from pawl.errors import SourceError

Side = Literal["training", "evaluation"]


def _place(source: str) -> float:
    """A stable place of a source in [0, 100)."""
    digest = hashlib.blake2b(source.encode(), digest_size=8, person=b"pawl-split").digest()
    return int.from_bytes(digest, "big") / 2**64 * 100


def side(source: str, evaluation_percent: int) -> Side:
    """Where a source belongs. Raising the percentage only moves sources from training to evaluation."""
    return "evaluation" if _place(source) < evaluation_percent else "training"


def split_sources(sources: Iterable[str], evaluation_percent: int) -> tuple[frozenset[str], frozenset[str]]:
    """(training, evaluation) sources. Few sources still give both sides: the one nearest to the border moves over.

    SourceError where there is only one source: then nothing unseen is left to judge on.
    """
    known = sorted(set(sources), key=lambda s: (_place(s), s))
    if len(known) < 2:
        raise SourceError(
            f"{len(known)} source(s): a model can only be judged on sources that training never saw. "
            "Give the operations of your document tags or several first path segments, or add a second document"
        )
    held_out = [s for s in known if side(s, evaluation_percent) == "evaluation"]
    held_out = held_out or known[:1]
    if len(held_out) == len(known):
        held_out = known[:-1]
    return frozenset(known) - frozenset(held_out), frozenset(held_out)
