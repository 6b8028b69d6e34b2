"""What a request that waits calls for, and the terms an agent's spec sets."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from pydantic import ValidationError

from pawl.errors import StaleWrite
from pawl.fleet.spec import AgentSpec
from pawl.improvement.attending import due
from pawl.registry.approvals import Tally
from pawl.rollout.control import Request
from pawl.rollout.control_sqlite import SqliteControl

ASKED = 1_000_000.0
REQUEST = Request(
    agent="agent", version="3", adapter="agent-v3-aaaaaaaa", adapter_sha256="a" * 64, evidence="e" * 64,
    asked_at=ASKED, expires=ASKED + 1000,
)  # fmt: skip


@pytest.mark.parametrize(
    ("standing", "change", "after", "expected"),
    [
        ("waiting", {}, 0, "nothing"),
        ("waiting", {}, 99, "nothing"),
        ("waiting", {}, 100, "remind"),
        ("waiting", {"reminded_at": ASKED + 100}, 150, "nothing"),
        ("waiting", {"reminded_at": ASKED + 100}, 200, "remind"),
        ("approved", {}, 500, "nothing"),  # a rollout is open that must end first
        ("expired", {}, 1000, "hold"),
        ("rejected", {}, 10, "reject"),
        ("expired", {"closed_at": ASKED + 1, "closed_as": "held"}, 2000, "nothing"),  # once
        ("rejected", {"closed_at": ASKED + 1, "closed_as": "rejected"}, 2000, "nothing"),
        ("waiting", {"override_by": "op"}, 500, "nothing"),
        ("expired", {"override_by": "op"}, 999, "nothing"),
        ("waiting", {"override_by": "op"}, 1000, "hold"),  # a forced one that never opened
    ],
)
def test_due(standing: str, change: dict[str, object], after: float, expected: str) -> None:
    counted = Tally(standing, (), (), "1 more of 1")  # type: ignore[arg-type]
    assert due(msgspec.structs.replace(REQUEST, **change), counted, ASKED + after, 100) == expected


def test_an_amendment_never_brings_back_what_was_asked_before(tmp_path: Path) -> None:
    control = SqliteControl(tmp_path / "c.sqlite")
    control.ask(REQUEST)
    held = msgspec.structs.replace(REQUEST, closed_at=ASKED + 1000, closed_as="held")
    other = msgspec.structs.replace(REQUEST, evidence="f" * 64, asked_at=ASKED + 5)
    control.amend_request(REQUEST, other)
    with pytest.raises(StaleWrite, match="version 3"):
        control.amend_request(REQUEST, held)
    with pytest.raises(StaleWrite):
        control.amend_request(msgspec.structs.replace(REQUEST, version="9"), held)
    assert control.requests() == [other]


def test_an_agents_terms() -> None:
    known = {"name": "agent", "task": "generic"}
    assert AgentSpec.model_validate(known).approval.quorum == 1
    strict = AgentSpec.model_validate(known | {"approval": {"quorum": 2, "starter_alone": False}})
    assert (strict.approval.quorum, strict.approval.starter_alone, strict.approval.hours) == (2, False, 72)
    # As fleets of before said it; the new way wins where both are there.
    assert AgentSpec.model_validate(known | {"approval_hours": 5}).approval.hours == 5
    assert AgentSpec.model_validate(known | {"approval_hours": 5, "approval": {"quorum": 2}}).approval.quorum == 2
    assert AgentSpec.model_validate(known | {"approval_hours": 5, "approval": {"hours": 6}}).approval.hours == 6
    for wrong in ({"quorum": 0}, {"hours": 0}, {"quorums": 1}):
        with pytest.raises(ValidationError):
            AgentSpec.model_validate(known | {"approval": wrong})
    with pytest.raises(ValidationError):
        AgentSpec.model_validate(known | {"approval_hours": -1})
