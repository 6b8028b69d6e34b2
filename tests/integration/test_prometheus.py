"""A real Prometheus beside a gateway with traffic: every panel of every dashboard gets data, alerts fire.

vLLM and the GPU's exporter are stand-ins that tell the few of their metrics that panels ask for, under their names;
that vLLM has those names is tested in tests/unit/test_monitoring_files.py.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from ruamel.yaml import YAML

from infra.grafana.boards import BOARDS
from infra.grafana.panels import queries
from pawl.fleet.limits import KeyTerms, LimitsSpec
from pawl.fleet.spec import RolloutSpec
from pawl.monitoring import baseline, drift_record
from pawl.monitoring.drift_record import DriftRecord, KindNow
from pawl.monitoring.progress import ProgressFile
from pawl.rollout.control import Request
from pawl.rollout.route import Arm, choose
from pawl.rollout.state import Rollout, route_of
from tests.integration.gateway_process import FLEET, PROMPT, LiveGateway
from tests.waiting import until

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Prometheus (Debian: prometheus)"),
]
AGENT = "functional-negative"
CHAT = "/v1/chat/completions"
ASK = {"model": AGENT, "messages": [{"role": "user", "content": PROMPT}]}
CLOUD = Arm("big", "cloud", "big", "cloud")
BASE, NEW = Arm("base", "local", "base", "local"), Arm("fn-v2", "local", "fn-v2", "local")
# Slow bands and no proof: this rollout stays open whatever comes.
SPEC = RolloutSpec(min_stage_sessions=10_000, min_bake_s=0, alpha=1e-6, max_error_rate=1.0)


class Prometheus:
    """Debian's own, with the project's configuration; it scrapes and evaluates each second."""

    def __init__(self, folder: Path, root: Path, port: int, targets: dict[str, str]) -> None:
        self.url = f"http://127.0.0.1:{port}"
        (folder / "rules").mkdir(parents=True)
        for name in ("recording", "alerts"):
            text = (root / "infra" / "prometheus" / "rules" / f"{name}.yml").read_text()
            quick = re.sub(r"interval: \w+", "interval: 1s", text)
            (folder / "rules" / f"{name}.yml").write_text(re.sub(r"for: \w+", "for: 0s", quick))
        config = YAML(typ="safe").load((root / "infra" / "prometheus" / "prometheus.yml").read_text())
        config |= {"global": {"scrape_interval": "1s", "evaluation_interval": "1s"}}
        for job in config["scrape_configs"]:
            job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
        (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
        command = ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log
            )

    def ask(self, expression: str) -> list[float]:
        """The values of now; what is no number is none."""
        query = urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/query?{query}", timeout=10) as answer:
                found = json.loads(answer.read())["data"]["result"]
        except OSError:
            return []
        values = [float(series["value"][1]) for series in found]
        return [v for v in values if not math.isnan(v)]


class Exporters:
    """The stand-ins."""

    def __init__(self, port: int) -> None:
        own = CollectorRegistry()
        label = ("model_name",)
        self.running = Gauge("vllm:num_requests_running", "stand-in", label, registry=own)
        self.waiting = Gauge("vllm:num_requests_waiting", "stand-in", label, registry=own)
        self.cache = Gauge("vllm:kv_cache_usage_perc", "stand-in", label, registry=own)
        self.generated = Counter("vllm:generation_tokens", "stand-in", label, registry=own)
        self.read = Counter("vllm:prompt_tokens", "stand-in", label, registry=own)
        self.first = Histogram("vllm:time_to_first_token_seconds", "stand-in", label, registry=own)
        self.gpu = Gauge("DCGM_FI_DEV_GPU_UTIL", "stand-in", ("gpu",), registry=own)
        self.server, _ = start_http_server(port, "127.0.0.1", own)

    def go_on(self) -> None:
        for one in (self.running, self.waiting, self.cache):
            one.labels("base").set(0.5)
        self.generated.labels("base").inc(10)
        self.read.labels("base").inc(10)
        self.first.labels("base").observe(0.1)
        self.gpu.labels("0").set(80)


@pytest.fixture
def live(gateway: Callable[..., LiveGateway], unused: Callable[[], int]) -> LiveGateway:
    fleet = FLEET.replace("{{kind: local, ", "{{kind: local, breaker: {{consecutive: 2, open_s: 1}}, ")
    fleet += "costs: {{machines: {{box: {{usd_per_hour: 0.01}}}}}}\n"
    return gateway(fleet, PAWL_VLLM_PORT=str(unused()))


@pytest.fixture
def watched(
    live: LiveGateway, tmp_path: Path, root: Path, unused: Callable[[], int]
) -> Iterator[tuple[Prometheus, Exporters]]:
    exporters = Exporters(unused())
    there = f"127.0.0.1:{exporters.server.server_port}"
    targets = {"pawl-gateway": f"127.0.0.1:{live.settings.gateway_port}", "vllm": there}
    made = Prometheus(tmp_path / "prometheus", root, unused(), targets)
    until(lambda: bool(made.ask("pawl_route_revision")), 30)  # what changes later is seen to change
    yield made, exporters
    made.process.terminate()
    made.process.wait(20)
    exporters.server.shutdown()


def a_week(live: LiveGateway) -> None:
    """What a gateway finds in its control database and its home in the middle of a rollout."""
    now = time.time()
    live.control.save_rollout(
        Rollout(id="r1", agent=AGENT, version="2", champion=BASE, challenger=NEW, stage="50", opened_at=now,
                stage_since=now, spec=SPEC, keep_shadow=(CLOUD,))
    )  # fmt: skip
    live.control.ask(
        Request(agent=AGENT, version="3", adapter="fn-v3", adapter_sha256="3333", evidence="e", asked_at=now,
                expires=now + 3600)
    )  # fmt: skip
    baseline.keep(live.control, AGENT, "base", "2222", was=0.9, found=0.9)
    drifted = {
        "quality": KindNow(evidence=170.0, peak=170.0, sessions=900, since=now),
        "input_length": KindNow(evidence=3.0, peak=4.0, sessions=900),
    }
    record = DriftRecord(
        agent=AGENT, champion="base", anchor=now, looked_at=now, through=now, threshold=160.0, kinds=drifted
    )
    drift_record.write(live.control, AGENT, lambda old: record)
    judged = live.home / "candidates" / f"{AGENT}-abc"
    judged.mkdir(parents=True)
    for name in ("training.json", "comparison.json"):
        (judged / name).write_text("{}")
    ProgressFile(live.home / "progress.json").write("training", 1, 4)
    until(lambda: live.metric("pawl_challenger_percent", agent=AGENT) == 50)


def session(arm: Arm, rollout: Rollout) -> str:
    return next(s for s in (f"s{n}" for n in range(100)) if choose(route_of(rollout), s) == arm)


def traffic(live: LiveGateway, strict: str) -> None:
    """A little of everything that happens to a gateway."""
    rollout = live.control.open_rollout(AGENT)
    assert rollout is not None, "the rollout is open as long as anybody looks"
    rows = []
    for arm, score in ((BASE, 0.1), (NEW, 1.0)) * 3:
        who = {"x-pawl-session": session(arm, rollout)}
        status, body = live.request(CHAT, ASK, headers=who)
        assert status == 200
        rows += [{"interaction": body["id"], "kind": kind, "score": score} for kind in ("outcome", "rating")]
        for _ in live.client().chat.completions.create(**ASK, stream=True, extra_headers=who):  # type: ignore[call-overload]
            pass
    live.upstream.statuses["base"] = [(429, {"retry-after": "0"})]
    live.request(CHAT, ASK, headers={"x-pawl-session": session(BASE, rollout)})
    live.upstream.failing |= {"base", "fn-v2"}
    for _ in range(3):
        status, body = live.request(CHAT, ASK)
        assert status == 200 and "I am big" in str(body), body
        rows.append({"interaction": body["id"], "kind": "outcome", "score": 0.8})
    assert live.request(CHAT, ASK, headers={"x-pawl-privacy": "local_only"})[0] >= 500
    live.upstream.failing.clear()
    assert live.request("/v1/feedback", rows)[0] == 200
    assert live.request(CHAT, ASK, key="pawl_nobody")[0] == 401
    live.request(CHAT, ASK, key=strict)
    time.sleep(1.2)  # breakers try again


def test_every_panel_gets_data_and_what_is_wrong_alarms(
    live: LiveGateway, watched: tuple[Prometheus, Exporters]
) -> None:
    prometheus, exporters = watched
    a_week(live)
    one_a_minute = live.control.create_key("client", "hasty", KeyTerms(limits=LimitsSpec(requests_per_minute=1)))[1]
    asked = [(b.name, title, e.replace("$agent", ".*")) for b in BOARDS for title, e in queries(b)]
    end, missing = time.monotonic() + 90, asked
    while missing and time.monotonic() < end:
        traffic(live, one_a_minute)
        exporters.go_on()
        missing = [each for each in asked if not prometheus.ask(each[2])]
    assert missing == []

    # The champion's outcomes are at 0.1 where 0.9 was approved; the challenger's good ones do not hide it.
    def firing() -> set[str]:
        with urllib.request.urlopen(f"{prometheus.url}/api/v1/alerts", timeout=10) as answer:
            alerts: list[dict[str, Any]] = json.loads(answer.read())["data"]["alerts"]
        return {a["labels"]["alertname"] for a in alerts if a["state"] == "firing"}

    wanted = {"QualityUnder90PercentOfBaseline", "CloudFallbackOver5Percent", "ErrorRateOver5Percent",
              "AvailabilityUnder99Percent", "ApprovalUnanswered", "ReplicaDown", "RoutingChanged",
              "TrafficDrifted"}  # fmt: skip
    end = time.monotonic() + 60
    while not wanted <= firing() and time.monotonic() < end:
        traffic(live, one_a_minute)
    assert wanted <= (found := firing()), wanted - found
    assert not found & {"GatewayDown", "LakeLags", "LatencyP95Over5s", "NewModel", "NobodyLooksForDrift",
                        "QualityUnder95PercentOfBaseline"}  # fmt: skip
    (ratio,) = prometheus.ask("agent:pawl_champion_quality:ratio_to_baseline")
    assert ratio == pytest.approx(0.1 / 0.9, rel=0.01)
