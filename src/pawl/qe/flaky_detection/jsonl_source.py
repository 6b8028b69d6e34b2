"""Tests of one's own with what many reruns found.

A row has `project`, `test_name`, `code`, `label` (flaky, or anything else for stable) and, where measured,
`failing_runs` and `total_runs`. `cause` is one of the task's causes; without it `idoft_category` (the catalogue
IDoFT's) is read where it says just one thing that is among them, which is the dependence on order.
"""

from __future__ import annotations

from pawl.errors import SourceError
from pawl.qe import rows_jsonl
from pawl.qe.flaky_detection import oracle, prompt
from pawl.qe.flaky_detection.history import sample
from pawl.qe.item import Item
from pawl.qe.rows_jsonl import Row

_ORDER = {"OD", "OD-Vic", "OD-Brit"}


def items(location: str) -> list[Item]:
    """An item for each row with measured reruns, sorted by id.

    The history in the prompt is a sample of 20 or 50 reruns, drawn with the measured share of failures and a seed of
    the test's name: a test that fails once in a thousand runs looks stable there.

    Raises:
        SourceError: a row lacks something, by line; or no row says how often its test ran.
    """
    rows = rows_jsonl.read(location)
    found: dict[str, Item] = {}
    for row in rows:
        item = _item(row)
        if item is not None:
            found[item.id] = item
    if not found:
        raise SourceError(f"{location}: no row has failing_runs and total_runs, so there is no history to show")
    return sorted(found.values(), key=lambda i: i.id)


def _item(row: Row) -> Item | None:
    failing, total = row.whole("failing_runs"), row.whole("total_runs")
    project, name, code, label = (row.text(f) for f in ("project", "test_name", "code", "label"))
    cause = _cause(row)
    if failing is None or not total:
        return None
    if failing > total:
        raise row.wrong(f"failing_runs {failing} is more than total_runs {total}")
    source = "-".join(project.split())
    known = oracle.truth("flaky" if label == "flaky" else "stable", cause)
    seen = sample(failing / total, f"{source}/{name}")
    return Item(
        id=f"{source}/{name}",
        source=source,
        messages=prompt.messages(source, seen, code),
        truth=known,
        scenario=known["cause"] if known["cause"] not in ("", "none") else known["verdict"],
    )


def _cause(row: Row) -> str:
    cause = row.optional("cause")
    if cause:
        if cause not in prompt.CAUSES:
            raise row.wrong(f"field `cause` is {cause!r}, it must be one of {', '.join(prompt.CAUSES)}")
        return cause
    # Other categories name how a test was diagnosed or several causes at once.
    return "order_dependence" if row.optional("idoft_category") in _ORDER else ""
