"""MLflow with accounts as mlflow/basic_auth.ini sets them up: who may move an alias, tag a version, send a trace. On a
real server; and what moved an alias all the same is found and put back."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pawl import bootstrap
from pawl.cli import app
from pawl.errors import NotAllowed
from pawl.improvement import alias_watch
from pawl.improvement.workplace import Workplace
from pawl.registry.mlflow_accounts import ensure_person
from pawl.registry.mlflow_authorization import moves_alias
from pawl.registry.mlflow_registry import MlflowRegistry
from pawl.registry.mlflow_webhooks import ensure
from pawl.settings import Settings
from tests.integration.mlflow_process import LiveMlflow
from tests.integration.test_control_roles import installed
from tests.postgres_embedded import Postgres
from tests.tiny_adapter import make_adapter, tensors

AGENT = "functional-negative"
ADMIN = "a long password of the administrator"


@pytest.mark.parametrize(
    ("method", "path", "moves"),
    [
        ("POST", "/api/2.0/mlflow/registered-models/alias", True),
        ("DELETE", "/ajax-api/2.0/mlflow/registered-models/alias", True),
        ("DELETE", "/prefix/api/2.0/mlflow/registered-models/alias/", True),
        ("PATCH", "/api/2.0/mlflow/registered-models/alias", True),  # no such route today
        ("GET", "/api/2.0/mlflow/registered-models/alias", False),
        ("POST", "/api/2.0/mlflow/model-versions/set-tag", False),
        ("POST", "/api/2.0/mlflow/registered-models/create", False),
    ],
)
def test_what_moves_an_alias(method: str, path: str, moves: bool) -> None:
    assert moves_alias(method, path) is moves


def test_every_route_of_mlflow_about_aliases_is_known() -> None:
    from mlflow.server import handlers

    routes = [(m, path) for path, _, methods in handlers.get_endpoints() for m in methods if "alias" in path]
    assert {(m, moves_alias(m, path)) for m, path in routes} == {("POST", True), ("DELETE", True), ("GET", False)}


@pytest.fixture
def server(
    tmp_path: Path, root: Path, unused: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> Iterator[LiveMlflow]:
    (tmp_path / "mlflow" / ".pawl").mkdir(parents=True)
    env = {
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "a key of this test's server",
        "MLFLOW_AUTH_CONFIG_PATH": str(root / "mlflow" / "basic_auth.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN,
    }
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    made = LiveMlflow(tmp_path / "mlflow", unused(), env, "--app-name", "basic-auth")
    yield made
    made.stop()


@pytest.mark.servers
def test_one_account_alone_moves_aliases(
    server: LiveMlflow, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    told = {"HOME": str(tmp_path / "home"), "FLEET": str(root / "infra" / "fleet.yaml"), "MLFLOW_ACCOUNTS": "true"}
    for name, value in (told | {"MLFLOW_PORT": server.url.rsplit(":", 1)[1]}).items():
        monkeypatch.setenv(f"PAWL_{name}", value)
    settings = Settings()

    def act_as(account: str, password: str = "") -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", account)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password or bootstrap.mlflow_password(settings, account))

    client, registry = MlflowClient(server.url, server.url), MlflowRegistry(server.url)
    act_as("admin", ADMIN)
    ensure_person(server.url, "ann", "a password of ann's own")
    act_as("ann", "a password of ann's own")
    # Ann made a model before there were rules: MLflow lets its creator manage it.
    client.create_registered_model("early")
    act_as("admin", ADMIN)
    for _ in range(2):  # may be repeated
        done = CliRunner().invoke(app, ["registry", "accounts"], catch_exceptions=False)
        assert "pawl-promotion moves aliases from now on" in done.output

    act_as(settings.mlflow_promoter)
    one = registry.register(AGENT, make_adapter(tmp_path / "a", tensors(0.1)), {"evidence": "e"}, {})
    two = registry.register(AGENT, make_adapter(tmp_path / "b", tensors(0.2)), {"evidence": "e"}, {})
    early = registry.register("early", make_adapter(tmp_path / "c", tensors(0.3)), {}, {})
    registry.move_alias(AGENT, "champion", one.number)
    registry.move_alias("early", "champion", early.number)
    registry.drop_alias("early", "champion")

    for account, password in (("admin", ADMIN), ("ann", "a password of ann's own")):
        act_as(account, password)
        assert registry.by_alias(AGENT, "champion") == one, "everybody may look"
        with pytest.raises(NotAllowed, match="MLFLOW_TRACKING_USERNAME"):
            registry.move_alias(AGENT, "champion", two.number)
        with pytest.raises(NotAllowed):
            registry.drop_alias(AGENT, "champion")
        with pytest.raises(NotAllowed):
            registry.move_alias("early", "champion", early.number)
        registry.tag(AGENT, two.number, "approval_code", "pawl1.what.ever")
    with pytest.raises(NotAllowed):
        registry.register(AGENT, make_adapter(tmp_path / "d", tensors(0.4)), {}, {})
    with pytest.raises(NotAllowed):
        ensure(server.url, "http://127.0.0.1:9/", "secret")
    act_as("ann", "a wrong password")
    with pytest.raises(NotAllowed):
        registry.versions(AGENT)
    act_as("admin", ADMIN)
    assert ensure(server.url, "http://127.0.0.1:9/", "secret"), "the webhook is an administrator's to set"

    # What trains and promotes here is the promotion account without being told.
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
    place = Workplace(settings, AGENT)
    alias_watch.move(place, "champion", two.number)
    found = place.registry.by_alias(AGENT, "champion")
    assert found is not None and found.number == two.number == alias_watch.named(place, "champion")

    # The gateway's traces come under an account of their own.
    shown = CliRunner().invoke(app, ["registry", "telemetry"], catch_exceptions=False).output.strip()
    sent = dict([shown.replace("%20", " ").split("=", 1)])
    assert base64.b64decode(sent["Authorization"].split()[1]).startswith(b"pawl-telemetry:")
    assert [exported(server.url, headers) for headers in ({}, sent)] == [False, True]


@pytest.mark.servers
def test_accounts_that_the_databases_owner_made_serve_flows_under_their_role(
    server: LiveMlflow, postgres: Postgres, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roles = installed(postgres)
    roles.grant()
    told = {"HOME": str(tmp_path / "home"), "FLEET": str(root / "infra" / "fleet.yaml"), "MLFLOW_ACCOUNTS": "true"}
    for name, value in (told | {"MLFLOW_PORT": server.url.rsplit(":", 1)[1]}).items():
        monkeypatch.setenv(f"PAWL_{name}", value)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", ADMIN)
    monkeypatch.setenv("PAWL_CONTROL_URL", roles.owner)
    CliRunner().invoke(app, ["registry", "accounts"], catch_exceptions=False)

    # monkeypatch sets it back: what trains sets these two by itself.
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PAWL_CONTROL_URL", roles.gateway)
    with pytest.raises(NotAllowed):
        bootstrap.registry(Settings())
    assert "MLFLOW_TRACKING_USERNAME" not in os.environ, "a name without a password would be refused for ever"
    monkeypatch.setenv("PAWL_CONTROL_URL", roles.flow)
    registry = bootstrap.registry(Settings())
    one = registry.register(AGENT, make_adapter(tmp_path / "a", tensors(0.1)), {"evidence": "e"}, {})
    registry.move_alias(AGENT, "champion", one.number)
    assert registry.by_alias(AGENT, "champion") == one


def exported(url: str, headers: dict[str, str]) -> bool:
    """Whether MLflow takes a span."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

    class Kept(SpanExporter):
        result = None

        def export(self, spans):  # type: ignore[no-untyped-def]
            real = OTLPSpanExporter(f"{url}/v1/traces", headers={"x-mlflow-experiment-id": "0", **headers}, timeout=5)
            self.result = real.export(spans)
            return self.result

    kept, provider = Kept(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    provider.get_tracer("a test").start_span("a call").end()
    return bool(kept.result == SpanExportResult.SUCCESS)


@pytest.mark.servers
def test_an_alias_that_something_else_moved_is_put_back(
    mlflow_url: str, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, unused: Callable[[], int]
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    port, agent = int(mlflow_url.rsplit(":", 1)[1]), "watched-aliases"
    settings = Settings(home=tmp_path, fleet=root / "infra" / "fleet.yaml", mlflow_port=port, prefect_port=unused())
    place, client = Workplace(settings, agent), MlflowClient(mlflow_url, mlflow_url)
    one, two, three = (
        place.registry.register(agent, make_adapter(tmp_path / f"{n}", tensors(0.1 * n)), {}, {}) for n in (1, 2, 3)
    )

    def looked() -> list[alias_watch.Stray]:
        return alias_watch.watch(place, time.time(), wait=lambda s: None)

    def audited() -> list[str]:
        assert place.control.verify_audit() is None
        return [e["event"] for e in place.control.audit_log()]

    client.set_registered_model_alias(agent, "champion", one.number)  # from before anybody watched
    assert looked() == [] and audited() == ["alias taken for right"]
    alias_watch.move(place, "champion", two.number)
    alias_watch.move(place, "previous", one.number)
    alias_watch.drop(place, "challenger")
    assert looked() == []
    # Through MLflow's own client or page:
    client.set_registered_model_alias(agent, "champion", three.number)
    client.set_registered_model_alias(agent, "challenger", three.number)
    client.delete_registered_model_alias(agent, "previous")
    client.set_registered_model_alias(agent, "of-their-own", three.number)
    assert looked() == [
        alias_watch.Stray("champion", two.number, three.number, True),
        alias_watch.Stray("challenger", "", three.number, True),
        alias_watch.Stray("previous", one.number, "", True),
    ]
    assert client.get_registered_model(agent).aliases == {
        "champion": two.number, "previous": one.number, "of-their-own": three.number,
    }  # fmt: skip
    assert audited().count("alias moved by something else") == 3
    assert looked() == []
    # A crash between what is expected and the move itself: the watch completes it.
    alias_watch._expect(place, "champion", three.number)
    assert [s.put_back for s in looked()] == [True]
    assert place.registry.by_alias(agent, "champion") == three
    # A version that is gone cannot be named again: told once, not each minute.
    client.delete_model_version(agent, three.number)
    assert [s.put_back for s in looked()] == [False] == [s.put_back for s in looked()]
    assert audited().count("alias moved by something else") == 5


def test_promotion_that_moves_one_at_this_moment_is_no_stray(tmp_path: Path, root: Path) -> None:
    from pawl.registry.memory_registry import MemoryRegistry
    from tests.integration.promotion_place import Place

    settings = Settings(home=tmp_path, fleet=root / "infra" / "fleet.yaml")
    place = Place(settings, AGENT, MemoryRegistry())
    one = place.registry.register(AGENT, make_adapter(tmp_path / "a", tensors(0.1)), {}, {})
    alias_watch.watch(place, 1.0)
    alias_watch._expect(place, "champion", one.number)
    # The registry follows while the watch waits to be sure.
    moved = alias_watch.watch(place, 2.0, wait=lambda s: place.registry.move_alias(AGENT, "champion", one.number))
    assert moved == [] and place.control.audit_log() == []
