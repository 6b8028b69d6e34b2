"""The journal's files: who holds them, when they are sealed, and what becomes of lines that cannot be read."""

from __future__ import annotations

import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawl.errors import LakeError
from pawl.lake.journal import Journal, encode_line, parse, read_segment, seal_dead
from pawl.lake.parquet_lake import ParquetLake
from pawl.lake.records import Feedback


def said(n: int) -> Feedback:
    return Feedback(id=f"f{n}", at=1.0 + n, interaction=f"i{n}", agent="a", kind="rating", score=0.5)


def names(folder: Path, kind: str) -> list[str]:
    return sorted(p.name for p in folder.glob(f"*.{kind}"))


@given(st.binary(max_size=400))
def test_any_bytes_can_be_parsed(data: bytes) -> None:
    segment = parse(data)
    assert len(segment.records) + segment.corrupt == data.count(b"\n")
    assert segment.torn == (data != b"" and not data.endswith(b"\n"))


@given(st.integers(0, 200), st.integers(1, 255))
def test_one_altered_byte_never_gives_another_record(place: int, change: int) -> None:
    line = bytearray(encode_line(said(1)))
    line[place % (len(line) - 1)] ^= change
    assert all(record == said(1) for record in parse(bytes(line)).records)


def test_a_line_nested_beyond_every_parser_is_corrupt_and_not_fatal() -> None:
    payload = b'{"record":"feedback","detail":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}"
    segment = parse(b"%08x %s\n" % (zlib.crc32(payload), payload) + encode_line(said(1)))
    assert (segment.records, segment.corrupt) == ([said(1)], 1)


def test_a_living_writers_file_stays_open_and_a_dead_ones_is_sealed(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from pawl.lake.journal import Journal
from pawl.lake.records import Feedback
Journal(Path({str(tmp_path)!r}), "w").append(
    [Feedback(id="f", at=1.0, interaction="i", agent="a", kind="rating", score=0.5)])
print("written", flush=True)
input()
"""
    writer = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert writer.stdout is not None
    writer.stdout.readline()
    assert seal_dead(tmp_path) == 0
    assert len(names(tmp_path, "open")) == 1
    writer.kill()
    writer.wait()
    Journal(tmp_path, "next")
    assert (len(names(tmp_path, "open")), len(names(tmp_path, "sealed"))) == (0, 1)


def test_segments_are_sealed_by_size_by_age_and_at_the_end(tmp_path: Path) -> None:
    by_size = Journal(tmp_path / "size", "w", rotate_bytes=1)
    by_size.append([said(1)])
    by_size.append([said(2)])
    assert len(names(tmp_path / "size", "sealed")) == 2

    by_age = Journal(tmp_path / "age", "w", rotate_s=0.0)
    by_age.append([said(1)])
    assert len(names(tmp_path / "age", "sealed")) == 1

    idle = Journal(tmp_path / "idle", "w")
    idle.rotate_when_due()
    idle.append([])
    assert not list((tmp_path / "idle").iterdir()), "a writer with nothing to say leaves no file"
    idle.append([said(1)])
    idle.rotate_when_due()
    assert len(names(tmp_path / "idle", "open")) == 1
    idle.close()
    assert len(names(tmp_path / "idle", "sealed")) == 1


def test_synced_journals_hold_the_same(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "w", "fsync")
    journal.append([said(n) for n in range(3)])
    assert read_segment(next(tmp_path.glob("*.open"))) == ([said(n) for n in range(3)], 0)


def test_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LakeError, match="PAWL_HOME"):
        Journal(tmp_path / "file" / "journal", "w")


def test_ingestion_keeps_a_segment_that_holds_unreadable_lines(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    folder.mkdir()
    altered = encode_line(said(2)).replace(b"rating", b"ratinG")
    (folder / "w-1-0.sealed").write_bytes(encode_line(said(1)) + altered + encode_line(said(3)))
    (folder / "w-1-1.sealed").write_bytes(encode_line(said(4)) + encode_line(said(5))[:30])
    lake = ParquetLake(tmp_path / "lake", folder)
    assert lake.ingest() == 3
    assert [f.id for f in lake.feedback("a")] == ["f1", "f3", "f4"]
    # Torn by a death before it was acknowledged: gone. Altered after it was: kept for a person to look at.
    assert [p.name for p in folder.iterdir()] == ["w-1-0.damaged"]
    assert lake.ingest() == 0
