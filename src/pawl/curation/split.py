"""Which sources train, which choose settings, and which are held out for the comparison (pure).

A source is never in two splits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from pawl.curation.dataset import Split
from pawl.errors import SourceError

_STEPS = 10_000


def _place(source: str) -> int:
    digest = hashlib.blake2b(f"split\0{source}".encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % _STEPS


def side(source: str, validation_percent: int, test_percent: int) -> Split:
    """The split of a source by a stable hash of its name.

    It depends on nothing else, so a new source moves no other one; raising a percentage takes sources from training,
    or, for the test split, from validation.
    """
    place = _place(source)
    if place < test_percent * _STEPS // 100:
        return "test"
    return "validation" if place < (test_percent + validation_percent) * _STEPS // 100 else "train"


def split_sources(sources: Iterable[str], validation_percent: int, test_percent: int) -> dict[str, Split]:
    """The split of each source of a whole; training and test hold at least one, validation too where there are three.

    As `side` says, except where the whole is so small that a split would stay empty: then the sources nearest to the
    border are taken over.

    Raises:
        SourceError: fewer than two sources, so that nothing can be held out.
    """
    known = sorted(set(sources), key=lambda s: (_place(s), s))
    if len(known) < 2:
        raise SourceError(
            f"the tasks come from {len(known)} source(s) ({', '.join(known) or 'none'}), and a source is never on both "
            "sides of the split: give the operations of the document at least two tags or first path segments"
        )
    sides = [side(s, validation_percent, test_percent) for s in known]
    middle = 1 if len(known) > 2 else 0
    tested = min(max(sides.count("test"), 1), len(known) - 1 - middle)
    held = min(max(tested + sides.count("validation"), tested + middle), len(known) - 1)
    return {s: "test" if n < tested else "validation" if n < held else "train" for n, s in enumerate(known)}
