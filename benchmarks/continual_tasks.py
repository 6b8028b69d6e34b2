"""Three tasks of one agent that shift from week to week: negative tests for ranges, for enums, for patterns.

From real operations (botocore's service models), each of which has rules of one of the three kinds alone; the answer is
one case that breaks such a rule, made and verified by the oracle. `general` are operations with none of these rules.
"""

from __future__ import annotations

import random
from typing import Any

import orjson

from pawl.curation.dataset import Example
from pawl.curation.split import side
from pawl.qe.functional_negative import oracle as task
from pawl.qe.functional_negative import reference
from pawl.qe.operations.botocore_source import operations

WEEKS = ("range", "enum", "pattern")
GENERAL = "general"
_RULES = {"range": ("minimum", "maximum"), "enum": ("enum",), "pattern": ("pattern",)}
_HELD_PERCENT = 25  # of the sources


def examples(max_schema_chars: int) -> dict[str, list[Example]]:
    """Examples by kind, those of held-out services in the split `test`; the same ones in every run."""
    found: dict[str, list[Example]] = {kind: [] for kind in (*WEEKS, GENERAL)}
    for op in operations(max_schema_chars):
        kinds = [kind for kind in WEEKS if _names(op.schema, _RULES[kind])]
        if len(kinds) > 1:
            continue
        kind = kinds[0] if kinds else GENERAL
        known = [
            m
            for m in reference.mutations(op.schema)
            if m.clean and (kind == GENERAL or m.signature.partition("@")[0] in _RULES[kind])
        ]
        if not known:
            continue
        case = random.Random(op.id).choice(known)
        answer = {"test_cases": [{"name": case.name, "payload": case.payload, "expected_status": 400}]}
        found[kind].append(
            Example(
                id=op.id.replace("-", "_"),
                messages=task.messages(op),
                completion=orjson.dumps(answer).decode(),
                quality=1.0,
                source=op.source,
                interactions=(op.id,),
                split="train" if side(op.source, 0, _HELD_PERCENT) == "train" else "test",
                scenario=kind,
            )
        )
    return found


def _names(schema: Any, keywords: tuple[str, ...]) -> bool:
    if isinstance(schema, dict):
        return any(k in schema for k in keywords) or any(_names(v, keywords) for v in schema.values())
    return isinstance(schema, list) and any(_names(v, keywords) for v in schema)
