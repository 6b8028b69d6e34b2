"""Which sources are held out for evaluation (pure). A source is never on both sides."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal

from pawl.errors import SourceError

Side = Literal["training", "evaluation"]
_STEPS = 10_000


def _place(source: str) -> int:
    digest = hashlib.blake2b(f"split\0{source}".encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def side(source: str, evaluation_percent: int) -> Side:
    """The side of a source by a stable hash of its name.

    It depends on nothing else, so a new source moves no other one; raising the percentage only moves sources to
    evaluation.
    """
    return "evaluation" if _place(source) % _STEPS < evaluation_percent * _STEPS // 100 else "training"


def split_sources(sources: Iterable[str], evaluation_percent: int) -> tuple[frozenset[str], frozenset[str]]:
    """Training and evaluation sources of a whole; both hold at least one.

    As `side` says, except where the whole is so small that one side would stay empty: then the source nearest to the
    border is taken over.

    Raises:
        SourceError: fewer than two sources, so that nothing can be held out.
    """
    known = sorted(set(sources), key=lambda s: (_place(s) % _STEPS, s))
    if len(known) < 2:
        raise SourceError(
            f"the tasks come from {len(known)} source(s) ({', '.join(known) or 'none'}), and a source is never on both "
            "sides of the split: give the operations of the document at least two tags or first path segments"
        )
    held = sum(side(s, evaluation_percent) == "evaluation" for s in known)
    border = min(max(held, 1), len(known) - 1)
    return frozenset(known[border:]), frozenset(known[:border])
