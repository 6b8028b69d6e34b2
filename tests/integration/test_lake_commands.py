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
    for new in (5, 0):
        said = home.pawl("operator", "import", "openai", str(export), "--agent", AGENT)
        assert f"5 records taken ({new} of them new), 1 rows not" in said.stdout
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


def test_bugs_and_load_results_become_observations_and_name_the_answers_that_let_a_fault_through(
    home: Home, tmp_path: Path
) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps(row(1)))
    home.pawl("operator", "import", "openai", str(log), "--agent", AGENT)
    answer = home.lake.interactions(AGENT)[0].id
    issues, issue = tmp_path / "issues.json", {
        "number": 3, "title": "Wrong total", "body": f"{answer} let it pass.\n\nRoot cause: rounding",
        "state": "closed", "state_reason": "completed", "labels": [{"name": "bug"}], "user": {"login": "ann"},
        "created_at": "2026-11-18T11:00:00Z", "closed_at": "2026-11-18T12:00:00Z",
        "html_url": "https://code.example/acme/shop/issues/3",
    }  # fmt: skip
    issues.write_text(json.dumps([issue, issue | {"number": 4, "labels": ["question"]}], indent=1))
    summary = tmp_path / "summary.json"
    summary.write_text(json.dumps({"metrics": {"http_reqs": {"count": 9, "rate": 3}}}))
    bugs = ("import", "github", str(issues), "--agent", AGENT)
    load = ("import", "k6", str(summary), "--agent", AGENT, "--at", "2026-11-18T10:00:00Z")
    said = home.pawl("operator", *bugs, "--dry-run")
    assert "2 records would be taken, 1 rows not; nothing was changed" in said.stdout
    assert "row 2: no bug: question" in said.stderr and '"record":"observation"' in said.stdout
    for bug, result in ((2, 1), (0, 0)):
        assert f"2 records taken ({bug} of them new), 1 rows not" in home.pawl("operator", *bugs).stdout
        assert f"1 records taken ({result} of them new), 0 rows not" in home.pawl("operator", *load).stdout
    asked = "SELECT kind, ref, root_cause, figures->>'requests' FROM observations ORDER BY kind"
    assert home.pawl("operator", "lake", "query", asked).stdout.splitlines()[1:] == [
        "bug,acme/shop#3,rounding,", "load,,,9",
    ]  # fmt: skip
    (told,) = home.lake.feedback(AGENT)
    assert (told.interaction, told.kind, told.score, told.detail["root_cause"]) == (answer, "outcome", 0.0, "rounding")
    assert f"observations  {AGENT}" in home.pawl("client", "lake", "status").stdout
    home.pawl("admin", "erase", "--subject", "ann", "--yes")
    assert [o.kind for o in home.lake.observations(AGENT)] == ["load"]


def test_of_a_file_that_breaks_off_what_came_before_is_in_and_once(home: Home, tmp_path: Path) -> None:
    log = tmp_path / "log.json"
    whole = json.dumps([row(n) for n in range(20_010)])
    log.write_text(whole[:-500])
    failed = home.pawl("operator", "import", "openai", str(log), "--agent", AGENT)
    assert failed.returncode == 1 and "neither JSON nor JSON lines" in failed.stderr
    assert len(home.lake.interactions(AGENT)) == 20_000
    log.write_text(whole)
    said = home.pawl("operator", "import", "openai", str(log), "--agent", AGENT)
    assert "20010 records taken (10 of them new), 0 rows not" in said.stdout
    assert len(home.lake.interactions(AGENT)) == 20_010
    assert [e["detail"]["new"] for e in home.control.audit_log() if e["event"] == "import"] == [20_000, 10]


def test_each_command_wants_its_role_and_says_so(home: Home, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a\n")
    for role, arguments in (
        ("client", ("lake", "query", "SELECT 1")),
        ("client", ("import", "csv", str(tmp_path / "x.csv"))),
        ("operator", ("erase", "--subject", "a", "--yes")),
        ("operator", ("import", "excel", str(tmp_path / "x.csv"))),
        ("operator", ("import", "csv", str(tmp_path / "x.csv"))),
        ("operator", ("import", "openai", str(tmp_path / "x.csv"), "--agent", "nobody")),
        ("operator", ("import", "jira", str(tmp_path / "x.csv"))),
        ("operator", ("import", "k6", str(tmp_path / "x.csv"), "--agent", AGENT, "--at", "noon")),
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
