"""Which month and which days a report is about, wherever the team is."""

from __future__ import annotations

import datetime as dt
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from pawl.errors import ConfigError, PawlError
from pawl.improvement.monthly import usual_month
from pawl.lake.parquet_lake import ParquetLake
from pawl.lake.records import Interaction
from pawl.monitoring.independence import share_bounds
from pawl.monitoring.month_duckdb import summed
from pawl.monitoring.months import bounds_of, days_of, present_and_last, zone_of

ZONES = ("UTC", "Asia/Tokyo", "Pacific/Auckland", "America/Los_Angeles", "Pacific/Kiritimati")


def at(zone: str, *when: int) -> float:
    return dt.datetime(*when, tzinfo=ZoneInfo(zone)).timestamp()  # type: ignore[misc,arg-type]


def call(id: str, when: float) -> Interaction:
    return Interaction(
        id=id, at=when, agent="a", session=id, key_id="k", arm="base", arm_kind="local", messages=[]
    )  # fmt: skip


@pytest.mark.parametrize("zone", ZONES)
def test_on_the_first_at_six_the_month_that_is_over_is_reported_whole(zone: str, tmp_path: Path) -> None:
    lake, there = ParquetLake(tmp_path / "lake", tmp_path / "journal"), ZoneInfo(zone)
    lake.add([call(f"i{n}", at(zone, 2026, n, 15)) for n in (10, 11)])
    scheduled = at(zone, 2026, 12, 1, 6)
    assert usual_month(lake, scheduled, there) == "2026-11"
    name, begin, end = bounds_of("2026-11", scheduled, there)
    assert (name, begin, end) == ("2026-11", at(zone, 2026, 11, 1), at(zone, 2026, 12, 1)) and end <= scheduled
    assert usual_month(lake, at(zone, 2026, 11, 30, 23, 59), there) == "2026-10"
    with pytest.raises(PawlError, match="has not begun"):
        bounds_of("2027-01", scheduled, there)


@pytest.mark.parametrize("zone", ZONES)
def test_days_are_those_of_the_zone_however_long_they_are(zone: str, tmp_path: Path) -> None:
    first, last = at(zone, 2026, 3, 1, 0, 0), at(zone, 2026, 4, 30, 23, 59)
    days = days_of(first, last, ZoneInfo(zone))
    assert [d for d, _, _ in days[:2]] == ["2026-03-01", "2026-03-02"] and days[-1][0] == "2026-04-30"
    assert len(days) == 61 and days[0][1] == first
    assert all(end == begin for (_, _, end), (_, begin, _) in pairwise(days))
    lake = ParquetLake(tmp_path / "lake", tmp_path / "journal")
    lake.add([call("early", at(zone, 2026, 3, 8, 0, 30)), call("late", at(zone, 2026, 3, 8, 23, 30))])
    found = summed(
        lake, first, last, clouds={}, default=None, base_names=("base",), share_bounds=share_bounds, zone=ZoneInfo(zone)
    )
    assert [(d.day, d.answered) for d in found.days] == [("2026-03-08", 2)]


def test_january_follows_december_and_names_are_checked() -> None:
    assert present_and_last(at("Asia/Tokyo", 2027, 1, 1, 6), ZoneInfo("Asia/Tokyo")) == ("2027-01", "2026-12")
    with pytest.raises(ConfigError, match=r"Mars/Olympus"):
        zone_of("Mars/Olympus")
    with pytest.raises(PawlError, match="like 2026-11"):
        bounds_of("October", 0.0, dt.UTC)
