"""What tasks have in common whose answers are small JSON objects and whose truth comes with the item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import orjson

from pawl.qe.item import Grade, Item, Messages
from pawl.qe.task import LONGEST_ANSWER, TaskDefaults, user_text

MALFORMED = ("too_long", "not_json", "prose_around_json", "wrong_form")


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """An answer held against the truth. Figures are 0..1; `failure` is "" exactly where nothing is wrong."""

    score: float
    metrics: dict[str, float]
    failure: str = ""  # a short label, e.g. missed
    problem: str = ""  # more words for people
    label: str = ""
    said: str = ""
    confidence: float | None = None


class JudgedTask(TaskDefaults):
    """A task that holds answers against an item's truth.

    A task of this kind writes `items`, `reference`, `response_schema`, `source_of` and `judged`; `own_items` where it
    can make those of a source again, with their truth.
    """

    def judged(self, truth: Any, answer: dict[str, Any] | None) -> Judged:
        """The oracle proper. `answer` conforms to the response schema, or is None: then only figures and label count.

        A truth that is not of the task's form raises KeyError or TypeError; it was the item that was wrong.
        """
        raise NotImplementedError

    def own_items(self, source: str) -> Sequence[Item]:
        """The items of one source of the task's own making, which are made again; none of any other source."""
        return ()

    def recalled(self, messages: Messages) -> Any:
        """The truth of a prompt of the task's own making; None where it cannot be had again."""
        text = user_text(messages)
        mine = self.own_items(self.source_of(messages) or "")
        return next((i.truth for i in mine if user_text(i.messages) == text), None)

    def class_said(self, answer: dict[str, Any]) -> str:
        """The scenario class of an answer that conforms."""
        return ""

    def grade(self, messages: Messages, completion: str, truth: Any = None) -> Grade | None:
        """The answer held against the truth; None for foreign prompts, and where the truth is not known."""
        found = self._held(messages, completion, truth)
        if found is None:
            return None
        judged, conforms = found
        told = f"{judged.failure}: {judged.problem}" if judged.problem else judged.failure
        return Grade(
            score=judged.score,
            conforms=conforms,
            problem=told,
            metrics=judged.metrics,
            label=judged.label,
            said=judged.said,
            confidence=judged.confidence,
        )

    def scenario_of(self, messages: Messages, completion: str) -> str:
        """What the answer says the case is."""
        answer, *_ = self._read(completion)
        return self.class_said(answer) if answer is not None and self.source_of(messages) is not None else ""

    def cluster_key(self, messages: Messages, completion: str, truth: Any = None) -> str:
        """The failure's name; where the truth is not known only whether the form is broken."""
        if self.source_of(messages) is None:
            return ""
        answer, failure, _ = self._read(completion)
        if answer is None:
            return failure
        found = self._held(messages, completion, truth)
        return found[0].failure if found else ""

    def _held(self, messages: Messages, completion: str, truth: Any) -> tuple[Judged, bool] | None:
        if self.source_of(messages) is None:
            return None
        truth = self.recalled(messages) if truth is None else truth
        if truth is None:
            return None
        answer, failure, problem = self._read(completion)
        judged = self.judged(truth, answer)
        if answer is None:
            judged = msgspec.structs.replace(
                judged, score=0.0, metrics=dict.fromkeys(judged.metrics, 0.0), failure=failure, problem=problem
            )
        return judged, answer is not None

    def _read(self, completion: str) -> tuple[dict[str, Any] | None, str, str]:
        """The answer where it conforms; otherwise the failure's name and what is wrong."""
        if len(completion) > LONGEST_ANSWER:
            return None, "too_long", f"longer than {LONGEST_ANSWER} characters"
        try:
            found = orjson.loads(completion)
        except ValueError as error:
            # Prose around an answer and an answer that was cut off are different faults of a model.
            prose = "{" in completion and not completion.lstrip().startswith("{")
            return None, "prose_around_json" if prose else "not_json", str(error)[:120]
        if not self.conforms(completion) or not isinstance(found, dict):
            return None, "wrong_form", "not of the response schema"
        return found, "", ""


def compact(answer: dict[str, Any]) -> str:
    """An answer as the prompts ask for it: JSON without spaces."""
    return orjson.dumps(answer).decode()
