"""Near-duplicates among many texts: MinHash signatures, locality-sensitive bands, and exact similarity at the end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from rensa import RMinHash, RMinHashLSH

from pawl.curation.shingles import Shingles, jaccard, shingles

PERMUTATIONS = 128
_SEED = 42
_MISSED = 1e-3  # chance that a pair right at the threshold shares no band


def near_duplicates(texts: Sequence[str], threshold: float, first: int = 0) -> npt.NDArray[np.int64]:
    """For each text the row of an earlier one that it repeats, or -1: the texts in order of preference.

    Two texts are one where the Jaccard similarity of their three-word shingles is at least `threshold`. The first
    `first` rows repeat nothing (they are compared with, not judged). Candidates are found by MinHash (Broder 1997) in
    bands chosen so that a pair at the threshold is missed in one of a thousand cases; found pairs are compared
    exactly. A repeated text is compared with no more: what is similar to it only is kept.
    """
    repeats = np.full(len(texts), -1, np.int64)
    if len(texts) < 2:
        return repeats
    sets = shingles(texts)
    bands = _bands(threshold)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(sets.hashes, sets.offsets, PERMUTATIONS, _SEED)
    flagged = np.flatnonzero(RMinHashLSH(threshold, PERMUTATIONS, bands).query_duplicate_flags_matrix_one_shot(matrix))
    del matrix
    buckets: list[dict[bytes, list[int]]] = [defaultdict(list) for _ in range(bands)]
    width = PERMUTATIONS // bands
    kept: dict[int, npt.NDArray[np.uint64]] = {}
    for block in range(0, flagged.size, 4096):
        rows = flagged[block : block + 4096]
        for n, signature in zip(rows.tolist(), _signatures(sets, rows), strict=True):
            keys = [signature[b * width : (b + 1) * width].tobytes() for b in range(bands)]
            mine = sets.row(n)
            if n >= first:
                similar = sorted({other for b in range(bands) for other in buckets[b].get(keys[b], ())})
                found = next((o for o in similar if jaccard(mine, kept[o]) >= threshold), None)
                if found is not None:
                    repeats[n] = found
                    continue
            kept[n] = mine
            for b in range(bands):
                buckets[b][keys[b]].append(n)
    return repeats


def _signatures(sets: Shingles, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
    parts = [sets.hashes[int(sets.offsets[n]) : int(sets.offsets[n + 1])] for n in rows.tolist()]
    offsets = np.concatenate([[0], np.cumsum([p.size for p in parts])]).astype(np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(np.concatenate(parts), offsets, PERMUTATIONS, _SEED)
    return np.array(matrix.to_rows(), np.uint32)


def _bands(threshold: float) -> int:
    """The fewest bands that miss a pair at the threshold no more often than _MISSED."""
    options = [b for b in range(1, PERMUTATIONS + 1) if PERMUTATIONS % b == 0]
    return next((b for b in options if (1 - threshold ** (PERMUTATIONS // b)) ** b <= _MISSED), PERMUTATIONS)
