"""Clusters of prompts, and prompts that mean the same."""

from __future__ import annotations

import numpy as np

from pawl.curation.topics_sklearn import clusters, lsa, same_meaning

BILLING = [f"invoice {n} payment tax amount customer refund total" for n in range(30)]
NETWORK = [f"socket {n} packet latency router timeout retry port" for n in range(30)]


def test_what_is_about_the_same_lands_in_the_same_cluster() -> None:
    vectors = lsa([*BILLING, *NETWORK], 1)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    found = clusters(vectors, 2, 1)
    assert len(set(found[:30])) == len(set(found[30:])) == 1 and found[0] != found[-1]


def test_the_same_texts_give_the_same_vectors() -> None:
    assert np.array_equal(lsa(BILLING, 3), lsa(BILLING, 3))


def test_word_order_does_not_hide_a_repetition() -> None:
    texts = ["delete the user account of a tenant", *NETWORK, "of a tenant delete the user account"]
    vectors = lsa(texts, 1)
    found = same_meaning(vectors, np.zeros(len(texts), np.int64), 0.8)
    assert found[-1] == 0 and found[0] == -1


def test_only_inside_a_cluster_the_earliest_stays_and_held_out_rows_are_not_judged() -> None:
    vectors = np.array([[1, 0], [1, 0], [1, 0], [0, 1], [1, 0]], np.float32)
    groups = np.array([0, 0, 0, 0, 1])
    assert same_meaning(vectors, groups, 0.99).tolist() == [-1, 0, 0, -1, -1]
    assert same_meaning(vectors, groups, 0.99, first=2).tolist() == [-1, -1, 0, -1, -1]


def test_blocks_change_nothing(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(200, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    groups = np.zeros(200, np.int64)
    whole = same_meaning(vectors, groups, 0.97)
    monkeypatch.setattr("pawl.curation.topics_sklearn._BLOCK", 7)
    assert np.array_equal(whole, same_meaning(vectors, groups, 0.97))
    kept = np.flatnonzero(whole < 0)
    close = vectors[kept] @ vectors[kept].T - 2 * np.eye(len(kept))
    assert (close < 0.97).all()
    assert (whole >= 0).any()


def test_few_texts() -> None:
    assert lsa(["one"], 1).shape[0] == 1
    assert clusters(lsa(["one"], 1), 8, 1).tolist() == [0]
    assert len(lsa(["one", "two three"], 1)) == 2
