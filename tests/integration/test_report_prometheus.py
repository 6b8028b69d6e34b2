"""`pawl report` beside a real Prometheus, whose blocks hold five days of a gateway's series, with gaps."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from pawl.errors import PawlError, ServerNotUp
from pawl.improvement import monthly
from pawl.lake.records import Interaction
from pawl.monitoring.independence_page import render, text
from pawl.monitoring.month_prometheus import watched
from tests.integration.test_report_month import AGENT, MONTH, START, add, fresh, pawl
from tests.waiting import until

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(shutil.which("promtool") is None, reason="needs Prometheus (Debian: prometheus)"),
]
HOURS, PER_HOUR = 120, 40
AWAY, UNSEEN = range(3000, 3007), range(5000, 5060)  # minutes without a gateway, and without Prometheus
OTHER = "unit-tests"
EDGES = {"0.5": 0.2, "1.0": 0.7, "2.0": 0.95, "2.5": 0.96, "5.0": 0.99, "+Inf": 1.0}  # share of answers within each


def samples() -> Iterator[str]:
    """Each minute's scrape. The gateway starts anew after it was away, so its counters begin at 0 again."""
    begun = 0
    for minute in range(60 * HOURS):
        at = int(START) + 60 * minute + 20
        if minute in UNSEEN:
            continue
        yield f'up{{job="pawl-gateway"}} {int(minute not in AWAY)} {at}'
        if minute in AWAY:
            begun = minute + 1
            continue
        asked = (minute - begun) * PER_HOUR / 60
        yield f"pawl_gateway_start_seconds 1.5 {at}"
        for agent, share in ((AGENT, 0.75), (OTHER, 0.25)):
            failed = 0.0 if agent == AGENT else 0.1
            yield f'pawl_requests_total{{agent="{agent}",outcome="ok"}} {asked * share * (1 - failed)} {at}'
            yield f'pawl_requests_total{{agent="{agent}",outcome="failed"}} {asked * share * failed} {at}'
            yield f'pawl_requests_total{{agent="{agent}",outcome="left"}} {asked} {at}'
            slow = 1.0 if agent == AGENT else 0.5
            for edge, part in EDGES.items():
                if edge == "2.5" and minute < 4000:
                    continue  # a newer gateway's bucket
                within = asked * share * (1 - failed) * (part if edge == "+Inf" else part * slow)
                yield f'pawl_request_seconds_bucket{{agent="{agent}",le="{edge}"}} {within} {at}'
        yield f'pawl_refused_total{{limit="open requests"}} {asked * 0.01} {at}'
        yield f'pawl_refused_total{{limit="tokens a minute"}} {asked} {at}'


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory, unused: Callable[[], int]) -> Iterator[str]:
    folder, port = tmp_path_factory.mktemp("prometheus"), unused()
    series = folder / "series.om"
    series.write_text("\n".join([*samples(), "# EOF"]) + "\n")
    blocks = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "--quiet", str(series), str(folder / "data")]
    subprocess.run(blocks, check=True, capture_output=True)
    (folder / "prometheus.yml").write_text("{}")
    command = ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
               "--storage.tsdb.retention.time=10y", f"--web.listen-address=127.0.0.1:{port}"]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        try:
            with urllib.request.urlopen(f"{url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    try:
        until(ready, 60)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def records() -> list[Any]:
    """What the lake has of the first agent: a session a request, none failed."""
    told = {"agent": AGENT, "key_id": "k", "messages": [], "prompt_tokens": 100, "completion_tokens": 50,
            "latency_s": 0.4, "arm": "base", "arm_kind": "local"}  # fmt: skip
    number = HOURS * PER_HOUR * 3 // 4
    rows = [
        Interaction(id=f"i{n}", at=START + n * 3600 * HOURS / number, session=f"s{n}", **told) for n in range(number)
    ]
    return [*rows, Interaction(id="last", at=START + 3600 * HOURS, session="last", **told)]


def test_hours_and_minutes_are_counted_as_they_were(prometheus: str) -> None:
    found = watched(prometheus, START, START + 3600 * HOURS)
    assert found is not None
    assert (found.minutes, found.silent) == (60 * HOURS, len(AWAY))
    assert found.minutes - found.told - found.silent == len(UNSEEN)
    assert found.answered[7] == pytest.approx(PER_HOUR * (0.75 + 0.25 * 0.9), rel=0.02)
    assert found.due[7] == pytest.approx(PER_HOUR * 1.01, rel=0.02), "failed, and refused at the door"
    assert found.edges == (0.5, 1.0, 2.0, 5.0) and found.timed[7] == pytest.approx(found.answered[7])
    assert found.within[2][7] == pytest.approx(PER_HOUR * 0.95 * (0.75 + 0.25 * 0.9 * 0.5), rel=0.02)
    assert sum(found.timed) == pytest.approx(PER_HOUR * HOURS * 0.975, rel=0.03), "a start anew loses nothing"
    mine = watched(prometheus, START, START + 3600 * HOURS, AGENT)
    assert mine is not None and mine.due[7] == pytest.approx(PER_HOUR * 0.75 * 1.01, rel=0.02), "its part of the door's"
    assert mine.within[2][7] == pytest.approx(PER_HOUR * 0.75 * 0.95, rel=0.02)
    nobody = watched(prometheus, START, START + 3600 * HOURS, 'no "such\\agent')
    assert nobody is not None and sum(nobody.due) == 0
    before = watched(prometheus, START - 86400, START)
    assert before is not None and (before.told, before.silent) == (0, 0) and sum(before.due) == 0
    assert watched(prometheus, START, START + 3599) is None


def test_the_report_says_what_clients_had(prometheus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = fresh(tmp_path)
    add(settings, records())
    monkeypatch.setattr("pawl.improvement.monthly.time.time", lambda: START + 3600 * HOURS)  # the month is under way
    here = settings.model_copy(update={"prometheus_address": f"{prometheus}/"})
    made = monthly.report(here, MONTH, AGENT, registry=False)
    service = made.figures.service
    assert service is not None and service.availability is not None and service.p95 is not None
    there = 1 - len(AWAY) / (60 * HOURS - len(UNSEEN))
    assert service.availability.value == pytest.approx(there / 1.01, abs=0.001)
    assert made.figures.line.availability is not None and made.figures.line.availability.value == 1.0
    states = {c.name: c for c in made.phases[1].criteria}
    assert (states["Latency p50"].state, states["Latency p95"].state) == ("green", "green")
    assert states["Availability"].figure == service.availability
    assert states["Availability"].state != "green", "one in a hundred was refused at the door"
    assert monthly.metrics_of(made)["availability"] == service.availability.value
    said = text(made.figures, made.phases)
    assert "by Prometheus" in said and "7 were without a gateway and Prometheus has nothing of 60" in said
    assert "by Prometheus" in render(made.figures, made.phases, 0.0)


def test_without_a_prometheus_the_report_is_made_and_says_why(
    tmp_path: Path, unused: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = fresh(tmp_path)
    add(settings, records()[:200])
    quiet = json.loads(pawl(settings, "report", "--month", MONTH, "--no-mlflow", "--json").stdout)["report"]["figures"]
    assert quiet["service"] is None and not any("Prometheus" in note for note in quiet["notes"])
    monkeypatch.setenv("PAWL_PROMETHEUS_ADDRESS", f"http://127.0.0.1:{unused()}")
    said = pawl(settings, "report", "--month", MONTH, "--no-mlflow")
    assert said.returncode == 0 and "not by Prometheus: no Prometheus answers at http://127.0.0.1" in said.stdout
    assert "an upper bound" in said.stdout


class Another(BaseHTTPRequestHandler):
    """Some other server that happens to listen there."""

    def do_POST(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"[1]")

    def log_message(self, *_: object) -> None:
        """Silent."""


def test_what_is_no_prometheus_is_told(prometheus: str, unused: Callable[[], int]) -> None:
    with pytest.raises(PawlError, match="refused a query"):
        watched(f"{prometheus}/nowhere", START, START + 7200)
    with pytest.raises(ServerNotUp, match="no Prometheus answers"):
        watched(f"http://127.0.0.1:{unused()}", START, START + 7200)
    with HTTPServer(("127.0.0.1", unused()), Another) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        with pytest.raises(PawlError, match="is no Prometheus"):
            watched(f"http://127.0.0.1:{other.server_port}", START, START + 7200)
        other.shutdown()
