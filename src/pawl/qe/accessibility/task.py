"""The built-in task `accessibility-advocate` as the data loop sees it.

The truth of a page is what axe-core finds on it in Chromium, looked up when an answer is graded. Scenario classes are
the areas of the rules that an answer names (`AREAS` of simulated_pages), `clean` where it names none.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from pawl.fleet.source import TaskSourceSpec
from pawl.qe.accessibility import folder_html, oracle, simulated_pages
from pawl.qe.accessibility.findings_axe import elements, findings, ready
from pawl.qe.accessibility.oracle import Named, Page, page_of, said
from pawl.qe.item import CannotGrade, Grade, Item, Messages
from pawl.qe.task import TaskDefaults, kind_of, location_of, user_text


class AccessibilityAdvocate(TaskDefaults):
    """Accessibility violations of an HTML page, graded by axe-core in a headless Chromium."""

    name = "accessibility-advocate"
    kinds = ("simulated", "html")
    instant = False  # a browser takes part
    system = oracle.SYSTEM

    def items(self, source: TaskSourceSpec) -> Sequence[Item]:
        """An item for each page."""
        if kind_of(self, source) == "html":
            return [_item(page) for page in folder_html.pages(location_of(self, source))]
        return [_item(m.page, simulated_pages.area(m.planted)) for m in simulated_pages.pages()]

    def reference(self, item: Item, rng: random.Random) -> str | None:
        """axe-core's own findings; None where the browser or axe-core is missing."""
        page = page_of(item.messages)
        try:
            return oracle.told([(f.rule, f.target) for f in findings(page.html)]) if page else None
        except CannotGrade:
            return None

    def response_schema(self) -> dict[str, Any] | None:
        """A list of rules and selectors."""
        return oracle.response_schema()

    def source_of(self, messages: Messages) -> str | None:
        """The site of the page."""
        page = page_of(messages)
        return page.source if page else None

    def scenario_of(self, messages: Messages, completion: str) -> str:
        """The area of the rules that the answer names; "" where it is no answer."""
        found, _, problem = said(completion)
        if problem or page_of(messages) is None:
            return ""
        return simulated_pages.area(tuple(rule for rule, _ in found))

    def grade(self, messages: Messages, completion: str, truth: Any = None) -> Grade | None:
        """F1 of (rule, element) against what axe-core finds on the page.

        Raises:
            CannotGrade: no browser or no axe-core here, whatever the answer: else only bad answers would have grades.
        """
        page = page_of(messages)
        if page is None:
            return None
        ready()
        found, in_all, problem = said(completion)
        if problem:
            none = {"precision": 0.0, "recall": 0.0, "rules": 0.0}
            return Grade(score=0.0, conforms=False, problem=problem, metrics=none)
        there, given = _compared(page, found)
        got = oracle.score(there, given, in_all - len(found))
        wrong = [
            f"{len(there - given)} missed" if there - given else "",
            f"{len(given - there) + in_all - len(found)} wrong" if given - there or in_all > len(found) else "",
        ]
        metrics = {"precision": got.precision, "recall": got.recall, "rules": got.rules}
        told = ", ".join(w for w in wrong if w)
        return Grade(score=got.f1, conforms=self.conforms(completion), problem=told, metrics=metrics)

    def content_of(self, messages: Messages) -> str:
        """The HTML of the page; a foreign prompt's user text."""
        page = page_of(messages)
        return page.html if page else user_text(messages)

    def cluster_key(self, messages: Messages, completion: str, truth: Any = None) -> str:
        """What is wrong with the form, or the first of: wrong element, missed, invented; "" where nobody can tell."""
        page = page_of(messages)
        if page is None:
            return ""
        found, in_all, problem = said(completion)
        if problem:
            if problem == oracle.NO_LIST:
                return "no_list"
            prose = "{" in completion and not completion.lstrip().startswith("{")
            return "too_long" if problem.startswith("longer") else "prose_around_json" if prose else "not_json"
        try:
            there, given = _compared(page, found)
        except CannotGrade:
            return ""
        missed, invented = there - given, given - there
        if {rule for rule, _ in missed} & {rule for rule, _ in invented}:
            return "wrong_element"
        if in_all > len(found):
            return "too_many"
        return "missed" if missed else "invented" if invented else ""


def _item(page: Page, scenario: str = "") -> Item:
    return Item(id=page.id, source=page.source, messages=oracle.messages(page), scenario=scenario)


def _compared(page: Page, found: list[tuple[str, str]]) -> tuple[set[Named], set[Named]]:
    """What there is and what was said, both as rules with elements."""
    there: set[Named] = {(f.rule, f.element) for f in findings(page.html)}
    places = elements(page.html, [target for _, target in found])
    given: set[Named] = {
        (rule, place if place >= 0 else target) for (rule, target), place in zip(found, places, strict=True)
    }
    return there, given
