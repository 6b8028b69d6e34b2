"""What the control database promises, on SQLite and on a real PostgreSQL: compare-and-swap, what survives, who sees
what, and the audit chain."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import psycopg2
import pytest

from pawl import bootstrap
from pawl.errors import PawlError, StaleWrite
from pawl.fleet.limits import KeyTerms, LimitsSpec
from pawl.fleet.spec import RolloutSpec
from pawl.rollout.control import Approval, AuditEntry, Request, Spent
from pawl.rollout.control_sql import SqlControl as Store
from pawl.rollout.control_sqlite import SqliteControl
from pawl.rollout.route import Arm, Route
from pawl.rollout.state import Decision, Override, Rollout, move, route_of
from pawl.settings import Settings

BASE = Arm("base", "local", "base", "local")
CLOUD = Arm("stand-in", "cloud", "stand-in", "cloud")
NEW = Arm("agent-v1-aaaaaaaa", "local", "agent-v1-aaaaaaaa", "local")


class At:
    """One control database: opened as often as wanted, and reached past the port."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def open(self) -> Store:
        made = bootstrap.control(self.settings)
        assert isinstance(made, Store)
        return made

    @property
    def environment(self) -> dict[str, str]:
        """Of a process that opens it too."""
        given = {"PAWL_CONTROL_URL": self.settings.control_url} if self.settings.control_url else {}
        return {**os.environ, "PAWL_HOME": str(self.settings.home), **given}

    def raw(self, *statements: str) -> list[tuple[Any, ...]]:
        """Past the port, in one commit, as somebody with the owner's rights would; what the last one found."""
        url = self.settings.control_url
        db: Any = psycopg2.connect(url) if url else sqlite3.connect(self.settings.control_db)
        try:
            cursor = db.cursor()
            for statement in statements:
                cursor.execute(statement)
            found = cursor.fetchall() if cursor.description else []
            db.commit()
            return list(found)
        finally:
            db.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def at(request: pytest.FixtureRequest, tmp_path: Path) -> At:
    url = request.getfixturevalue("postgres").database() if request.param == "postgresql" else None
    return At(Settings(home=tmp_path / "home", control_url=url))


@pytest.fixture
def control(at: At) -> Store:
    return at.open()


def rollout(name: str = "r1", agent: str = "agent", **more: object) -> Rollout:
    fields = {
        "id": name,
        "agent": agent,
        "version": "1",
        "champion": BASE,
        "challenger": NEW,
        "stage": "shadow",
        "opened_at": 10.0,
        "stage_since": 10.0,
        "spec": RolloutSpec(alpha=0.04),
        "keep_shadow": (CLOUD,),
    }
    return Rollout(**{**fields, **more})  # type: ignore[arg-type]


def test_a_route_is_written_where_its_revision_is_current(control: Store) -> None:
    first = control.put_route(Route(agent="agent", champion=BASE))
    assert first.revision == 1 and control.route("agent") == first
    second = control.put_route(msgspec.structs.replace(first, champion=CLOUD))
    assert second.revision == 2
    for stale in (first, Route(agent="agent", champion=BASE)):
        with pytest.raises(StaleWrite, match="revision 2"):
            control.put_route(stale)
    assert control.routes() == [second] and control.route("other") is None


def test_a_rollout_and_its_route_are_one_write(control: Store) -> None:
    control.put_route(Route(agent="agent", champion=BASE))
    saved = control.save_rollout(rollout(override=Override("op", "drill", 9.0, ("gate",))))
    assert control.rollout("r1") == saved == control.open_rollout("agent") and saved.revision == 1
    assert control.route("agent") == msgspec.structs.replace(route_of(saved), revision=2)
    moved = control.save_rollout(move(saved, Decision(action="advance", reason="fine"), by="roll_out", now=20.0))
    assert moved.history[0].decision.reason == "fine" and moved.spec.alpha == 0.04
    route = control.route("agent")
    assert route is not None and (route.percent, route.stage, route.revision) == (20, "20", 3)


