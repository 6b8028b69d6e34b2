"""What became of answers, as other tools know it: ratings in CSV, pytest's JUnit XML."""

from __future__ import annotations

import csv
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from pathlib import Path

from pawl.errors import SourceError
from pawl.importers.elements_xml import elements
from pawl.importers.imported import (
    Draft,
    Problem,
    Reject,
    Rows,
    Target,
    encoding_of,
    feedback,
    interactions_in,
    owner,
    settle,
    written_moment,
)
from pawl.lake.records import LakeRecord


def ratings_csv(path: Path, target: Target) -> Rows:
    """Columns `interaction` and `score` (0 to 1; with `scale`, 0 to that), optional `at`, `kind`, `comment`."""
    return settle(_ratings(path, target), target)


def _ratings(path: Path, target: Target) -> Iterator[Draft | Reject]:
    try:
        with path.open(newline="", encoding=encoding_of(path)) as lines:
            reader = csv.DictReader(lines)
            missing = {"interaction", "score"} - set(reader.fieldnames or ())
            if missing:
                raise SourceError(f"{path} has no column {' and '.join(sorted(missing))}; it has: {reader.fieldnames}")
            for n, row in enumerate(reader, start=2):  # the header is line 1
                yield _rating(n, row, target)
    except (OSError, UnicodeError, csv.Error) as e:
        raise SourceError(f"{path} cannot be read as CSV: {e}") from e


def _rating(n: int, row: dict[str, str | None], target: Target) -> Draft:
    about = (row["interaction"] or "").strip()

    def make(agents: Mapping[str, str]) -> list[LakeRecord]:
        agent = owner(agents, about)
        try:
            score = _number(row["score"]) / _number(row.get("scale") or "1")
        except ZeroDivisionError as e:
            raise Problem("a scale of 0") from e
        kind = (row.get("kind") or "rating").strip()
        if kind not in ("rating", "outcome", "accepted"):
            raise Problem(f"no kind {kind!r}: rating, outcome or accepted")
        at = written_moment(row.get("at"))
        detail = {"comment": row["comment"]} if row.get("comment") else {}
        return [feedback(target, "csv", about, agent, at, kind=kind, score=score, detail=detail)]

    return Draft(n, (about,), make)


def junit_xml(path: Path, target: Target) -> Rows:
    """One outcome a test case: 1 passed, 0 failed or in error; skipped ones say nothing.

    A case tells the interaction that wrote it by a property `interaction`, or by its id in the case's name.
    """
    return settle(_cases(path, target), target)


def _cases(path: Path, target: Target) -> Iterator[Draft | Reject]:
    for n, (case, above) in enumerate(elements(path, "testcase"), start=1):
        try:
            yield _case(n, case, above[0].get("timestamp") if above else None, target)
        except Problem as e:
            yield Reject(n, str(e))


def _case(n: int, case: ET.Element, when: str | None, target: Target) -> Draft:
    if case.find("skipped") is not None:
        raise Problem("skipped: it says nothing")
    about = _interaction_of(case)
    broken = next((e for e in (case.find("failure"), case.find("error")) if e is not None), None)
    detail = {"case": case.get("name"), "message": broken.get("message") if broken is not None else None}
    score = 0.0 if broken is not None else 1.0

    def make(agents: Mapping[str, str]) -> list[LakeRecord]:  # without the element: many drafts wait at once
        agent = owner(agents, about)
        at = written_moment(when)
        return [feedback(target, "junit", about, agent, at, kind="outcome", score=score, detail=detail)]

    return Draft(n, (about,), make)


def _interaction_of(case: ET.Element) -> str:
    for given in case.iter("property"):
        if given.get("name") == "interaction" and given.get("value"):
            return str(given.get("value"))
    found = interactions_in(f"{case.get('name')} {case.get('classname')}")
    if not found:
        raise Problem("it names no interaction: give it a property `interaction`")
    return found[0]


def _number(text: str | None) -> float:
    try:
        return float(text or "")
    except ValueError as e:
        raise Problem(f"{text!r} is no number") from e
