"""What `pawl agent new` writes: a task of one's own that works, sample data, a contract test, an entry (pure)."""

from __future__ import annotations

from string import Template
from typing import NamedTuple

_TASK = '''"""The task `$name`: which kind of ticket a text is. Put your own prompt, data and grade in its place.

`pytest test_$stem.py` says after each change whether the task still keeps what the data loop relies on.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

from pawl.fleet.source import TaskSourceSpec
from pawl.qe.item import Grade, Item, Messages
from pawl.qe.rows_jsonl import read
from pawl.qe.task import TaskDefaults, kind_of, location_of, user_text

KINDS = ("bug", "feature", "question")
SYSTEM = 'Which kind of ticket is this? Answer as compact JSON: {"kind":"bug"}, or feature, or question.'
HEAD = "TICKET "  # prompts of this task begin with it; others have no grade


class $cls(TaskDefaults):
    """Which kind of ticket a text is, graded by the kind that your data names."""

    name = "$name"
    kinds = ("jsonl",)
    system = SYSTEM

    def items(self, source: TaskSourceSpec) -> Sequence[Item]:
        """An item for each row. Rows of one `source` (a project, a customer) are never on both sides of a split."""
        kind_of(self, source)
        found = []
        for row in read(location_of(self, source)):
            truth = row.text("kind")
            if truth not in KINDS:
                raise row.wrong(f"field `kind` must be one of {', '.join(KINDS)}")
            where = row.text("source")
            asked = f"{HEAD}{where}\\n{row.text('text')}"
            messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": asked}]
            found.append(Item(id=row.text("id"), source=where, messages=messages, truth=truth, scenario=truth))
        return sorted(found, key=lambda i: i.id)

    def reference(self, item: Item, rng: random.Random) -> str | None:
        """The right answer; return None where nobody knows it."""
        return json.dumps({"kind": item.truth}, separators=(",", ":"))

    def response_schema(self) -> dict[str, Any] | None:
        """JSON Schema of an answer: guided decoding keeps to it, and `conforms` checks it."""
        return {
            "type": "object",
            "properties": {"kind": {"type": "string", "enum": list(KINDS)}},
            "required": ["kind"],
            "additionalProperties": False,
        }

    def source_of(self, messages: Messages) -> str | None:
        """The source that the prompt names in its first line."""
        head = user_text(messages).partition("\\n")[0]
        return head.removeprefix(HEAD) if head.startswith(HEAD) else None

    def scenario_of(self, messages: Messages, completion: str) -> str:
        """The class of an answer, for balance: here what it says."""
        return _said(completion) if self.source_of(messages) else ""

    def grade(self, messages: Messages, completion: str, truth: Any = None) -> Grade | None:
        """1 for the right kind, 0 for another; None for a prompt of another task, or where the truth is not known."""
        if self.source_of(messages) is None or truth is None:
            return None
        said = _said(completion)
        right = float(said == truth)
        problem = "" if right else f"said {said}, it is {truth}" if said else "not an answer of the promised form"
        conforms = self.conforms(completion)
        return Grade(
            score=right, conforms=conforms, problem=problem, metrics={"accuracy": right}, label=str(truth), said=said
        )


def _said(completion: str) -> str:
    try:
        answer = json.loads(completion)
    except ValueError:
        return ""
    said = answer.get("kind") if isinstance(answer, dict) else None
    return said if said in KINDS else ""
'''
_ROWS = """{"id":"desk-1","source":"desk","kind":"bug","text":"Saving a draft twice shows an empty page."}
{"id":"desk-2","source":"desk","kind":"question","text":"Where can I change the language?"}
{"id":"desk-3","source":"desk","kind":"feature","text":"Please let me pin a note to the top."}
{"id":"mail-1","source":"mail","kind":"bug","text":"The search finds nothing since the update."}
{"id":"mail-2","source":"mail","kind":"feature","text":"A button to mute a thread would help."}
{"id":"mail-3","source":"mail","kind":"question","text":"How long are deleted letters kept?"}
{"id":"shop-1","source":"shop","kind":"feature","text":"Could invoices be sent as PDF?"}
{"id":"shop-2","source":"shop","kind":"bug","text":"The basket forgets the second item."}
{"id":"shop-3","source":"shop","kind":"question","text":"Which countries do you ship to?"}
"""
_TEST = '''"""What the task `$name` keeps: run `pytest test_$stem.py`."""

from __future__ import annotations

from pathlib import Path

import pytest
from ${stem}_task import $cls

from pawl.fleet.source import TaskSourceSpec
from pawl.qe import contract
from pawl.qe.item import CannotGrade

SOURCE = TaskSourceSpec(kind="jsonl", location=str(Path(__file__).with_name("$stem.jsonl")))


def test_the_task_keeps_what_the_loop_relies_on() -> None:
    try:
        contract.check_task($cls(), SOURCE, items=6, sources=3)
    except CannotGrade as error:
        pytest.skip(str(error))


def test_a_wrong_answer_scores_nothing() -> None:
    task = $cls()
    item = task.items(SOURCE)[0]  # a bug
    grade = task.grade(item.messages, '{"kind":"question"}', item.truth)
    assert grade is not None and grade.score == 0 and "it is bug" in grade.problem
'''


class Names(NamedTuple):
    """What the parts of an agent are called."""

    agent: str

    @property
    def stem(self) -> str:
        """Of its files."""
        return self.agent.replace("-", "_")

    @property
    def task_class(self) -> str:
        """Of its task."""
        return "".join(part.capitalize() for part in self.agent.split("-")) + "Task"

    @property
    def task(self) -> str:
        """What fleet.yaml says."""
        return f"{self.stem}_task:{self.task_class}"


def files(agent: str) -> dict[str, str]:
    """The files of a new agent by name: the task's module, sample data, the contract test."""
    names = Names(agent)
    words = {"name": agent, "stem": names.stem, "cls": names.task_class}
    return {
        f"{names.stem}_task.py": Template(_TASK).substitute(words),
        f"{names.stem}.jsonl": _ROWS,
        f"test_{names.stem}.py": Template(_TEST).substitute(words),
    }


def entry(agent: str, rows: str, upstream: str) -> dict[str, object]:
    """The agent's entry in fleet.yaml. `rows`: where its data lie; `upstream`: who answers first."""
    return {
        "name": agent,
        "task": Names(agent).task,
        "source": {"kind": "jsonl", "location": rows},
        "first_champion": upstream,
        "max_tokens": 32,
        # Its grade needs the truth, which a prompt does not tell: shadow answers could not be judged.
        "rollout": {"min_shadow_pairs": 0},
    }
