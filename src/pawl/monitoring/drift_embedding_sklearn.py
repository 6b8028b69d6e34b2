"""A light embedding for drift: hashed character n-grams, no model and no server, the same on every machine.

It sees other words, names and forms; a question of the same words with another meaning it does not see. Weinberger et
al., "Feature hashing for large scale multitask learning" (ICML 2009).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.cluster import KMeans
from sklearn.feature_extraction.text import HashingVectorizer

DIMENSIONS = 512
CENTRES = 8  # kinds of request that are told apart
_CHARACTERS = 2_000  # of a text that count
_GRAMS = HashingVectorizer(
    analyzer="char_wb", ngram_range=(3, 4), n_features=DIMENSIONS, norm="l2", lowercase=True, dtype=np.float32
)


def vectors(texts: Sequence[str]) -> list[list[float]]:
    """A vector of unit length for each text (zero for an empty one)."""
    if not texts:
        return []
    found: list[list[float]] = _GRAMS.transform(t[:_CHARACTERS] for t in texts).toarray().tolist()
    return found


def centres(usual: Sequence[Sequence[float]]) -> list[list[float]]:
    """The middles of the kinds of request among vectors, of unit length: what is kept is of no single text."""
    x = np.asarray(usual, np.float32)
    count = min(CENTRES, len(np.unique(x, axis=0)))
    made = KMeans(count, n_init=1, random_state=0).fit(x).cluster_centers_
    size = np.linalg.norm(made, axis=1, keepdims=True)
    unit: list[list[float]] = (made / np.where(size > 0, size, 1.0)).astype(float).tolist()
    return unit


def distances(found: Sequence[Sequence[float]], middles: Sequence[Sequence[float]]) -> list[float]:
    """1 - cosine to the nearest middle, for each vector."""
    if not found:
        return []
    near = np.asarray(found, np.float32) @ np.asarray(middles, np.float32).T
    told: list[float] = (1.0 - near.max(axis=1)).astype(float).tolist()
    return told
