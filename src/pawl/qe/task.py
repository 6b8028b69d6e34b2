"""What the data loop knows of an agent's task: the port."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import msgspec
import orjson

from pawl.errors import SourceError
from pawl.fleet.source import TaskSourceSpec
from pawl.qe.item import Grade, Item, Messages, Part

LONGEST_ANSWER = 64 * 1024  # characters that an oracle reads


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """Another wording of an example, made by rules; nothing is claimed of it before the task has graded it."""

    kind: str  # what was changed
    messages: Messages
    completion: str


class Task(Protocol):
    """One task of the fleet. Nothing here raises on foreign prompts or answers: they have no source, class or grade."""

    @property
    def name(self) -> str:
        """What fleet.yaml calls it."""
        ...

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of source that it takes its items from, the default first; empty where clients bring them."""
        ...

    @property
    def instant(self) -> bool:
        """Whether grading is a matter of milliseconds in this process, so that the gateway may do it."""
        ...

    @property
    def system(self) -> str:
        """The system message of its prompts; empty where there is none."""
        ...

    def items(self, source: TaskSourceSpec) -> Sequence[Item]:
        """All items of a source, sorted by id; SourceError where it is unusable, in words that say what to do."""
        ...

    def reference(self, item: Item, rng: random.Random) -> str | None:
        """An answer that the oracle accepts in full; None where there is none. `rng` varies it."""
        ...

    def response_schema(self) -> dict[str, Any] | None:
        """JSON Schema of an answer, for guided decoding; None where answers are no JSON."""
        ...

    def source_of(self, messages: Messages) -> str | None:
        """The source that the prompt itself names, which the split goes by; None where it names none."""
        ...

    def scenario_of(self, messages: Messages, completion: str) -> str:
        """The scenario class of an answer, for balance and strata; "" where unknown."""
        ...

    def class_of(self, item: Item) -> str:
        """The scenario class of an item itself, whatever is answered, for slices; "" where it has none."""
        ...

    def grade(self, messages: Messages, completion: str, truth: Any = None) -> Grade | None:
        """The oracle's word on an answer; None where it cannot be graded, which is not zero.

        `truth` is the item's; without it some prompts cannot be graded. CannotGrade where the oracle itself is out
        of order.
        """
        ...

    def parts(self, messages: Messages, completion: str) -> Sequence[Part] | None:
        """What an answer consists of, each judged by itself; None where its answers are judged as a whole only."""
        ...

    def conforms(self, completion: str) -> bool:
        """Whether an answer has the form that the agent promises its clients."""
        ...

    def tests_in(self, completion: str) -> int:
        """How many tests an answer holds, good or bad; 0 for a task that writes none. Microseconds."""
        ...

    def content_of(self, messages: Messages) -> str:
        """The part of the prompt that is the task, without what all prompts share; near-duplicates are told by it."""
        ...

    def variants(self, messages: Messages, completion: str, rng: random.Random) -> Iterator[Variant]:
        """Candidates for augmentation, kinds in turns; not verified, endless where there is any."""
        ...

    def cluster_key(self, messages: Messages, completion: str, truth: Any = None) -> str:
        """How an answer failed, as a short label; "" where it did not, or where nobody can tell."""
        ...


class TaskDefaults:
    """What holds for a task until its own class says otherwise: nothing is known but the prompt's text.

    A task of one's own sets `name` and `kinds`, and writes `items`, `grade`, `reference` and `response_schema`.
    """

    name = ""
    kinds: tuple[str, ...] = ()
    instant = True
    system = ""

    def items(self, source: TaskSourceSpec) -> Sequence[Item]:
        """None: the clients bring the tasks."""
        return ()

    def reference(self, item: Item, rng: random.Random) -> str | None:
        """None: nobody knows the right answer."""
        return None

    def response_schema(self) -> dict[str, Any] | None:
        """Any text will do."""
        return None

    def source_of(self, messages: Messages) -> str | None:
        """None: what a client says of the source is all there is."""
        return None

    def scenario_of(self, messages: Messages, completion: str) -> str:
        """Unknown."""
        return ""

    def class_of(self, item: Item) -> str:
        """What the item says of itself."""
        return item.scenario

    def grade(self, messages: Messages, completion: str, truth: Any = None) -> Grade | None:
        """None: there is no oracle."""
        return None

    def parts(self, messages: Messages, completion: str) -> Sequence[Part] | None:
        """None: an answer is judged as a whole."""
        return None

    def conforms(self, completion: str) -> bool:
        """Whether an answer is JSON of the response schema; without one, whether there is an answer at all."""
        schema = self.response_schema()
        if schema is None:
            return bool(completion.strip())
        from pawl.qe.operations.validator import compiled

        try:
            return len(completion) <= LONGEST_ANSWER and bool(compiled(schema).is_valid(orjson.loads(completion)))
        except ValueError:
            return False

    def tests_in(self, completion: str) -> int:
        """It writes no tests."""
        return 0

    def content_of(self, messages: Messages) -> str:
        """The text of the user's messages."""
        return user_text(messages)

    def variants(self, messages: Messages, completion: str, rng: random.Random) -> Iterator[Variant]:
        """None: nothing could verify them."""
        return iter(())

    def cluster_key(self, messages: Messages, completion: str, truth: Any = None) -> str:
        """Unknown."""
        return ""


class GenericTask(TaskDefaults):
    """The task of an agent without an oracle."""

    name = "generic"


def kind_of(task: Task, source: TaskSourceSpec) -> str:
    """The kind of source to take items from; SourceError where the task takes none of that kind."""
    kind = source.kind or task.kinds[0]
    if kind not in task.kinds:
        raise SourceError(f"task {task.name} takes its items from {' or '.join(task.kinds)}, not from kind {kind}")
    return kind


def location_of(task: Task, source: TaskSourceSpec) -> str:
    """The path or URL that a source must name; SourceError where it names none."""
    if not source.location:
        raise SourceError(f"task {task.name} with source kind {source.kind} needs `location`: a path or URL")
    return source.location


def user_text(messages: Messages) -> str:
    """Text of all messages of the user, one after the other."""
    return "\n".join(text_of(m.get("content")) for m in messages if m.get("role") == "user")


def text_of(content: Any) -> str:
    """Text of a message's content, in either of OpenAI's two forms."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(str(p.get("text", "")) for p in content if isinstance(p, dict))
    return ""
