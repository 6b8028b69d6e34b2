"""GitHub's issues, as `gh issue list --json ...` and as the REST API give them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pawl.importers.imported import Draft, Problem, Reject, Rows, Target, moment, settle
from pawl.importers.issues import Report, draft
from pawl.importers.json_rows import Row, rows

_REPOSITORY = re.compile(r"/([\w.-]+/[\w.-]+)(?:/(?:issues|pull)/\d+)?/?$")
_FIXED = frozenset({"completed"})


def github(path: Path, target: Target) -> Rows:
    """Issues in an array or in lines; pull requests and what is labelled as something else than a bug are rejected.

    Of `gh`, ask for number,title,body,state,stateReason,labels,author,createdAt,closedAt,comments,url.
    """
    return settle(_drafts(path, target), target)


def _drafts(path: Path, target: Target) -> Iterator[Draft | Reject]:
    for n, row in rows(path, ("items", "issues")):
        if isinstance(row, Reject):
            yield row
            continue
        try:
            yield draft(n, _report(row), "github", target)
        except Problem as e:
            yield Reject(n, str(e))


def _report(row: Row) -> Report:
    number, title = row.get("number"), row.get("title")
    if not isinstance(number, int) or not isinstance(title, str):
        raise Problem("no number or no title: it is no issue")
    url = str(row.get("html_url") or row.get("url") or "")
    if row.get("pull_request") or row.get("isPullRequest") or "/pull/" in url:
        raise Problem("a pull request, no issue")
    repository = _repository(row, url)
    created = moment(row.get("createdAt") or row.get("created_at"))
    is_closed = str(row.get("state") or "").casefold() == "closed"
    closed = row.get("closedAt") or row.get("closed_at")
    labels = _names(row.get("labels"))
    kind = _names([row.get("type") or row.get("issueType")])
    author = row.get("author") or row.get("user")
    return Report(
        ref=f"{repository}#{number}",
        title=title,
        text=_text(row.get("body")),
        comments=tuple(_text(c.get("body")) for c in _list(row.get("comments")) if isinstance(c, dict)),
        component=repository,
        kinds=kind + labels,
        labels=labels,
        severity="",
        reporter=str(author.get("login") or "") if isinstance(author, dict) else "",
        created=created,
        closed=(moment(closed) if closed else created) if is_closed else None,
        how=str(row.get("stateReason") or row.get("state_reason") or "").replace("_", " "),
        fixed=_FIXED,
    )


def _repository(row: Row, url: str) -> str:
    given = row.get("repository")
    if isinstance(given, dict):
        return str(given.get("nameWithOwner") or given.get("full_name") or "")
    found = _REPOSITORY.search(url) or _REPOSITORY.search(str(row.get("repository_url") or ""))
    return found.group(1) if found else ""


def _names(value: Any) -> tuple[str, ...]:
    """Labels are objects with a name, or names."""
    found = (one.get("name") if isinstance(one, dict) else one for one in _list(value))
    return tuple(name for name in found if isinstance(name, str) and name)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
