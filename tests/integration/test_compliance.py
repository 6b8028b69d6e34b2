"""`pawl report compliance` on the records of a real gateway: what left is all there, and no text or secret is."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from typer.testing import CliRunner

from pawl.cli import app
from pawl.compliance.sbom_cyclonedx import problems
from pawl.curation.dataset import DatasetVersion, save
from pawl.errors import NotAllowed
from pawl.lake.parquet_lake import ParquetLake
from tests.integration.gateway_process import FLEET, PROMPT, LiveGateway
from tests.waiting import until

AGENT = "functional-negative"
CHAT = "/v1/chat/completions"
PRIVATE = "the diagnosis of Ada Lovelace"  # a client's text
UPSTREAM_SECRET = "sk-live-upstream-0123456789abcdef"
AWS_SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"
ANSWER = "an answer that nobody else may read"


def ask(**more: Any) -> dict[str, Any]:
    return {"model": AGENT, "messages": [{"role": "user", "content": f"{PROMPT} {PRIVATE}"}], **more}


def pawl(live: LiveGateway, key: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    known = os.environ | {
        "PAWL_HOME": str(live.home), "PAWL_FLEET": str(live.settings.fleet), "PAWL_API_KEY": key,
        "UPSTREAM_KEY": UPSTREAM_SECRET, "AWS_SECRET_ACCESS_KEY": AWS_SECRET, **env,
    }  # fmt: skip
    return subprocess.run([sys.executable, "-m", "pawl.cli", *arguments], env=known, capture_output=True, text=True)


def report(live: LiveGateway, key: str, out: Path, *more: str) -> dict[str, Any]:
    """The command in this process: most of its time goes into the start of another."""
    known = {"PAWL_HOME": str(live.home), "PAWL_FLEET": str(live.settings.fleet), "PAWL_API_KEY": key}
    said = CliRunner().invoke(app, [*COMMAND, "--out", str(out), "--json", *more], env=known, catch_exceptions=False)
    assert said.exit_code == 0, said.output
    found = json.loads(said.stdout)
    return dict(found)


COMMAND = ("report", "compliance")


def report_fails(live: LiveGateway, key: str, error: type[Exception], *more: str) -> str:
    known = {"PAWL_HOME": str(live.home), "PAWL_FLEET": str(live.settings.fleet), "PAWL_API_KEY": key}
    with pytest.raises(error) as caught:
        CliRunner().invoke(app, [*COMMAND, *more], env=known, catch_exceptions=False)
    return str(caught.value)


def control_of(found: dict[str, Any], ref: str) -> dict[str, Any]:
    return next(c for c in found["controls"] if c["ref"] == ref)


@pytest.fixture
def live(gateway: Callable[..., LiveGateway]) -> LiveGateway:
    """A gateway that has answered, sent shadows, fallen back, and stopped some."""
    fleet = FLEET.replace("model: big,", "model: big, api_key_env: UPSTREAM_KEY,")
    live = gateway(fleet, UPSTREAM_KEY=UPSTREAM_SECRET)
    live.upstream.answers = {"base": ANSWER, "big": ANSWER}
    for n in range(4):
        assert live.request(CHAT, ask(user="ada"), headers={"x-pawl-session": f"s{n}"})[0] == 200
    assert live.request(CHAT, ask(), headers={"x-pawl-privacy": "local_only"})[0] == 200
    live.upstream.failing.add("base")
    assert live.request(CHAT, ask(store=False))[0] == 200  # the cloud in its place; no shadow then
    live.upstream.failing.clear()
    until(lambda: sum(i.role == "shadow" for i in live.recorded()) == 4)
    until(lambda: any(e["event"] == "shadow blocked by privacy" for e in live.control.audit_log()))
    return live


def test_all_that_left_is_told_and_nothing_that_was_said(live: LiveGateway, tmp_path: Path) -> None:
    admin, admin_key = live.control.create_key("admin", f"pasted {UPSTREAM_SECRET}")
    live.control.audit("key created", admin.name, {"key": admin.id, "role": "admin"}, time.time())
    live.control.audit("lake query", "an operator", {"sql": f"SELECT 1 -- {PRIVATE}"}, time.time())
    live.control.audit("override", "an operator", {"agent": AGENT, "version": "3", "reason": PRIVATE}, time.time())
    erased = {"interactions": 0, "datasets": [], "adapters": [], "unreached": [PRIVATE]}
    live.control.audit("subject erased", "ada", erased, time.time())
    out = tmp_path / "out"
    done = pawl(live, admin_key, *COMMAND, "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == json.loads((out / "compliance.json").read_text())

    egress = found["egress"]
    assert (egress["requests"], egress["shadows"], egress["attempts"]) == (1, 4, 5)
    assert (egress["unaudited"], egress["against_mode"], egress["denied"]) == (0, 0, 2)
    assert egress["local"] == 6 and egress["interactions"] == 11  # 5 answers and a failure; 5 of the cloud
    [shadows] = [s for s in egress["sent"] if s["kind"] == "shadow"]
    assert (shadows["by"], shadows["upstream"], shadows["host"], shadows["mode"]) == (
        "a client",
        "cloud",
        "127.0.0.1",
        "open",
    )
    assert shadows["requests"] == 4 and shadows["prompt_tokens"] == 12
    assert [(b["kind"], b["mode"], b["requests"]) for b in egress["blocked"] if b["kind"] == "shadow"] == [
        ("shadow", "local_only", 1)
    ]
    with (out / "egress.csv").open() as file:
        rows = list(csv.DictReader(file))
    asked = {i.shadow_of or i.id for i in live.recorded() if i.arm_kind == "cloud"}
    assert {r["id"] for r in rows} == asked and len(rows) == 5
    assert duckdb.sql(f"SELECT count(*) FROM '{out / 'egress.parquet'}' WHERE in_audit_log").fetchall() == [(5,)]

    assert found["access"]["broken"] == "" and control_of(found, "Art. 30")["light"] == "green"
    forced = [x for x in found["access"]["exceptional"] if x["forced"]]
    assert [(x["event"], x["by"], x["about"]) for x in forced] == [
        ("override", "an operator", f"agent {AGENT}, version 3")
    ]
    assert control_of(found, "CC6.2, CC6.3")["light"] == "red"  # the client's key was made without an entry
    assert problems((out / "sbom.cdx.json").read_text()) == ""

    planted = [PRIVATE, PROMPT.splitlines()[0], ANSWER, UPSTREAM_SECRET, AWS_SECRET, live.key, live.operator, admin_key]
    files = sorted(p for p in out.iterdir())
    assert [p.name for p in files] == [
        "access.csv", "compliance.html", "compliance.json", "egress.csv", "egress.parquet", "sbom.cdx.json",
    ]  # fmt: skip
    texts = {p.name: p.read_bytes() for p in files}
    texts["egress.parquet"] = repr(duckdb.sql(f"SELECT * FROM '{out / 'egress.parquet'}'").fetchall()).encode()
    for name, data in texts.items():
        assert [s for s in planted if s.encode() in data] == [], name
        assert str(live.home).encode() not in data, name

    told = live.control.audit_log()[-1]
    assert told["event"] == "compliance report" and "removed" not in told["event"]
    assert set(told["detail"]["files"]) == {p.name for p in files} and live.control.verify_audit() is None


def test_a_changed_log_and_an_unknown_call_are_red(live: LiveGateway, tmp_path: Path) -> None:
    live.stop()
    database = sqlite3.connect(live.settings.control_db)
    database.execute("DROP TRIGGER audit_is_never_changed")
    database.execute("UPDATE audit SET detail = replace(detail, '\"id\"', '\"ix\"') WHERE event = 'cloud call'")
    database.commit()
    database.close()
    found = report(live, live.operator, tmp_path / "out")
    assert "does not match its hash" in found["access"]["broken"]
    assert found["egress"]["unaudited"] == 1
    for ref in ("Art. 30", "(b) audit controls", "CC7.1, CC7.2"):
        assert control_of(found, ref)["light"] == "red"
    assert "The chain is broken" in (tmp_path / "out" / "compliance.html").read_text()


def test_an_erasure_is_proved_and_one_that_was_cut_off_shows(live: LiveGateway, tmp_path: Path) -> None:
    live.stop()
    lake = ParquetLake(live.settings.lake_dir, live.settings.journal_dir)
    lake.ingest()
    before = tmp_path / "before"
    shutil.copytree(live.settings.lake_dir, before)
    gone = lake.erase("ada", time.time())
    held = save(DatasetVersion(agent=AGENT, examples=(), sources=(), licence="CC-BY-4.0", scrubbed={"email": 3}),
                live.settings.datasets_dir)  # fmt: skip
    done = {"interactions": len(gone), "datasets": [held.stem], "adapters": [], "unreached": []}
    live.control.audit("subject erased", "an operator", done, time.time())
    found = report(live, live.operator, tmp_path / "one")
    kept = found["retention"]
    assert len(gone) == 8 and (kept["marks"], kept["ids"], kept["leftovers"]) == (1, 8, 0)
    assert kept["erasures"][0]["still"] == [held.stem] and control_of(found, "Art. 17")["light"] == "red"
    assert any(x["kind"] == "dataset" and x["licence"] == "CC-BY-4.0" for x in found["licences"])
    assert found["scrubbed"] == [{"dataset": held.stem, "counts": {"email": 3}}]
    held.unlink()
    found = report(live, live.operator, tmp_path / "two")
    assert control_of(found, "Art. 17")["light"] == "green"
    assert found["egress"]["shadows"] == 4, "what left stays told, by id, when the record is gone"
    # The objects of before come back beside what was erased: as if the erasure had not reached them.
    manifest = json.loads((live.settings.lake_dir / "manifest.json").read_text())
    shutil.copytree(before, live.settings.lake_dir, dirs_exist_ok=True)
    old = json.loads((before / "manifest.json").read_text())
    merged = {**manifest, "objects": old["objects"]}
    (live.settings.lake_dir / "manifest.json").write_text(json.dumps(merged))
    found = report(live, live.operator, tmp_path / "three")
    assert found["retention"]["leftovers"] == 8 and control_of(found, "Art. 17")["light"] == "red"


def test_windows_agents_and_callers(live: LiveGateway, tmp_path: Path) -> None:
    found = report(live, live.operator, tmp_path / "past", "--since", "2020-01-01", "--until", "2020-02-01")
    assert found["egress"]["sent"] == [] and control_of(found, "Art. 30")["light"] == "grey"
    assert "Nothing left in this window" in (tmp_path / "past" / "compliance.html").read_text()
    found = report(live, live.operator, tmp_path / "mine", "--agent", AGENT)
    assert found["agent"] == AGENT and found["egress"]["shadows"] == 4
    assert "nobody" in report_fails(live, live.operator, KeyError, "--agent", "nobody")
    assert "needs operator or admin" in report_fails(live, live.key, NotAllowed)
    assert "is no day or moment" in report_fails(live, live.operator, NotAllowed, "--since", "last week")
