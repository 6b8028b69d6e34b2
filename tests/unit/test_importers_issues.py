"""Bug reports of GitHub and Jira, in the spellings of their exports."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawl.errors import SourceError
from pawl.importers.formats import FORMATS
from pawl.importers.imported import Reject, Target, moment
from pawl.importers.issues import root_cause, severity_of
from pawl.lake.records import Feedback, Observation

KNOWN, UNKNOWN = "chatcmpl-" + "a" * 32, "chatcmpl-" + "b" * 32
TARGET = Target("triage", "key-1", lambda ids: {i: "writer" for i in ids if i == KNOWN})


def read(form: str, path: Path) -> tuple[list[Observation], list[Feedback], list[Reject]]:
    rows = list(FORMATS[form](path, TARGET))
    records = [r for row in rows if not isinstance(row, Reject) for r in row]
    return (
        [r for r in records if isinstance(r, Observation)],
        [r for r in records if isinstance(r, Feedback)],
        [r for r in rows if isinstance(r, Reject)],
    )


BODY = f"""### What happened
The total is 2 where it must be 3. `{KNOWN}` wrote the test that let it pass; {UNKNOWN} did too.

### Root cause
<!-- leave empty if unknown -->
Rounding before adding.
```
# round(1.5) + round(1.5)
```

