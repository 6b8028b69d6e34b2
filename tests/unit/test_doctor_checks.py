"""Each check of `pawl doctor` by its facts, both ways."""

from __future__ import annotations

import threading
import time
from typing import Any

import psutil
import pytest

from pawl.errors import PawlError
from pawl.platform import checks_machine as machine
from pawl.platform import checks_record as record
from pawl.platform import checks_services as services
from pawl.platform import facts_machine
from pawl.platform.checks_machine import Guarded
from pawl.platform.checks_services import Deployment, Run
from pawl.platform.doctor import Check, all_of
from pawl.platform.findings import Finding, ok, worst
from pawl.platform.standing import Standing
from pawl.rollout.control import Request
from pawl.serving.desired import Lease

GB = 2**30
NOW = 1_800_000_000.0


def levels(found: list[Finding]) -> list[str]:
    return [f.level for f in found]


def only(found: list[Finding]) -> Finding:
    (one,) = found
    assert (one.level == "ok") == (one.todo == ""), "what is not well says what to do"
    return one


def test_versions() -> None:
    lock = {"prefect": "3.7.7", "rich": "1.0", "torch": "2.13.0"}
    assert levels(machine.versions((3, 11), lock, {**lock, "torch": "2.13.0+cpu"})) == ["ok", "ok"]
    assert levels(machine.versions((3, 13), {}, {})) == ["fail", "ok"]
    assert levels(machine.versions((3, 11), lock, {**lock, "rich": "2.0"})) == ["ok", "warn"]
    grave = machine.versions((3, 11), lock, {"rich": "1.0", "torch": "2.12.0"})[1]
    assert grave.level == "fail" and "prefect missing (locked 3.7.7)" in grave.what and "torch 2.12.0" in grave.what
    cron = machine.versions((3, 11), {}, {"sqlalchemy": "2.1.9"})
    assert "fail" in levels(cron) and "cron" in cron[1].todo


@pytest.mark.parametrize(
    ("free", "size", "level"),
    [(50, 200, "ok"), (5, 50, "warn"), (9, 200, "warn"), (1, 10, "fail"), (9, 500, "fail")],
)
def test_disk(free: int, size: int, level: str) -> None:
    assert only(machine.disk(free * GB, size * GB, ".pawl")).level == level


