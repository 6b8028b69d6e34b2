"""Bug reports, whatever tracker they come from: what is a bug, what is fixed, what was its root cause (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pawl.importers.imported import Draft, Problem, Target, feedback, interactions_in, observation
from pawl.lake.records import LakeRecord

_BUG = re.compile(r"\b(bug|defect|fault|regression|incident|crash)(s|es)?\b|flaky")
_OTHERS = {
    "enhancement", "feature", "feature request", "new feature", "documentation", "docs", "question", "discussion",
    "story", "user story", "epic", "task", "sub-task", "subtask", "improvement", "chore", "refactoring", "proposal",
    "spike", "change request", "service request",
}  # fmt: skip
_REFUSED = {
    "duplicate", "invalid", "wontfix", "won't fix", "wont fix", "won't do", "not a bug", "not planned", "declined",
    "cannot reproduce", "can't reproduce", "works as designed", "by design", "incomplete", "rejected", "known error",
}  # fmt: skip
_SEVERITY = re.compile(
    r"(?:severity|sev|priority|prio)(?:[\s:/_-]+(.+)|(\d))|([ps][0-4])|(blocker|critical|major|minor|trivial)"
)
_ROOT_CAUSE = re.compile(
    r"(?P<head>#{1,6}\s*|h[1-6]\.\s*)?[*_>\s+-]{0,8}root[ _-]?causes?(?:[ _-]analysis)?"
    r"[*_\s]{0,8}(?P<colon>:?)[*_]{0,3}\s*(?P<rest>.*)",
    re.IGNORECASE,
)
_HEADING = re.compile(r"#{1,6}\s|h[1-6]\.\s|-{3,}\s*$")
_OTHER_LABEL = re.compile(r"[*_]{0,2}[A-Z][\w /-]{1,30}[*_]{0,2}:[*_]{0,2}(\s|$)")
_NOTHING = {"", "n/a", "na", "none", "unknown", "tbd", "todo", "?", "-", "no response", "to be determined", "pending"}


class Report(NamedTuple):
    """One issue as a tracker has it, in one spelling."""

    ref: str
    title: str
    text: str
    comments: tuple[str, ...]
    component: str
    kinds: tuple[str, ...]  # its type and labels: what says whether it is a bug
    labels: tuple[str, ...]
    severity: str
    reporter: str
    created: float
    closed: float | None  # None: open
    how: str  # how it was closed, in the tracker's words
    fixed: frozenset[str]  # those of the tracker's words that mean: fixed
    root_cause: str = ""  # a field of its own, where the tracker has one


def draft(n: int, report: Report, source: str, target: Target) -> Draft:
    """Its observation, and feedback about every interaction that it names. Problem where it is no bug.

    Who names an answer in a bug report says that this answer let a fault through. A report that was closed as anything
    else than fixed says nothing about an answer.
    """
    other = _no_bug(report.kinds)
    if other:
        raise Problem(f"no bug: {other}")
    how, words = report.how.casefold(), {k.casefold() for k in report.kinds}
    resolved = report.closed is not None and how in report.fixed and not words & _REFUSED
    refused = report.closed is not None and not resolved and bool(how in _REFUSED or words & _REFUSED)
    cause = report.root_cause or _latest_cause([report.text, *report.comments])
    at = report.created if report.closed is None else report.closed
    about = interactions_in(report.title, report.text, *report.comments, cause)
    figures = {} if report.closed is None else {"hours_open": round((report.closed - report.created) / 3600, 1)}
    made = observation(
        target, source, at, kind="bug", ref=report.ref, title=report.title, text=report.text, root_cause=cause,
        component=report.component, severity=(report.severity or severity_of(report.labels)).casefold(),
        labels=report.labels, resolved=resolved, subject=report.reporter, interaction=about[0] if about else "",
        figures=figures,
    )  # fmt: skip

    def make(agents: Mapping[str, str]) -> list[LakeRecord]:
        found: list[LakeRecord] = [made]
        for one in about if not refused else ():
            if one in agents:
                # Not the reporter's words: they go with the report when its reporter is erased.
                detail = {"bug": report.ref, "root_cause": cause}
                found.append(
                    feedback(
                        target, source, one, agents[one], at, kind="outcome", score=0.0, detail=detail, key=report.ref
                    )
                )
        return found

    return Draft(n, about, make)


def _no_bug(kinds: Iterable[str]) -> str | None:
    """What it is instead, where it says so and nothing says that it is a bug."""
    known = [k.casefold() for k in kinds]
    if any(_BUG.search(k) and k not in _REFUSED for k in known):
        return None
    return next((k for k in known if k.rpartition(":")[2].strip() in _OTHERS or k in _OTHERS), None)


def severity_of(labels: Iterable[str]) -> str:
    """The severity that a label tells: "severity: high", "sev1", "P0", "critical"."""
    for label in labels:
        found = _SEVERITY.fullmatch(label.strip().casefold())
        if found:
            return next(g for g in found.groups() if g)
    return ""


def _latest_cause(texts: list[str]) -> str:
    """Later comments know more than the report."""
    return next((cause for text in reversed(texts) if (cause := root_cause(text))), "")


def root_cause(text: str) -> str:
    """What stands under a heading "Root cause" or behind a label "Root cause:"; the last one that says anything.

    A section under a heading ends at the next heading; one behind a label also at an empty line or another label.
    """
    found, section = "", None
    is_heading = is_code = False
    for line in [*_visible(text).splitlines(), "# end"]:
        stripped = line.strip()
        start = None if is_code and line != "# end" else _ROOT_CAUSE.fullmatch(stripped)
        if start and not (start["head"] or start["colon"] or not start["rest"]):
            start = None  # a sentence that begins so
        is_over = section is not None and (
            line == "# end"
            or start is not None
            or (not is_code and _HEADING.match(stripped) is not None)
            or (not is_heading and any(section) and (not stripped or _OTHER_LABEL.match(stripped) is not None))
        )
        if section is not None and is_over:
            said = "\n".join(section).strip()
            found = found if said.strip("_*.() \n").casefold() in _NOTHING else said
            section = None
        if start is not None:
            is_heading = not start["colon"]
            section = [start["rest"] if start["colon"] else ""]
        elif section is not None:
            section.append(line.rstrip())
        if stripped.startswith("```") or stripped == "{code}" or stripped.startswith("{code:"):
            is_code = not is_code
    return found


def _visible(text: str) -> str:
    """Without comments of HTML: templates tell in them what to write."""
    kept, rest = [], text
    while True:
        before, opened, after = rest.partition("<!--")
        kept.append(before)
        if not opened:
            return "".join(kept)
        _, closed, rest = after.partition("-->")
        if not closed:
            return "".join([*kept, opened, after])
