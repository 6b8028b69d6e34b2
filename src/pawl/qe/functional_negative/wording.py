"""Other sentences that ask for what `functional-negative` asks."""

from __future__ import annotations

from pawl.qe.functional_negative.oracle import SYSTEM

_FORM = '{"test_cases":[{"name":"...","payload":{...},"expected_status":400}]}'
# The first is what `oracle.messages` writes.
SENTENCES = (
    SYSTEM,
    f"Give 3 negative test cases for this API operation as compact JSON: {_FORM}",
    f"Answer with compact JSON only, 3 requests that the operation must refuse: {_FORM}",
    f"You test HTTP APIs. List 3 invalid payloads in this form, without spaces or other text: {_FORM}",
    f"Return 3 test cases with a payload that breaks the schema, each in another way, as compact JSON: {_FORM}",
    f"The API must reject bad input. Prove it by 3 cases, compact JSON: {_FORM}",
    f"Compact JSON, no prose: {_FORM} with 3 cases that violate the request schema.",
)