def test_of_two_writers_one_loses_and_nothing_of_its_write_stays(control: Store, at: At) -> None:
    saved = control.save_rollout(rollout())
    other = at.open()
    forward = move(saved, Decision(action="advance", reason="fine"), by="roll_out", now=20.0)
    back = move(saved, Decision(action="rollback", reason="worse"), by="watchdog", now=20.0)
    won = other.save_rollout(back)
    with pytest.raises(StaleWrite):
        control.save_rollout(forward)
    assert control.rollout("r1") == won
    route = control.route("agent")
    assert route is not None and route.challenger is None and route.revision == 2


def test_one_open_rollout_an_agent(control: Store) -> None:
    first = control.save_rollout(rollout())
    control.save_rollout(rollout("r2", agent="another"))
    with pytest.raises(StaleWrite, match="r1"):
        control.save_rollout(rollout("r3"))
    ended = control.save_rollout(move(first, Decision(action="rollback", reason="worse"), by="watchdog", now=20.0))
    third = control.save_rollout(rollout("r3", opened_at=30.0))
    assert [r.id for r in control.rollouts("agent")] == ["r3", "r1"]
    assert {r.id for r in control.rollouts()} == {"r1", "r2", "r3"}
    with pytest.raises(StaleWrite, match="ended"):  # it would take the route from r3
        control.save_rollout(ended)
    assert control.route("agent") == msgspec.structs.replace(route_of(third), revision=3)


def test_changes_tell_of_routes_and_rollouts_whoever_wrote_them_and_of_nothing_else(control: Store, at: At) -> None:
    other = at.open()
    seen = {control.changes()}
    control.audit("mine", "me", {}, 1.0)
    other.spend([Spent("key:k", "2026-11", 1.0, 2, 3)])
    assert control.changes() in seen, "what every request may write must not make gateways read all routes"
    control.save_rollout(rollout())
    assert control.changes() not in seen
    seen.add(control.changes())
    assert other.put_route(Route(agent="another", champion=BASE)).revision == 1
    assert control.changes() not in seen
    seen.add(control.changes())
    control.routes()
    assert control.changes() in seen


def test_an_open_rollout_owns_its_route(control: Store) -> None:
    opened = control.save_rollout(rollout())
    route = control.route("agent")
    assert route is not None and route.revision == opened.route_revision == 1
    with pytest.raises(StaleWrite, match="belongs to its open rollout"):
        control.put_route(route)
    over = control.save_rollout(msgspec.structs.replace(opened, stage="rolled_back"))
    assert control.put_route(msgspec.structs.replace(route_of(over), revision=2)).revision == 3


def test_a_route_that_somebody_else_wrote_stops_every_move_but_the_way_back(control: Store, at: At) -> None:
    opened = control.save_rollout(rollout(stage="20"))
    at.raw("UPDATE routes SET revision = 7")  # as a restored backup would
    with pytest.raises(StaleWrite, match="at revision 7, r1 left it at 1"):
        control.save_rollout(msgspec.structs.replace(opened, stage="50"))
    back = control.save_rollout(msgspec.structs.replace(opened, stage="rolled_back"))
    route = control.route("agent")
    assert route is not None and (route.champion, route.challenger, route.revision) == (BASE, None, 8)
    assert back.route_revision == 8


def test_a_route_written_before_the_first_rollout_was_saved_is_not_overwritten(control: Store) -> None:
    read = rollout(route_revision=0)  # there was no route when its opener looked
    control.put_route(Route(agent="agent", champion=CLOUD))
    with pytest.raises(StaleWrite, match="at revision 1, r1 left it at 0"):
        control.save_rollout(read, AuditEntry("rollout opened", "roll_out", {}, 10.0))
    route = control.route("agent")
    assert route is not None and (route.champion, route.revision) == (CLOUD, 1)
    assert control.rollouts() == [] and control.audit_log() == []
    opened = control.save_rollout(rollout(agent="another", route_revision=0))
    assert opened.route_revision == 1, "nobody wrote that agent's"


