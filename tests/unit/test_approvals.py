"""All ways in which a verdict or a code counts, and in which it does not."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawl.errors import ApprovalInvalid, NotAllowed, PawlError
from pawl.fleet.spec import RolloutSpec
from pawl.registry.approvals import (
    answer_by_code,
    approve_by_key,
    code_for,
    reject_by_key,
    standing,
    tally,
    unanswered,
)
from pawl.registry.codes import _sign, _text, make_code, read_code
from pawl.rollout.control import SCHEDULE, Approval, Key, Request
from pawl.rollout.control_sqlite import SqliteControl
from pawl.rollout.route import Arm
from pawl.rollout.state import Rollout

NOW = 1_795_000_000.0  # the same in every process: it stands in the names of cases
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
    assert standing(msgspec.structs.replace(REQUEST, quorum=quorum), given_, at) == expected


@pytest.mark.parametrize(
    ("starter", "yes", "quorum", "lacks"),
    [
        ("ann", ("ann",), 1, "somebody other than ann"),
        ("ann", ("bo",), 1, ""),
        ("ann", ("ann", "bo"), 1, ""),
        ("ann", ("ann",), 2, "1 more of 2"),
        ("ann", ("ann", "bo"), 3, "1 more of 3"),
        (SCHEDULE, ("ann",), 1, ""),  # no person started it
        ("", ("ann",), 1, "a second person"),  # nobody knows who did: it may have been ann
        ("", ("ann", "bo"), 1, ""),
        ("", (), 1, "1 more of 1"),
    ],
)
def test_the_starter_does_not_approve_alone_where_the_spec_says_so(
    starter: str, yes: tuple[str, ...], quorum: int, lacks: str
) -> None:
    strict = msgspec.structs.replace(REQUEST, starter=starter, starter_alone=False, quorum=quorum)
    given_ = [verdict(name, at=NOW - n) for n, name in enumerate(yes)]
    found = tally(strict, given_, NOW)
    assert found.lacks.startswith(lacks) and bool(found.lacks) == bool(lacks)
    assert found.standing == ("waiting" if lacks else "approved")
    assert set(found.yes) == set(yes)
    if len(yes) >= quorum:  # where the spec allows it, the same people are enough
        assert standing(msgspec.structs.replace(strict, starter_alone=True), given_, NOW) == "approved"


def test_a_request_is_answered_once_a_rollout_was_opened_for_it() -> None:
    arm = Arm("base", "local", "base", "local")

    def rollout(version: str, at: float) -> Rollout:
        return Rollout(
            id=f"r{version}{at}", agent="agent", version=version, champion=arm, challenger=arm, stage="shadow",
            opened_at=at, stage_since=at, spec=RolloutSpec(),
        )  # fmt: skip

    again = msgspec.structs.replace(REQUEST, asked_at=NOW + 10)
    other = msgspec.structs.replace(REQUEST, version="4", asked_at=NOW - 20)
    assert unanswered([REQUEST, other], []) == [other, REQUEST], "oldest first"
    assert unanswered([REQUEST], [rollout("3", NOW)]) == []
    assert unanswered([again], [rollout("3", NOW)]) == [again], "asked again since"
    assert unanswered([REQUEST], [rollout("2", NOW)]) == [REQUEST]
    assert unanswered([msgspec.structs.replace(REQUEST, closed_at=NOW, closed_as="held")], []) == []


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


@pytest.mark.parametrize("name", ["the schedule", "roll_out", "watchdog"])
def test_nobody_bears_the_name_of_what_no_person_did(control: SqliteControl, name: str) -> None:
    with pytest.raises(PawlError, match="another name"):
        control.create_key("approver", name)


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
    with pytest.raises(ApprovalInvalid, match="too many duplicates"):  # a change of mind does not bring it back
        approve_by_key(control, REQUEST, key, expires=NOW + 100, now=NOW + 1)
    with pytest.raises(ApprovalInvalid, match="too many duplicates"):
        code_for(control, REQUEST, key, expires=NOW + 100, now=NOW + 1)
    with pytest.raises(ApprovalInvalid, match="reason"):
        reject_by_key(control, REQUEST, key, reason=" ", now=NOW)


def test_a_code_can_say_no(control: SqliteControl) -> None:
    key, _ = control.create_key("approver", "ann")
    yes = code_for(control, REQUEST, key, expires=NOW + 100, now=NOW)
    with pytest.raises(ApprovalInvalid, match="reason"):
        code_for(control, REQUEST, key, expires=NOW + 100, now=NOW, verdict="rejected")
    no = code_for(control, REQUEST, key, expires=NOW + 5000, now=NOW, verdict="rejected", reason="it invents fields")
    late = REQUEST.expires + 1
    made = answer_by_code(control, REQUEST, no, late, "prefect")
    assert (made.verdict, made.by, made.via, made.reason) == ("rejected", "ann", "prefect", "it invents fields")
    assert control.rejection(REQUEST.adapter_sha256) == "ann: it invents fields"
    assert standing(REQUEST, control.approvals("agent", "3"), late) == "rejected"
    with pytest.raises(ApprovalInvalid, match="invents fields"):
        answer_by_code(control, REQUEST, yes, NOW + 1, "mlflow")


def test_codes_of_before_said_yes() -> None:
    payload = _text(msgspec.json.encode(["agent", "3", "e" * 64, "ann", "key-1", NOW + 100, "nonce"]))
    found = read_code(SECRET, f"pawl1.{payload}.{_text(_sign(SECRET, payload))}")
    assert (found.verdict, found.reason, found.nonce) == ("approved", "", "nonce")


def test_a_code_approves_once(control: SqliteControl) -> None:
    key, _ = control.create_key("approver", "ann")
    code = code_for(control, REQUEST, key, expires=NOW + 100, now=NOW)
    made = answer_by_code(control, REQUEST, f" {code}\n", NOW + 1, "mlflow")
    assert (made.by, made.via, made.evidence, made.expires) == ("ann", "mlflow", REQUEST.evidence, NOW + 100)
    assert standing(REQUEST, control.approvals("agent", "3"), NOW + 1) == "approved"
    with pytest.raises(ApprovalInvalid, match="used before"):
        answer_by_code(control, REQUEST, code, NOW + 2, "prefect")
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
        ({"expires": NOW}, NOW, "version 3 has expired"),
    ],
)
def test_a_code_for_something_else_is_refused_and_not_spent(
    control: SqliteControl, change: dict[str, object], at: float, why: str
) -> None:
    key, _ = control.create_key("approver", "ann")
    code = code_for(control, REQUEST, key, expires=NOW + 100, now=NOW)
    with pytest.raises(ApprovalInvalid, match=why):
        answer_by_code(control, msgspec.structs.replace(REQUEST, **change), code, at, "mlflow")
    assert control.approvals("agent", "3") == []
    answer_by_code(control, REQUEST, code, NOW, "mlflow")  # a slip of the hand costs nothing


def test_revoking_the_key_voids_its_codes(control: SqliteControl) -> None:
    key, _ = control.create_key("approver", "ann")
    code = code_for(control, REQUEST, key, expires=NOW + 100, now=NOW)
    control.revoke_key(key.id)
    with pytest.raises(ApprovalInvalid, match="revoked"):
        answer_by_code(control, REQUEST, code, NOW, "mlflow")


def test_a_code_of_another_installation_is_refused(control: SqliteControl) -> None:
    with pytest.raises(ApprovalInvalid, match="another installation"):
        answer_by_code(control, REQUEST, CODE, NOW, "mlflow")


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
