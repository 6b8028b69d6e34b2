"""Pairs of one's own: code with a known weakness, and the same code after the fix.

A row has `cwe`, `vulnerable`, `fixed`, and what names its project: `project`, or `commit` as host/owner/repository/...
Optional: `file_name`, `func_name`; `form` (function, endpoint, openapi; the first where it is not given); `severity`.
"""

from __future__ import annotations

import hashlib

from pawl.errors import SourceError
from pawl.qe import rows_jsonl
from pawl.qe.item import Item
from pawl.qe.rows_jsonl import Row
from pawl.qe.security_review import oracle, prompt
from pawl.qe.security_review.weaknesses import SEVERITIES, cwe


def items(location: str, forms: tuple[prompt.Form, ...]) -> list[Item]:
    """Two items for each pair of one of these forms, both of the project's source, sorted by id.

    Pairs whose difference is lost when long code is cut are left out: nobody could tell one from the other.

    Raises:
        SourceError: a row lacks something, by line; or no pair is left.
    """
    rows = rows_jsonl.read(location)
    found: dict[str, Item] = {}
    for row in rows:
        found |= {i.id: i for i in _pair(row, forms)}
    if not found:
        raise SourceError(
            f"{location}: none of {len(rows)} rows has the form {' or '.join(forms)} and a fix that shows in its first "
            f"{prompt.MOST_CODE} characters"
        )
    return [found[k] for k in sorted(found)]


def _pair(row: Row, forms: tuple[prompt.Form, ...]) -> list[Item]:
    number = cwe(row.text("cwe"))
    if number is None:
        raise row.wrong(f"field `cwe` is {row.text('cwe')!r}, it must be like CWE-089")
    severity = row.optional("severity")
    if severity and severity not in SEVERITIES[1:]:
        raise row.wrong(f"field `severity` is {severity!r}, it must be one of {', '.join(SEVERITIES[1:])}")
    told = row.optional("form") or "function"
    form = next((f for f in prompt.FORMS if f == told), None)
    if form is None:
        raise row.wrong(f"field `form` is {told!r}, it must be one of {', '.join(prompt.FORMS)}")
    vulnerable, fixed, project = row.text("vulnerable"), row.text("fixed"), _project(row)
    if form not in forms or prompt.shown(vulnerable) == prompt.shown(fixed):
        return []
    # Names repeat within a project; the code's own digest tells the pairs apart.
    digest = hashlib.sha256(f"{vulnerable}\0{fixed}".encode(errors="replace")).hexdigest()[:8]
    name = "/".join(x for x in (project, row.optional("func_name"), digest) if x)
    return [
        Item(
            id=f"{name}/{which}",
            source=project,
            messages=prompt.messages(project, form, code),
            truth=known,
            scenario=known["cwe"] or oracle.SECURE,
        )
        for which, code, known in (
            ("vulnerable", vulnerable, oracle.truth(number, severity)),
            ("fixed", fixed, oracle.truth(None)),
        )
    ]


def _project(row: Row) -> str:
    if row.optional("project"):
        return "-".join(row.text("project").split())
    parts = [p for p in row.optional("commit").split("://")[-1].split("/") if p]
    if len(parts) < 3:
        raise row.wrong("it must name its `project`, or its `commit` as host/owner/repository/...")
    return "/".join("-".join(p.split()) for p in parts[1:3])
