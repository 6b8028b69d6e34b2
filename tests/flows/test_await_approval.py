"""A run that waits for a person in Prefect: no process while it waits, a killed server and worker change nothing, an
invalid code asks again, a good one opens the rollout. On a real Prefect server with its worker, and a real MLflow."""

from __future__ import annotations

import os
import time
import urllib.error
from typing import Any

import msgspec
import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from typer.testing import CliRunner

from infra.demo import prefect_runs
from pawl.cli import app
from pawl.improvement import promotion
from pawl.improvement.workplace import Workplace
from pawl.registry import approvals
from pawl.rollout.control import SCHEDULE, Request
from tasks import approval
from tasks.places import starter
from tests.flows.orchestration import Orchestration, patiently
from tests.integration.promotion_place import AGENT, candidate, key


def registered(place: Workplace, weights: bytes) -> Request:
    made = candidate(place, better=True, weights=weights)  # type: ignore[arg-type]
    page = place.settings.reports_dir / f"{made.id}-evidence.html"
    page.parent.mkdir(exist_ok=True)
    page.write_text("<h1>evidence</h1>")
    version = promotion.register(place, made, page)
    request = place.control.request(AGENT, version.version)
    assert request is not None
    return request


@pytest.mark.servers
@pytest.mark.timeout(1200)
def test_a_code_in_prefects_form(place: Workplace, prefect: Orchestration, monkeypatch: pytest.MonkeyPatch) -> None:
    request = registered(place, os.urandom(3))

    def form(run_id: str, attempt: int) -> str | None:
        try:
            return str(prefect.ask(f"/flow_runs/{run_id}/input/suspended-answer-{attempt}-description"))
        except urllib.error.HTTPError as e:
            if e.code != 404:
                raise
            return None

    def waiting(version: str, attempt: int) -> dict[str, Any] | None:
        """With its form, which Prefect writes a little after it suspended the run."""
        return next(
            (
                r
                for r in prefect.runs("await-approval")
                if r["parameters"]["version"] == version
                and r["state"]["name"] == "Suspended"
                and r["state"]["state_details"]["pause_key"] == f"answer-{attempt}"
                and form(r["id"], attempt) is not None
            ),
            None,
        )

    # The event that promotion sent starts it.
    run = patiently(lambda: waiting(request.version, 1))
    assert run["parameters"]["evidence"] == request.evidence
    assert run["name"] == f"approval of {AGENT} version {request.version}"
    patiently(lambda: not prefect.processes())  # the minute's run may be one
    form1 = form(run["id"], 1)
    assert form1 is not None
    assert f"pawl approve {AGENT} {request.version} --code" in form1 and request.evidence in form1

    # Server and worker die while it waits, and come back.
    prefect.kill(prefect.server)
    prefect.kill(prefect.worker)
    prefect.up(prefect.server)
    prefect.up(prefect.worker)
    assert waiting(request.version, 1) is not None

    # Resuming without a code, or with something that is none, approves nothing.
    assert prefect.resume(run["id"], None) == "REJECT"
    assert prefect.resume(run["id"], {"code": "yes"}) == "REJECT"
    assert prefect.resume(run["id"], {"code": "pawl1.looks-like-one.but-is-none"}) == "ACCEPT"
    again = patiently(lambda: waiting(request.version, 2))
    assert again["id"] == run["id"]
    assert place.control.approvals(AGENT, request.version) == []
    form2 = form(run["id"], 2)
    assert form2 is not None and "refused: this code was altered" in form2

    now = time.time()
    code = approvals.code_for(place.control, request, key(place, "approver"), expires=now + 600, now=now)  # type: ignore[arg-type]
    assert prefect.resume(run["id"], {"code": code}) == "ACCEPT"
    began = time.monotonic()
    done = patiently(lambda: (r := prefect.run(run["id"]))["state"]["type"] == "COMPLETED" and r)
    assert done["parameters"] == run["parameters"]
    (given,) = place.control.approvals(AGENT, request.version)
    assert (given.via, given.by, given.evidence) == ("prefect", "a approver", request.evidence)
    # The answer starts `roll_out`, which opens the rollout: nobody waits for the minute's run.
    opened = patiently(lambda: place.control.open_rollout(AGENT))
    print(f"from the code to the open rollout: {time.monotonic() - began:.1f} s")
    assert opened.version == request.version and opened.stage == "shadow"
    started = [r for r in prefect.runs("roll-out", "when-answered") if r["parameters"] == {"agent": AGENT}]
    assert started, "the event started it"

    def tick() -> str:
        run_id = prefect_runs.start_run(place.settings, "roll-out/when-answered", {"agent": AGENT})
        prefect_runs.wait_run(place.settings, run_id, 300)
        return run_id

    # Another request that is answered elsewhere: its run ends without a code, and says how.
    other = registered(place, os.urandom(3))
    second = patiently(lambda: waiting(other.version, 1))
    approvals.reject_by_key(place.control, other, key(place, "approver"), reason="worse", now=time.time())  # type: ignore[arg-type]
    tick()
    ended = prefect.run(second["id"])["state"]
    assert (ended["type"], ended["name"]) == ("COMPLETED", "Rejected") and "worse" in ended["message"]
    assert place.control.verify_audit() is None

    # One whose event was lost gets its run all the same; nobody answers, and it ends as held.
    lost = msgspec.structs.replace(other, version="77", adapter_sha256="9" * 64, asked_at=time.time() - 200)
    place.control.ask(lost)
    with temporary_settings({PREFECT_API_URL: place.settings.prefect_api_url}):
        for _ in range(2):  # the minute's run and an event's look at the same time: both find none
            approval._start_missing(place, [])
    tick()
    third = patiently(lambda: waiting("77", 1))

    # Its process is killed after Prefect suspended it and before the form was written: another run takes its place.
    formless = third["id"]
    with (
        temporary_settings({PREFECT_API_URL: place.settings.prefect_api_url}),
        get_client(sync_client=True) as client,
        monkeypatch.context() as patience,
    ):
        (known,) = (r for r in approval._runs(client) if str(r.id) == formless)

        def state(seconds: float) -> str:
            patience.setattr(approval, "PATIENCE_S", seconds)
            assert approval._ended(place, client, known) is None
            return str(prefect.run(formless)["state"]["type"])

        assert state(0) == "PAUSED", "it has its form"
        prefect.ask(f"/flow_runs/{formless}/input/suspended-answer-1-schema", method="DELETE")
        assert prefect.resume(formless, {"code": code}) == "REJECT"
        assert state(900) == "PAUSED", "the form may still be on its way"
        assert state(0) == "CRASHED"
    tick()
    third = patiently(lambda: waiting("77", 1))
    assert third["id"] != formless
    late = msgspec.structs.replace(lost, expires=time.time())
    place.control.amend_request(lost, late)
    ticked = tick()
    ended = prefect.run(third["id"])["state"]
    assert (ended["type"], ended["name"]) == ("COMPLETED", "Held")
    closed = place.control.request(AGENT, "77")
    assert closed is not None and closed.closed_as == "held"
    assert [r["state"]["name"] for r in prefect.runs("await-approval") if r["parameters"]["version"] == "77"] == [
        "Held",
        "Crashed",
    ]

    # Who started a run: nobody knows of one that was asked for in Prefect; the schedule; or a key's owner.
    (scheduled, *_) = prefect.runs("roll-out", "every-minute")
    monkeypatch.setenv("PAWL_API_KEY", place.control.create_key("operator", "ann")[1])
    prefect.worker.stop()
    asked = CliRunner().invoke(app, ["improve", AGENT, "--days", "7"], catch_exceptions=False).output.strip()
    assert 6 < (time.time() - prefect.run(asked)["parameters"]["since"]) / 86400 < 8
    found = []
    for run_id in (ticked, scheduled["id"], asked):
        monkeypatch.setenv("PREFECT__FLOW_RUN_ID", run_id)
        with temporary_settings({PREFECT_API_URL: place.settings.prefect_api_url}):
            found.append(starter(place))
    assert found == ["", SCHEDULE, "ann"]
