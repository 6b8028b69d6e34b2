"""Gateways on a real PostgreSQL as control database: they obey one another's writes, and outlive its end."""

from __future__ import annotations

import re
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pawl.errors import ControlUnavailable, NotAllowed
from pawl.fleet.spec import RolloutSpec
from pawl.rollout.control import Approval
from pawl.rollout.control_postgres import PostgresControl
from pawl.rollout.route import Arm, Route
from pawl.rollout.state import Decision, Rollout, move
from tests.integration.gateway_process import FLEET, PROMPT, LiveGateway
from tests.integration.openai_upstream import Upstream
from tests.ports import free_port
from tests.postgres_embedded import Postgres
from tests.waiting import Took, until

AGENT = "functional-negative"
CHAT = "/v1/chat/completions"
ASK = {"model": AGENT, "messages": [{"role": "user", "content": PROMPT}]}
BASE = Arm("base", "local", "base", "local")
NEW = Arm("fn-v2-abc", "local", "fn-v2-abc", "local")
PLAIN = FLEET.replace("    shadow: cloud\n", "")


def arm(live: LiveGateway, session: str = "s") -> str:
    status, body = live.request(CHAT, ASK, headers={"x-pawl-session": session})
    assert status == 200, body
    return str(body["choices"][0]["message"]["content"]).removeprefix("I am ")


def opened() -> Rollout:
    return Rollout(
        id="r1", agent=AGENT, version="2", champion=BASE, challenger=NEW, stage="100", opened_at=time.time(),
        stage_since=time.time(), spec=RolloutSpec(),
    )  # fmt: skip


def test_gateways_with_homes_of_their_own_obey_a_rollback(
    tmp_path: Path, upstream: Upstream, postgres: Postgres
) -> None:
    url = postgres.database()
    two = [LiveGateway(tmp_path / name, free_port(), upstream, PLAIN, {"PAWL_CONTROL_URL": url}) for name in ("a", "b")]
    try:
        control = PostgresControl(url)
        rollout = control.save_rollout(opened())
        for live in two:
            until(lambda live=live: arm(live) == "fn-v2-abc", 3)  # type: ignore[misc]
        # Either key is good at either gateway: they are the database's.
        assert two[0].request(CHAT, ASK, key=two[1].key)[0] == 200
        control.save_rollout(move(rollout, Decision(action="rollback", reason="worse"), by="watchdog", now=time.time()))
        with Took() as took:
            for live in two:
                until(lambda live=live: arm(live) == "base", 2)  # type: ignore[misc]
        assert took.seconds < 1.0
    finally:
        for live in two:
            live.stop()


@pytest.fixture
def mortal() -> Iterator[Postgres]:
    """A server of the test's own, with a password for one role."""
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        made = Postgres(Path(folder) / "data")
        yield made
        made.stop()


def test_a_gateway_goes_on_while_postgres_is_dead_and_finds_it_again(
    tmp_path: Path, upstream: Upstream, mortal: Postgres
) -> None:
    secret = "not-for-logs-7f3a"
    mortal.run(f"CREATE ROLE pawl LOGIN SUPERUSER PASSWORD '{secret}'")
    database = re.sub(r".*/(t\w+)\?.*", r"\1", mortal.database())
    url = mortal.url(database, "pawl", secret)
    live = LiveGateway(tmp_path / "home", free_port(), upstream, PLAIN, {"PAWL_CONTROL_URL": url})
    try:
        control = PostgresControl(url)
        assert secret not in repr(control) and secret not in repr(live.settings) and secret not in str(live.settings)
        route = control.put_route(Route(agent=AGENT, champion=NEW))
        until(lambda: arm(live) == "fn-v2-abc", 3)
        statuses: list[tuple[int, float]] = []
        over = threading.Event()

        def ask() -> None:
            while not over.is_set():
                began = time.monotonic()
                statuses.append((live.request(CHAT, ASK)[0], time.monotonic() - began))

        asking = threading.Thread(target=ask)
        asking.start()
        mortal.kill()
        with pytest.raises(ControlUnavailable, match=r"cannot be reached|failed") as lost:
            control.put_route(route)
        assert secret not in str(lost.value) and secret not in repr(lost.value.__cause__)
        time.sleep(2.5)  # longer than keys are kept without asking
        assert live.request(CHAT, ASK, key="pawl_unknown")[0] == 503, "nobody knows whether that one is good"
        assert live.metric("pawl_refused_total", limit="control database") == 1
        assert live.process.poll() is None and "the routes of" in live.log
        mortal.start()
        until(lambda: "the control database is back" in live.log, 15)
        over.set()
        asking.join()
        assert {status for status, _ in statuses} == {200}, "clients noticed nothing"
        assert len(statuses) > 30 and max(took for _, took in statuses) < 3
        # The same store object finds the server again, and the gateway what is written now.
        control.put_route(Route(agent=AGENT, champion=BASE, revision=route.revision))
        until(lambda: arm(live) == "base", 3)
        assert live.request(CHAT, ASK, key="pawl_unknown")[0] == 401
        assert secret not in live.log
    finally:
        live.stop()


