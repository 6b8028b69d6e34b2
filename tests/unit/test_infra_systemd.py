"""infra/systemd by systemd's own tools: the units are well formed, hardened, and closed to the network but one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
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

    assert exposure() <= 2.0
    shutil.rmtree(installed / "etc" / "systemd" / "system" / "pawl-.service.d")
    assert exposure() > 7


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
