"""The tutorial, followed to its end as it is written: its files saved, its commands typed, on real servers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pawl.rollout.control_sqlite import SqliteControl
from tests.e2e.test_demo_small import NAMES
from tests.ports import free_port

AGENT = "ticket-triage"
_SAVED = re.compile(r"[Ss]ave (?:it|this) as `([\w.]+)`")
_KEY = re.compile(r"pawl_[\w-]{10,}")


class Reader:
    """Somebody with a terminal in the project's root, who does what the page says."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root = folder / "project"
        here = shutil.ignore_patterns(".git", ".venv", ".pawl", ".bench", "__pycache__", "tests", ".*_cache")
        shutil.copytree(root, self.root, ignore=here)
        self.ports = {name: free_port() for name in NAMES}
        self.environment = os.environ | {f"PAWL_{n}_PORT": str(p) for n, p in self.ports.items()} | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            # What is installed is the root's.
            "PYTHONPATH": f"{self.root}:{self.root / 'src'}",
            "COLUMNS": "200",
        }  # fmt: skip
        self.home, self.key, self.client_key = self.root / ".pawl", "", ""
        self.took: dict[str, float] = {}

    def types(self, line: str, timeout: float = 900) -> str:
        """A command and what it prints; it has to succeed."""
        environment = self.environment | ({"TICKETS_KEY": self.client_key} if line.startswith("python ask.py") else {})
        began = time.monotonic()
        done = subprocess.run(
            line.replace("pawl_...", self.key), shell=True, cwd=self.root, env=environment, timeout=timeout,
            capture_output=True, text=True,
        )  # fmt: skip
        self.took[line] = round(time.monotonic() - began, 1)
        print(f"$ {line}   ({self.took[line]} s)\n{done.stdout[-3000:]}{done.stderr[-1500:]}", flush=True)
        assert done.returncode == 0, f"{line}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        if " keys create " in line:
            (self.key,) = _KEY.findall(done.stdout)
            self.client_key = self.client_key or self.key
        return done.stdout

    def saves(self, name: str, text: str) -> None:
        (self.root / name).write_text(text.replace("127.0.0.1:8700", f"127.0.0.1:{self.ports['GATEWAY']}"))


@pytest.fixture
def reader(root: Path, outside: Path) -> Iterator[Reader]:
    made = Reader(root, outside)
    yield made
    subprocess.run(["pawl", "down"], cwd=made.root, env=made.environment, timeout=180, check=False)


def steps(page: str) -> dict[str, list[tuple[str, str]]]:
    """By the heading's number, in the page's order: ("type", a command), ("fleet", a block of the agent's), or a
    file's name with what is to be saved in it."""
    found: dict[str, list[tuple[str, str]]] = {}
    number, name, block = "", "", None
    for line in page.splitlines():
        if heading := re.match(r"## (?:(\d)\.)?", line):
            number = heading[1] or ""
        elif line.startswith("```"):
            if block is None:
                block, kind = [], line.removeprefix("```")
            else:
                text = "\n".join(block) + "\n"
                found.setdefault(number, []).append(("fleet" if kind == "yaml" else name, text))
                block = None
        elif block is not None:
            block.append(line)
        elif line.startswith("    "):
            found.setdefault(number, []).append(("type", line.strip()))
        elif saved := _SAVED.search(line):
            name = saved[1]
            if typed := re.search(r"run `(python [\w.]+)`", line):
                found.setdefault(number, []).append(("after", typed[1]))
    return found


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.timeout(3600)
def test_the_tutorial_ends_where_it_says(reader: Reader, root: Path) -> None:
    page = steps((root / "docs" / "tutorial.md").read_text())
    assert list(page) == ["1", "2", "3", "4", "5"]
    began = time.monotonic()
    minutes: dict[str, float] = {}
    for number, doings in page.items():
        after = ""
        for kind, text in doings:
            if kind == "after":
                after = text
            elif kind == "fleet":
                fleet = reader.root / "infra" / "fleet.yaml"
                fleet.write_text(fleet.read_text().rstrip() + "\n" + text)
            elif kind == "type":
                said = reader.types(text)
                if text.startswith("PAWL_API_KEY=pawl_... pawl improve"):
                    verdict(reader, said.split()[-1])
            else:
                reader.saves(kind, text)
                if after:
                    reader.types(after)
                    after = ""
        minutes[number] = round((time.monotonic() - began) / 60, 1)
    control = SqliteControl(reader.home / "control.sqlite")
    while (rollout := control.rollouts(AGENT)[0]).stage != "done":
        assert rollout.stage != "rolled_back" and time.monotonic() - began < 3000, rollout
        reader.types("python ask.py 100")
    print("minutes since the beginning, by step:", minutes, "to the rollout's end:", (time.monotonic() - began) / 60)
    assert control.route(AGENT).champion.name.startswith(f"{AGENT}-v1-")  # type: ignore[union-attr]
    reader.types("pawl down")


def verdict(reader: Reader, run: str) -> None:
    """Until Prefect's page shows that the run is over."""
    from infra.demo import prefect_runs
    from pawl.settings import Settings

    prefect_runs.wait_run(Settings(home=reader.home, prefect_port=reader.ports["PREFECT"]), run, 1800)
