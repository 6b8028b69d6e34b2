"""`pawl lake`, `pawl import`, `pawl erase` as an operator types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pawl.lake.parquet_lake import ParquetLake
from pawl.lake.records import Interaction
from pawl.rollout.control_sqlite import SqliteControl
from tests.integration.gateway_process import FLEET

AGENT = "functional-negative"


class Home:
    """A home without a gateway, and the command in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "fleet.yaml").write_text(FLEET.format(port=1))
        self.control = SqliteControl(path / "control.sqlite")
        self.keys = {r: self.control.create_key(r, r)[1] for r in ("client", "operator", "admin")}  # type: ignore[arg-type]

    @property
    def lake(self) -> ParquetLake:
        return ParquetLake(self.path / "lake", self.path / "journal")

    def pawl(self, role: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        env = os.environ | {
            "PAWL_HOME": str(self.path), "PAWL_FLEET": str(self.path / "fleet.yaml"), "PAWL_API_KEY": self.keys[role],
        }  # fmt: skip
        return subprocess.run([sys.executable, "-m", "pawl.cli", *arguments], env=env, capture_output=True, text=True)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def row(n: int, **more: Any) -> dict[str, Any]:
    request = {"model": "m", "messages": [{"role": "user", "content": f"Hi {n}"}], "user": f"u{n}"}
    return {"request": request, "response": {"id": f"c{n}", "created": 1_795_000_000 + n,
            "choices": [{"message": {"content": "Hello"}}]}, **more}  # fmt: skip


def test_import_query_and_erase(home: Home, tmp_path: Path) -> None:
    export = tmp_path / "log.jsonl"
    export.write_text("\n".join(json.dumps(row(n)) for n in range(5)) + "\n{broken")
    said = home.pawl("operator", "import", "openai", str(export), "--agent", AGENT, "--dry-run")
    assert "5 records would be taken, 1 rows not; nothing was changed" in said.stdout
    assert "row 6: no JSON" in said.stderr and home.lake.interactions(AGENT) == []
    for _ in range(2):
        assert "5 records taken" in home.pawl("operator", "import", "openai", str(export), "--agent", AGENT).stdout
    assert len(home.lake.interactions(AGENT)) == 5
    identity = home.lake.interactions(AGENT)[0].id
    (tmp_path / "r.csv").write_text(f"interaction,score,at\n{identity},1,1795000100\n")
    assert "1 records taken" in home.pawl("operator", "import", "csv", str(tmp_path / "r.csv")).stdout
    asked = home.pawl("operator", "lake", "query", "SELECT session, completion FROM interactions ORDER BY 1 LIMIT 2")
    assert asked.stdout.splitlines() == ["session,completion", "u0,Hello", "u1,Hello"]
    assert f"interactions  {AGENT}" in home.pawl("client", "lake", "status").stdout
    gone = home.pawl("admin", "erase", "--subject", "u0", "--yes")
    assert gone.stdout.startswith("1 interactions removed"), gone.stderr
    assert len(home.lake.interactions(AGENT)) == 4 and home.lake.feedback(AGENT) == []
    events = [(e["event"], json.dumps(e["detail"])) for e in home.control.audit_log()]
    assert [e for e, _ in events] == ["import", "import", "import", "lake query", "subject erased"]
    assert not any("u0" in d for e, d in events if e == "subject erased"), "that it happened, not what it was"


def test_each_command_wants_its_role_and_says_so(home: Home, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a\n")
    for role, arguments in (
        ("client", ("lake", "query", "SELECT 1")),
        ("client", ("import", "csv", str(tmp_path / "x.csv"))),
        ("operator", ("erase", "--subject", "a", "--yes")),
        ("operator", ("import", "excel", str(tmp_path / "x.csv"))),
        ("operator", ("import", "csv", str(tmp_path / "x.csv"))),
        ("operator", ("import", "openai", str(tmp_path / "x.csv"), "--agent", "nobody")),
    ):
        failed = home.pawl(role, *arguments)
        assert failed.returncode == 1 and failed.stderr.startswith("pawl: "), failed


def test_compaction_and_retention_by_command(home: Home) -> None:
    for n in range(3):
        home.lake.add([
            Interaction(id=f"i{n}", at=1.0e9 + n, agent=AGENT, session="s", key_id="k", arm="base", arm_kind="local",
                        messages=[{"role": "user", "content": "old"}], completion="text")
        ])  # fmt: skip
    assert "2 files fewer" in home.pawl("operator", "lake", "compact").stdout
    said = home.pawl("operator", "lake", "expire", "--payload-days", "100", "--audit-days", "100000")
    assert "3 rows without their text now, 0 rows gone" in said.stdout
    assert [i.completion for i in home.lake.interactions(AGENT)] == ["", "", ""]
    assert "0 rows without their text now, 3 rows gone" in home.pawl("operator", "lake", "expire").stdout
