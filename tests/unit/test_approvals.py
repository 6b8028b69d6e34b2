"""All ways in which a verdict or a code counts, and in which it does not."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawl.errors import ApprovalInvalid, NotAllowed
from pawl.registry.approvals import approve_by_code, approve_by_key, code_for, reject_by_key, standing
from pawl.registry.codes import make_code, read_code
from pawl.rollout.control import Approval, Key, Request
from pawl.rollout.control_sqlite import SqliteControl

NOW = time.time()
REQUEST = Request(
    agent="agent",
    version="3",
    adapter="agent-v3-aaaaaaaa",
    adapter_sha256="a" * 64,
    evidence="e" * 64,
    asked_at=NOW - 10,
    expires=NOW + 1000,
)
SECRET = b"s" * 32
CODE = make_code(SECRET, agent="agent", version="3", evidence="e" * 64, by="ann", key_id="key-1", expires=NOW + 100)


def verdict(by: str = "ann", at: float = NOW, **more: object) -> Approval:
    fields = {
        "id": f"{by}{at}",
        "agent": "agent",
        "version": "3",
        "evidence": "e" * 64,
        "verdict": "approved",
        "by": by,
        "at": at,
        "expires": NOW + 100,
    }
    return Approval(**{**fields, **more})  # type: ignore[arg-type]


@pytest.fixture
def control(tmp_path: Path) -> SqliteControl:
    store = SqliteControl(tmp_path / "c.sqlite")
    store.ask(REQUEST)
    return store


@pytest.mark.parametrize(
    ("given_", "at", "quorum", "expected"),
    [
        ([], NOW, 1, "waiting"),
        ([], NOW + 1000, 1, "expired"),
        ([verdict()], NOW, 1, "approved"),
        ([verdict()], NOW + 100, 1, "waiting"),  # the approval expired, the request did not
        ([verdict(expires=NOW + 5000)], NOW + 2000, 1, "approved"),  # given in time
        ([verdict(at=NOW + 1500, expires=NOW + 5000)], NOW + 2000, 1, "expired"),  # given too late
        ([verdict(at=NOW + 50)], NOW, 1, "waiting"),  # from the future
        ([verdict(evidence="f" * 64)], NOW, 1, "waiting"),  # other evidence
        ([verdict(version="2")], NOW, 1, "waiting"),
        ([verdict(agent="other")], NOW, 1, "waiting"),
        ([verdict(verdict="rejected")], NOW + 5000, 1, "rejected"),  # a no does not expire
        ([verdict(), verdict("bo", verdict="rejected")], NOW, 1, "rejected"),
        ([verdict(verdict="rejected", at=NOW - 1), verdict()], NOW, 1, "approved"),  # changed their mind
        ([verdict(), verdict(verdict="rejected", at=NOW - 1)], NOW, 1, "approved"),  # in whatever order they are read
        ([verdict(at=NOW - 1), verdict(verdict="rejected")], NOW, 1, "rejected"),
        ([verdict()], NOW, 2, "waiting"),
        ([verdict(), verdict(at=NOW - 1)], NOW, 2, "waiting"),  # the same person twice
        ([verdict(), verdict("bo")], NOW, 2, "approved"),
    ],
)
def test_standing(given_: list[Approval], at: float, quorum: int, expected: str) -> None:
    assert standing(REQUEST, given_, at, quorum) == expected


def test_changed_evidence_voids_an_approval() -> None:
    assert standing(msgspec.structs.replace(REQUEST, evidence="f" * 64), [verdict()], NOW) == "waiting"


def test_a_key_with_the_role_approves_and_it_is_audited(control: SqliteControl) -> None:
    key, _ = control.create_key("approver", "ann")
    made = approve_by_key(control, REQUEST, key, expires=NOW + 100, now=NOW)
    assert control.approvals("agent", "3") == [made] and (made.by, made.via) == ("ann", "cli")
    assert standing(REQUEST, control.approvals("agent", "3"), NOW) == "approved"
    assert [(e["event"], e["by"]) for e in control.audit_log()] == [("version approved", "ann")]
    assert control.verify_audit() is None


@pytest.mark.parametrize("role", ["client", "feedback", "operator"])
def test_other_roles_decide_nothing(control: SqliteControl, role: str) -> None:
    key = Key(id="k", role=role, name="eve")  # type: ignore[arg-type]
    with pytest.raises(NotAllowed, match=role):
        approve_by_key(control, REQUEST, key, expires=NOW + 100, now=NOW)
    with pytest.raises(NotAllowed):
        reject_by_key(control, REQUEST, key, reason="no", now=NOW)
    with pytest.raises(NotAllowed):
        code_for(control, REQUEST, key, expires=NOW + 100, now=NOW)
    assert control.approvals("agent", "3") == []


def test_a_revoked_key_decides_nothing(control: SqliteControl) -> None:
    key = Key(id="k", role="approver", name="ann", revoked=True)
    with pytest.raises(NotAllowed, match="revoked"):
        approve_by_key(control, REQUEST, key, expires=NOW + 100, now=NOW)


def test_too_late_or_already_over(control: SqliteControl) -> None:
    key, _ = control.create_key("approver", "ann")
    with pytest.raises(ApprovalInvalid, match="request"):
        approve_by_key(control, REQUEST, key, expires=NOW + 5000, now=NOW + 1000)
    with pytest.raises(ApprovalInvalid, match="hours"):
        approve_by_key(control, REQUEST, key, expires=NOW, now=NOW)


def test_a_no_is_remembered_with_the_adapter(control: SqliteControl) -> None:
    key, _ = control.create_key("admin", "ann")
    reject_by_key(control, REQUEST, key, reason="too many duplicates", now=NOW)
    assert standing(REQUEST, control.approvals("agent", "3"), NOW) == "rejected"
    assert control.rejection(REQUEST.adapter_sha256) == "ann: too many duplicates"


def test_a_code_approves_once(control: SqliteControl) -> None:
    key, _ = control.create_key("approver", "ann")
    code = code_for(control, REQUEST, key, expires=NOW + 100, now=NOW)
    made = approve_by_code(control, REQUEST, f" {code}\n", NOW + 1)
    assert (made.by, made.via, made.evidence, made.expires) == ("ann", "code", REQUEST.evidence, NOW + 100)
    assert standing(REQUEST, control.approvals("agent", "3"), NOW + 1) == "approved"
    with pytest.raises(ApprovalInvalid, match="used before"):
        approve_by_code(control, REQUEST, code, NOW + 2)
    assert len(control.approvals("agent", "3")) == 1
    assert [e["event"] for e in control.audit_log()] == ["approval code made", "version approved"]
    assert code not in str(control.audit_log())


@pytest.mark.parametrize(
    ("change", "at", "why"),
    [
        ({"version": "4"}, NOW, "version 3"),
        ({"agent": "other"}, NOW, "agent version 3"),
        ({"evidence": "f" * 64}, NOW, "other evidence"),
        ({}, NOW + 100, "code has expired"),
        ({"expires": NOW}, NOW, "request has expired"),
    ],
)
def test_a_code_for_something_else_is_refused_and_not_spent(
    control: SqliteControl, change: dict[str, object], at: float, why: str
) -> None:
    key, _ = control.create_key("approver", "ann")
    code = code_for(control, REQUEST, key, expires=NOW + 100, now=NOW)
    with pytest.raises(ApprovalInvalid, match=why):
        approve_by_code(control, msgspec.structs.replace(REQUEST, **change), code, at)
    assert control.approvals("agent", "3") == []
    approve_by_code(control, REQUEST, code, NOW)  # a slip of the hand costs nothing


def test_revoking_the_key_voids_its_codes(control: SqliteControl) -> None:
    key, _ = control.create_key("approver", "ann")
    code = code_for(control, REQUEST, key, expires=NOW + 100, now=NOW)
    control.revoke_key(key.id)
    with pytest.raises(ApprovalInvalid, match="revoked"):
        approve_by_code(control, REQUEST, code, NOW)


def test_a_code_of_another_installation_is_refused(control: SqliteControl) -> None:
    with pytest.raises(ApprovalInvalid, match="another installation"):
        approve_by_code(control, REQUEST, CODE, NOW)


def test_reading_gives_back_what_was_signed() -> None:
    code = read_code(SECRET, CODE)
    assert (code.agent, code.version, code.evidence, code.by, code.key_id) == (
        "agent",
        "3",
        "e" * 64,
        "ann",
        "key-1",
    )
    assert code.expires == NOW + 100
    assert len(CODE) < 400


def test_two_codes_are_never_the_same() -> None:
    made = {make_code(SECRET, agent="a", version="1", evidence="e", by="b", key_id="k", expires=1.0) for _ in range(50)}
    assert len(made) == 50


@given(st.integers(0, len(CODE) - 1), st.characters())
def test_any_changed_character_is_noticed(place: int, character: str) -> None:
    altered = CODE[:place] + character + CODE[place + 1 :]
    if altered.strip() == CODE:
        return
    with pytest.raises(ApprovalInvalid):
        read_code(SECRET, altered)


@given(st.text() | st.just("pawl1..") | st.just(CODE + ".x") | st.just(CODE[:-1]) | st.just(CODE + "="))
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(ApprovalInvalid):
        read_code(SECRET, text)
