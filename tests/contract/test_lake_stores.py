"""The lake on a folder and on a real S3 server: the same promises, and its care (compaction, retention, erasure)."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pawl.curation import dataset
from pawl.errors import LakeError
from pawl.improvement.erasure import traces
from pawl.improvement.steps import Lineage
from pawl.lake.journal import Journal
from pawl.lake.manifest import PointedManifest
from pawl.lake.objects_boto3 import S3Store
from pawl.lake.parquet_lake import ParquetLake
from pawl.lake.query_duckdb import query
from pawl.lake.records import Feedback, Interaction
from pawl.rollout.control_sqlite import SqliteControl

AT = 1_795_000_000.0
DAY = 86_400.0
Open = Callable[..., ParquetLake]


def interaction(n: int, at: float = AT, **more: Any) -> Interaction:
    fields: dict[str, Any] = {
        "id": f"i{n}", "at": at + n, "agent": "a", "session": f"s{n}", "key_id": "k", "arm": "base",
        "arm_kind": "local", "messages": [{"role": "user", "content": f"secret {n}"}], "completion": "x" * n,
        "tool_calls": [{"id": "c"}], "task": {"id": n}, "prompt_tokens": n,
    }  # fmt: skip
    return Interaction(**fields | more)


def feedback(n: int, at: float = AT) -> Feedback:
    return Feedback(id=f"f{n}", at=at + n, interaction=f"i{n}", agent="a", kind="rating", score=0.5, detail={"n": n})


class S3:
    """rclone serves a folder over S3's API."""

    def __init__(self, folder: Path) -> None:
        self.key, self.secret = secrets.token_hex(8), secrets.token_hex(16)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = int(s.getsockname()[1])
        self.folder, self.endpoint = folder, f"http://127.0.0.1:{self.port}"
        (folder / "bucket").mkdir(parents=True)
        self.start()

    def start(self) -> None:
        program = shutil.which("rclone", path=str(Path(sys.executable).parent)) or "rclone"
        command = [program, "serve", "s3", str(self.folder), "--addr", f"127.0.0.1:{self.port}", "--auth-key",
                   f"{self.key},{self.secret}", "--config", "/dev/null"]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError("rclone did not start")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    made = S3(tmp_path_factory.mktemp("s3"))
    before = dict(os.environ)
    os.environ |= {"AWS_ACCESS_KEY_ID": made.key, "AWS_SECRET_ACCESS_KEY": made.secret, "AWS_REGION": "us-east-1"}
    yield made
    os.environ.clear()
    os.environ.update(before)
    made.stop()


