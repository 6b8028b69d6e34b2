"""Erasure: at once, everywhere, and for what comes late; remembered without names."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pawl.lake.erased import ErasedIds, sift, subject_digest
from pawl.lake.journal import Journal
from pawl.lake.manifest import Erased, Manifest
from pawl.lake.parquet_lake import ParquetLake
from pawl.lake.query_duckdb import query
from pawl.lake.records import Feedback, Interaction, Observation
from pawl.lake.shelf import Changed, with_objects

AT = 1_795_000_000.0
DAY = 86_400.0
Open = Callable[..., ParquetLake]


def interaction(n: int, at: float = AT, **more: Any) -> Interaction:
    fields: dict[str, Any] = {
        "id": f"i{n}", "at": at + n, "agent": "a", "session": f"s{n}", "key_id": "k", "arm": "base",
        "arm_kind": "local", "messages": [{"role": "user", "content": "Hi"}], "completion": "Hello",
    }  # fmt: skip
    return Interaction(**fields | more)


def feedback(n: int, at: float = AT, name: str = "f") -> Feedback:
    return Feedback(id=f"{name}{n}", at=at + n, interaction=f"i{n}", agent="a", kind="rating", score=0.5)


def bug(n: int, at: float = AT, subject: str = "", about: int | None = None) -> Observation:
    named = "" if about is None else f"i{about}"
    return Observation(id=f"o{n}", at=at + n, agent="a", kind="bug", title="t", subject=subject, interaction=named)


def append(folder: Path, *records: Any) -> Journal:
    journal = Journal(folder, "w")
    journal.append(records)
    return journal


def test_feedback_that_comes_after_the_erasure_is_read_by_nobody(lake: Open, tmp_path: Path) -> None:
    lake().add([interaction(1, session="ann"), interaction(2), feedback(1), feedback(2)])
    assert lake().erase("ann", AT + DAY) == ["i1"]
    late = AT + 5 * DAY
    journal = append(tmp_path / "journal", feedback(1, late, "late"), feedback(2, late, "late"))
    for step in ("open", "ingested"):
        assert [f.id for f in lake().feedback("a")] == ["f2", "late2"], step
        assert [r.id for r in lake().pending()] == (["late2"] if step == "open" else []), step
        journal.close()
        lake().ingest()
    assert lake().add([feedback(1, late, "csv"), feedback(2, late, "csv"), interaction(1, session="other")]) == 1
    assert [f.id for f in lake().feedback("a")] == ["f2", "csv2", "late2"]
    assert query(lake(), "SELECT interaction FROM feedback GROUP BY 1")[1] == [("i2",)]
    assert lake().owners({"i1"}) == {}


def test_what_is_in_the_journal_at_the_erasure_takes_its_feedback_along(lake: Open, tmp_path: Path) -> None:
    journal = append(tmp_path / "journal", interaction(1, user="ann"), interaction(2), feedback(2))
    assert lake().erase("ann", AT + DAY) == ["i1"]
    journal.append([feedback(1)])
    assert [f.id for f in lake().feedback("a")] == ["f2"] and lake().owners({"i1"}) == {}
    journal.close()
    lake().ingest()
    later = append(tmp_path / "journal", feedback(1, AT + 9 * DAY, "later"))
    later.close()
    lake().ingest()
    assert [f.id for f in lake().feedback("a")] == ["f2"]


def test_an_interaction_that_comes_late_from_another_machine_takes_later_feedback_along(
    lake: Open, tmp_path: Path
) -> None:
    lake().erase("ann", AT + DAY)
    append(tmp_path / "other", interaction(1, session="ann"), feedback(1)).close()
    assert lake(journal="other").ingest() == 2
    append(tmp_path / "journal", feedback(1, AT + 2 * DAY, "later"), feedback(2)).close()
    lake().ingest()
    assert lake().interactions("a") == [] and [f.id for f in lake().feedback("a")] == ["f2"]


def test_what_another_machine_is_about_to_list_at_the_erasure_is_computed_again(lake: Open, tmp_path: Path) -> None:
    if not lake()._shelf.is_shared:
        before = lake().manifest()
        lake().erase("ann", AT)
        with pytest.raises(Changed):
            with_objects(lake().manifest(), [], before)
        return
    steps: list[str] = []

    def meanwhile(step: str) -> None:
        steps.append(step)
        if steps == ["read", "written"]:
            lake().erase("ann", AT + DAY)

    append(tmp_path / "other", interaction(1, session="ann"), interaction(2), feedback(1), feedback(2)).close()
    lake(meanwhile, journal="other").ingest()
    assert steps == ["read", "written", "read", "written", "committed", "deleted"]
    assert [i.id for i in lake().interactions("a")] == ["i2"] and [f.id for f in lake().feedback("a")] == ["f2"]


def test_reports_go_with_their_reporter_and_lose_links_to_others(lake: Open) -> None:
    lake().add([interaction(1, session="ann"), bug(1, subject="ann"), bug(2, subject="bob", about=1), bug(3, about=9)])
    assert lake().erase("ann", AT + DAY) == ["i1"]
    assert lake().observations("a") == [bug(2, subject="bob"), bug(3, about=9)]
    assert lake().add([bug(1, subject="ann"), bug(4, subject="bob", about=1), bug(5, AT + 2 * DAY, subject="ann")]) == 2
    assert lake().observations("a")[2:] == [bug(4, subject="bob"), bug(5, AT + 2 * DAY, subject="ann")]


@pytest.mark.parametrize("change", range(1, 5))
def test_an_erasure_that_died_half_way_is_finished_by_the_next(lake: Open, tmp_path: Path, change: int) -> None:
    class Killed(Exception):
        pass

    lake().add([interaction(1, session="ann"), feedback(1), interaction(2), feedback(2), bug(1, about=1)])
    dying = lake()
    manifests, changes = dying._shelf.manifests, []

    class Dying:
        """The real manifest, until the process dies after so many changes."""

        read, sweep = manifests.read, manifests.sweep

        def change(self, step: Callable[[Manifest], Manifest]) -> Manifest:
            made = manifests.change(step)
            changes.append(made)
            if len(changes) == change:
                raise Killed
            return made

    dying._shelf.manifests = Dying()
    with pytest.raises(Killed):
        dying.erase("ann", AT + DAY)
    lake().erase("ann", AT + 2 * DAY)
    assert [i.id for i in lake().interactions("a")] == ["i2"] and lake().observations("a") == [bug(1)]
    assert [f.id for f in lake().feedback("a")] == ["f2"]
    append(tmp_path / "journal", feedback(1, AT + 5 * DAY, "late")).close()
    lake().ingest()
    assert [f.id for f in lake().feedback("a")] == ["f2"]


def test_erasure_takes_what_died_writers_left_of_that_person_and_nothing_else(lake: Open, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def die(reached: str) -> None:
        if reached == "written":
            raise Killed

    def unlisted() -> list[str]:
        here = lake()
        names = {s.name for table in ("interactions", "feedback") for s in here._shelf.store.listed(f"{table}/")}
        return sorted(names - {o.path for o in here.manifest().objects})

    append(tmp_path / "journal", interaction(1, session="ann"), feedback(1)).close()
    dying = lake(die)
    with pytest.raises(Killed):
        dying.ingest()
    append(tmp_path / "journal", interaction(2)).close()  # the same segment now comes in beside another
    lake().ingest()
    other = lake()._shelf.write([interaction(3, agent="b")])[0].path
    (dying._shelf.root / "tmp1.part").write_text("ann")
    assert len(unlisted()) == 2 and other in unlisted(), "feedback came in as the same object"
    if dying._shelf.is_shared:
        dying.erase("ann", time.time())
        assert len(unlisted()) == 2, "another machine may be about to list it"
    dying.erase("ann", time.time() + 3700)
    assert unlisted() == [other] and not list(dying._shelf.root.glob("*.part"))
    assert [i.id for i in lake().interactions("a")] == ["i2"] and lake().feedback("a") == []


def test_a_manifest_that_got_lost_takes_no_object_along(tmp_path: Path) -> None:
    lake = ParquetLake(tmp_path / "lake", tmp_path / "journal")
    lake.add([interaction(1), interaction(2)])
    kept = tmp_path / "lake" / "manifest.json"
    copy = kept.read_bytes()
    kept.unlink()
    for use in (
        lambda: lake.compact(AT + 99 * DAY),
        lambda: lake.erase("nobody", AT),
        lambda: lake.sweep(AT + 99 * DAY, 0),
    ):
        use()
        kept.write_bytes(copy)
        found = [i.id for i in ParquetLake(tmp_path / "lake", tmp_path / "journal").interactions("a")]
        assert found == ["i1", "i2"]
        kept.unlink()


def test_manifests_that_hold_no_longer_go_after_a_month(lake: Open) -> None:
    for n in range(3):
        lake().add([interaction(n)])
    store, now = lake()._shelf.store, time.time()
    first = len(store.listed("manifests/"))
    lake().sweep(now + DAY)
    assert len(store.listed("manifests/")) == first
    lake().sweep(now + 31 * DAY)
    assert len(store.listed("manifests/")) == min(first, 1) and len(lake().interactions("a")) == 3


def test_a_hundred_thousand_erased_interactions_leave_the_manifest_small(tmp_path: Path) -> None:
    lake = ParquetLake(tmp_path / "lake", tmp_path / "journal")
    many = [f"chatcmpl-{n:032x}" for n in range(100_000)]
    ids = ErasedIds().with_ids(many)
    name = lake._shelf.write_erased(ids)
    lake._shelf.change(lambda m: Manifest(erased_ids=name))
    assert (tmp_path / "lake" / "manifest.json").stat().st_size < 500
    assert (
        b"chatcmpl" not in (tmp_path / "lake" / name).read_bytes()
        and (tmp_path / "lake" / name).stat().st_size == 1_600_000
    )
    said = [Feedback(id=str(n), at=AT, interaction=i, agent="a", kind="rating") for n, i in enumerate([many[7], "i1"])]
    began = time.process_time()
    assert lake.add(said) == 1 and [f.interaction for f in lake.feedback("a")] == ["i1"]
    assert time.process_time() - began < 5
    lake.add([interaction(1, session="ann")])
    lake.erase("ann", AT + DAY)
    assert len(lake._shelf.now()[1]) == 100_001 and lake.feedback("a") == []
    assert not (tmp_path / "lake" / name).exists(), "the one before goes"


@given(st.lists(st.text(min_size=1, max_size=8), max_size=40), st.lists(st.text(max_size=8), max_size=10))
def test_erased_ids_hold_those_and_no_others(erased: list[str], others: list[str]) -> None:
    half = len(erased) // 2
    ids = ErasedIds().with_ids(erased[:half]).with_ids(erased[half:])
    assert all(i in ids for i in erased) and len(ids) == len(set(erased))
    assert all((o in ids) == (o in set(erased)) for o in others)
    assert ErasedIds(ids.data).with_ids([]).data == ids.data


@given(
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["ann", "bob", ""]), st.integers(0, 20)), max_size=12),
    st.integers(0, 20),
)
@settings(max_examples=60)
def test_sifting_leaves_nothing_of_the_erased_and_everything_else(rows: list[tuple[int, str, int]], at: int) -> None:
    made = [interaction(n, session=who, at=float(when) - n, id=f"{n}-{who}") for n, who, when in rows]
    said = [Feedback(id=f"f{i.id}", at=99.0, interaction=i.id, agent="a", kind="rating") for i in made]
    kept, gone = sift([*made, *said], [Erased(subject_digest("ann"), float(at))], ErasedIds())
    assert gone == {i.id for i in made if i.session == "ann" and i.at <= at}
    assert [r for r in kept if isinstance(r, Interaction)] == [i for i in made if i.id not in gone]
    assert [r for r in kept if isinstance(r, Feedback)] == [f for f in said if f.interaction not in gone]


def test_old_manifests_are_read(tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    digest = subject_digest("ann")
    (tmp_path / "lake" / "manifest.json").write_text(
        '{"objects":[],"segments":["w.1-2-3.sealed"],"removed":[{"path":"x","at":1.0}],'
        f'"erased":[{{"sha256":"{digest}","at":{AT + DAY}}}]}}'
    )
    lake = ParquetLake(tmp_path / "lake", tmp_path / "journal")
    assert lake.add([interaction(1, session="ann"), interaction(2), bug(1)]) == 2
    lake.compact(AT + DAY)
    assert [i.id for i in lake.interactions("a")] == ["i2"] and lake.observations("a") == [bug(1)]


def test_copies_on_other_machines_go_within_the_hour(lake: Open, tmp_path: Path) -> None:
    lake().add([interaction(1, session="ann"), interaction(2, at=AT + DAY)])
    other = lake()  # on S3 a machine of its own
    assert len(other.interactions("a")) == 2
    copies = {p for p in tmp_path.rglob("fetched/**/*.parquet")}
    lake().erase("ann", AT + 2 * DAY)
    other.ingest()
    kept = {p for p in copies if p.exists()}
    assert kept == copies, "who reads by the manifest before has an hour"
    for p in copies:
        os.utime(p, (time.time() - 3700, time.time() - 3700))
    other.ingest()
    kept = {p for p in copies if p.exists()}
    assert len(kept) == len(copies) / 2
    assert [i.id for i in other.interactions("a")] == ["i2"]
