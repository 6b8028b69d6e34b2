"""What became of answers, as other tools know it: ratings in CSV, pytest's JUnit XML."""

from __future__ import annotations

import csv
import re
import xml.etree.ElementTree as ET
from pathlib import Path

from pawl.errors import SourceError
from pawl.importers.imported import Problem, Reject, Rows, Target, feedback, moment

_IDENTITY = re.compile(r"(chatcmpl-[0-9a-f]{32}|resp_[0-9a-f]{32}|import-[0-9a-f]{32})")


def ratings_csv(path: Path, target: Target) -> Rows:
    """Columns `interaction` and `score` (0 to 1; with `scale`, 0 to that), optional `at`, `kind`, `comment`."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            missing = {"interaction", "score"} - set(reader.fieldnames or ())
            if missing:
                raise SourceError(f"{path} has no column {' and '.join(sorted(missing))}; it has: {reader.fieldnames}")
            for n, row in enumerate(reader, start=2):  # the header is line 1
                try:
                    about = (row["interaction"] or "").strip()
                    agent = target.find_agent(about)
                    if agent is None:
                        raise Problem(f"no interaction {about!r} in the lake")
                    score = _number(row["score"]) / _number(row.get("scale") or "1")
                    kind = (row.get("kind") or "rating").strip()
                    if kind not in ("rating", "outcome", "accepted"):
                        raise Problem(f"no kind {kind!r}: rating, outcome or accepted")
                    at = moment(_time(row.get("at")))
                    detail = {"comment": row["comment"]} if row.get("comment") else {}
                    yield [feedback(target, "csv", about, agent, at, kind=kind, score=score, detail=detail)]
                except (Problem, ZeroDivisionError) as e:
                    yield Reject(n, str(e))
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise SourceError(f"{path} cannot be read as CSV: {e}") from e


def junit_xml(path: Path, target: Target) -> Rows:
    """One outcome a test case: 1 passed, 0 failed or in error; skipped ones say nothing.

    A case tells the interaction that wrote it by a property `interaction`, or by its id in the case's name.
    """
    try:
        tree = ET.fromstring(_safe(path))  # noqa: S314 - without a DTD there are no entities to expand
    except (OSError, ET.ParseError) as e:
        raise SourceError(f"{path} cannot be read as JUnit XML: {e}") from e
    n = 0
    for suite in tree.iter("testsuite"):
        when = suite.get("timestamp")
        for case in suite.findall("testcase"):
            n += 1
            try:
                if case.find("skipped") is not None:
                    raise Problem("skipped: it says nothing")
                about = _interaction_of(case)
                agent = target.find_agent(about)
                if agent is None:
                    raise Problem(f"no interaction {about!r} in the lake")
                broken = next((e for e in (case.find("failure"), case.find("error")) if e is not None), None)
                detail = {"case": case.get("name"), "message": broken.get("message") if broken is not None else None}
                score = 0.0 if broken is not None else 1.0
                at = moment(_time(when))
                yield [feedback(target, "junit", about, agent, at, kind="outcome", score=score, detail=detail)]
            except Problem as e:
                yield Reject(n, str(e))


def _interaction_of(case: ET.Element) -> str:
    for given in case.iter("property"):
        if given.get("name") == "interaction" and given.get("value"):
            return str(given.get("value"))
    found = _IDENTITY.search(f"{case.get('name')} {case.get('classname')}")
    if found is None:
        raise Problem("it names no interaction: give it a property `interaction`")
    return found.group(1)


def _safe(path: Path) -> bytes:
    """The document; SourceError where it declares a DTD: reports have none, attacks on XML parsers do."""
    data = path.read_bytes()
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise SourceError(f"{path} declares a DTD; a test report needs none")
    return data


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as e:
        raise Problem(f"{text!r} is no number") from e


def _time(text: str | None) -> float | str:
    if not text:
        raise Problem("no time")
    try:
        return float(text)
    except ValueError:
        return text
