"""JMeter's results (JTL) in CSV and in XML."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

from pawl.errors import SourceError
from pawl.importers.elements_xml import elements
from pawl.importers.imported import Problem, Reject, Rows, Target, encoding_of, written_moment
from pawl.importers.load_results import Minutes

_CSV = ("timeStamp", "elapsed", "label", "success")
_XML = ("ts", "t", "lb", "s")


def jmeter(path: Path, target: Target) -> Rows:
    """Samples by label and minute. Of samples in samples (XML), the outermost count, as in JMeter's own reports."""
    minutes = Minutes()
    names, samples = (_XML, _xml(path)) if _is_xml(path) else (_CSV, _csv(path))
    for n, sample in samples:
        try:
            _take(minutes, *(sample.get(name) or "" for name in names))
        except Problem as e:
            yield Reject(n, str(e))
    yield from minutes.observations(target, "jmeter")


def _take(minutes: Minutes, time: str, elapsed: str, label: str, success: str) -> None:
    # A format like yyyy/MM/dd HH:mm:ss.SSS is JMeter's own suggestion for readable times.
    at = written_moment(time.replace("/", "-") if not time.isdecimal() else time)
    if not elapsed.isdecimal() or len(elapsed) > 12:
        raise Problem(f"{elapsed!r} is no duration in milliseconds")
    if not label:
        raise Problem("no label")
    if success not in ("true", "false"):
        raise Problem(f"{success!r} is neither true nor false")
    minutes.take(label, at, float(elapsed), success == "true")


def _is_xml(path: Path) -> bool:
    try:
        with path.open(encoding=encoding_of(path)) as text:
            return text.read(4096).lstrip().startswith("<")
    except (OSError, UnicodeError) as e:
        raise SourceError(f"{path} cannot be read: {e}") from e


def _xml(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    for n, (element, _) in enumerate(elements(path, "httpSample", "sample"), start=1):
        yield n, element.attrib


def _csv(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    try:
        with path.open(newline="", encoding=encoding_of(path)) as lines:
            first = lines.readline()
            lines.seek(0)
            delimiter = max(",;\t|", key=first.count)  # jmeter.save.saveservice.default_delimiter
            reader = csv.DictReader(lines, delimiter=delimiter)
            missing = set(_CSV) - set(reader.fieldnames or ())
            if missing:
                raise SourceError(
                    f"{path} has no column {', '.join(sorted(missing))}; JMeter writes them with "
                    "jmeter.save.saveservice.print_field_names=true"
                )
            yield from enumerate(reader, start=2)  # the header is row 1
    except (OSError, UnicodeError, csv.Error) as e:
        raise SourceError(f"{path} cannot be read as CSV: {e}") from e
