"""Loads the operations that an agent's spec names, and keeps those that can be tested in three ways."""

from __future__ import annotations

import random
from functools import lru_cache

from pawl.errors import SourceError
from pawl.fleet.spec import TaskSourceSpec
from pawl.qe import reference
from pawl.qe.functional_negative import ASKED
from pawl.qe.operation import Operation


@lru_cache(maxsize=4)
def load(spec: TaskSourceSpec) -> tuple[Operation, ...]:
    """The source's operations, by id. SourceError where it holds nothing usable."""
    if spec.kind == "openapi":
        from pawl.qe import openapi_source

        if not spec.location:
            raise SourceError("source kind openapi needs `location`: the path or URL of an OpenAPI 3 document")
        found = openapi_source.operations(spec.location)
    else:
        from pawl.qe import botocore_source

        found = botocore_source.operations(spec.max_schema_chars)
    usable = [o for o in found if _testable(o)]
    if not usable:
        raise SourceError(
            f"none of the {len(found)} operations of {spec.location or spec.kind} can be broken in {ASKED} ways; "
            "give their bodies required fields, types or limits"
        )
    return tuple(sorted(usable, key=lambda o: o.id))


def _testable(operation: Operation) -> bool:
    try:
        return len(reference.cases(operation.schema, random.Random(0))) == ASKED
    except SourceError:
        return False
