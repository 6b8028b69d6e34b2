"""Jira's issues: the REST search's JSON (with Atlassian documents), and the CSV export of a search."""

from __future__ import annotations

import csv
import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pawl.errors import SourceError
from pawl.importers.documents_atlassian import text_of_document
from pawl.importers.imported import Draft, Problem, Reject, Rows, Target, encoding_of, moment, settle
from pawl.importers.issues import Report, draft
from pawl.importers.json_rows import values

_FIXED = frozenset({"fixed", "done", "resolved", "complete", "completed", "fixed/completed"})
# Jira's CSV shows times as its look and feel says; the first is the default.
_TIMES = ("%d/%b/%y %I:%M %p", "%d/%b/%y %H:%M", "%d/%b/%Y %I:%M %p", "%d/%b/%Y %H:%M", "%Y/%m/%d %H:%M")
_Fields = dict[str, Any]


def jira(path: Path, target: Target) -> Rows:
    """Issues of a REST search (several pages too), or of a search's CSV export. Stories, tasks, epics are rejected.

    Names of custom fields are needed to find one called "Root Cause": `expand=names` in REST; CSV has them. Times in
    CSV have no zone: they are taken as UTC.
    """
    return settle(_csv(path, target) if _is_csv(path) else _json(path, target), target)


def _is_csv(path: Path) -> bool:
    try:
        with path.open(encoding=encoding_of(path)) as text:
            return text.read(4096).lstrip()[:1] not in ("{", "[", "")
    except (OSError, UnicodeError) as e:
        raise SourceError(f"{path} cannot be read: {e}") from e


def _json(path: Path, target: Target) -> Iterator[Draft | Reject]:
    n = 0
    for _, page in values(path):
        names = page.get("names") if isinstance(page, dict) else None
        found = page.get("issues") if isinstance(page, dict) and isinstance(page.get("issues"), list) else [page]
        assert isinstance(found, list)
        for issue in found:
            n += 1
            try:
                if isinstance(issue, Reject):
                    raise Problem(issue.reason)
                yield draft(n, _from_rest(issue, names), "jira", target)
            except Problem as e:
                yield Reject(n, str(e))
            except RecursionError:
                yield Reject(n, "its document is nested too deeply")


def _from_rest(issue: Any, names: Any) -> Report:
    fields = _dict(_dict(issue).get("fields"))
    key, title = _dict(issue).get("key"), fields.get("summary")
    if not isinstance(key, str) or not isinstance(title, str):
        raise Problem("no key or no summary: it is no issue")
    known = {**_dict(names), **_dict(_dict(issue).get("names"))}
    said = _list(_dict(fields.get("comment")).get("comments"))
    done = _dict(_dict(fields.get("status")).get("statusCategory")).get("key") in (None, "done")
    closed = fields.get("resolutiondate")
    how = _name(fields.get("resolution"))
    created = moment(fields.get("created"))
    return Report(
        ref=key,
        title=title,
        text=text_of_document(fields.get("description")),
        comments=tuple(text_of_document(_dict(c).get("body")) for c in said),
        component=_project(key, [_name(c) for c in _list(fields.get("components"))]),
        kinds=(_name(fields.get("issuetype")),),
        labels=tuple(label for label in _list(fields.get("labels")) if isinstance(label, str)),
        severity=_field(fields, known, "severity") or _name(fields.get("priority")),
        reporter=_person(fields.get("reporter")),
        created=created,
        closed=(moment(closed) if closed else created) if done and how else None,
        how=how,
        fixed=_FIXED,
        root_cause=_field(fields, known, "root cause"),
    )


def _csv(path: Path, target: Target) -> Iterator[Draft | Reject]:
    try:
        with path.open(newline="", encoding=encoding_of(path)) as lines:
            reader = csv.reader(lines, strict=True)
            header = [name.strip() for name in next(reader, [])]
            missing = {"Summary", "Issue key", "Created"} - set(header)
            if missing:
                raise SourceError(f"{path} has no column {', '.join(sorted(missing))}: it is no export of Jira's")
            for n, cells in enumerate(reader, start=2):  # the header is row 1
                row: dict[str, list[str]] = {}
                for name, cell in zip(header, cells, strict=False):
                    if cell.strip():  # a column for each label, comment and component that any row has
                        row.setdefault(name, []).append(cell.strip())
                try:
                    yield draft(n, _from_csv(row), "jira", target)
                except Problem as e:
                    yield Reject(n, str(e))
    except (OSError, UnicodeError, csv.Error) as e:
        raise SourceError(f"{path} cannot be read as CSV: {e}") from e


def _from_csv(row: dict[str, list[str]]) -> Report:
    def first(*names: str) -> str:
        return next((row[n][0] for n in names if n in row), "")

    def custom(part: str) -> str:
        return next((v[0] for n, v in row.items() if n.startswith("Custom field") and part in n.casefold()), "")

    key, title, how = first("Issue key"), first("Summary"), first("Resolution")
    if not key or not title:
        raise Problem("no key or no summary: it is no issue")
    created, closed = _written(first("Created")), first("Resolved")
    is_done = bool(how) and how.casefold() != "unresolved"
    return Report(
        ref=key,
        title=title,
        text=first("Description"),
        # time;author;text
        comments=tuple(c.split(";", 2)[-1] for name in ("Comment", "Comments") for c in row.get(name, ())),
        component=_project(key, [*row.get("Component/s", ()), *row.get("Components", ())]),
        kinds=(first("Issue Type"),),
        labels=tuple(label for cell in row.get("Labels", ()) for label in cell.split()),
        severity=custom("severity") or first("Priority"),
        reporter=first("Reporter Email", "Reporter", "Reporter Id", "Creator"),
        created=created,
        closed=(_written(closed) if closed else created) if is_done else None,
        how=how,
        fixed=_FIXED,
        root_cause=custom("root cause"),
    )


def _written(text: str) -> float:
    for form in _TIMES:
        try:
            return dt.datetime.strptime(text, form).replace(tzinfo=dt.UTC).timestamp()
        except ValueError:
            continue
    return moment(text or None)


def _project(key: str, components: list[str]) -> str:
    return "/".join([key.rpartition("-")[0], *components[:1]])


def _field(fields: _Fields, names: _Fields, part: str) -> str:
    """A custom field by what it is called."""
    for identity, name in names.items():
        if part in str(name).casefold() and fields.get(identity):
            value = fields[identity]
            several = value if isinstance(value, list) else [value]
            return ", ".join(filter(None, (_name(v) or text_of_document(v) for v in several)))
    return ""


def _person(value: Any) -> str:
    given = _dict(value)
    found = (given.get(name) for name in ("emailAddress", "name", "accountId", "displayName"))
    return next((str(f) for f in found if f), "")


def _name(value: Any) -> str:
    """What Jira calls a thing: {"name": ...}, or {"value": ...} of an option."""
    return str(_dict(value).get("name") or _dict(value).get("value") or "")


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
