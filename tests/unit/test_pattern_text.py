"""Texts made from patterns are matched by them; what is not simple gets none."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawl.qe.operations.pattern_text import example


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("^[0-9]{12}$", "123456789012"),
        ("farm-[0-9a-f]{8}", "farm-a1b2c3d4"),
        ("^(arn|urn):aws:x$", "arn:aws:x"),
        (r"^\d{2}-\w+$", "12-a"),
        ("^[A-Z]{2}$", "AB"),
        ("^[^a-z]{3}$", "123"),
        ("^(ab){2}c?$", "abab"),
    ],
)
def test_simple_patterns_get_a_text(pattern: str, text: str) -> None:
    assert example(pattern) == text and re.fullmatch(pattern, text)


@pytest.mark.parametrize("pattern", ["(?=a)b", r"(a)\1", r"\p{L}+", "[", "a{200}", "(?<!x)y"])
def test_others_get_none(pattern: str) -> None:
    assert example(pattern) is None


PIECES = st.sampled_from(["a", "[a-z]", "[0-9a-f]", r"\d", r"\w", "(x|y)", "(?:ab)", "[^-]", "."])
REPEATS = st.sampled_from(["", "+", "*", "?", "{2,5}", "{3}", "+?"])


@given(
    st.lists(st.tuples(PIECES, REPEATS).map("".join), min_size=1, max_size=5).map("".join),
    st.integers(0, 4),
    st.integers(0, 7),
)
def test_every_text_matches_its_pattern(pattern: str, longer: int, start: int) -> None:
    text = example(pattern, longer, start)
    assert text is not None and re.fullmatch(pattern, text)
    assert len(text) >= len(example(pattern) or "")


def test_texts_can_be_made_to_differ() -> None:
    assert len({example("^[0-9a-f]{6}$", 0, start) for start in range(5)}) == 5
