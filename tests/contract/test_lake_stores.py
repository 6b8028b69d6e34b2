"""The lake on a folder and on a real S3 server: the same promises, and its care (compaction, retention, erasure)."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
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
from pawl.lake.records import Feedback, Interaction, Observation
from pawl.lake.shelf import Changed
from pawl.rollout.control_sqlite import SqliteControl
from tests.contract.s3_rclone import S3

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


def observation(n: int, at: float = AT, **more: Any) -> Observation:
    fields: dict[str, Any] = {
        "id": f"o{n}", "at": at + n, "agent": "a", "kind": "bug", "ref": f"shop#{n}", "title": "wrong total",
        "text": "it says 3", "root_cause": "rounding", "component": "shop", "severity": "high", "labels": ("bug", "é"),
        "resolved": True, "subject": f"u{n}", "interaction": f"i{n}", "figures": {"hours_open": 1.5, "n": [1]},
        "source": "import:github", "key_id": "k",
    }  # fmt: skip
    return Observation(**fields | more)


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


def test_observations_have_their_own_table_everywhere(lake: Open, tmp_path: Path) -> None:
    assert query(lake(), "SELECT * FROM observations")[1] == [], "a table without a file is empty, not unknown"
    for n in range(3):
        assert lake().add([observation(n)]) == 1
    lake().add([observation(3, AT - 500 * DAY), observation(4, AT - 2300 * DAY), interaction(1), feedback(1)])
    journalled(tmp_path, observation(5))
    assert lake().observations("a", since=AT) == [observation(n) for n in (0, 1, 2, 5)]
    assert lake().observations("b") == [] and lake().observations("a", until=AT)[0] == observation(4, AT - 2300 * DAY)
    assert lake().ingest() == 1 and lake().observations("a", since=AT + 5) == [observation(5)]
    assert lake().add([observation(1), observation(5)]) == 0
    load = observation(9, AT - 3 * DAY, kind="load")
    assert lake().add([load]) == 1 and lake().add([msgspec.structs.replace(load, at=AT)]) == 0, "whatever time is told"
    assert lake().compact(AT) == 3 and len(lake().files("observations", "a", since=AT)) == 1
    asked = "SELECT count(*), sum(CAST(figures->>'hours_open' AS DOUBLE)) FROM observations WHERE kind = 'bug'"
    assert query(lake(), asked)[1] == [(6, 9.0)]
    assert lake().expire(AT) == (1, 1)
    old = lake().observations("a")[0]
    assert old == observation(3, AT - 500 * DAY, title="", text="", root_cause="", figures={}, subject="")
    assert lake().erase("u2", AT + DAY) == [], "no interaction is theirs, but a report"
    assert [o.id for o in lake().observations("a")] == ["o3", "o9", "o0", "o1", "o5"]
    assert lake().owners({"i1"}) == {"i1": ("a", "k", "base")}


def test_two_machines_forget_none_of_each_others_segments(lake: Open, tmp_path: Path) -> None:
    """One dies between listing and deleting; the other goes on, and merges what the first had brought."""

    class Killed(Exception):
        pass

    def die(reached: str) -> None:
        if reached == "committed":
            raise Killed

    journalled(tmp_path, interaction(1))
    Journal(tmp_path / "journal", "w")
    with pytest.raises(Killed):
        lake(die).ingest()
    other = Journal(tmp_path / "other", "w")
    other.append([interaction(2)])
    other.close()
    assert lake(journal="other").ingest() == 1
    lake(journal="other").compact(AT)
    assert lake().ingest() == 0 and not list((tmp_path / "journal").iterdir())
    assert [o.rows for o in lake().manifest().objects] == [2] and lake().manifest().segments == ()


def test_nothing_to_take_in_changes_nothing(lake: Open, tmp_path: Path) -> None:
    lake().add([interaction(1)])
    before = sorted(tmp_path.rglob("manifest.json")), lake().manifest()
    stamp = [p.stat().st_mtime_ns for p in before[0]]
    assert lake().ingest() == 0
    assert [p.stat().st_mtime_ns for p in before[0]] == stamp and lake().manifest() == before[1]


def test_an_object_that_should_be_there_and_is_not_is_an_error(lake: Open) -> None:
    lake().add([interaction(1)])
    (name,) = (o.path for o in lake().manifest().objects)
    lake()._shelf.store.delete(name)
    for use in (lambda: lake().interactions("a"), lambda: lake().files("interactions"), lambda: lake().owners({"i1"})):
        with pytest.raises(LakeError, match="restore it from a copy"):
            use()


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
    merged = slow._shelf.write([row for o in old for row in slow._shelf.read(Interaction, o)])
    lake().erase("s1", AT + DAY)  # meanwhile, on another machine
    with pytest.raises(Changed):
        slow._shelf.replace(old, merged, AT)
    assert [i.id for i in lake().interactions("a")] == ["i2", "i3"]


def test_owners_are_found_without_reading_everything(lake: Open, tmp_path: Path) -> None:
    lake().add([interaction(n) for n in range(5)])
    journalled(tmp_path, interaction(7, key_id="other"))
    reader = lake()
    assert reader.owners({"i3", "i7", "nobody"}) == {"i3": ("a", "k", "base"), "i7": ("a", "other", "base")}
    assert reader._shelf.cache == {}


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
    fresh().manifest()  # fetched before: what fails is the write
    s3.stop()
    try:
        with pytest.raises(LakeError, match="PAWL_S3_ENDPOINT"):
            fresh().ingest()
        assert list((tmp_path / "journal").iterdir()), "the journal keeps what did not get there"
        assert not list((tmp_path / "lake").glob("*.part"))
    finally:
        s3.start()
    assert fresh().ingest() == 1
    assert [i.id for i in fresh().interactions("a")] == ["i1", "i2"]


def test_an_s3_server_that_dies_in_the_middle_of_a_write(s3: S3, tmp_path: Path) -> None:
    """It is killed between the objects of one ingestion, and started again."""
    url = f"s3://bucket/{secrets.token_hex(4)}"
    control = SqliteControl(tmp_path / "control.sqlite")
    puts: list[str] = []

    class Dying(S3Store):
        """The server dies at the third object."""

        def put(self, name: str, source: Path) -> None:
            puts.append(name)
            if len(puts) == 3:
                s3.kill()
            super().put(name, source)

    def fresh(kind: type[S3Store] = S3Store) -> ParquetLake:
        root = tmp_path / secrets.token_hex(4)
        store = kind(url, root / "fetched", endpoint=s3.endpoint)
        return ParquetLake(root, tmp_path / "journal", store=store, manifests=PointedManifest(store, control))

    journalled(tmp_path, *(interaction(n, agent=f"a{n % 5}") for n in range(50)))
    try:
        with pytest.raises(LakeError, match="cannot write"):
            fresh(Dying).ingest()
    finally:
        s3.start()
    assert len(puts) == 3 and len(S3Store(url, tmp_path / "x", endpoint=s3.endpoint).listed("interactions/")) == 2
    assert fresh().manifest().objects == () and fresh().ingest() == 50
    for _ in range(2):
        found = [i for n in range(5) for i in fresh().interactions(f"a{n}")]
        assert sorted(i.id for i in found) == sorted(f"i{n}" for n in range(50))
        assert sum(o.rows for o in fresh().manifest().objects) == 50
        fresh().ingest()


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
        made = dataset.DatasetVersion(agent="a", examples=tuple(map(example, numbers)), sources=())
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
    with pytest.raises(LakeError, match="cannot be read"):
        traces({"i2"}, tmp_path / "datasets", tmp_path / "candidates")
