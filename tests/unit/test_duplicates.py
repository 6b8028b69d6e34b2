"""Near-duplicates: what is one, what is not, and which of them stays."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pawl.curation.duplicates_rensa import near_duplicates
from pawl.curation.shingles import WORDS, jaccard, shingles

WORD = re.compile(r"[A-Za-z0-9_\u0080-\U0010ffff]+")


def plain(text: str) -> set[tuple[str, ...]]:
    """The sets of shingles the slow way: three words, ASCII letters in lower case."""
    lower = "".join(c.lower() if c.isascii() else c for c in text)
    words = WORD.findall(lower)
    if not words:
        return {("raw", text)}
    if len(words) < WORDS:
        return {tuple(words)}
    return {tuple(words[n : n + WORDS]) for n in range(len(words) - WORDS + 1)}


def similarity(a: str, b: str) -> float:
    mine, other = plain(a), plain(b)
    return len(mine & other) / len(mine | other)


TEXTS = st.lists(st.text(alphabet="ab_1 .é\n\0", max_size=40), min_size=1, max_size=12)


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_hashed_shingles_are_as_similar_as_the_sets_of_words(texts: list[str]) -> None:
    made = shingles(texts)
    for a in range(len(texts)):
        for b in range(len(texts)):
            assert jaccard(made.row(a), made.row(b)) == pytest.approx(similarity(texts[a], texts[b]))


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"text number {n} has words and more words {n * n}" for n in range(50)]
    whole = shingles(texts)
    monkeypatch.setattr("pawl.curation.shingles._CHUNK", 100)
    parts = shingles(texts)
    assert np.array_equal(whole.hashes, parts.hashes) and np.array_equal(whole.offsets, parts.offsets)


def prose(rng: random.Random, words: int = 120) -> list[str]:
    return [f"w{rng.randrange(3000)}" for _ in range(words)]


def changed(rng: random.Random, words: list[str], times: int) -> str:
    made = list(words)
    for n in rng.sample(range(len(made)), times):
        made[n] = f"new{rng.randrange(10**9)}"
    return " ".join(made)


@pytest.mark.parametrize("threshold", [0.7, 0.9])
def test_all_planted_repeats_are_found_and_nothing_else(threshold: float) -> None:
    rng = random.Random(3)
    bases = [prose(rng) for _ in range(300)]
    texts = [" ".join(b) for b in bases]
    texts += [changed(rng, b, rng.choice([0, 1, 2, 5, 12, 40])) for b in bases]
    repeats = near_duplicates(texts, threshold)
    assert (repeats[:300] == -1).all()
    for n in range(300, 600):
        close = similarity(texts[n], texts[n - 300]) >= threshold
        assert (repeats[n] == n - 300) == close, (n, similarity(texts[n], texts[n - 300]))


def test_the_first_stays_and_what_is_held_out_is_not_judged() -> None:
    text = " ".join(prose(random.Random(1)))
    assert near_duplicates([text, text, text], 0.9).tolist() == [-1, 0, 0]
    assert near_duplicates([text, text, text], 0.9, first=2).tolist() == [-1, -1, 0]


def test_what_resembles_only_a_repeat_is_kept() -> None:
    rng = random.Random(5)
    a = prose(rng, 60)
    b = changed(rng, a, 1).split()
    while similarity(" ".join(a), " ".join(b)) < 0.9:
        b = changed(rng, a, 1).split()
    c = list(b)
    c[0], c[-1] = "first", "last"
    texts = [" ".join(a), " ".join(b), " ".join(c)]
    if similarity(texts[0], texts[2]) < 0.9 <= similarity(texts[1], texts[2]):
        assert near_duplicates(texts, 0.9).tolist() == [-1, 0, -1]


def test_nothing_and_little() -> None:
    assert near_duplicates([], 0.9).tolist() == []
    assert near_duplicates(["one"], 0.9).tolist() == [-1]
    assert near_duplicates(["", "", "?", "x", "X!"], 0.9).tolist() == [-1, 0, -1, -1, 3]
