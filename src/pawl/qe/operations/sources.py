"""Loads an agent's tasks from where its spec says."""

from __future__ import annotations

from functools import lru_cache

from pawl.errors import SourceError
from pawl.fleet.source import TaskSourceSpec
from pawl.qe.operations.operation import Operation


def load(spec: TaskSourceSpec) -> list[Operation]:
    """Operations of the source, sorted by id.

    Raises:
        SourceError: the source is unusable; the text says what is wrong with it.
    """
    if spec.kind == "openapi":
        if not spec.location:
            raise SourceError("source kind openapi needs `location`: path or URL of an OpenAPI 3 document")
        from pawl.qe.operations import openapi_source

        return openapi_source.operations(spec.location, spec.max_schema_chars)
    return list(_service_models(spec.max_schema_chars))


@lru_cache(maxsize=4)
def _service_models(max_schema_chars: int) -> tuple[Operation, ...]:
    """The installed models do not change while a process lives; a document may."""
    from pawl.qe.operations import botocore_source

    return tuple(botocore_source.operations(max_schema_chars))
