"""The journal and the lake: nothing acknowledged is lost or doubled, whatever dies when."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pawl.errors import LakeError
from pawl.lake.journal import Journal, encode_line, read_segment
from pawl.lake.parquet_lake import ParquetLake
from pawl.lake.records import Feedback, Interaction

STEPS = ("read", "written", "committed", "deleted")
AT = 1_795_000_000.0


def interaction(n: int, agent: str = "a", at: float = AT) -> Interaction:
    return Interaction(
        id=f"i{n}", at=at + n, agent=agent, session=f"s{n}", key_id="k", arm="base", arm_kind="local",
        messages=[{"role": "user", "content": f"é \n {n}"}], completion="x" * n, task={"id": n},
    )  # fmt: skip


def feedback(n: int) -> Feedback:
    return Feedback(
        id=f"f{n}", at=AT + n, interaction=f"i{n}", agent="a", kind="outcome", score=0.5, detail={"cases": [{"n": n}]}
    )


def lake(home: Path) -> ParquetLake:
    return ParquetLake(home / "lake", home / "journal")


def test_records_come_back_as_they_were_from_journal_and_parquet(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", "one")
    journal.append([interaction(1), feedback(1), interaction(2, "b"), interaction(3)])
    fresh = lake(tmp_path)
    before = fresh.interactions("a"), fresh.feedback("a")
    journal.close()
    assert fresh.ingest() == 4
    assert not list((tmp_path / "journal").iterdir())
    again = lake(tmp_path)
    assert (again.interactions("a"), again.feedback("a")) == before
    assert before[0] == [interaction(1), interaction(3)]
    assert [i.id for i in again.interactions("a", since=AT + 2)] == ["i3"]
    assert [i.id for i in again.interactions("a", until=AT + 3)] == ["i1"]


def test_days_and_agents_are_partitions_and_content_names_objects(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", "one")
    journal.append([interaction(1), interaction(1, "b"), interaction(1, at=AT + 86_400)])
    journal.close()
    lake(tmp_path).ingest()
    found = sorted(str(p.relative_to(tmp_path / "lake").parent) for p in (tmp_path / "lake").rglob("*.parquet"))
    assert len(found) == 3 and all(f.startswith("interactions/date=20") for f in found)
    assert found[0].endswith("agent=a") and found[1].endswith("agent=b")


@given(st.binary(max_size=60), st.integers(0, 400))
@settings(max_examples=60, deadline=None)
def test_torn_and_altered_lines_are_skipped_and_the_others_read(tmp_path_factory, junk: bytes, cut: int) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path_factory.mktemp("j") / "x.sealed"
    whole = encode_line(interaction(1)) + encode_line(feedback(2))
    path.write_bytes(whole + junk.replace(b"\n", b" ") + b"\n" + encode_line(interaction(3))[:cut])
    records, _ = read_segment(path)
    assert records[:2] == [interaction(1), feedback(2)]
    assert records[2:] in ([], [interaction(3)])


def test_two_writers_at_once(tmp_path: Path) -> None:
    one, two = Journal(tmp_path / "journal", "g1"), Journal(tmp_path / "journal", "g2")
    for n in range(20):
        (one if n % 2 else two).append([interaction(n)])
    assert len(lake(tmp_path).interactions("a")) == 20
    one.close()
    lake(tmp_path).ingest()
    two.append([interaction(20)])
    assert len(lake(tmp_path).interactions("a")) == 21
    two.close()


@pytest.mark.parametrize("step", STEPS)
def test_a_death_between_any_two_steps_of_ingestion_is_harmless(tmp_path: Path, step: str) -> None:
    class Killed(Exception):
        pass

    def die(reached: str) -> None:
        if reached == step:
            raise Killed

    journal = Journal(tmp_path / "journal", "one")
    journal.append([interaction(n) for n in range(10)] + [feedback(n) for n in range(10)])
    journal.close()
    with pytest.raises(Killed):
        ParquetLake(tmp_path / "lake", tmp_path / "journal", die).ingest()
    assert len(lake(tmp_path).interactions("a")) == 10
    lake(tmp_path).ingest()
    lake(tmp_path).ingest()
    assert [i.id for i in lake(tmp_path).interactions("a")] == [f"i{n}" for n in range(10)]
    assert len(lake(tmp_path).feedback("a")) == 10


def test_a_full_disk_is_an_error_that_says_what_to_do_and_leaves_clean_lines(tmp_path: Path) -> None:
    """A limit on the file's size stands for the disk: the write fails in the middle of a group."""
    code = f"""
import json, resource, signal
from pathlib import Path
from pawl.errors import LakeError
from pawl.lake.journal import Journal
from pawl.lake.records import Interaction
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))
def one(n): return Interaction(id=f"i{{n}}", at=1.0 + n, agent="a", session="s", key_id="k", arm="b",
                               arm_kind="local", messages=[{{"role": "user", "content": "x" * 500}}])
journal, kept, said = Journal(Path({str(tmp_path / "journal")!r}), "w"), [], ""
for n in range(20):
    try:
        journal.append([one(n)])
        kept.append(f"i{{n}}")
    except LakeError as e:
        said = str(e)
        break
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.append([one(99)])
print(json.dumps([kept, said]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kept, said = json.loads(done.stdout)
    assert len(kept) >= 3 and "free disk space" in said
    assert [i.id for i in lake(tmp_path).interactions("a")] == [*kept, "i99"]


def test_a_full_disk_stops_the_lake_without_a_trace_and_it_goes_on_afterwards(tmp_path: Path) -> None:
    """The limits stand for disks that are full when the object, and when the manifest, is written."""
    code = f"""