@pytest.mark.parametrize("known", ["0", "null"])
def test_a_stored_rollout_that_does_not_know_its_route_moves_all_the_same(control: Store, at: At, known: str) -> None:
    control.save_rollout(rollout())
    ((body,),) = at.raw("SELECT body FROM rollouts")
    text = bytes(body).replace(b'"route_revision":1', f'"route_revision":{known}'.encode())
    assert text != bytes(body)
    at.raw(f"UPDATE rollouts SET body = decode('{text.hex()}', 'hex')" if at.settings.control_url else
           f"UPDATE rollouts SET body = x'{text.hex()}'")  # fmt: skip
    found = control.open_rollout("agent")
    assert found is not None and not found.route_revision
    moved = control.save_rollout(move(found, Decision(action="advance", reason="fine"), by="roll_out", now=20.0))
    assert (moved.stage, moved.route_revision) == ("20", 2)


def test_what_share_it_had_from_which_revision_on_is_kept(control: Store) -> None:
    r = control.save_rollout(rollout())
    for stage, share in (("20", None), ("20", 10), ("20", 10), ("50", None), ("100", None), ("watch", None)):
        r = control.save_rollout(msgspec.structs.replace(r, stage=stage, share=share))
    assert r.shares == ((1, 0), (2, 20), (3, 10), (5, 50), (6, 100))


def test_requests_and_approvals_come_back_as_given(control: Store, at: At) -> None:
    first = Request(
        agent="agent", version="1", adapter="a", adapter_sha256="s", evidence="e1", asked_at=1.0, expires=9.0
    )
    control.ask(first)
    again = msgspec.structs.replace(first, evidence="e2", asked_at=2.0, skips=("gate", "shadow"))
    control.ask(again)
    control.ask(msgspec.structs.replace(first, version="2", asked_at=3.0))
    assert control.request("agent", "1") == again and control.request("agent", "7") is None
    assert [r.version for r in control.requests()] == ["2", "1"]
    yes = Approval(id="x", agent="agent", version="1", evidence="e2", verdict="approved", by="ann", at=3.0, expires=9.0)
    control.record_approval(yes)
    control.record_approval(yes)
    with pytest.raises(StaleWrite):
        control.record_approval(msgspec.structs.replace(yes, verdict="rejected"))
    assert at.open().approvals("agent", "1") == [yes] and control.approvals("agent", "2") == []


def test_a_code_is_spent_once_over_all_connections(control: Store, at: At) -> None:
    results: list[bool] = []
    stores = [at.open() for _ in range(4)]
    threads = [threading.Thread(target=lambda s=s: results.append(s.spend_code("n", 1.0))) for s in stores]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(results) == [False, False, False, True]


def test_a_rejected_adapter_is_remembered_with_its_first_reason(control: Store) -> None:
    control.reject_adapter("hash", "agent", "rolled back: worse", 1.0)
    control.reject_adapter("hash", "agent", "again", 2.0)
    assert control.rejection("hash") == "rolled back: worse" and control.rejection("other") is None


def test_secrets_are_made_once(control: Store, at: At) -> None:
    assert control.secret("approval") == at.open().secret("approval")
    assert len(control.secret("approval")) == 32
    assert control.secret("approval") != control.secret("another")


def test_a_revoked_key_opens_nothing(control: Store) -> None:
    key, secret = control.create_key("client", "ci")
    assert control.revoke_key(key.id) is True
    assert control.revoke_key(key.id) is False and control.revoke_key("key-none") is False
    assert control.find_key(secret) is None
    assert control.keys() == [msgspec.structs.replace(key, revoked=True)]
    with pytest.raises(PawlError, match="roles are"):
        control.create_key("boss", "me")  # type: ignore[arg-type]


def test_a_key_keeps_its_terms(control: Store) -> None:
    terms = KeyTerms(agents=("a",), privacy="local_only", limits=LimitsSpec(requests_per_minute=5, usd_per_day=1.5))
    key, secret = control.create_key("client", "ci", terms)
    assert control.find_key(secret) == key and key.terms == terms and control.keys() == [key]


