"""What a rollout's records say: the comparison of its two arms, and the guardrails' counts (pure)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec

from pawl.lake.records import Feedback, Interaction
from pawl.rollout.differences import Difference, Unit, blocks, failed, pairs, scores, units
from pawl.rollout.route import BUCKETS, bucket
from pawl.rollout.sequential import lower_bound
from pawl.rollout.state import Rollout

REFERENCE_SHARE = 0.1  # of the rollout's alpha: the risk that `reference` lies above the champion's true mean
ALONE = ("100", "watch")  # stages in which no champion answers any more


class ArmEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """One arm in the present stage."""

    sessions: int = 0  # scored ones
    mean: float | None = None  # of their scores
    settled: int = 0  # sessions old enough to have feedback (percentage stages below 100)
    missing: int = 0  # of those, the ones without any score
    calls: int = 0
    errors: int = 0
    latencies: int = 0  # calls that did not fail
    p95_s: float | None = None  # seconds, of those


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that `decide` looks at."""

    stage: str
    champion: ArmEvidence = ArmEvidence()
    champion_overall: ArmEvidence = ArmEvidence()  # over all stages, for what needs it at 100 and in watch too
    challenger: ArmEvidence = ArmEvidence()
    comparisons: int = 0  # differences made in the present stage
    differences: tuple[float, ...] = ()  # challenger - champion over the whole rollout, as they became known
    increments: tuple[float, ...] = ()  # the same with the sessions at 100 and in watch against `reference`
    reference: float | None = None  # lower bound of the champion's mean; None before 100, or without its scores
    failures: tuple[bool, ...] = ()  # the challenger's calls over the whole rollout, in order


def gather(rollout: Rollout, interactions: Iterable[Interaction], feedback: Iterable[Feedback]) -> Evidence:
    """Sum up a rollout's records; those of other rollouts are passed over, duplicates count once.

    Shadow gives pairs, the percentage stages below 100 give blocks (`differences.blocks`). At 100 and in watch no
    champion answers: there d is the challenger's session against an anytime-valid lower bound of the champion's mean
    in the earlier stages. While that bound holds, d is no smaller than the comparison with the true mean would be,
    so the e-value stays valid at the price of the bound's own risk, `REFERENCE_SHARE` of alpha.
    """
    seen = sorted({i.id: i for i in interactions}.values(), key=lambda i: (i.at, i.id))
    known = scores(feedback)
    champion = [i for i in seen if _by_champion(rollout, i)]
    answered = {i.id: i for i in champion}
    shadows = [
        # The answer says which stage and session a shadow belongs to, whatever the journal wrote beside the shadow.
        msgspec.structs.replace(i, stage=answered[i.shadow_of].stage, session=answered[i.shadow_of].session)
        for i in seen
        if i.role == "shadow" and i.arm == rollout.challenger.name and i.shadow_of in answered
    ]
    calls = sorted([*shadows, *(i for i in seen if _by_challenger(rollout, i))], key=lambda i: (i.at, i.id))
    theirs, mine = units(champion, known), units(calls, known)

    made = pairs((i for i in champion if i.stage == "shadow"), shadows, known)
    for stage in {u.stage for u in mine} - {"shadow", *ALONE}:
        made += blocks(stage, theirs, mine)
    made.sort()
    alone = [u for u in mine if u.stage in ALONE]
    reference = None
    if theirs and (alone or rollout.stage in ALONE):
        reference = lower_bound([u.score for u in theirs], REFERENCE_SHARE * rollout.spec.alpha)
    against = [] if reference is None else [Difference(u.known_at, u.score - reference, u.stage) for u in alone]

    now = rollout.stage
    frontier = max((i.at for i in (*champion, *calls) if i.id in known and i.stage == now), default=-math.inf)
    return Evidence(
        stage=now,
        champion=_arm(now, champion, theirs, frontier),
        champion_overall=_arm(None, champion, theirs, frontier),
        challenger=_arm(now, calls, mine, frontier),
        comparisons=sum(d.stage == now for d in made),
        differences=tuple(d.value for d in made),
        increments=tuple(d.value for d in sorted([*made, *against])),
        reference=reference,
        failures=tuple(failed(i) for i in calls),
    )


def _by_challenger(rollout: Rollout, i: Interaction) -> bool:
    return i.rollout == rollout.id and i.role == "answer" and i.arm == rollout.challenger.name


def _by_champion(rollout: Rollout, i: Interaction) -> bool:
    """The champion's own sessions only.

    Where it stands in for a challenger that failed it answers sessions that are not a random sample.
    """
    if i.rollout != rollout.id or i.role != "answer" or i.arm != rollout.champion.name:
        return False
    if i.stage == "shadow":
        return True
    percent = int(i.stage) if i.stage and i.stage.isdigit() else 100
    return bucket(rollout.agent, rollout.id, i.session) >= percent * BUCKETS // 100


def _arm(
    stage: str | None, all_calls: Sequence[Interaction], all_units: Sequence[Unit], frontier: float
) -> ArmEvidence:
    calls = [i for i in all_calls if stage in (None, i.stage)]
    scored = [u.score for u in all_units if stage in (None, u.stage)]
    good = [i for i in calls if not failed(i)]
    latencies = sorted(i.latency_s for i in good)
    # Feedback has caught up with what is older than the newest scored call of either arm; younger sessions may still
    # get theirs. In shadow no client sees the challenger's answer, so the arms' feedback cannot be compared there.
    compared = stage not in (None, "shadow", *ALONE)
    last = {i.session: i.at for i in good} if compared else {}
    have = {u.session for u in all_units if u.stage == stage}
    settled = [session for session, at in last.items() if at <= frontier]
    return ArmEvidence(
        sessions=len(scored),
        mean=sum(scored) / len(scored) if scored else None,
        settled=len(settled),
        missing=sum(session not in have for session in settled),
        calls=len(calls),
        errors=len(calls) - len(good),
        latencies=len(latencies),
        p95_s=latencies[math.ceil(0.95 * len(latencies)) - 1] if latencies else None,
    )