def test_memory_and_files() -> None:
    assert only(machine.memory(20 * GB, False)).level == "ok" == only(machine.memory(3 * GB, True)).level
    assert only(machine.memory(3 * GB, False)).level == "warn"
    assert only(machine.memory(GB // 2, True)).level == "fail"
    assert only(machine.descriptors(65536, {"gateway": (100, 65536)})).level == "ok"
    assert only(machine.descriptors(1024, {})).level == "warn"
    assert "gateway has 900 of 1024" in only(machine.descriptors(65536, {"gateway": (900, 1024)})).what


def test_sandbox_clock_and_allocator() -> None:
    assert only(machine.sandbox("bubblewrap", None, "x")).level == "ok"
    assert only(machine.sandbox("guard", "guard", "x")).level == "ok"
    assert only(machine.sandbox("guard", None, "install bwrap")).level == "warn"
    assert only(machine.sandbox("guard", "namespaces", "install bwrap")).level == "fail"
    assert only(machine.sandbox(None, None, "install bwrap")).todo == "install bwrap"
    assert only(machine.clock(True, NOW, NOW - 5)).level == "ok" == only(machine.clock(None, NOW, None)).level
    assert only(machine.clock(False, NOW, None)).level == "warn"
    assert only(machine.clock(True, NOW, NOW + 3600)).level == "fail"
    assert (
        only(machine.allocator("/lib/libtcmalloc_minimal.so.4", 0)).level
        == "ok"
        == only(machine.allocator("", 2)).level
    )
    assert only(machine.allocator("/lib/libiomp5.so", 0)).level == "warn"


def test_permissions() -> None:
    well = [Guarded("home", 0o755, True, False), Guarded("control.sqlite", 0o600, True, True)]
    assert only(machine.permissions(well)).level == "ok"
    for wrong in (Guarded("home", 0o775, True, False), Guarded("a.key", 0o640, True, True)):
        found = only(machine.permissions([*well, wrong]))
        assert (found.level, found.fix) == ("fail", "permissions") and "chmod" in found.todo
    assert only(machine.permissions([Guarded("a.key", 0o600, False, True)])).level == "warn"


def test_servers_and_ports() -> None:
    up = Standing("mlflow", "up", 1, NOW, 100.0, 8720)
    assert only(machine.servers([up], {})).level == "ok"
    gone = Standing("gateway", "down", port=8700)
    assert "held by process 5" in only(machine.servers([up, gone], {"gateway": "process 5 (nginx)"})).what
    assert only(machine.servers([up, gone], {})).level == "fail"
    assert only(machine.servers([Standing("gateway", "busy", 3, port=8700)], {})).level == "fail"
    assert only(machine.servers([Standing("gateway", "off", port=8700)], {})).level == "warn"
    assert only(machine.servers([Standing("mlflow", "up", 1, NOW, 1.0, 8720, restarts=4)], {})).level == "warn"


def test_fleet_and_control() -> None:
    assert only(record.fleet("fleet.yaml", [], 2)).level == "ok"
    assert "line 3: x" in only(record.fleet("fleet.yaml", ["line 3: x"], 0)).what
    assert levels(record.control("db", None, None, None)) == ["ok", "ok"]
    assert only(record.control("db", "malformed", None, None)).check == "control database"
    assert only(record.control("db", None, None, "entry 3 was changed")).check == "audit log"
    assert "pawl database upgrade" in only(record.control("db", None, ("0001", "0002"), None)).todo


def test_journal() -> None:
    assert (
        only(record.journal(None, 0, 0, {}, NOW)).level == "ok" == only(record.journal(NOW - 60, 3, 0, {}, NOW)).level
    )
    late, old = record.journal(NOW - 4 * 3600, 3, 0, {}, NOW), record.journal(NOW - 30 * 3600, 3, 0, {}, NOW)
    assert (only(late).level, only(old).level, only(late).fix) == ("warn", "fail", "ingest")
    assert only(record.journal(NOW, 1, 1, {}, NOW)).level == "warn"
    assert "3 line(s) of 2 file(s)" in only(record.journal(NOW, 1, 0, {"a.damaged": 1, "b.damaged": 2}, NOW)).what


def test_leases_and_approvals() -> None:
    held = Lease("a-v1", "/a", "an evaluation", NOW + 600)
    assert only(record.leases([held], NOW)).level == "ok"
    assert only(record.leases([held], NOW + 700)).fix == "leases"
    assert only(record.leases([held], NOW - 9 * 3600)).level == "warn"
    waiting = Request(
        agent="a", version="2", adapter="a-v2", adapter_sha256="0", evidence="e", asked_at=NOW, expires=NOW + 3 * 86400
    )
    assert only(record.approvals([waiting], NOW)).level == "ok"
    assert "expires in" in only(record.approvals([waiting], NOW + 2.5 * 86400)).what
    assert "pawl approvals renew a 2" in only(record.approvals([waiting], NOW + 4 * 86400)).todo


def test_aliases_models_and_adapters() -> None:
    assert only(record.aliases([("a", "champion", "3", "3"), ("a", "previous", "", "")])).level == "ok"
    assert "names version 4 and should name 3" in only(record.aliases([("a", "champion", "3", "4")])).what
    name = "a-v1-12345678"
    assert only(record.models("base", None, {name: None}, [name])).level == "ok"
    assert only(record.models("base", "truncated", {}, [])).level == "fail"
    assert only(record.models("", None, {}, [])).level == "warn"
    assert only(record.models("base", None, {name: "hashes to 0"}, [name])).level == "fail"
    assert only(record.models("base", None, {name: "hashes to 0"}, [])).level == "warn"
    assert "not here" in only(record.models("base", None, {}, [name])).what
    assert only(services.adapters((), {name: ()}, ())).level == "ok"
    assert only(services.adapters(("old",), {name: ()}, ())).level == "warn"
    assert only(services.adapters((), {name: ("http://r2",)}, ())).level == "fail"
    assert only(services.adapters((), {name: ()}, ("http://r2",))).level == "warn"


def test_answers_and_pool() -> None:
    assert only(services.answers("MLflow", "u", "3.17.2", "3.17.2")).level == "ok"
    assert only(services.answers("MLflow", "u", "3.16.0", "3.17.2")).level == "warn"
    assert only(services.answers("MLflow", "u", None, "3.17.2", "timed out")).level == "fail"
    assert only(services.pool("pawl", True, False, 1)).level == "ok"
    assert [
        only(services.pool("pawl", *how)).level for how in ((False, False, 0), (True, True, 1), (True, False, 0))
    ] == ["fail"] * 3


TREE: dict[str, Any] = {
    "deployments": [
        {
            "name": "weekly", "entrypoint": "flows/improve_agent.py:improve_agent", "work_pool": {"name": "pawl"},
            "parameters": {"agent": "a", "root": "{{ $PAWL_ROOT }}"},
            "schedules": [{"cron": "0 2 * * 0", "timezone": "{{ $PAWL_TIMEZONE }}"}, {"interval": 60}],
        }
    ]
}  # fmt: skip
THERE = Deployment(
    "improve-agent", "weekly", "flows/improve_agent.py:improve_agent", {"agent": "a", "root": "/opt/pawl"},
    frozenset({("cron 0 2 * * 0", "Europe/Vienna"), ("every 60 s", "")}), "pawl",
)  # fmt: skip


def changed(**other: Any) -> Deployment:
    import msgspec

    return msgspec.structs.replace(THERE, **other)


def test_deployments_beside_prefect_yaml() -> None:
    wanted = services.meant(TREE)
    assert only(services.deployments(wanted, [THERE])).level == "ok"
    assert "is not in Prefect" in only(services.deployments(wanted, [])).what
    for part, other in (
        ("schedule", changed(schedules=frozenset({("cron 0 3 * * 0", "Europe/Vienna"), ("every 60 s", "")}))),
        ("schedule", changed(schedules=frozenset())),
        ("parameters", changed(parameters={"agent": "b", "root": "/opt/pawl"})),
        ("entrypoint", changed(entrypoint="flows/other.py:improve_agent")),
        ("work pool", changed(pool="other")),
    ):
        found = only(services.deployments(wanted, [other]))
        assert (found.level, found.fix) == ("fail", "deploy") and found.what.endswith(
            f"differs from prefect.yaml: {part}"
        )
    assert only(services.deployments(wanted, [changed(off=True)])).level == "warn"
    assert "any more" in only(services.deployments(wanted, [THERE, changed(name="old")])).what
    # A time zone that prefect.yaml names itself counts.
    zoned = services.meant(
        {
            "deployments": [
                TREE["deployments"][0] | {"schedules": [{"cron": "0 2 * * 0", "timezone": "UTC"}, {"interval": 60}]}
            ]
        }
    )
    assert only(services.deployments(zoned, [THERE])).level == "fail"


@pytest.mark.parametrize(
    ("state", "flow", "limit", "word"),
    [
        ("Pending", "roll-out", 600, "pending"),
        ("Late", "roll-out", 300, "late"),
        ("Running", "roll-out", 43_200, "running"),
        ("Running", "improve-agent", 144_000, "running"),  # a long training is no stuck run
        ("Pending", "improve-agent", 600, "pending"),
        ("Cancelling", "roll-out", 600, "cancelling"),
        ("AwaitingConcurrencySlot", "improve-fleet", 144_000, "waiting for the run before"),
        ("AwaitingConcurrencySlot", "search-settings", 43_200, "waiting for the run before"),
    ],
)
def test_stuck_runs(state: str, flow: str, limit: float, word: str) -> None:
    assert only(services.runs([Run("x", flow, state, NOW - limit + 5)], NOW)).level == "ok"
    found = only(services.runs([Run("x", flow, state, NOW - limit - 5)] * 2, NOW))
    assert found.level == "warn" and f"2 {word} for more than" in found.what and f"{flow}/x" in found.what


@pytest.mark.parametrize(("state", "level"), [("up", "ok"), ("busy", "ok"), ("down", "warn"), ("off", "warn")])
def test_a_replica_that_died_holds_no_memory(state: str, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = psutil.virtual_memory()._replace(available=3 * GB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)  # the machine's, and none of ours
    assert only(facts_machine.memory([Standing("vllm-1", state)])).level == level  # type: ignore[arg-type]


def test_one_that_hangs_or_fails_is_a_finding_and_holds_up_nothing() -> None:
    gate = threading.Event()

    def refuses() -> list[Finding]:
        raise PawlError("no such file")

    def broken() -> list[Finding]:
        raise ValueError("x")

    these = [
        Check("hangs", lambda: [ok("hangs", str(gate.wait(60)))]), Check("refuses", refuses), Check("broken", broken),
        Check("well", lambda: [ok("well", "fine")]),
    ]  # fmt: skip
    began = time.monotonic()
    found = all_of(these, lambda left: None, 0.5)
    assert time.monotonic() - began < 3
    assert [(f.check, f.level) for f in found] == [
        ("hangs", "warn"),
        ("refuses", "fail"),
        ("broken", "fail"),
        ("well", "ok"),
    ]
    assert "no answer within" in found[0].what and "no such file" in found[1].what and "ValueError" in found[2].what
    gate.set()
    assert worst(found) == "fail" and worst(found[:1]) == "warn" and worst([]) == "ok"