### Fix
Add first.
"""

# gh issue list --state all --json number,title,body,state,stateReason,labels,author,createdAt,closedAt,comments,url
GH = {
    "author": {"id": "MDQ6VXNlcjE=", "is_bot": False, "login": "ann", "name": "Ann"},
    "body": BODY,
    "closedAt": "2026-11-18T12:30:00Z",
    "comments": [
        {"id": "IC_1", "author": {"login": "bob"}, "authorAssociation": "MEMBER", "body": "Can reproduce.",
         "createdAt": "2026-11-18T11:00:00Z", "includesCreatedEdit": False, "isMinimized": False},
    ],
    "createdAt": "2026-11-18T11:00:00Z",
    "labels": [{"id": "LA_1", "name": "bug", "description": "", "color": "d73a4a"},
               {"id": "LA_2", "name": "severity: high", "description": "", "color": "ffffff"}],
    "number": 12,
    "state": "CLOSED",
    "stateReason": "COMPLETED",
    "title": "Wrong total in the cart",
    "url": "https://code.example/acme/shop/issues/12",
}  # fmt: skip

# GET /repos/acme/shop/issues?state=all
REST: dict[str, Any] = {
    "url": "https://api.code.example/repos/acme/shop/issues/13", "repository_url": "https://api.code.example/repos/acme/shop",
    "html_url": "https://code.example/acme/shop/issues/13", "id": 1, "node_id": "I_1", "number": 13,
    "title": "Crash on an empty cart", "user": {"login": "cy", "id": 7, "type": "User"},
    "labels": [{"id": 2, "name": "P1", "default": False}], "state": "open", "state_reason": None, "locked": False,
    "assignees": [], "milestone": None, "comments": 3, "created_at": "2026-11-18T11:00:00Z",
    "updated_at": "2026-11-18T11:00:00Z", "closed_at": None, "body": None, "type": {"id": 3, "name": "Bug"},
    "reactions": {"total_count": 0},
}  # fmt: skip


def test_issues_as_gh_lists_them(tmp_path: Path) -> None:
    path = tmp_path / "issues.json"
    path.write_text(json.dumps([GH]))
    (bug,), said, rejects = read("github", path)
    assert (bug.kind, bug.ref, bug.title, bug.text) == ("bug", "acme/shop#12", "Wrong total in the cart", BODY)
    assert bug.root_cause == "Rounding before adding.\n```\n# round(1.5) + round(1.5)\n```"
    assert (bug.component, bug.severity, bug.labels) == ("acme/shop", "high", ("bug", "severity: high"))
    assert (bug.resolved, bug.subject, bug.interaction) == (True, "ann", KNOWN)
    assert (bug.at, bug.figures) == (moment("2026-11-18T12:30:00Z"), {"hours_open": 1.5})
    assert (bug.agent, bug.source, bug.key_id) == ("triage", "import:github", "key-1")
    assert [(f.interaction, f.agent, f.kind, f.score, f.at) for f in said] == [
        (KNOWN, "writer", "outcome", 0.0, bug.at)
    ], "of the two that it names, one is in the lake"
    assert said[0].detail == {"bug": "acme/shop#12", "root_cause": bug.root_cause}
    assert rejects == []


def test_issues_as_the_rest_api_gives_them(tmp_path: Path) -> None:
    path = tmp_path / "issues.jsonl"
    pull = REST | {"number": 14, "pull_request": {"url": "https://api.code.example/repos/acme/shop/pulls/14"}}
    rows = [REST, pull, REST | {"number": 15, "type": None, "labels": ["enhancement"]}, {"message": "Not Found"}]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n{")
    (bug,), said, rejects = read("github", path)
    assert (bug.ref, bug.severity, bug.resolved, bug.text, bug.figures) == ("acme/shop#13", "p1", False, "", {})
    assert (bug.at, bug.subject, said) == (moment(REST["created_at"]), "cy", [])
    assert [(r.row, r.reason.split(":")[0]) for r in rejects] == [
        (2, "a pull request, no issue"), (3, "no bug"), (4, "no number or no title"), (5, "no JSON"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "resolved", "feedback"),
    [
        ({}, True, 1),
        ({"stateReason": "NOT_PLANNED"}, False, 0),
        ({"stateReason": ""}, False, 1),
        ({"labels": [{"name": "bug"}, {"name": "duplicate"}]}, False, 0),
        ({"state": "OPEN", "stateReason": "REOPENED", "closedAt": None}, False, 1),
    ],
)
def test_only_what_was_closed_as_fixed_is_resolved(
    tmp_path: Path, change: dict[str, Any], resolved: bool, feedback: int
) -> None:
    path = tmp_path / "issues.json"
    path.write_text(json.dumps([GH | change]))
    (bug,), said, _ = read("github", path)
    assert bug.resolved is resolved and len(said) == feedback, "what the team refused says nothing about an answer"


def test_the_same_issue_is_the_same_record_and_what_changed_is_another(tmp_path: Path) -> None:
    path = tmp_path / "issues.json"
    found = []
    for change in ({}, {}, {"comments": [{"body": "**Root cause:** the cache"}]}, {"state": "OPEN", "closedAt": None}):
        path.write_text(json.dumps([GH | change], indent=2))
        found.append(read("github", path))
    (first, again, known, reopened) = (bugs[0] for bugs, _, _ in found)
    assert first == again and found[0][1] == found[1][1]
    assert known.root_cause == "the cache" and len({b.id for b in (first, known, reopened)}) == 3
    assert len({b.ref for b in (first, known, reopened)}) == 1


def document(*blocks: Any) -> dict[str, Any]:
    return {"type": "doc", "version": 1, "content": list(blocks)}


def paragraph(*texts: Any) -> dict[str, Any]:
    made = [{"type": "text", "text": t} if isinstance(t, str) else t for t in texts]
    return {"type": "paragraph", "content": made}


DESCRIPTION = document(
    {"type": "heading", "attrs": {"level": 2}, "content": [{"type": "text", "text": "Steps"}]},
    {"type": "orderedList", "content": [
        {"type": "listItem", "content": [paragraph("Add two items, see ", {"type": "text", "text": KNOWN,
                                                                          "marks": [{"type": "code"}]})]},
        {"type": "listItem", "content": [paragraph("Pay", {"type": "hardBreak"}, "again")]},
    ]},
    {"type": "codeBlock", "attrs": {"language": "text"}, "content": [{"type": "text", "text": "total=2"}]},
    paragraph({"type": "mention", "attrs": {"id": "1", "text": "@Bob"}}, " ",
              {"type": "inlineCard", "attrs": {"url": "https://wiki.example/x"}}),
)  # fmt: skip


def issue(key: str = "SHOP-7", **fields: Any) -> dict[str, Any]:
    given = {
        "summary": "Wrong total", "description": DESCRIPTION, "created": "2026-11-18T11:00:00.000+0000",
        "resolutiondate": "2026-11-18T15:00:00.000+0200", "resolution": {"id": "1", "name": "Fixed"},
        "status": {"name": "Done", "statusCategory": {"id": 3, "key": "done", "name": "Done"}},
        "issuetype": {"name": "Bug", "subtask": False}, "priority": {"name": "High"}, "labels": ["cart"],
        "components": [{"name": "checkout"}], "project": {"key": "SHOP"},
        "reporter": {"accountId": "5b1", "displayName": "Ann", "emailAddress": "ann@shop.example"},
        "comment": {"total": 1, "comments": [{"author": {"displayName": "Bob"}, "body": document(
            paragraph({"type": "text", "text": "Root cause:", "marks": [{"type": "strong"}]}, " rounding"))}]},
        "customfield_10050": None, "customfield_10060": {"value": "S1 - Critical"},
    }  # fmt: skip
    return {"id": "10007", "key": key, "self": "https://jira.example/rest/api/3/issue/10007", "fields": given | fields}


def search(*issues: Any, **more: Any) -> dict[str, Any]:
    return {
        "expand": "names,schema",
        "startAt": 0,
        "maxResults": 50,
        "total": len(issues),
        "issues": list(issues),
    } | more


def test_issues_of_jiras_rest_search(tmp_path: Path) -> None:
    path = tmp_path / "search.json"
    names = {"customfield_10050": "Root Cause", "customfield_10060": "Severity", "summary": "Summary"}
    own = issue("SHOP-8", customfield_10050=[{"value": "Design"}, {"value": "Cache"}], resolution=None, reporter=None,
                status={"name": "Open", "statusCategory": {"key": "new"}},
                description="h2. Root cause\nnone")  # fmt: skip
    refused = issue("SHOP-9", resolution={"name": "Won't Fix"})
    story = issue("SHOP-10", issuetype={"name": "Story"})
    path.write_text(json.dumps(search(issue(), own, refused, story, "x", names=names), indent=1))
    bugs, said, rejects = read("jira", path)
    seven, eight, nine = bugs
    assert seven.text == (
        f"## Steps\n\n- Add two items, see {KNOWN}\n- Pay\nagain\n```\ntotal=2\n```\n\n@Bob https://wiki.example/x"
    )
    assert (seven.ref, seven.root_cause, seven.severity) == ("SHOP-7", "rounding", "s1 - critical")
    assert (seven.component, seven.labels, seven.subject) == ("SHOP/checkout", ("cart",), "ann@shop.example")
    assert (seven.resolved, seven.at, seven.figures) == (True, moment("2026-11-18T13:00:00Z"), {"hours_open": 2.0})
    assert (eight.root_cause, eight.resolved, eight.subject) == ("Design, Cache", False, "")
    assert nine.resolved is False
    assert [(f.interaction, f.detail["bug"]) for f in said] == [(KNOWN, "SHOP-7")]
    assert [(r.row, r.reason) for r in rejects] == [(4, "no bug: story"), (5, "no key or no summary: it is no issue")]


def test_pages_of_a_search_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "pages.json"
    one, two = search(issue("A-1")), search(issue("A-2"), issue("A-3", issuetype={"name": "Epic"}), isLast=True)
    for text in (
        json.dumps([one, two]),
        f"{json.dumps(one)}\n{json.dumps(two)}",
        json.dumps([issue("A-1"), issue("A-2")]),
    ):
        path.write_text(text)
        bugs, _, rejects = read("jira", path)
        assert [b.ref for b in bugs] == ["A-1", "A-2"] and [r.row for r in rejects] in ([3], [])


def test_a_document_that_is_nested_without_end_is_a_reject(tmp_path: Path) -> None:
    path = tmp_path / "search.json"
    levels = 490
    deep = '{"type":"panel","content":[' * levels + '{"type":"text","text":"x"}' + "]}" * levels
    path.write_text(json.dumps(search(issue(description="DEEP"), issue("A-2"))).replace('"DEEP"', deep))
    bugs, _, rejects = read("jira", path)
    assert [b.ref for b in bugs] == ["A-2"] and rejects == [Reject(1, "its document is nested too deeply")]


JIRA_CSV = [
    ["Summary", "Issue key", "Issue id", "Issue Type", "Status", "Project key", "Priority", "Resolution", "Reporter",
     "Created", "Updated", "Resolved", "Component/s", "Labels", "Labels", "Description", "Custom field (Root Cause)",
     "Comment", "Comment"],
    ["Wrong total", "SHOP-7", "10007", "Bug", "Done", "SHOP", "High", "Fixed", "ann", "18/Nov/26 11:00 AM",
     "18/Nov/26 1:00 PM", "18/Nov/26 1:00 PM", "checkout", "cart", "money", f"It says 2,\nsee {KNOWN}", "",
     "18/Nov/26 11:30 AM;bob;Seen too", "18/Nov/26 12:30 PM;bob;*Root cause:* rounding;\nof halves"],
    ["Slow", "SHOP-8", "10008", "Bug", "Open", "SHOP", "Low", "Unresolved", "cy", "2026-11-18 11:00",
     "", "", "", "", "", "", "The index", "", ""],
    ["Nice", "SHOP-9", "10009", "Story", "Open", "SHOP", "Low", "", "cy", "2026-11-18 11:00", *[""] * 9],
    ["Odd", "SHOP-10", "10010", "Bug", "Open", "SHOP", "Low", "", "cy", "yesterday", *[""] * 9],
]  # fmt: skip


def test_issues_of_jiras_csv_export(tmp_path: Path) -> None:
    path = tmp_path / "jira.csv"
    text = io.StringIO()
    csv.writer(text).writerows(JIRA_CSV)
    path.write_text(text.getvalue(), encoding="utf-8-sig", newline="")
    (seven, eight), said, rejects = read("jira", path)
    assert (seven.ref, seven.text, seven.labels) == ("SHOP-7", f"It says 2,\nsee {KNOWN}", ("cart", "money"))
    assert (seven.root_cause, seven.resolved, seven.severity) == ("rounding;\nof halves", True, "high")
    assert (seven.at, seven.component, seven.subject) == (moment("2026-11-18T13:00:00Z"), "SHOP/checkout", "ann")
    assert (eight.root_cause, eight.resolved, eight.component) == ("The index", False, "SHOP")
    assert eight.at == moment("2026-11-18T11:00:00Z") and [f.interaction for f in said] == [KNOWN]
    assert [(r.row, r.reason) for r in rejects] == [(4, "no bug: story"), (5, "'yesterday' is no time")]
    path.write_text("a,b\n1,2\n")
    with pytest.raises(SourceError, match="no column Created, Issue key, Summary"):
        read("jira", path)
    path.write_text('Summary,Issue key,Created\n"open')
    with pytest.raises(SourceError, match="CSV"):
        read("jira", path)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("Root cause: the cache", "the cache"),
        ("**Root cause:** the cache\nof carts\n\nBye", "the cache\nof carts"),
        ("**Root Cause**: the cache", "the cache"),
        ("Root cause:\n\nthe cache\n", "the cache"),
        ("> Root-cause analysis: the cache", "the cache"),
        ("h2. Root cause\nthe cache\nh2. Fix\nnone", "the cache"),
        ("## Root cause\n\none\n\ntwo\n\n## Fix", "one\n\ntwo"),
        ("Root cause: the cache\nFix: clear it", "the cache"),
        ("Root cause: first\n\nRoot cause: second", "second"),
        ("Root cause: first\n\nRoot cause: TBD", "first"),
        ("### Root cause\n\n_No response_\n\n### Logs", ""),
        ("Root cause is not known to me", ""),
        ("The root cause: nobody knows", ""),
        ("```\n# Root cause\nx\n```", ""),
        ("<!-- Root cause: fill in -->", ""),
        ("<!-- Root cause: never closed", ""),
        ("", ""),
    ],
)
def test_where_a_root_cause_stands(text: str, cause: str) -> None:
    assert root_cause(text) == cause and root_cause(text.replace("\n", "\r\n")) == cause


@given(st.text(st.sampled_from("Root cause:\n#*_ `<!->h2.x"), max_size=80))
def test_a_root_cause_is_part_of_its_text(text: str) -> None:
    cause = root_cause(text)
    assert all(line.strip() in text for line in cause.splitlines())


def test_texts_made_to_be_slow_are_not() -> None:
    import time

    began = time.process_time()
    for text in ("<!--" * 50_000, "root cause" + "*" * 100_000, "A " * 50_000 + ":", "#" * 100_000, "_*" * 50_000):
        root_cause(text)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("labels", "severity"),
    [(["bug", "Severity: High"], "high"), (["sev1"], "1"), (["priority/P2"], "p2"), (["P0"], "p0"),
     (["critical"], "critical"), (["several", "bug"], ""), ([], "")],
)  # fmt: skip
def test_the_severity_that_labels_tell(labels: list[str], severity: str) -> None:
    assert severity_of(labels) == severity