def test_a_rotated_key_works_with_both_secrets_for_a_while(control: Store) -> None:
    key, old = control.create_key("client", "ci")
    new = control.rotate_key(key.id, time.time() + 60)
    assert new and new != old and control.find_key(new) == control.find_key(old) == key
    newest = control.rotate_key(key.id, time.time() - 1)
    assert newest and control.find_key(newest) == key, "the key, its terms and its limits stay the same"
    assert control.find_key(old) is None and control.find_key(new) is None
    control.revoke_key(key.id)
    assert control.find_key(newest) is None and control.rotate_key(key.id, 0) is None


def test_spending_adds_up_over_connections(control: Store, at: At) -> None:
    other = at.open()
    control.spend([Spent("key:k", "2026-11-21", 0.25, 10, 1), Spent("agent:a", "2026-11", 0.5, 20, 2)])
    other.spend([Spent("key:k", "2026-11-21", 0.5, 5, 1)])
    assert control.spending(["2026-11-21"]) == [Spent("key:k", "2026-11-21", 0.75, 15, 2)]
    assert len(control.spending(["2026-11-21", "2026-11"])) == 2 and control.spending(["2025-01"]) == []


def test_many_audit_entries_are_one_chain(control: Store) -> None:
    control.audit("first", "ann", {}, 1.0)
    control.audit_many([AuditEntry("cloud call", "key-1", {"n": n}, 2.0 + n) for n in range(5)])
    control.audit_many([])
    assert control.verify_audit() is None and [e["seq"] for e in control.audit_log()] == [1, 2, 3, 4, 5, 6]


def test_the_audit_log_is_whole_and_ordered(control: Store, at: At) -> None:
    assert control.verify_audit() is None and control.audit_log() == []
    control.audit("asked", "ann", {"b": [1, 2.5, None], "a": "ü"}, 1)
    at.open().audit("approved", "bo", {}, 2.5)
    assert control.verify_audit() is None
    assert [(e["seq"], e["event"], e["by"], e["at"]) for e in control.audit_log()] == [
        (1, "asked", "ann", 1.0),
        (2, "approved", "bo", 2.5),
    ]
    assert control.audit_log()[0]["detail"] == {"a": "ü", "b": [1, 2.5, None]}


@pytest.mark.parametrize(
    "attack",
    [
        "UPDATE audit SET detail = '{}' WHERE seq = 2",
        "UPDATE audit SET by = 'eve' WHERE seq = 1",
        "UPDATE audit SET at = 99 WHERE seq = 3",
        "UPDATE audit SET event = 'asked2' WHERE seq = 2",
        "DELETE FROM audit WHERE seq = 1",
        "DELETE FROM audit WHERE seq = 2",
        "DELETE FROM audit WHERE seq = 3",
        "DELETE FROM audit",
        "INSERT INTO audit VALUES (4, 4.0, 'x', 'eve', '{}', 'abc')",
    ],
)
def test_tampering_shows(control: Store, at: At, attack: str) -> None:
    for n in (1, 2, 3):
        control.audit("asked", "ann", {"n": n}, float(n))
    if not attack.startswith("INSERT"):
        with pytest.raises((sqlite3.IntegrityError, psycopg2.Error), match="append-only"):
            at.raw(attack)
    if at.settings.control_url:
        unguarded = ("ALTER TABLE audit DISABLE TRIGGER audit_is_never_changed",)
    else:
        unguarded = ("DROP TRIGGER audit_is_never_changed", "DROP TRIGGER audit_is_never_cut")
    at.raw(*unguarded, attack)
    assert control.verify_audit() is not None


def test_a_chain_that_was_computed_anew_shows_by_its_end(at: At, control: Store, tmp_path: Path) -> None:
    for n in (1, 2):
        control.audit("asked", "ann", {"n": n}, float(n))
    forged = SqliteControl(tmp_path / "forged.sqlite")
    forged.audit("asked", "ann", {"n": 1}, 1.0)
    forged.audit("asked", "eve", {"n": 2}, 2.0)
    link = forged.audit_log()[1]["hash"]
    guard = "ALTER TABLE audit DISABLE TRIGGER" if at.settings.control_url else "DROP TRIGGER"
    at.raw(f"{guard} audit_is_never_changed", f"UPDATE audit SET by = 'eve', hash = '{link}' WHERE seq = 2")
    assert "written anew" in (control.verify_audit() or "")
    for attack in ("UPDATE audit_head SET seq = 1", "UPDATE audit_head SET hash = ''", "DELETE FROM audit_head"):
        with pytest.raises((sqlite3.IntegrityError, psycopg2.Error), match="append-only"):
            at.raw(attack)


