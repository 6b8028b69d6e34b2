"""A plausible turn of the loop, made from a seed, for the tests of its page."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec

from pawl.evaluation.report import (
    ClassMetrics,
    Comparison,
    GateDecision,
    Interval,
    ItemResult,
    McNemar,
    Metrics,
    ModelResult,
    Pattern,
    Power,
    Slice,
    SuiteResult,
)
from pawl.fleet.spec import RolloutSpec
from pawl.fleet.upstream import UpstreamSpec
from pawl.lake.records import Interaction
from pawl.monitoring.economics import summarise
from pawl.monitoring.loop_data import (
    DatasetFacts,
    Distance,
    LoopReport,
    OnlinePoint,
    Setback,
    TimeSplit,
    TrainingFacts,
    Week,
)
from pawl.rollout.control import Approval, Request
from pawl.rollout.route import Arm
from pawl.rollout.state import Decision, Rollout, move

START = 1_795_000_000.0
CLOUD = UpstreamSpec(
    kind="cloud",
    base_url="http://127.0.0.1:1/v1",
    usd_per_million_prompt=2.5,
    usd_per_million_completion=10,
    stand_in=True,
)
BEFORE = Arm("base", "local", "base", "local")
AFTER = Arm("functional-negative-v2-3fa9c1d2", "local", "functional-negative-v2-3fa9c1d2", "local")


def detailed(found: Comparison, text: str = "") -> Comparison:
    """With all that a comparison can hold: slices, failures, the regression suite, parts of the score, classes."""

    def slice_(name: str, mean: float, holm: float, **more: Any) -> Slice:
        return Slice(
            name=name + text, by="scenario", items=40, sources=20, champion=0.4, challenger=0.4 + mean,
            difference=Interval(mean, mean - 0.07, mean + 0.07), loss_at_most=0.1, p_better=holm / 3,
            p_worse=1 - holm / 3, holm_better=holm, holm_worse=1.0, **more,
        )  # fmt: skip

    def metrics(level: float) -> Metrics:
        classes = tuple(
            ClassMetrics(label=name + text, items=60, precision=level, recall=level - 0.1, f1=level - 0.05)
            for name in ("flaky", "stable")
        )
        parts = {"validity": Interval(level, level - 0.05, level + 0.05), "diversity": Interval(0.5, 0.4, 0.6)}
        return Metrics(
            items=118, conforms=level, means=parts, accuracy=Interval(level, level - 0.1, level + 0.1), macro_f1=level,
            classes=classes, brier=0.2, calibration_error=0.08, confident=118, prompt_tokens=92.0,
            completion_tokens=121.0, latency_p50_s=1.2, latency_p95_s=3.4, usd_per_thousand=0.31,
        )  # fmt: skip

    suite = SuiteResult(
        outcomes=McNemar(both=20, gained=6, lost=1, neither=3, p_gained=0.0625, p_lost=0.99),
        lost=("regression-17" + text,), must_pass_failed=("regression-3" + text,), left_out=2, ungraded=1,
    )  # fmt: skip
    return msgspec.structs.replace(
        found,
        champion=msgspec.structs.replace(found.champion, metrics=metrics(0.6)),
        challenger=msgspec.structs.replace(found.challenger, metrics=metrics(0.8)),
        slices=(slice_("missing", 0.2, 0.001, protected=True), slice_("enum", -0.02, 0.8)),
        failures=(
            Pattern(
                name="wrongly_accepted" + text, champion=30, challenger=12, broken=3, mended=21, sources=9,
                examples=("service1.CreateThing1", "service2.CreateThing2"),
            ),
        ),
        suite=suite,
        power=Power(sd=0.3, design_effect=1.4, power=0.8, detectable=0.09, items_for_margin=310),
    )  # fmt: skip


def comparison(seed: int = 7, *, text: str = "") -> Comparison:
    """120 items of 30 sources; `text` is put into every prompt and answer."""
    rng = random.Random(seed)
    old: list[ItemResult] = []
    new: list[ItemResult] = []
    for n in range(120):
        item, source = f"service{n % 30}.CreateThing{n}", f"service{n % 30}"
        prompt = f"Write negative test cases for POST /things/{n} whose body must have a name of at most 64 characters."
        cases = [{"name": f"case {k}", "body": {"name": "x" * (65 + k)}} for k in range(4)]
        a = min(1.0, max(0.0, rng.gauss(0.38, 0.22)))
        b = min(1.0, max(0.0, a + rng.gauss(0.22, 0.24)))
        shared = {"item": item, "source": source, "prompt": prompt + text}
        old.append(ItemResult(**shared, score=a, conforms=True, completion="I would test the name.\n" + text))
        new.append(ItemResult(**shared, score=b, conforms=True, completion=json.dumps(cases, indent=1) + text))
    mean_old = sum(i.score or 0 for i in old) / 120
    mean_new = sum(i.score or 0 for i in new) / 120
    plain = Comparison(
        agent="functional-negative",
        champion=ModelResult(
            name=BEFORE.name,
            score=Interval(mean_old, mean_old - 0.05, mean_old + 0.05),
            conforms=0.871,
            items=tuple(old),
        ),
        challenger=ModelResult(
            name=AFTER.name,
            score=Interval(mean_new, mean_new - 0.045, mean_new + 0.045),
            conforms=0.992,
            items=tuple(new),
        ),
        difference=Interval(mean_new - mean_old, mean_new - mean_old - 0.06, mean_new - mean_old + 0.06),
        p_better=0.00012,
        p_worse=0.9998,
        verdict="better",
        margin=0.05,
        alpha=0.05,
        pairs=118,
        invalid=2,
        sources=30,
        items_digest="5b0c" * 16,
        dataset="functional-negative-9f2c11ab77d0.json",
    )
    return detailed(plain, text[:200])


def rollout(*, rolled_back: bool = False) -> Rollout:
    """Through all stages, about a minute each, or back out at 20 %."""
    state = Rollout(
        id="r1",
        agent="functional-negative",
        version="2",
        champion=BEFORE,
        challenger=AFTER,
        stage="shadow",
        opened_at=START,
        stage_since=START,
        spec=RolloutSpec(),
    )
    seen = ((0.6, 20), (0.8, 9), (0.5, 12), (1.1, 11), (0.7, 14), (0.4, 22))
    for n, (e, sessions) in enumerate(seen):
        back = rolled_back and n == 1
        decision = Decision(
            action="rollback" if back else "advance",
            reason="sessions on the new model score lower than on the one before"
            if back
            else f"{sessions} sessions scored; nothing speaks against going on",
            e_value=31.0 if back else e,
            sessions=sessions,
            needed=8,
            lower=-0.31 if back else -0.04,
            upper=-0.06 if back else 0.41,
        )
        state = move(state, decision, by="watchdog" if back else "roll_out", now=START + 70 * (n + 1))
    return state


def online(seed: int = 3) -> tuple[OnlinePoint, ...]:
    """Scored sessions while the rollout ran."""
    rng = random.Random(seed)
    points = []
    for n in range(210):
        share = min(1.0, (n // 35) * 0.25)
        new = rng.random() < max(share, 0.12)
        score = min(1.0, max(0.0, rng.gauss(0.6 if new else 0.4, 0.2)))
        points.append(OnlinePoint(at=START + 2 * n, arm="challenger" if new else "champion", score=score))
    return tuple(points)


def harm() -> tuple[tuple[float, float], ...]:
    """The evidence of harm after each of them."""
    return tuple((START + 2 * n, 0.9 ** (n % 35) * 1.6) for n in range(210))


def interactions(count: int = 300) -> list[Interaction]:
    """Answers by local, one in ten by the cloud, every third shadowed by the cloud."""
    rows = []
    for n in range(count):
        cloud = n % 10 == 0
        rows.append(
            Interaction(
                id=f"i{n}",
                at=START + n * 1.5,
                agent="functional-negative",
                session=f"s{n}",
                key_id="k",
                arm="cloud" if cloud else "base",
                arm_kind="cloud" if cloud else "local",
                messages=[],
                prompt_tokens=95,
                completion_tokens=120,
                cost_usd=0.0014375 if cloud else 0.0,
            )
        )
        if n % 3 == 0 and not cloud:
            rows.append(
                Interaction(
                    id=f"c{n}",
                    at=START + n * 1.5 + 0.5,
                    agent="functional-negative",
                    session=f"s{n}",
                    key_id="k",
                    arm="cloud",
                    arm_kind="cloud",
                    role="shadow",
                    shadow_of=f"i{n}",
                    messages=[],
                    prompt_tokens=95,
                    completion_tokens=150,
                    cost_usd=0.0017375,
                )
            )
    return rows


def at_the_gate(text: str = "") -> LoopReport:
    """What an approver reads."""
    c = comparison(text=text)
    return LoopReport(
        title="A week of learning" + text,
        agent="functional-negative" + text,
        generated_at=START,
        week="2026-11-16" + text,
        comparison=c,
        gate=GateDecision(decision="promote", reasons=("better than the champion on items never seen" + text,)),
        dataset=DatasetFacts(
            fingerprint="9f2c11ab77d0" * 5 + "abcd",
            counts={
                "answered": 812,
                "with_feedback": 640,
                "valid": 622,
                "scrubbed": 622,
                "good_enough": 471,
                "distinct": 433,
                "balanced": 400,
            },
            examples=400,
            sources=214,
            warnings=("feedback: its interaction is in the lake (known): 3 row(s), e.g. a, b, c",),
            red=("volume for production: 400 examples, needed 10,000",),
        ),
        training=TrainingFacts(
            steps=50,
            seconds=322.4,
            tokens_per_second=527.0,
            losses=tuple(0.35 + 1.9 * 0.93**n + 0.06 * ((n * 7) % 5 - 2) for n in range(50)),
            start="base" + text,
        ),
        lineage={
            "dataset_fingerprint": "9f2c11ab77d0" * 5 + "abcd",
            "base_model": "sha256:" + "77aa" * 16,
            "adapter_sha256": "3fa9c1d2" * 8,
            "code": "0.1.0+g0ed9128",
            "report_digest": c.digest(),
            "parent": "base" + text,
        },
        request=Request(
            agent="functional-negative" + text,
            version="2",
            adapter=AFTER.name,
            adapter_sha256="3fa9c1d2" * 8,
            evidence=c.digest(),
            asked_at=START,
            expires=START + 72 * 3600,
        ),
        time_split=TimeSplit(model_s=612, evidence_s=208, orchestration_s=41),
    )


def at_the_end(text: str = "") -> LoopReport:
    """What everybody reads once the rollout is through."""
    import msgspec

    gate = at_the_gate(text)
    assert gate.comparison is not None
    digest = gate.comparison.digest()
    return msgspec.structs.replace(
        gate,
        generated_at=START + 600,
        approval=Approval(
            id="a1",
            agent="functional-negative",
            version="2",
            evidence=digest,
            verdict="approved",
            by="Dana Keller" + text,
            at=START - 60,
            expires=START + 72 * 3600,
            via="code",
            reason="reads well, no lost cases" + text,
        ),
        rollout=rollout(),
        online=online(),
        harm=harm(),
        economics=summarise(interactions(), name="cloud", upstream=CLOUD),
        distance=Distance(
            upstream="cloud",
            stand_in=True,
            score=Interval(0.93, 0.90, 0.95),
            local=Interval(0.61, 0.55, 0.66),
            items=86,
        ),
        weeks=(
            Week(week="before", score=Interval(0.38, 0.33, 0.43), version="base"),
            Week(week="week 1" + text, score=Interval(0.6, 0.55, 0.65), p_versus_before=0.0001, version=AFTER.name),
            Week(week="week 2", score=Interval(0.68, 0.63, 0.72), p_versus_before=0.021, version=AFTER.name),
        ),
        setbacks=(
            Setback(
                version="3",
                at=START + 900,
                kind="refused",
                reasons=("loses 14 points on held-out items, the margin is 5" + text,),
            ),
            Setback(
                version="4",
                at=START + 1500,
                kind="rolled_back",
                reasons=("forced past the gate; sessions score lower" + text,),
                rollback_s=3.4,
                answered_during=6,
            ),
        ),
    )
