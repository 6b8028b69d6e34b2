"""What the data loop knows of an agent's task: the port."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import msgspec

from pawl.fleet.source import TaskSourceSpec
from pawl.qe.item import Grade, Item, Messages


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

    def conforms(self, completion: str) -> bool:
        """Whether an answer has the form that the agent promises its clients."""
        ...

    def content_of(self, messages: Messages) -> str:
        """The part of the prompt that is the task, without what all prompts share; near-duplicates are told by it."""
        ...

    def variants(self, messages: Messages, completion: str, rng: random.Random) -> Iterator[Variant]:
        """Candidates for augmentation, kinds in turns; not verified, endless where there is any."""
        ...

    def cluster_key(self, messages: Messages, completion: str) -> str:
        """How an answer failed, as a short label; "" where it did not, or where nobody can tell."""
        ...


class GenericTask:
    """The task of an agent without an oracle: nothing is known but the prompt's text."""

    name = "generic"
    kinds: tuple[str, ...] = ()
    instant = True

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
        """Unknown."""
        return ""

    def grade(self, messages: Messages, completion: str, truth: Any = None) -> Grade | None:
        """None: there is no oracle."""
        return None

    def conforms(self, completion: str) -> bool:
        """Whether there is an answer at all."""
        return bool(completion.strip())

    def content_of(self, messages: Messages) -> str:
        """The text of the user's messages."""
        return user_text(messages)

    def variants(self, messages: Messages, completion: str, rng: random.Random) -> Iterator[Variant]:
        """None: nothing could verify them."""
        return iter(())

    def cluster_key(self, messages: Messages, completion: str) -> str:
        """Unknown."""
        return ""


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
