"""Rows of a user's JSON Lines file, and long code in a short prompt."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawl.errors import SourceError
from pawl.qe import rows_jsonl
from pawl.qe.excerpt import excerpt
from pawl.qe.rows_jsonl import Row

TWO = b'{"a": "x", "n": "7"}\n\n{"a": "y", "n": 2.5}\n'


@pytest.mark.parametrize("packed", [False, True])
def test_rows_come_with_their_lines(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(gzip.compress(TWO, mtime=0) if packed else TWO)
    first, second = rows_jsonl.read(str(path))
    assert (first.line, second.line) == (1, 3)
    assert first.text("a") == "x" and first.whole("n") == 7 and second.number("n") == 2.5
    assert second.optional("b") == "" and second.whole("b") is None


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "no rows"),
        (b'{"a": 1}\n{"a": \n', "line 2: not JSON"),
        (b'{"a": 1}\n\n[1]\n', "line 3: a row must be a JSON object"),
        (gzip.compress(TWO, mtime=0)[:-9], "damaged"),
    ],
)
def test_an_unusable_file_is_told_by_line(tmp_path: Path, data: bytes, told: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(data)
    with pytest.raises(SourceError, match=told):
        rows_jsonl.read(str(path))


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="check `location`"):
        rows_jsonl.read(str(tmp_path / "absent"))


def test_wrong_fields_are_told_by_line() -> None:
    row = Row("f.jsonl", 4, {"text": 3, "number": "many", "whole": 1.5, "inf": "inf"})
    for read in (
        lambda: row.text("text"),
        lambda: row.text("absent"),
        lambda: row.optional("text"),
        lambda: row.number("number"),
        lambda: row.number("inf"),
        lambda: row.whole("whole"),
    ):
        with pytest.raises(SourceError, match=r"f\.jsonl, line 4: field"):
            read()


MATTERS = re.compile("sleep")


@given(st.lists(st.text(alphabet="ab (\n\t", max_size=200), max_size=60).map("\n".join), st.integers(40, 400))
def test_an_excerpt_is_never_longer_than_asked(code: str, most: int) -> None:
    assert len(excerpt(code, most, MATTERS)) <= most


def test_an_excerpt_keeps_signature_and_what_matters_in_order() -> None:
    lines = ["@mark", "def test_it():", *(f"    x{n} = {n}" for n in range(80)), "    sleep(3)", "    assert x1"]
    found = excerpt("\n".join(lines), 300, MATTERS).split("\n")
    assert found[:2] == ["@mark", "def test_it():"] and "    sleep(3)" in found and "    ..." in found
    kept = [line for line in found if line != "    ..."]
    assert kept == [line for line in lines if line in kept]
    assert excerpt("def f():\n    pass\n", 300, MATTERS) == "def f():\n    pass"
