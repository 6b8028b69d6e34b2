"""What tasks about HTTP operations have in common: where items come from, and whose they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pawl.fleet.source import TaskSourceSpec
from pawl.qe.item import Item, Messages
from pawl.qe.operations import sources
from pawl.qe.operations.operation import Operation
from pawl.qe.operations.prompt import operation_of
from pawl.qe.task import TaskDefaults, kind_of


class OperationTask(TaskDefaults):
    """A task whose prompt holds one operation with the JSON Schema of its body."""

    kinds = ("botocore", "openapi")
    expects: Literal["refused", "taken"] | None = None  # what a server must do with the payloads of its test cases

    def operations(self, source: TaskSourceSpec) -> Sequence[Operation]:
        """All operations of a source, sorted by id; SourceError where it is unusable, or of a kind not taken."""
        kind_of(self, source)
        return sources.load(source)

    def source_of(self, messages: Messages) -> str | None:
        """The service or API of the operation."""
        operation = operation_of(messages)
        return operation.source if operation else None

    def scenario_of(self, messages: Messages, completion: str) -> str:
        """That of the item, whatever the answer."""
        return self.class_of(Item(id="", source="", messages=messages))
