"""kill -9 of everybody who uses the lake, at any instant: nothing acknowledged is lost, nothing is there twice."""

from __future__ import annotations

import random
import secrets
import time
from pathlib import Path

import pytest

from pawl.lake.query_duckdb import query
from pawl.lake.records import Feedback, Interaction
from tests.contract.lake_processes import ROLES, Place, Processes, feedback, interaction
from tests.contract.s3_rclone import S3


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        return Place(tmp_path)
    server: S3 = request.getfixturevalue("s3")
    return Place(tmp_path, f"s3://bucket/{secrets.token_hex(4)}", server.endpoint)


def found(place: Place) -> list[Interaction | Feedback]:
    lake = place.lake("reader")
    return [r for a in ("a0", "a1") for r in (*lake.interactions(a), *lake.feedback(a))]


def check(place: Place, acknowledged: list[str]) -> None:
    """What readers see while all of it goes on."""
    names = [r.id for r in found(place)]
    assert set(acknowledged) <= set(names) and len(names) == len(set(names))


def kill_loop(place: Place, root: Path, kills: int, longest_s: float, server: S3 | None = None) -> dict[str, int]:
    """Kill one of them at a time, at a random instant; `server`: now and then that one instead."""
    chance = random.Random(kills)
    killed = dict.fromkeys([*ROLES, *(["server"] if server else [])], 0)
    with Processes(place, root) as processes:
        for turn in range(kills):
            time.sleep(chance.uniform(0, longest_s))
            roles = [r for r in ROLES if r != "compact" or turn < kills * 2 // 3]
            if turn == kills * 2 // 3:
                processes.kill("compact")  # what merges files would put right what is in two of them
            role = "server" if server and turn % 20 == 19 else chance.choice(roles)
            killed[role] += 1
            if role == "server":
                assert server is not None
                server.kill()
                time.sleep(chance.uniform(0, longest_s))
                server.start()
            else:
                processes.kill(role)
                processes.start(role)
            if turn % 20 == 10:
                check(place, place.acknowledged())
    acknowledged = place.acknowledged()
    check(place, acknowledged)
    place.lake().ingest()
    for table in ("interactions", "feedback"):
        rows = query(place.lake(), f"SELECT count(*), count(DISTINCT id) FROM {table}")[1][0]
        assert rows[0] == rows[1] > len(acknowledged) / 2 - 1, "nor is anything in two files"
    place.lake().compact(time.time())
    check(place, acknowledged)
    assert not list((place.home / "journal").glob("*.sealed")) and not list((place.home / "journal").glob("*.damaged"))
    for record in found(place):
        make = interaction if isinstance(record, Interaction) else feedback
        _, name, n = record.id.split("-")
        assert record == make(name, int(n))
    assert len(acknowledged) > 10 * killed["write"]
    return killed


def test_kills_lose_and_double_nothing(place: Place, root: Path) -> None:
    killed = kill_loop(place, root, 24, 0.12)
    assert sum(killed.values()) == 24 and min(killed.values()) >= 3


@pytest.mark.slow
def test_four_hundred_kills_lose_and_double_nothing(place: Place, root: Path, request: pytest.FixtureRequest) -> None:
    """On S3 the server is among the killed."""
    server = request.getfixturevalue("s3") if place.url else None
    began = time.monotonic()
    killed = kill_loop(place, root, 400, 0.15, server)
    print(f"{killed}, {len(place.acknowledged())} records acknowledged, {time.monotonic() - began:.0f} s")
    assert sum(killed.values()) == 400
