"""infra/systemd by systemd's own tools: the units are well formed, hardened, and closed to the network but one."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from pawl.settings import Settings

UNITS = ("pawl-gateway", "pawl-vllm@8710", "pawl-mlflow", "pawl-prefect-server", "pawl-prefect-worker")
# systemd's own, which an empty root lacks.
TARGETS = ("sysinit", "basic", "shutdown", "network-online", "multi-user", "sockets", "timers", "paths", "slices")


@pytest.fixture
def installed(root: Path, tmp_path: Path) -> Path:
    """A root folder with the units in their place and a Python where they look for it."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed: it checks units")
    system = tmp_path / "etc" / "systemd" / "system"
    shutil.copytree(root / "infra" / "systemd", system)
    for name in TARGETS:
        (system / f"{name}.target").write_text(f"[Unit]\nDescription={name}\n")
    python = tmp_path / "opt" / "pawl" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    return tmp_path


def verify(place: Path) -> str:
    units = [str(place / "etc" / "systemd" / "system" / f"{unit}.service") for unit in UNITS]
    target = str(place / "etc" / "systemd" / "system" / "pawl.target")
    done = subprocess.run(
        ["systemd-analyze", "verify", f"--root={place}", "--man=no", *units, target],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_systemd_finds_nothing_wrong_with_them(installed: Path) -> None:
    assert verify(installed) == ""


def test_a_misspelt_directive_would_be_noticed(installed: Path) -> None:
    unit = installed / "etc" / "systemd" / "system" / "pawl-gateway.service"
    unit.write_text(unit.read_text().replace("MemoryMax=", "MemoryMaximum="))
    assert "MemoryMaximum" in verify(installed)


@pytest.mark.parametrize("unit", UNITS)
def test_what_systemd_calls_exposure_is_low(installed: Path, unit: str) -> None:
    """0 is closed, 10 is open; a unit without any of it has 9.2 or more."""

    def exposure() -> float:
        done = subprocess.run(
            ["systemd-analyze", "security", "--offline=yes", "--no-pager", f"--root={installed}", f"{unit}.service"],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        (found,) = re.findall(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
        return float(found)

    # The worker makes namespaces, which counts most.
    assert exposure() <= (3.0 if unit == "pawl-prefect-worker" else 2.0)
    shutil.rmtree(installed / "etc" / "systemd" / "system" / "pawl-.service.d")
    assert exposure() > 7


# What adds up over all files of a unit; of any other directive the last one holds.
ADDS_UP = {"After", "Wants", "PartOf", "Environment", "EnvironmentFile", "DeviceAllow", "IPAddressAllow",
           "SystemCallFilter", "ExecStartPre"}  # fmt: skip


def directives(path: Path) -> list[tuple[str, str]]:
    text = path.read_text().replace("\\\n", " ")
    return re.findall(r"^(\w+)=(.*)$", text, re.M)


def in_force(system: Path, unit: str) -> list[tuple[str, str]]:
    """A unit's directives in the order in which systemd reads them (systemd.unit(5)): its own file, then all drop-ins
    by their names, wherever they lie."""
    template = re.sub("@.*", "@", unit)
    names = {f"{unit}.service.d", f"{template}.service.d", "pawl-.service.d"}
    names |= {f"{unit[: at.end()]}.service.d" for at in re.finditer("-", unit)}
    dropped = sorted((p for n in names for p in (system / n).glob("*.conf")), key=lambda p: p.name)
    return [d for path in (system / f"{template}.service", *dropped) for d in directives(path)]


@cache
def calls(name: str) -> frozenset[str]:
    """A system call, or those of a set of systemd's."""
    if not name.startswith("@"):
        return frozenset({name})
    done = subprocess.run(["systemd-analyze", "syscall-filter", "--no-pager", name], capture_output=True, text=True)
    found = re.findall(r"^    ([@\w-]+)$", done.stdout, re.M)
    return frozenset(call for one in found for call in calls(one))


def calls_in_force(system: Path, unit: str) -> set[str]:
    """The system calls that a unit may make (systemd.exec(5), SystemCallFilter=)."""
    allowed: set[str] = set()
    for value in (v for k, v in in_force(system, unit) if k == "SystemCallFilter"):
        named = {call for name in value.removeprefix("~").split() for call in calls(name)}
        allowed = allowed - named if value.startswith("~") else allowed | named if value else set()
    return allowed


def test_nothing_in_a_unit_is_undone_by_what_holds_for_all(root: Path) -> None:
    """Drop-ins are read after the unit's own file: an exception that stands there is none."""
    system = root / "infra" / "systemd"
    for_all = {k for k, _ in directives(system / "pawl-.service.d" / "10-hardened.conf")} - ADDS_UP
    for path in system.glob("*.service"):
        assert not for_all & {k for k, _ in directives(path)}, path.name
        # The order of these counts, and a unit's own file comes first.
        assert "SystemCallFilter" not in dict(directives(path)), path.name


def in_systemds_words(installed: Path, unit: str) -> dict[str, bool]:
    """Field -> whether the protection holds, the unit read with its drop-ins by systemd itself."""
    line = ["systemd-analyze", "security", "--offline=yes", "--json=short", f"--root={installed}", f"{unit}.service"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=True)
    return {one["json_field"]: bool(one["set"]) for one in json.loads(done.stdout)}


def test_exceptions_hold_where_they_are_wanted_and_nowhere_else(installed: Path) -> None:
    found = {unit: in_systemds_words(installed, unit) for unit in UNITS}
    open_ones = {
        unit: {k for k in found["pawl-gateway"] if found["pawl-gateway"][k] and not found[unit][k]} for unit in UNITS
    }
    gpu = {"PrivateDevices", "DeviceAllow"} & found["pawl-gateway"].keys()
    namespaces = {f"RestrictNamespaces_{kind}" for kind in ("user", "pid", "net", "uts", "mnt", "cgroup", "ipc")}
    assert "PrivateDevices" in open_ones["pawl-vllm@8710"] and open_ones["pawl-vllm@8710"] <= gpu
    runs = gpu | namespaces | {"ProtectKernelTunables", "ProtectHostname", "ProtectProc"}
    runs |= {"SystemCallFilter_mount", "SystemCallFilter_privileged"}
    assert runs - {"DeviceAllow"} <= open_ones["pawl-prefect-worker"] <= runs
    assert not open_ones["pawl-mlflow"] and not open_ones["pawl-prefect-server"]
    for unit in ("pawl-vllm@8710", "pawl-prefect-worker"):
        assert ("DeviceAllow", "char-nvidia* rw") in in_force(installed / "etc" / "systemd" / "system", unit)


def test_the_worker_may_make_the_calls_of_the_sandbox_and_the_others_may_not(installed: Path) -> None:
    system = installed / "etc" / "systemd" / "system"
    # What strace shows of bubblewrap beyond an ordinary program's, and what pawl.sandbox.inside_kernel calls.
    sandbox = {"mount", "umount2", "pivot_root", "capset", "sethostname"} | {
        "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"
    }  # fmt: skip
    ordinary = {"read", "clone", "clone3", "unshare", "prctl", "prlimit64", "signalfd4", "socket", "sched_setaffinity"}
    assert sandbox | ordinary <= calls_in_force(system, "pawl-prefect-worker")
    for unit in set(UNITS) - {"pawl-prefect-worker"}:
        assert ordinary <= calls_in_force(system, unit) and not sandbox & calls_in_force(system, unit), unit
    for unit in UNITS:
        assert not {"reboot", "init_module", "swapon", "bpf", "setuid"} & calls_in_force(system, unit), unit


def test_ports_are_those_that_the_gateway_asks(root: Path) -> None:
    texts = {p.name: p.read_text() for p in (root / "infra" / "systemd").rglob("*") if p.is_file()}
    settings = Settings()
    assert f"--port {settings.mlflow_port} " in texts["pawl-mlflow.service"]
    assert f"--port {settings.prefect_port}\n" in texts["pawl-prefect-server.service"]
    assert f"pawl-vllm@{settings.vllm_port}.service" in texts["pawl.target"]
    assert f"PREFECT_API_URL={settings.prefect_api_url}\n" in texts["10-hardened.conf"]
    for unit in UNITS:
        assert f"{unit}.service" in texts["pawl.target"]


@pytest.fixture
def environment() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def test_what_they_set_is_what_pawl_reads(root: Path, environment: None) -> None:
    given = dict(
        pair.split("=", 1)
        for path in (root / "infra" / "systemd").rglob("*.[cs]*")
        if path.is_file()
        for line in re.findall(r"^Environment=(.*)$", path.read_text(), re.M)
        for pair in line.split()
    )
    fields = {f"PAWL_{name.upper()}" for name in Settings.model_fields}
    assert {k for k in given if k.startswith("PAWL_")} - {"PAWL_ROOT"} <= fields
    os.environ.update({k: v for k, v in given.items() if k in fields})
    assert Settings().home == Path("/var/lib/pawl")
    assert not [k for k in given if re.search("PASSWORD|SECRET|TOKEN", k)]
