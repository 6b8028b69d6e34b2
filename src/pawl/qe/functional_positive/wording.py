"""Other sentences that ask for what `functional-positive` asks."""

from __future__ import annotations

from pawl.qe.functional_positive.oracle import SYSTEM

_FORM = '{"test_cases":[{"name":"...","payload":{...}}]}'
# The first is what `oracle.messages` writes.
SENTENCES = (
    SYSTEM,
    f"Give 3 positive test cases for this API operation as compact JSON: {_FORM}",
    f"Answer with compact JSON only, 3 requests that the operation must accept: {_FORM}",
    f"You test HTTP APIs. List 3 valid and different payloads in this form, without other text: {_FORM}",
    f"Compact JSON, no prose: {_FORM} with 3 payloads of the schema, the smallest, the fullest and one at the limits.",
)