@pytest.fixture(params=["folder", "s3"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens the same lake each time, with nothing in memory."""
    if request.param == "folder":
        return lambda check=lambda step: None: ParquetLake(tmp_path / "lake", tmp_path / "journal", check)
    server: S3 = request.getfixturevalue("s3")
    url = f"s3://bucket/{secrets.token_hex(4)}"

    def open_it(check: Callable[[str], None] = lambda step: None) -> ParquetLake:
        root = tmp_path / secrets.token_hex(4)  # another machine's empty cache
        store = S3Store(url, root / "fetched", endpoint=server.endpoint)
        manifests = PointedManifest(store, SqliteControl(tmp_path / "control.sqlite"))
        return ParquetLake(root, tmp_path / "journal", check, store=store, manifests=manifests)

    return open_it


def journalled(tmp_path: Path, *records: Any) -> None:
    journal = Journal(tmp_path / "journal", "w")
    journal.append(records)
    journal.close()


@pytest.mark.parametrize("step", ["read", "written", "committed", "deleted"])
def test_a_death_between_any_two_steps_loses_and_doubles_nothing(lake: Open, tmp_path: Path, step: str) -> None:
    class Killed(Exception):
        pass

    def die(reached: str) -> None:
        if reached == step:
            raise Killed

    journalled(tmp_path, *map(interaction, range(10)), *map(feedback, range(10)))
    with pytest.raises(Killed):
        lake(die).ingest()
    assert len(lake().interactions("a")) == 10
    lake().ingest()
    lake().ingest()
    assert lake().interactions("a") == [interaction(n) for n in range(10)]
    assert lake().feedback("a") == [feedback(n) for n in range(10)]
    assert not list((tmp_path / "journal").iterdir())


def test_writers_at_once_lose_none_of_their_changes(lake: Open) -> None:
    def work(first: int) -> None:
        mine = lake()
        for n in range(first, first + 5):
            mine.add([interaction(n)])

    workers = [threading.Thread(target=work, args=(w * 5,)) for w in range(4)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert {i.id for i in lake().interactions("a")} == {f"i{n}" for n in range(20)}


def test_compaction_changes_files_and_nothing_else(lake: Open) -> None:
    for n in range(6):
        lake().add([interaction(n), feedback(n), interaction(n + 100, AT + 3 * DAY)])
    before, said = lake().interactions("a"), lake().feedback("a")
    reader = lake()
    reader.manifest()
    assert len(lake().manifest().objects) == 18
    assert lake().compact(AT) == 15
    assert len(lake().manifest().objects) == 3 and lake().compact(AT) == 0
    assert (lake().interactions("a"), lake().feedback("a")) == (before, said)
    assert reader.interactions("a") == before, "who reads by the old manifest still can"
    removed = [r.path for r in lake().manifest().removed]
    assert len(removed) == 18
    lake().sweep(AT + 4000)
    assert lake().manifest().removed == () and lake().interactions("a") == before
    assert len(lake().files("interactions")) == 2


def test_retention_takes_the_text_first_and_the_row_later(lake: Open) -> None:
    old, older = AT - 500 * DAY, AT - 2300 * DAY
    rows = [interaction(1), interaction(2, old), interaction(3, older), feedback(1), feedback(2, old)]
    lake().add(rows)
    assert lake().expire(AT) == (2, 1)
    found = {i.id: i for i in lake().interactions("a")}
    assert set(found) == {"i1", "i2"} and found["i1"] == interaction(1)
    bare = found["i2"]
    assert (bare.messages, bare.completion, bare.tool_calls, bare.task) == ([], "", [], {})
    assert (bare.prompt_tokens, bare.arm) == (2, "base"), "the figures stay"
    assert [f.detail for f in lake().feedback("a")] == [{}, {"n": 1}]
    assert lake().expire(AT) == (0, 0), "once is enough"


def test_erasure_takes_a_person_out_everywhere_and_keeps_late_records_out(lake: Open, tmp_path: Path) -> None:
    mine = [
        interaction(1, session="ann"),
        interaction(2, task={"subject": "ann"}),
        interaction(3, AT + DAY, session="ann"),
    ]
    others = [interaction(4), interaction(5, AT + DAY)]
    lake().add([*mine[:2], others[0], feedback(1), feedback(4)])
    journalled(tmp_path, mine[2], others[1], feedback(3))
    gone = lake().erase("ann", AT + 2 * DAY)
    assert sorted(gone) == ["i1", "i2", "i3"]
    assert lake().interactions("a") == sorted(others, key=lambda i: i.at)
    assert [f.id for f in lake().feedback("a")] == ["f4"]
    files = b"".join(f.read_bytes() for t in ("interactions", "feedback") for f in lake().files(t))
    assert b"ann" not in files and lake().manifest().removed == ()
    late = interaction(6, AT + DAY, session="ann")
    journalled(tmp_path, late, interaction(7, AT + 3 * DAY, session="ann"))
    assert "i6" not in [i.id for i in lake().interactions("a")], "not even from the journal"
    lake().ingest()
    assert [i.id for i in lake().interactions("a")] == ["i4", "i5", "i7"], "who comes back is recorded anew"
    assert lake().erase("nobody", AT) == []


def test_the_same_import_after_compaction_is_still_once(lake: Open) -> None:
    for n in range(3):
        lake().add([interaction(n), feedback(n)])
    lake().compact(AT)
    assert lake().add([interaction(0), feedback(0), interaction(9)]) == 1
    assert query(lake(), "SELECT count(*) FROM interactions")[1] == [(4,)]


def test_erasure_finds_the_user_field_too(lake: Open) -> None:
    lake().add([interaction(1, user="ann"), interaction(2, user="bob")])
    assert lake().erase("ann", AT + DAY) == ["i1"]


def test_a_step_computed_from_what_is_gone_changes_nothing(lake: Open) -> None:
    lake().add([interaction(1), interaction(2)])
    lake().add([interaction(3)])
    slow = lake()
    old = list(slow.manifest().objects)
    merged = slow._write([row for o in old for row in slow._read(Interaction, o)])
    lake().erase("s1", AT + DAY)  # meanwhile, on another machine
    with pytest.raises(LakeError, match="run it again"):
        slow._replace(old, merged, AT)
    assert [i.id for i in lake().interactions("a")] == ["i2", "i3"]


def test_owners_are_found_without_reading_everything(lake: Open, tmp_path: Path) -> None:
    lake().add([interaction(n) for n in range(5)])
    journalled(tmp_path, interaction(7, key_id="other"))
    reader = lake()
    assert reader.owners({"i3", "i7", "nobody"}) == {"i3": ("a", "k", "base"), "i7": ("a", "other", "base")}
    assert reader._cache == {}


def test_sql_over_the_lake_and_over_nothing_else(lake: Open, tmp_path: Path) -> None:
    lake().add([*map(interaction, range(20)), *map(feedback, range(10))])
    names, rows = query(
        lake(),
        "SELECT i.arm, count(*) AS n, avg(f.score) AS score, sum(prompt_tokens) FROM interactions i "
        "LEFT JOIN feedback f ON f.interaction = i.id GROUP BY 1",
    )
    assert (names[:3], rows) == (["arm", "n", "score"], [("base", 20, 0.5, 190)])
    assert len(query(lake(), "SELECT * FROM interactions", most=7)[1]) == 7
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    for sql in (
        f"SELECT * FROM '{secret}'",
        f"COPY interactions TO '{tmp_path / 'out.csv'}'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "SELEC",
    ):
        with pytest.raises(LakeError, match="query failed"):
            query(lake(), sql)
    assert not (tmp_path / "out.csv").exists()


def test_an_s3_server_that_is_down_is_an_error_and_nothing_is_lost(s3: S3, tmp_path: Path) -> None:
    store = S3Store("s3://bucket/down", tmp_path / "fetched", endpoint=s3.endpoint)
    control = SqliteControl(tmp_path / "control.sqlite")

    def fresh() -> ParquetLake:
        return ParquetLake(
            tmp_path / "lake", tmp_path / "journal", store=store, manifests=PointedManifest(store, control)
        )

    fresh().add([interaction(1)])
    journalled(tmp_path, interaction(2))
    s3.stop()
    try:
        with pytest.raises(LakeError, match="PAWL_S3_ENDPOINT"):
            fresh().ingest()
        assert list((tmp_path / "journal").iterdir()), "the journal keeps what did not get there"
    finally:
        s3.start()
    assert fresh().ingest() == 1
    assert [i.id for i in fresh().interactions("a")] == ["i1", "i2"]


def test_large_objects_go_in_parts_and_come_back_whole(s3: S3, tmp_path: Path) -> None:
    store = S3Store("s3://bucket/large", tmp_path / "fetched", endpoint=s3.endpoint)
    data = secrets.token_bytes(40 << 20)
    (tmp_path / "big").write_bytes(data)
    store.put("x/big", tmp_path / "big")
    other = S3Store("s3://bucket/large", tmp_path / "elsewhere", endpoint=s3.endpoint)
    assert other.fetch("x/big").read_bytes() == data and [s.name for s in other.listed("x/")] == ["x/big"]
    other.delete("x/big")
    with pytest.raises(FileNotFoundError):
        S3Store("s3://bucket/large", tmp_path / "third", endpoint=s3.endpoint).fetch("x/big")


def test_erasure_names_datasets_and_adapters_down_to_their_descendants(tmp_path: Path) -> None:
    def example(n: int) -> dataset.Example:
        return dataset.Example(id=f"e{n}", messages=[], completion="", quality=1, source="s", interactions=(f"i{n}",))

    def saved(*numbers: int) -> Path:
        made = dataset.DatasetVersion(agent="a", examples=tuple(map(example, numbers)), counts={}, sources=())
        return dataset.save(made, tmp_path / "datasets")

    def trained(name: str, data: Path, sha: str, parent: str) -> None:
        folder = tmp_path / "candidates" / name
        folder.mkdir(parents=True)
        lineage = Lineage(
            dataset=data.name, dataset_fingerprint="", base_sha256="", adapter_sha256=sha, code_version="",
            parent=parent, candidate=name,
        )  # fmt: skip
        (folder / "lineage.json").write_bytes(msgspec.json.encode(lineage))

    touched, clean = saved(1, 2), saved(3)
    trained("one", touched, "aaaaaaaa11", "base")
    trained("two", clean, "bbbbbbbb22", "a-v1-aaaaaaaa")
    trained("three", clean, "cccccccc33", "a-v2-bbbbbbbb")
    trained("four", clean, "dddddddd44", "base")
    found = traces({"i2", "i9"}, tmp_path / "datasets", tmp_path / "candidates")
    assert found.datasets == [touched.stem] and found.adapters == ["one", "three", "two"]
    assert traces({"i9"}, tmp_path / "datasets", tmp_path / "candidates").adapters == []
    (tmp_path / "datasets" / "b.json").write_text("{")
    with pytest.raises(LakeError, match="not known"):
        traces({"i2"}, tmp_path / "datasets", tmp_path / "candidates")
