"""What a rollout's records say: the comparison of its two arms, and the guardrails' counts (pure)."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import msgspec

from pawl.lake.records import Feedback, Interaction
from pawl.rollout.bands import Both
from pawl.rollout.differences import Difference, Unit, blocks, failed, pairs, refused, scores, units
from pawl.rollout.route import BUCKETS, bucket
from pawl.rollout.sequential import lower_bound
from pawl.rollout.state import Rollout

REFERENCE_SHARE = 0.1  # of the rollout's alpha: the risk that `reference` lies above the champion's true mean
ALONE = ("100", "watch")  # stages in which no champion answers any more
# A draft that a cascade refused counts as its arm's: without it an arm would be judged by what passed the check alone.
_ITS_OWN = ("answer", "draft")


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
    first_tokens: int = 0  # of those, the streamed ones
    p95_first_token_s: float | None = None  # seconds, of these
    usd: float = 0.0  # mean of a call that did not fail
    failures: int = 0  # scored sessions below one half
    inconclusive: int = 0  # sessions with feedback that gives no score
    barred: int = 0  # requests that were this arm's, and that privacy kept from it


class Outcome(NamedTuple):
    """What came of one call."""

    at: float  # epoch seconds
    failed: bool


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that `decide` looks at."""

    stage: str
    champion: ArmEvidence = ArmEvidence()
    champion_overall: ArmEvidence = ArmEvidence()  # over all stages, for what needs it at 100 and in watch too
    challenger: ArmEvidence = ArmEvidence()
    comparisons: int = 0  # differences made in the present stage
    compared: tuple[Both, ...] = ()  # (challenger, champion) over the whole rollout, as they became known
    increments: tuple[Both, ...] = ()  # the same with the sessions at 100 and in watch beside `reference`
    moments: tuple[float, ...] = ()  # epoch seconds at which each of the increments became known
    reference: float | None = None  # lower bound of the champion's mean; None before 100, or without its scores
    calls: tuple[Outcome, ...] = ()  # the challenger's over the whole rollout, in order
    champion_calls: tuple[Outcome, ...] = ()  # the same; also those in which it stood in for a challenger that failed
    scores: tuple[float, ...] = ()  # of the challenger's sessions over the whole rollout, as they became known

    @property
    def differences(self) -> tuple[float, ...]:
        """Challenger - champion of everything that was compared."""
        return tuple(mine - theirs for mine, theirs in self.compared)


