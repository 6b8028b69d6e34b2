"""What prompts are about: vectors, clusters, and prompts that say the same in other words."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.preprocessing import normalize

Vectors = npt.NDArray[np.float32]  # texts x dimensions, unit length
_WORD = r"[^\W_]+"
_FEATURES = 1 << 15
_DIMENSIONS = 64
_FITTED_ON = 4_000  # texts that the directions are learnt from
_CHARACTERS = 4_000  # of a text that count
_BLOCK = 2_048


def lsa(texts: Sequence[str], seed: int) -> Vectors:
    """Latent semantic analysis of word and word-pair counts (Deerwester et al. 1990): no model, thousands a second."""
    words = HashingVectorizer(
        n_features=_FEATURES, ngram_range=(1, 2), alternate_sign=False, token_pattern=_WORD, dtype=np.float32
    )
    counts = words.transform(t[:_CHARACTERS] for t in texts)
    # Rare words tell more: inverse document frequency, from all texts.
    seen = np.asarray((counts > 0).sum(axis=0)).ravel()
    weighted = counts.multiply(np.log((1 + len(texts)) / (1 + seen)).astype(np.float32) + 1).tocsr()
    picked = np.random.default_rng(seed).permutation(len(texts))[:_FITTED_ON]
    dimensions = min(_DIMENSIONS, len(picked) - 1, _FEATURES - 1)
    if dimensions < 1:
        return np.ones((len(texts), 1), np.float32)
    found = TruncatedSVD(dimensions, random_state=seed).fit(weighted[np.sort(picked)])
    return np.asarray(normalize(found.transform(weighted)), np.float32)


def clusters(vectors: Vectors, most: int, seed: int) -> npt.NDArray[np.int64]:
    """A cluster of each row, numbered from 0 (mini-batch k-means, Sculley 2010); no more than rows."""
    count = min(most, len(vectors))
    if count < 2:
        return np.zeros(len(vectors), np.int64)
    made = MiniBatchKMeans(count, n_init=1, batch_size=4096, max_iter=20, random_state=seed)
    return np.asarray(made.fit_predict(vectors), np.int64)


def same_meaning(
    vectors: Vectors, groups: npt.NDArray[np.int64], threshold: float, first: int = 0
) -> npt.NDArray[np.int64]:
    """For each row the earlier one of its cluster that it repeats (cosine >= threshold), or -1.

    Rows are in order of preference, the first `first` are compared with and not judged. Looking inside clusters only is
    SemDeDup's way (Abbas et al. 2023); what lies across a border is missed.
    """
    repeats = np.full(len(vectors), -1, np.int64)
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        kept: list[int] = []
        for start in range(0, rows.size, _BLOCK):
            block = rows[start : start + _BLOCK]
            against = np.array([*kept, *block], np.int64)
            close = vectors[block] @ vectors[against].T >= threshold
            alive = np.zeros(against.size, bool)
            alive[: len(kept)] = True
            before = len(kept)
            for k, row in enumerate(block.tolist()):
                if row >= first:
                    hits = np.flatnonzero(close[k, : before + k] & alive[: before + k])
                    if hits.size:
                        repeats[row] = against[hits[0]]
                        continue
                alive[before + k] = True
                kept.append(row)
    return repeats


def vectors_of(texts: Sequence[str], embed: Callable[[list[str]], Vectors] | None, seed: int) -> Vectors:
    """By an embedding model where one is given, else by `lsa`."""
    if not texts:
        return np.zeros((0, 1), np.float32)
    return lsa(texts, seed) if embed is None else embed(list(texts))
