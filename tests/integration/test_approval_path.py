"""How a version is asked for, waits, is answered or is not: on the real control database, with a registry in memory."""

from __future__ import annotations

import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import msgspec
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from pawl.cli import app
from pawl.errors import ApprovalInvalid, ServerNotUp
from pawl.evaluation.gate import gate
from pawl.evaluation.report import Comparison
from pawl.improvement import approving, attending, promotion, rolling
from pawl.improvement.workplace import Candidate
from pawl.registry import approvals
from pawl.registry.memory_registry import MemoryRegistry
from pawl.registry.pasted import take_code
from pawl.rollout.route import Arm, Route
from pawl.rollout.state import Rollout
from pawl.settings import Settings
from tests.integration.promotion_place import AGENT, Place, candidate, key

A_DAY_AND_A_HALF = 36 * 3600.0


class Listener:
    """A small real server that takes events as Prefect's API does; it keeps all but promotion's own moves."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """Silent."""

            def do_POST(self) -> None:
                assert self.path == "/api/events"
                told = json.loads(self.rfile.read(int(self.headers["content-length"])))
                listener.events += [e for e in told if e["event"] != "pawl.alias.moved"]
                self.send_response(204)
                self.end_headers()

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def names(self) -> list[str]:
        return [e["event"] for e in self.events]


@pytest.fixture
def listener() -> Any:
    made = Listener()
    yield made
    made.server.shutdown()


@pytest.fixture
def place(tmp_path: Path, root: Path, listener: Listener) -> Place:
    tree = YAML(typ="safe").load((root / "infra" / "fleet.yaml").read_text())
    tree["agents"][0]["approval"] = {"quorum": 2, "hours": 72, "remind_hours": 24}
    YAML().dump(tree, tmp_path / "fleet.yaml")
    port = int(listener.server.server_address[1])
    return Place(Settings(home=tmp_path, fleet=tmp_path / "fleet.yaml", prefect_port=port), AGENT, MemoryRegistry())


def page(place: Place, of: Candidate) -> Path:
    """The page of evidence; what is drawn on it does not matter here."""
    path = place.settings.reports_dir / f"{of.id}-evidence.html"
    path.parent.mkdir(exist_ok=True)
    path.write_text("<h1>evidence</h1>")
    return path


def registered(place: Place) -> promotion.Registered:
    made = candidate(place, better=True)
    return promotion.register(place, made, page(place, made))


def approve(place: Place, version: str, who: str, now: float) -> None:
    request = place.control.request(AGENT, version)
    assert request is not None
    made, _ = place.control.create_key("approver", who)
    approvals.approve_by_key(place.control, request, made, expires=now + A_DAY_AND_A_HALF, now=now)


def audited(place: Place) -> list[str]:
    assert place.control.verify_audit() is None
    return [e["event"] for e in place.control.audit_log()]


def test_two_people_and_who_started_it(place: Place, listener: Listener) -> None:
    first = candidate(place, better=True)
    first.write("started_by", "ann")
    made = promotion.register(place, first, page(place, first))
    tags = place.registry.version(AGENT, made.version).tags
    assert tags["started_by"] == "ann" and tags["report_digest"] == tags["evidence"] == made.evidence
    assert "parent_version" not in tags, "it was trained from the base model"
    request = place.control.request(AGENT, made.version)
    assert request is not None and (request.starter, request.quorum, request.candidate) == ("ann", 2, first.id)
    assert request.link == place.registry.url(place.registry.version(AGENT, made.version))
    now = time.time()
    approve(place, made.version, "ann", now)
    assert approving.ready(place, now) is None
    approve(place, made.version, "bo", now)
    found = approving.ready(place, now)
    assert found is not None and found.version == made.version
    (told,) = listener.events
    assert told["event"] == "pawl.approval.asked" and told["payload"]["quorum"] == 2
    assert told["resource"]["prefect.resource.id"] == f"pawl.version.{AGENT}.{made.version}"


def test_the_parent_is_named_by_its_number(place: Place) -> None:
    before = registered(place)
    next_ = candidate(place, better=True, weights=b"x")
    lineage = next_.read("lineage", promotion.Lineage)
    next_.write("lineage", msgspec.structs.replace(lineage, parent=before.adapter))
    made = promotion.register(place, next_, page(place, next_))
    assert place.registry.version(AGENT, made.version).tags["parent_version"] == before.version


def judged_anew(place: Place, decision: str = "promote") -> promotion.Registered:
    """The same adapter, judged again under another margin, so the digest is another."""
    made = candidate(place, better=decision != "reject")
    comparison = made.read("comparison", Comparison)
    other = msgspec.structs.replace(comparison, margin=comparison.margin / 2)
    made.write("comparison", other)
    judged = gate(other, place.agent.evaluation, None)
    if decision == "hold":
        judged = msgspec.structs.replace(judged, decision="hold", reasons=("too few items",))
    made.write("gate", judged)
    return promotion.register(place, made, page(place, made))


def test_other_evidence_voids_what_was_approved_and_asks_again(place: Place) -> None:
    made, now = registered(place), time.time()
    approve(place, made.version, "ann", now)
    approve(place, made.version, "bo", now)
    assert approving.ready(place, now) is not None
    again = judged_anew(place)
    assert again.version == made.version and again.evidence != made.evidence
    request = place.control.request(AGENT, made.version)
    assert request is not None and request.evidence == again.evidence
    assert approving.ready(place, time.time()) is None
    version = place.registry.version(AGENT, made.version)
    assert version.tags["evidence"] == version.tags["report_digest"] == again.evidence
    assert f"report-{again.evidence[:12]}.html" in place.registry.attached[AGENT, made.version]
    (void,) = [e for e in place.control.audit_log() if e["event"] == "approvals void: other evidence"]
    assert void["detail"]["of"] == ["ann", "bo"] and void["detail"]["was"] == made.evidence
    # The same evidence again asks nothing anew.
    judged_anew(place)
    assert place.control.request(AGENT, made.version) == request


@pytest.mark.parametrize("decision", ["hold", "reject"])
def test_what_waits_is_closed_where_the_gate_says_promote_no_more(
    place: Place, listener: Listener, decision: str
) -> None:
    made, now = registered(place), time.time()
    approve(place, made.version, "ann", now)
    approve(place, made.version, "bo", now)
    before = approving.ready(place, now)
    assert before is not None
    again = judged_anew(place, decision)
    assert again.version == made.version and again.decision == decision
    assert approving.ready(place, time.time()) is None, "people said yes to other evidence"
    with pytest.raises(ApprovalInvalid, match="no approval that counts"):
        rolling.open_rollout(place, before)
    closed = place.control.request(AGENT, made.version)
    assert closed is not None and closed.closed_as == ("rejected" if decision == "reject" else "held")
    assert attending.attend(place, now + 1000 * 3600) == [], "nobody is reminded of it"
    (void,) = [e for e in place.control.audit_log() if e["event"] == "approvals void: other evidence"]
    assert void["detail"]["of"] == ["ann", "bo"] and void["detail"]["gate"] == decision
    assert listener.names[-1] == f"pawl.approval.{closed.closed_as}"


def test_weights_that_were_changed_with_their_tag_do_not_come_in_on_an_approval(place: Place) -> None:
    made, now = registered(place), time.time()
    approve(place, made.version, "ann", now)
    approve(place, made.version, "bo", now)
    request = approving.ready(place, now)
    assert request is not None
    place.registry.tag(AGENT, made.version, "adapter_sha256", "0" * 64)
    version = place.registry.version(AGENT, made.version)
    changed = msgspec.structs.replace(version, sha256="0" * 64)
    place.registry.version = lambda agent, number: changed  # type: ignore[method-assign]
    with pytest.raises(ApprovalInvalid, match="look who changed it"):
        rolling.open_rollout(place, request)
    assert place.control.open_rollout(AGENT) is None


def test_a_no_that_comes_while_the_adapter_is_loaded_counts(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    made, now = registered(place), time.time()
    approve(place, made.version, "ann", now)
    approve(place, made.version, "bo", now)
    request = approving.ready(place, now)
    assert request is not None

    def loads(place: Place, version: Any) -> None:
        approvals.reject_by_key(place.control, request, key(place, "approver"), reason="wait", now=time.time())

    monkeypatch.setattr(rolling, "present", loads)
    with pytest.raises(ApprovalInvalid, match="no approval that counts"):
        rolling.open_rollout(place, request)
    assert place.control.open_rollout(AGENT) is None


def test_an_order_past_the_gate_is_not_turned_into_a_question(place: Place) -> None:
    made, operator = registered(place), key(place, "operator")
    asked = place.control.request(AGENT, made.version)
    forced = approving.force(place, made.version, operator, "now", ("gate",))
    assert asked is not None and (forced.candidate, forced.starter) == (asked.candidate, asked.starter)
    late = time.time() + 2 * 3600
    assert attending.attend(place, late) != [] and approving.ready(place, late) is None
    with pytest.raises(ApprovalInvalid, match="pawl rollout force"):
        approving.renew(place, made.version, operator, late)
    # What serves already, and what would wait behind another rollout, is not ordered.
    arm = Arm(made.adapter, "local", made.adapter, "local")
    base = Arm("base", "local", "base", "local")
    route = place.control.put_route(Route(agent=AGENT, champion=arm))
    with pytest.raises(ApprovalInvalid, match="serves"):
        approving.force(place, made.version, operator, "again", ("gate",))
    place.control.put_route(msgspec.structs.replace(route, champion=base))
    other = Rollout(
        id="r1", agent=AGENT, version="77", champion=base, challenger=Arm("x", "local", "x", "local"), stage="20",
        opened_at=1.0, stage_since=1.0, spec=place.agent.rollout, route_revision=2,
    )  # fmt: skip
    place.control.save_rollout(other)
    with pytest.raises(ApprovalInvalid, match="version 77 of functional-negative is being rolled out"):
        approving.force(place, made.version, operator, "again", ("gate",))


def test_a_rollback_is_remembered_without_the_registry(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    made = registered(place)
    request = place.control.request(AGENT, made.version)
    assert request is not None
    base, arm = Arm("base", "local", "base", "local"), Arm(made.adapter, "local", made.adapter, "local")
    back = Rollout(
        id="r1", agent=AGENT, version=made.version, champion=base, challenger=arm, stage="rolled_back",
        opened_at=time.time(), stage_since=time.time(), spec=place.agent.rollout,
    )  # fmt: skip

    def down(*_: object) -> Any:
        raise ServerNotUp("MLflow does not answer")

    for name in ("version", "by_alias", "tag", "drop_alias"):
        monkeypatch.setattr(place.registry, name, down)
    with pytest.raises(ServerNotUp):
        rolling.settle(place, back)
    assert "rolled back" in (place.control.rejection(request.adapter_sha256) or "")
    assert not rolling.settled(place, back), "the registry is told when it is up again"


@pytest.mark.parametrize("stage", ["done", "rolled_back"])
def test_a_version_that_was_deleted_in_the_registry_is_settled_without(place: Place, stage: Any) -> None:
    base, arm = Arm("base", "local", "base", "local"), Arm("gone", "local", "gone", "local")
    made = registered(place)
    request = place.control.request(AGENT, made.version)
    assert request is not None
    place.control.ask(msgspec.structs.replace(request, version="99", adapter_sha256="9" * 64))
    gone = Rollout(
        id="r9", agent=AGENT, version="99", champion=base, challenger=arm, stage=stage,
        opened_at=time.time(), stage_since=time.time(), spec=place.agent.rollout,
    )  # fmt: skip
    rolling.settle(place, gone)
    assert rolling.settled(place, gone)
    assert (place.control.rejection("9" * 64) is not None) == (stage == "rolled_back")


def test_what_serves_already_is_not_asked_for_again(place: Place) -> None:
    made, now = registered(place), time.time()
    request = place.control.request(AGENT, made.version)
    arm = Arm(made.adapter, "local", made.adapter, "local")
    place.control.put_route(Route(agent=AGENT, champion=arm))
    for again in (registered(place), judged_anew(place)):
        assert again.unasked == "it serves already"
    assert place.control.request(AGENT, made.version) == request
    # Nor one that was rolled out on this evidence and is not there any more, however long ago it was asked.
    base = Arm("base", "local", "base", "local")
    place.control.put_route(Route(agent=AGENT, champion=base, revision=1))
    done = Rollout(
        id="r1", agent=AGENT, version=made.version, champion=base, challenger=arm, stage="rolled_back",
        opened_at=now + 1, stage_since=now + 1, spec=place.agent.rollout,
    )  # fmt: skip
    place.control.save_rollout(done)
    candidate(place, better=True)
    version = place.registry.version(AGENT, made.version)
    later = now + 1000 * 3600
    asked = approving.ask(place, version, made.evidence, starter="", candidate="c", now=later)
    assert asked == "" and place.control.request(AGENT, made.version) == request
    other = approving.ask(place, version, "f" * 64, starter="", candidate="c", now=later)
    found = place.control.request(AGENT, made.version)
    assert other == "" and found is not None and found.evidence == "f" * 64


def test_a_rejected_adapter_comes_back_on_an_operators_name_alone(place: Place) -> None:
    made, now = registered(place), time.time()
    request = place.control.request(AGENT, made.version)
    assert request is not None
    approve(place, made.version, "ann", now)
    approve(place, made.version, "bo", now)
    approvals.reject_by_key(place.control, request, key(place, "approver"), reason="it invents fields", now=now)
    assert approving.ready(place, now) is None
    with pytest.raises(ApprovalInvalid, match="no approval that counts"):
        rolling.open_rollout(place, request)
    assert attending.attend(place, now) == [(request, "reject")]
    assert attending.attend(place, now) == []
    assert place.registry.by_alias(AGENT, "challenger") is None
    # Judged again, it is registered and not asked for.
    again = judged_anew(place)
    assert again.decision == "promote" and "it invents fields" in again.unasked
    assert place.registry.by_alias(AGENT, "challenger") is None
    assert approving.ready(place, time.time()) is None
    with pytest.raises(ApprovalInvalid, match="force"):
        approving.renew(place, made.version, key(place, "operator"), time.time())
    approving.force(place, made.version, key(place, "operator"), "a second look", ("gate",))
    forced = approving.ready(place, time.time())
    assert forced is not None and forced.override_by == "a operator"
    (entry,) = [e for e in place.control.audit_log() if e["event"] == "override"]
    assert "it invents fields" in entry["detail"]["rejected"]
    assert "rejected adapter came back" in audited(place)


def test_it_reminds_then_holds_and_may_be_asked_again(
    place: Place, listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    made = registered(place)
    request = place.control.request(AGENT, made.version)
    assert request is not None
    asked = request.asked_at
    approve(place, made.version, "ann", asked + 1)
    for hour in range(0, 80):
        attending.attend(place, asked + 3600 * hour + 5)
    done = ["pawl.approval.asked", "pawl.approval.reminder", "pawl.approval.reminder", "pawl.approval.held"]
    assert listener.names == done
    reminder = listener.events[1]["payload"]
    assert (reminder["lacks"], reminder["approved_by"]) == ("1 more of 2", ["ann"])
    assert [e for e in audited(place) if e.startswith("approval ")] == [
        "approval asked", "approval reminder", "approval reminder", "approval expired: held",
    ]  # fmt: skip
    assert "it takes 1 more of 2" in caplog.text
    held = place.control.request(AGENT, made.version)
    assert held is not None and held.closed_as == "held" and held.closed_at is not None
    late = asked + 80 * 3600
    with pytest.raises(ApprovalInvalid, match="pawl approvals renew"):
        approve(place, made.version, "bo", late)
    again = approving.renew(place, made.version, key(place, "operator"), late)
    with pytest.raises(ApprovalInvalid, match="waits still"):
        approving.renew(place, made.version, key(place, "operator"), late)
    assert again.closed_at is None and again.evidence == request.evidence
    assert approving.ready(place, late) is None, "ann's yes of before has run out"
    approve(place, made.version, "bo", late + 1)
    approve(place, made.version, "ann", late + 1)
    found = approving.ready(place, late + 2)
    assert found is not None and found.version == made.version


def test_without_the_registry_what_is_recorded_here_counts(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    made, now = registered(place), time.time()
    approve(place, made.version, "ann", now)
    approve(place, made.version, "bo", now)
    place.memory._versions.clear()  # whatever it is asked, it has no such version
    found = approving.ready(place, now)
    assert found is not None and found.version == made.version


def test_a_code_with_a_no_in_the_tag(place: Place) -> None:
    made, now = registered(place), time.time()
    request = place.control.request(AGENT, made.version)
    assert request is not None
    code = approvals.code_for(
        place.control, request, key(place, "approver"), expires=now + 60, now=now, verdict="rejected", reason="no"
    )
    place.registry.tag(AGENT, made.version, "approval_code", code)
    assert approving.ready(place, now) is None
    answer = place.registry.version(AGENT, made.version).tags["approval_answer"]
    assert answer.startswith("accepted: rejected by a approver") and answer.endswith(f"(code ending {code[-8:]})")
    assert place.control.rejection(request.adapter_sha256) == "a approver: no"


def test_a_code_that_the_gateway_took_is_answered_by_the_next_look(place: Place, listener: Listener) -> None:
    made, now = registered(place), time.time()
    request = place.control.request(AGENT, made.version)
    assert request is not None
    codes = [
        approvals.code_for(
            place.control, request, place.control.create_key("approver", who)[0], expires=now + 60, now=now
        )
        for who in ("ann", "bo")
    ]
    for code in codes:
        place.registry.tag(AGENT, made.version, "approval_code", code)
        assert take_code(place.control, request, code, now, "mlflow").fresh, "the webhook was quicker"
        found = approving.ready(place, now)
        answer = place.registry.version(AGENT, made.version).tags["approval_answer"]
        assert answer.startswith("accepted: approved by ") and code[-8:] in answer
    assert found is not None and found.version == made.version
    assert [a.by for a in place.control.approvals(AGENT, made.version)] == ["ann", "bo"]
    assert "approval code refused" not in audited(place)
    assert listener.names == ["pawl.approval.asked"], "the gateway told of both, this look of none"
    # What is refused is refused again at each look, and told once.
    for _ in range(2):
        place.registry.tag(AGENT, made.version, "approval_answer", "")
        place.registry.tag(AGENT, made.version, "approval_code", "yes, do it")
        approving.read_tag(place, request, now)
    assert audited(place).count("approval code refused") == 1 == listener.names.count("pawl.approval.refused")


def test_the_commands_tell_what_waits(place: Place, monkeypatch: pytest.MonkeyPatch, listener: Listener) -> None:
    made = registered(place)
    for name, value in {"HOME": place.settings.home, "FLEET": place.settings.fleet}.items():
        monkeypatch.setenv(f"PAWL_{name}", str(value))
    monkeypatch.setenv("PAWL_PREFECT_PORT", str(place.settings.prefect_port))

    def pawl(*arguments: str, who: str = "", role: Any = "approver") -> str:
        if who:
            monkeypatch.setenv("PAWL_API_KEY", place.control.create_key(role, who)[1])
        done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
        return done.output

    said = pawl("approvals")
    assert made.evidence in said and "it takes   2 more of 2" in said and "expires in 72.0 h" in said
    assert "evidence.html" in said and place.registry.url(place.registry.version(AGENT, made.version)) in said
    assert "it takes 1 more of 2" in pawl("approve", AGENT, made.version, who="ann")
    assert "approved   ann" in pawl("approvals")
    assert "it takes" not in pawl("approve", AGENT, made.version, who="bo")
    assert listener.names[-1] == "pawl.approval.granted"
    assert listener.events[-1]["payload"]["by"] == ["ann", "bo"]
    assert "approved, expires in" in pawl("approvals")
    code = pawl("reject", AGENT, made.version, "--reason", "worse", "--code", who="cy").strip()
    assert code.startswith("pawl1.") and place.control.rejection(place.registry.versions(AGENT)[0].sha256) is None
    assert "cy rejected" in pawl("reject", AGENT, made.version, "--reason", "worse")
    assert "rejected   cy" in pawl("approvals") and "worse" in pawl("approvals")
    attending.attend(place, time.time())
    assert pawl("approvals").strip() == "nothing waits for approval"
    with pytest.raises(ApprovalInvalid, match="asks for no approval"):
        pawl("approve", AGENT, "99", who="ann")