import json, random, resource, signal
from pathlib import Path
from pawl.errors import LakeError
from pawl.lake.journal import Journal
from pawl.lake.parquet_lake import ParquetLake
from pawl.lake.records import Interaction
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
def one(n): return Interaction(id=f"i{{n}}", at=1e9 + n, agent="a", session="s", key_id="k", arm="b", arm_kind="local",
                               messages=[{{"role": "user", "content": random.randbytes(300).hex()}}])
home = Path({str(tmp_path)!r})
journal, lake, said = Journal(home / "journal", "w"), ParquetLake(home / "lake", home / "journal"), []
journal.append([one(n) for n in range(100)])
journal.close()
def limited(most, step):
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    try:
        step()
        said.append("done")
    except LakeError as e:
        said.append(str(e))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
limited(9000, lake.ingest)
limited(9000, lambda: lake.add([one(n) for n in range(100, 200)]))
left = [str(p) for p in (home / "lake").rglob("*") if p.is_file() and p.stat().st_size]
limited(1 << 30, lake.ingest)
limited(60, lambda: lake.erase("nobody", 2e9))
print(json.dumps([said, left]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    (object_full, import_full, after, manifest_full), left = json.loads(done.stdout)
    assert "free disk space" in object_full and "free disk space" in import_full and left == [], "not half a file stays"
    assert after == "done" and "nothing was changed" in manifest_full
    assert [i.id for i in lake(tmp_path).interactions("a")] == [f"i{n}" for n in range(100)]


def test_an_unreadable_manifest_is_an_error_and_no_empty_lake(tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "manifest.json").write_text("{")
    with pytest.raises(LakeError, match="manifest"):
        lake(tmp_path).interactions("a")


def test_only_the_bad_lines_of_a_segment_are_kept_aside(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", "one")
    journal.append([interaction(1)])
    journal.append_lines(b"00000000 {}\n")
    journal.append([interaction(2)])
    journal.close()
    lake(tmp_path).ingest()
    (aside,) = (tmp_path / "journal").iterdir()
    assert aside.suffix == ".damaged" and aside.read_bytes() == b"00000000 {}\n"
    assert [i.id for i in lake(tmp_path).interactions("a")] == ["i1", "i2"]


def test_older_records_are_read_with_defaults(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    journal = Journal(tmp_path / "journal", "one")
    journal.append([interaction(1)])
    journal.close()
    lake(tmp_path).ingest()
    path = next((tmp_path / "lake").rglob("*.parquet"))
    old = pq.ParquetFile(path).read().drop_columns(["first_token_s", "stage"]).append_column("gone", pa.array(["x"]))
    pq.write_table(old, path)
    assert lake(tmp_path).interactions("a") == [interaction(1)]
