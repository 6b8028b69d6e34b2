"""Changes of one's own with what the fixes that followed changed back.

A row has `project`, `diff` (a unified diff of one file) and `findings`: a list of objects with `line`, the number in
the new file, and `kind`, one of the task's or absent; an empty list says that the change is clean. Optional: `id`.
"""

from __future__ import annotations

import hashlib
from typing import Any

from pawl.errors import SourceError
from pawl.qe import rows_jsonl
from pawl.qe.code_review import oracle, prompt
from pawl.qe.item import Item
from pawl.qe.rows_jsonl import Row


def items(location: str) -> list[Item]:
    """An item for each row, sorted by id.

    Long diffs lose unchanged lines away from changes, then their end; findings that are not shown any more go with
    it. Rows all of whose findings went are left out, and those with more than an answer may name.

    Raises:
        SourceError: a row lacks something, by line; or none is left.
    """
    rows = rows_jsonl.read(location)
    found = {i.id: i for row in rows if (i := _item(row)) is not None}
    if not found:
        raise SourceError(
            f"{location}: no row has a finding within the first {prompt.MOST_DIFF} characters of its diff"
        )
    return [found[k] for k in sorted(found)]


def _item(row: Row) -> Item | None:
    project, text = "-".join(row.text("project").split()), row.text("diff")
    files = sum(line.startswith("+++ ") for line in text.split("\n"))
    if files > 1:
        raise row.wrong(f"field `diff` is of {files} files: write a row for each")
    start = text.find("@@ ")
    try:
        lines = prompt.numbered(text[start:].rstrip("\n").split("\n") if start >= 0 else [])
    except ValueError as error:
        raise row.wrong(f"field `diff`: {error}") from error
    truths = _findings(row)
    shown = prompt.cut(lines)
    there = {line.number for line in shown if line.sign != "@"}
    kept = [t for t in truths if t["line"] in there]
    if not shown or (truths and not kept) or len(kept) > oracle.MOST_FINDINGS:
        return None
    name = row.optional("id") or hashlib.sha256(text.encode(errors="replace")).hexdigest()[:12]
    return Item(
        id=f"{project}/{name}",
        source=project,
        messages=prompt.messages(project, shown),
        truth={"findings": kept},
        scenario=(kept[0]["kind"] or "other") if kept else oracle.CLEAN,
    )


def _findings(row: Row) -> list[dict[str, Any]]:
    found = row.fields.get("findings")
    if not isinstance(found, list) or not all(isinstance(f, dict) for f in found):
        raise row.wrong("field `findings` must be a list of objects, empty where the change is clean")
    made = []
    for f in found:
        inner = Row(row.location, row.line, f)
        line, kind = inner.whole("line"), inner.optional("kind")
        if line is None:
            raise row.wrong("a finding needs its `line` in the new file")
        if kind and kind not in prompt.KINDS:
            raise row.wrong(f"a finding's `kind` is {kind!r}, it must be one of {', '.join(prompt.KINDS)}")
        made.append({"line": line, "kind": kind})
    return made