def test_a_server_that_is_not_there_or_a_wrong_password_is_said_without_it(tmp_path: Path) -> None:
    secret = "not-for-logs-7f3a"
    with pytest.raises(ControlUnavailable, match="cannot be reached") as gone:
        PostgresControl(f"postgresql://pawl:{secret}@127.0.0.1:{free_port()}/pawl")
    assert secret not in str(gone.value) and "pawl@127.0.0.1" in str(gone.value)
    assert gone.value.__cause__ is None


def test_roles_may_do_what_their_part_needs_and_no_more(postgres: Postgres, tmp_path: Path, upstream: Upstream) -> None:
    from pawl.rollout.control_grants import grants

    url = postgres.database()
    database = re.sub(r".*/(t\w+)\?.*", r"\1", url)
    gateway_role, flow_role = f"gateway_{database}", f"flow_{database}"
    for role in (gateway_role, flow_role):
        postgres.run(f"CREATE ROLE {role} LOGIN")
    postgres.run(";".join(grants(gateway_role, flow_role)), url)
    owner = PostgresControl(url)
    gateway, flow = (PostgresControl(postgres.url(database, role)) for role in (gateway_role, flow_role))
    yes = Approval(id="x", agent="agent", version="1", evidence="e", verdict="approved", by="eve", at=1.0, expires=9.0)
    for refused in (
        lambda: gateway.record_approval(yes),
        lambda: gateway.create_key("admin", "eve"),
        lambda: gateway.revoke_key("key-1"),
        lambda: gateway.secret("approval"),
        lambda: gateway.reject_adapter("a", "agent", "why", 1.0),
        lambda: flow.create_key("admin", "eve"),
        lambda: flow.rotate_key(owner.create_key("client", "ci")[0].id, 0.0),
    ):
        with pytest.raises(NotAllowed, match="may not do this"):
            refused()
    assert owner.approvals("agent", "1") == []
    for role in (gateway_role, flow_role):
        for attack in (
            "UPDATE audit SET by = 'eve'",
            "DELETE FROM audit",
            "TRUNCATE audit",
            "UPDATE audit_head SET seq = 0",
            "DROP TRIGGER audit_is_never_changed ON audit",
            "UPDATE clock SET ticks = 0",
        ):
            with pytest.raises(Exception, match=r"permission denied|must be owner"):
                postgres.run(attack, postgres.url(database, role))
    flow.record_approval(yes)
    flow.reject_adapter("a", "agent", "why", 1.0)
    assert flow.spend_code("n", 1.0) and len(flow.secret("approval")) == 32
    # A whole gateway under its role: it answers, counts what is spent, and rolls back what is worse.
    before = owner.changes()
    rollout = flow.save_rollout(opened())
    assert owner.changes() > before
    env = {"PAWL_CONTROL_URL": postgres.url(database, gateway_role)}
    (tmp_path / "home").mkdir()
    live = LiveGateway(tmp_path / "home", free_port(), upstream, PLAIN, env, keys=owner)
    try:
        assert arm(live) == "fn-v2-abc"
        until(lambda: len(owner.spending([time.strftime("%Y-%m-%d", time.gmtime())])) > 0, 5)
        gateway.save_rollout(move(rollout, Decision(action="rollback", reason="worse"), by="watchdog", now=time.time()))
        until(lambda: arm(live) == "base", 3)
        assert "may not do this" not in live.log, live.log
    finally:
        live.stop()
    assert owner.verify_audit() is None
