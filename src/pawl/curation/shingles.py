"""Texts as sets of hashed word shingles, many at once, in numpy."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

WORDS = 3  # a shingle
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that powers have inverses modulo 2^64
_INVERSE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 1 << 64))
_CHUNK = 4 << 20  # bytes at once: bounds the memory

Hashes = npt.NDArray[np.uint64]


def _folded(byte: int) -> int:
    """The byte of a word, in lower case; 0 between words. Beyond ASCII everything is a letter."""
    if byte >= 0x80:
        return byte
    letter = chr(byte)
    return ord(letter.lower()) if letter.isalnum() or letter == "_" else 0


_TABLE = np.array([_folded(b) for b in range(256)], np.uint8)


class Shingles(NamedTuple):
    """Row n's shingles are hashes[offsets[n]:offsets[n + 1]], not sorted, with repeats."""

    hashes: Hashes
    offsets: Hashes

    def row(self, n: int) -> Hashes:
        """The set of one text."""
        return np.unique(self.hashes[int(self.offsets[n]) : int(self.offsets[n + 1])])


def shingles(texts: Sequence[str]) -> Shingles:
    """Each text's three-word shingles (Broder 1997), case folded, punctuation left out.

    A text of fewer words has one shingle of all it has; one without any word has one of its raw text.
    """
    hashes: list[Hashes] = []
    counts: list[npt.NDArray[np.int64]] = []
    part: list[bytes] = []
    size = 0
    for text in texts:
        part.append(text.encode(errors="surrogatepass"))
        size += len(part[-1]) + 1
        if size >= _CHUNK:
            _add(part, hashes, counts)
            part, size = [], 0
    if part:
        _add(part, hashes, counts)
    total = np.concatenate(counts) if counts else np.zeros(0, np.int64)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(total)]).astype(np.uint64)
    return Shingles(np.concatenate(hashes) if hashes else np.zeros(0, np.uint64), offsets)


def jaccard(a: Hashes, b: Hashes) -> float:
    """Similarity of two sorted sets of hashes, 0..1."""
    shared = np.intersect1d(a, b, assume_unique=True).size
    return shared / max(1, a.size + b.size - shared)


def _add(part: list[bytes], hashes: list[Hashes], counts: list[npt.NDArray[np.int64]]) -> None:
    made, lengths = _chunk(part)
    hashes.append(made)
    counts.append(lengths)


def _chunk(part: list[bytes]) -> tuple[Hashes, npt.NDArray[np.int64]]:
    raw = np.frombuffer(b"\0".join(part) + b"\0", np.uint8)
    lower = _TABLE[raw]
    inside = lower != 0
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]]).view(np.int8)))
    starts, ends = edges[::2], edges[1::2]
    # A word's hash is the difference of two prefix sums of byte * BASE^place, moved to place 0.
    n = raw.size
    powers = np.empty(n, np.uint64)
    powers[0] = 1
    powers[1:] = _BASE
    np.cumprod(powers, out=powers)
    prefix = np.concatenate([np.zeros(1, np.uint64), np.cumsum(lower.astype(np.uint64) * powers)])
    inverse = np.empty(n, np.uint64)
    inverse[0] = 1
    inverse[1:] = _INVERSE
    np.cumprod(inverse, out=inverse)
    words = _mixed((prefix[ends] - prefix[starts]) * inverse[starts])
    borders = np.cumsum([len(p) + 1 for p in part])
    document = np.searchsorted(borders, starts, side="right")
    per_text = np.bincount(document, minlength=len(part))
    full = words.size - WORDS + 1
    if full > 0:
        made = words[:full].copy()
        for k in range(1, WORDS):
            made = _mixed(made + words[k : full + k])
        keep = document[:full] == document[WORDS - 1 :]
        made, owner = made[keep], document[:full][keep]
    else:
        made, owner = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    short = np.flatnonzero(per_text < WORDS)
    if short.size:
        firsts = np.concatenate([[0], np.cumsum(per_text)])
        alone = np.array([_alone(words[firsts[d] : firsts[d + 1]], part[d]) for d in short], np.uint64)
        made, owner = np.concatenate([made, alone]), np.concatenate([owner, short])
        order = np.argsort(owner, kind="stable")
        made, owner = made[order], owner[order]
    return made, np.bincount(owner, minlength=len(part)).astype(np.int64)


def _alone(words: Hashes, raw: bytes) -> np.uint64:
    if words.size:
        made = _mixed(words[:1])
        for n in range(1, words.size):
            made = _mixed(made + words[n : n + 1])
        return np.uint64(made[0])
    return np.uint64(int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "big"))


def _mixed(x: Hashes) -> Hashes:
    """Spreads the bits (the finaliser of SplitMix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
