"""What a rollout's records say: the comparison of its two arms, and the guardrails' counts (pure).

The unit of comparison is the session within a stage: its score is the mean over its scored interactions, because the
turns of one session are not independent. Differences are ordered by the time at which they became known, so that a
later look only appends to what an earlier look saw (but for sessions whose further turns are scored later, which
revises their mean).

How a difference d in [-1, 1] is made:
- shadow: a session's mean over its pairs (what the client got from the champion, the challenger's shadow of it);
- percentage stages below 100: blocks. Scored sessions of the two arms wait for each other; a block closes as soon as
  it holds both, and d is the difference of its arms' means. Which arm a session goes to is a hash and has nothing to
  do with its score, so d has the mean "challenger - champion" given all earlier blocks. Each session is used once;
- 100 and watch: no champion answers any more. d is the challenger's session against a lower bound of the champion's
  mean in this rollout's earlier stages. While that bound holds, d is at least as large as the comparison with the
  true mean, so the e-value stays valid at the price of the bound's own error, `REFERENCE_SHARE` of alpha.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from pawl.lake.records import Feedback, Interaction
from pawl.rollout.route import BUCKETS, bucket
from pawl.rollout.sequential import lower_bound
from pawl.rollout.state import Rollout

REFERENCE_SHARE = 0.1  # of the rollout's alpha


class ArmEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """One arm in the present stage. `calls` and what follows count single interactions."""

    sessions: int = 0  # scored sessions
    mean: float | None = None  # of the scored sessions
    settled: int = 0  # sessions old enough for feedback, see `_missing`
    missing: int = 0  # of those, the ones without any score
    calls: int = 0
    errors: int = 0
    latencies: int = 0  # calls whose latency counts: those that did not fail
    p95_s: float | None = None


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that `decide` looks at."""

    stage: str
    champion: ArmEvidence = ArmEvidence()
    challenger: ArmEvidence = ArmEvidence()
    comparisons: int = 0  # differences of the present stage
    differences: tuple[float, ...] = ()  # challenger - champion over the whole rollout, as they became known
    increments: tuple[float, ...] = ()  # the same, and the sessions at 100 and in watch against `reference`
    reference: float | None = None  # lower bound of the champion's mean; None before 100 and without champion scores
    failures: tuple[bool, ...] = ()  # the challenger's calls over the whole rollout, in order


class _Unit(msgspec.Struct):
    """A session within a stage."""

    stage: str
    known_at: float
    values: list[float]

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)


def failed(call: Interaction) -> bool:
    """Whether the arm failed to answer. Counted by the error guardrail, never as a low score."""
    return call.status == 0 or call.status >= 500 or call.error is not None or call.broken


def scores(feedback: Iterable[Feedback]) -> dict[str, tuple[float, float]]:
    """Interaction -> (score 0..1, when it first became known).

    The mean over sources of their latest outcome; ratings and acceptance count where there is no outcome.
    """
    latest: dict[tuple[str, bool], dict[tuple[str, str], Feedback]] = defaultdict(dict)
    first: dict[tuple[str, bool], float] = {}
    for f in feedback:
        if f.score is None or f.kind == "correction":
            continue
        mine, voice = (f.interaction, f.kind == "outcome"), (f.source, f.kind)
        before = latest[mine].get(voice)
        if before is None or (f.at, f.id) >= (before.at, before.id):
            latest[mine][voice] = f
        first[mine] = min(f.at, first.get(mine, math.inf))
    found: dict[str, tuple[float, float]] = {}
    for (interaction, is_outcome), voices in latest.items():
        if is_outcome or (interaction, True) not in latest:
            values = [min(1.0, max(0.0, f.score)) for f in voices.values() if f.score is not None]
            found[interaction] = (sum(values) / len(values), first[interaction, is_outcome])
    return found


def gather(rollout: Rollout, interactions: Iterable[Interaction], feedback: Iterable[Feedback]) -> Evidence:
    """Sum up a rollout's records; records of other rollouts and agents are passed over."""
    seen = sorted({i.id: i for i in interactions if i.agent == rollout.agent}.values(), key=lambda i: (i.at, i.id))
    known = scores(feedback)
    champion = [i for i in seen if _is_champion(rollout, i)]
    answers = [i for i in seen if _is_challenger(rollout, i)]
    by_id = {i.id: i for i in champion}
    shadows = [
        msgspec.structs.replace(i, stage="shadow")
        for i in seen
        if i.role == "shadow" and i.arm == rollout.challenger.name and i.shadow_of in by_id
    ]
    calls = sorted((*shadows, *answers), key=lambda i: (i.at, i.id))
    champion_units, challenger_units = _units(champion, known), _units(answers, known)

    made = _pairs(by_id, shadows, known)
    for stage in {u.stage for u in challenger_units if u.stage not in ("shadow", "100", "watch")}:
        made += _blocks(stage, champion_units, challenger_units)
    made.sort(key=lambda d: d[0])
    late = [u for u in challenger_units if u.stage in ("100", "watch")]
    reference = _reference(rollout, champion_units) if rollout.stage in ("100", "watch") or late else None
    against = [(u.known_at, u.mean - reference) for u in late] if reference is not None else []
    ordered = sorted([(at, d) for at, d, _ in made] + against)

    now = rollout.stage
    in_stage = _pair_units(made) if now == "shadow" else [u for u in challenger_units if u.stage == now]
    missing = _missing(now, champion, answers, known)
    return Evidence(
        stage=now,
        champion=_arm([i for i in champion if i.stage == now], [u for u in champion_units if u.stage == now], missing[0]),
        challenger=_arm([i for i in calls if i.stage == now], in_stage, missing[1]),
        comparisons=sum(1 for _, _, stage in made if stage == now),
        differences=tuple(d for _, d, _ in made),
        increments=tuple(d for _, d in ordered),
        reference=reference,
        failures=tuple(failed(i) for i in calls),
    )