def test_threads_share_one_store(control: Store) -> None:
    def work(name: str) -> None:
        for n in range(20):
            control.audit("step", name, {"n": n}, float(n))
            control.changes()

    threads = [threading.Thread(target=work, args=(f"t{i}",)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(control.audit_log()) == 80 and control.verify_audit() is None


def test_what_was_acknowledged_survives_kill_9(at: At) -> None:
    script = (
        "from pawl import bootstrap\n"
        "from pawl.settings import Settings\n"
        "c = bootstrap.control(Settings())\n"
        "for n in range(1000000):\n"
        "    c.audit('step', 'child', {'n': n}, float(n))\n"
        "    print(n, flush=True)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=at.environment)
    assert child.stdout is not None
    acknowledged = [child.stdout.readline() for _ in range(25)]
    child.kill()
    acknowledged += child.stdout.read().splitlines(keepends=True)
    child.wait()
    last = max(int(line) for line in acknowledged if line.endswith("\n"))
    store = at.open()
    assert len(store.audit_log()) >= last + 1 and store.verify_audit() is None


def test_rows_are_quarantined_once_and_let_go_by_somebody(control: Store, at: At) -> None:
    assert control.quarantine("interactions", "agent", {"i1": "status", "i2": "status"}, 1.0) == 2
    assert control.quarantine("interactions", "agent", {"i2": "cost", "i3": "cost"}, 2.0) == 1
    assert control.quarantine("feedback", "other", {"i1": "score"}, 3.0) == 1, "ids of another table"
    held = at.open().quarantined("agent")
    assert [(q.row, q.rule, q.at) for q in held] == [("i1", "status", 1.0), ("i2", "status", 1.0), ("i3", "cost", 2.0)]
    assert {(q.table, q.agent) for q in control.quarantined()} == {("interactions", "agent"), ("feedback", "other")}
    assert control.release("interactions", ["i1", "i3", "unknown"], "ann", 4.0) == 2
    assert control.release("interactions", ["i1"], "bob", 5.0) == 0
    assert [q.row for q in control.quarantined("agent")] == ["i2"] and len(control.quarantined("other")) == 1
    assert control.quarantine("interactions", "agent", {"i1": "again"}, 6.0) == 1, "let go, and it failed again"
    assert [(q.row, q.rule, q.at) for q in control.quarantined("agent")] == [
        ("i2", "status", 1.0),
        ("i1", "again", 6.0),
    ]
    kept = at.raw("SELECT row, released_at, released_by FROM quarantine WHERE row = 'i1'")
    assert ("i1", 4.0, "ann") in kept, "who let it go stays known"
    assert control.quarantine("interactions", "agent", {}, 7.0) == 0


def test_a_hundred_thousand_rows_are_quarantined_in_one_commit(control: Store) -> None:
    rows = {f"chatcmpl-{n:032x}": "status is between 0 and 599" for n in range(100_000)}
    assert control.quarantine("interactions", "agent", rows, 1.0) == 100_000
    assert {q.row for q in control.quarantined("agent")} == rows.keys()
    assert control.release("interactions", rows, "ann", 2.0) == 100_000 and control.quarantined() == []


def test_a_rollout_stored_by_an_earlier_version_goes_on(control: Store, at: At) -> None:
    """Before shares, bands and a field for a person's hold."""
    opened = control.save_rollout(rollout(stage="20"))
    control.save_rollout(move(opened, Decision(action="hold", reason="ann: holidays"), by="ann", now=20.0))
    ((body,),) = at.raw("SELECT body FROM rollouts")
    then = msgspec.json.decode(body)
    for field in ("by_hand", "share", "shares", "route_revision"):
        del then[field]
    for field in ("bands", "stall", "stall_hours", "min_quality", "non_inferiority", "max_privacy_blocks"):
        del then["spec"][field]
    text = msgspec.json.encode(then).hex()
    at.raw(f"UPDATE rollouts SET body = decode('{text}', 'hex')" if at.settings.control_url else
           f"UPDATE rollouts SET body = x'{text}'")  # fmt: skip
    found = control.open_rollout("agent")
    assert found is not None and found.held and found.waits_for_a_person and not found.by_hand
    halved = control.save_rollout(move(found, Decision(action="halve", reason="band"), by="watchdog", now=30.0))
    assert (halved.share, halved.shares, halved.waits_for_a_person) == (10, ((3, 10),), True)
    back = control.save_rollout(move(halved, Decision(action="rollback", reason="worse"), by="watchdog", now=40.0))
    route = control.route("agent")
    assert back.stage == "rolled_back" and route is not None and route.challenger is None


@pytest.mark.parametrize("name", ["watchdog", "roll_out"])
def test_nobody_bears_the_name_that_automation_signs_with(control: Store, name: str) -> None:
    with pytest.raises(PawlError, match="automation"):
        control.create_key("operator", name)
    assert control.keys() == []


def test_a_writer_that_is_killed_in_the_middle_leaves_nothing_and_lets_others_write(at: At, control: Store) -> None:
    saved = control.save_rollout(rollout())
    script = (
        "import sys, time, msgspec\n"
        "from pawl import bootstrap\n"
        "from pawl.rollout.control import AuditEntry\n"
        "from pawl.rollout.control_sql_audit import append_audit\n"
        "from pawl.settings import Settings\n"
        "c = bootstrap.control(Settings())\n"
        "with c.transaction() as db:\n"
        "    db.execute('UPDATE rollouts SET revision = 9')\n"
        "    append_audit(db, [AuditEntry('half', 'child', {}, 1.0)])\n"
        "    print('in it', flush=True)\n"
        "    time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=at.environment)
    assert child.stdout is not None and child.stdout.readline() == "in it\n"
    waited: list[float] = []

    def write() -> None:
        began = time.monotonic()
        at.open().audit("whole", "me", {}, 2.0)
        waited.append(time.monotonic() - began)

    writer = threading.Thread(target=write)
    writer.start()
    time.sleep(0.4)
    child.kill()
    child.wait()
    writer.join(10)
    assert waited and 0.3 < waited[0] < 5, "it waited for the one who was writing, and no longer than that one lived"
    assert [e["event"] for e in control.audit_log()] == ["whole"] and control.verify_audit() is None
    moved = control.save_rollout(move(saved, Decision(action="advance", reason="fine"), by="roll_out", now=20.0))
    assert moved.revision == 2


def test_a_move_its_route_and_its_entry_are_one_write(at: At, control: Store) -> None:
    opened = control.save_rollout(rollout(), AuditEntry("opened", "roll_out", {"n": 1}, 10.0))
    # An entry that cannot be written takes the move and its route with it.
    wrong = AuditEntry("moved", None, {}, 11.0)  # type: ignore[arg-type]
    with pytest.raises(PawlError):
        control.save_rollout(move(opened, Decision(action="advance", reason="fine"), by="roll_out", now=20.0), wrong)
    route = control.route("agent")
    assert control.rollout("r1") == opened and route is not None and route.revision == 1
    assert [e["event"] for e in at.open().audit_log()] == ["opened"] and control.verify_audit() is None


def test_processes_that_write_at_once_make_one_chain(at: At, control: Store) -> None:
    script = (
        "import sys\n"
        "from pawl import bootstrap\n"
        "from pawl.settings import Settings\n"
        "c = bootstrap.control(Settings())\n"
        "for n in range(40):\n"
        "    c.audit('step', sys.argv[1], {'n': n}, float(n))\n"
    )
    children = [subprocess.Popen([sys.executable, "-c", script, f"p{n}"], env=at.environment) for n in range(3)]
    assert [child.wait(60) for child in children] == [0, 0, 0]
    log = control.audit_log()
    assert len(log) == 120 and control.verify_audit() is None
    for n in range(3):
        assert [e["detail"]["n"] for e in log if e["by"] == f"p{n}"] == list(range(40))