def gather(rollout: Rollout, interactions: Iterable[Interaction], feedback: Iterable[Feedback]) -> Evidence:
    """Sum up a rollout's records; those of other rollouts are passed over, duplicates count once.

    Shadow gives pairs, the percentage stages below 100 give blocks (`differences.blocks`). At 100 and in watch no
    champion answers: there d is the challenger's session against an anytime-valid lower bound of the champion's mean
    in the earlier stages. While that bound holds, d is no smaller than the comparison with the true mean would be,
    so the e-value stays valid at the price of the bound's own risk, `REFERENCE_SHARE` of alpha.
    """
    seen = sorted({i.id: i for i in interactions if not refused(i)}.values(), key=lambda i: (i.at, i.id))
    said = list(feedback)
    known = scores(said)
    unclear = {f.interaction for f in said if f.score is None and f.kind != "correction"} - known.keys()
    champion = [i for i in seen if _by_champion(rollout, i)]
    # By the id of what the client got: a draft of the champion's is what a shadow is to be compared with.
    answered = {i.shadow_of if i.role == "draft" and i.shadow_of else i.id: i for i in champion}
    shadows = [
        _beside(i, answered[i.shadow_of])
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
    against = [] if reference is None else [Difference(u.known_at, u.stage, u.score, reference) for u in alone]

    in_order = sorted([*made, *against])
    now = rollout.stage
    frontier = max((i.at for i in (*champion, *calls) if i.id in known and i.stage == now), default=-math.inf)
    return Evidence(
        stage=now,
        champion=_arm(now, champion, theirs, frontier, unclear),
        champion_overall=_arm(None, champion, theirs, frontier, unclear),
        challenger=msgspec.structs.replace(
            _arm(now, calls, mine, frontier, unclear),
            barred=sum(_barred(rollout, i) for i in seen) if rollout.challenger.kind == "cloud" else 0,
        ),
        comparisons=sum(d.stage == now for d in made),
        compared=tuple((d.mine, d.theirs) for d in made),
        increments=tuple((d.mine, d.theirs) for d in in_order),
        moments=tuple(d.known_at for d in in_order),
        reference=reference,
        calls=tuple(Outcome(i.at, failed(i)) for i in calls),
        champion_calls=tuple(Outcome(i.at, failed(i)) for i in seen if _of_champion(rollout, i)),
        scores=tuple(u.score for u in mine),
    )


def _beside(shadow: Interaction, answer: Interaction) -> Interaction:
    """The answer says which stage and session a shadow belongs to, whatever the journal wrote beside the shadow."""
    if (shadow.stage, shadow.session, shadow.shadow_of) == (answer.stage, answer.session, answer.id):
        return shadow
    return msgspec.structs.replace(shadow, stage=answer.stage, session=answer.session, shadow_of=answer.id)


def _by_challenger(rollout: Rollout, i: Interaction) -> bool:
    return i.rollout == rollout.id and i.role in _ITS_OWN and i.arm == rollout.challenger.name


def _by_champion(rollout: Rollout, i: Interaction) -> bool:
    """The champion's own sessions only.

    Where it stands in for a challenger that failed it answers sessions that are not a random sample.
    """
    return _of_champion(rollout, i) and (i.stage == "shadow" or not _sent_to_challenger(rollout, i))


def _of_champion(rollout: Rollout, i: Interaction) -> bool:
    return i.rollout == rollout.id and i.role in _ITS_OWN and i.arm == rollout.champion.name


def _barred(rollout: Rollout, i: Interaction) -> bool:
    """Whether the challenger, which is a cloud, was to answer this and privacy had the champion do it."""
    stands_in = i.rollout == rollout.id and i.role == "answer" and i.arm == rollout.champion.name
    private = i.privacy != "open" and i.stage != "shadow"
    return stands_in and private and _sent_to_challenger(rollout, i)


def _sent_to_challenger(rollout: Rollout, i: Interaction) -> bool:
    """Whether the split gave this session to the challenger, by the share that the route had then."""
    percent = int(i.stage) if i.stage and i.stage.isdigit() else 100
    for revision, share in rollout.shares:
        if revision <= i.route_revision:
            percent = share
    return bucket(rollout.agent, rollout.id, i.session) < percent * BUCKETS // 100


def _arm(
    stage: str | None,
    all_calls: Sequence[Interaction],
    all_units: Sequence[Unit],
    frontier: float,
    unclear: Collection[str],
) -> ArmEvidence:
    calls = [i for i in all_calls if stage in (None, i.stage)]
    scored = [u.score for u in all_units if stage in (None, u.stage)]
    good = [i for i in calls if not failed(i)]
    latencies = [i.latency_s for i in good]
    first_tokens = [i.first_token_s for i in good if i.first_token_s is not None]
    # Feedback has caught up with what is older than the newest scored call of either arm; younger sessions may still
    # get theirs. In shadow no client sees the challenger's answer, so the arms' feedback cannot be compared there.
    compared = stage not in (None, "shadow", *ALONE)
    last = {i.session: i.at for i in good} if compared else {}
    have = {u.session for u in all_units if stage in (None, u.stage)}
    settled = [session for session, at in last.items() if at <= frontier]
    return ArmEvidence(
        sessions=len(scored),
        mean=sum(scored) / len(scored) if scored else None,
        settled=len(settled),
        missing=sum(session not in have for session in settled),
        calls=len(calls),
        errors=len(calls) - len(good),
        latencies=len(latencies),
        p95_s=_p95(latencies),
        first_tokens=len(first_tokens),
        p95_first_token_s=_p95(first_tokens),
        usd=sum(i.cost_usd for i in good) / len(good) if good else 0.0,
        failures=sum(score < 0.5 for score in scored),
        inconclusive=len({i.session for i in good if i.id in unclear} - have),
    )


def _p95(values: list[float]) -> float | None:
    """The 95th percentile, by the nearest rank; None of nothing."""
    return sorted(values)[math.ceil(0.95 * len(values)) - 1] if values else None
