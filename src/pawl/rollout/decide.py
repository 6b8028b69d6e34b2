"""What a rollout's evidence demands (pure). The flow and the watchdog apply the same function.

The rollout's alpha is shared out, so that a challenger that is no worse and fails no more than it may is rolled back
with probability alpha at most, over the whole rollout, however often one looks: `QUALITY_SHARE` for the comparison,
`REFERENCE_SHARE` for the champion's bound at 100 and in watch, `ERROR_SHARE` for the error rate.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from pawl.rollout.evidence import ALONE, REFERENCE_SHARE, Evidence
from pawl.rollout.exact import different, more_often
from pawl.rollout.sequential import confidence_sequence, excess_rate, harm
from pawl.rollout.state import TERMINAL, Decision, Rollout

ERROR_SHARE = 0.2
QUALITY_SHARE = 1.0 - REFERENCE_SHARE - ERROR_SHARE
# At this share of 1/alpha (an e-value of 2 at alpha = 0.05) the evidence leans too far against the challenger for it
# to get more traffic. Simulated with the fleet's minimums and binary scores, 28 of 60 challengers that were worse by
# 0.25 got through, where a share of 0.5 let 38; an equal one needed 126 sessions in place of 125.
CAUTION = 0.1
# A hold costs little and ends by itself, so the feedback test is not anytime-valid: it is merely strict.
MISSING_P = 0.001
MISSING_GAP = 0.2
FAILS_MORE_P = 0.05
FEW_CALLS = 5
AUTOMATION = ("roll_out", "watchdog")

_Found = tuple[Literal["advance", "wait", "hold", "rollback"], str]


def decide(rollout: Rollout, evidence: Evidence, now: float) -> Decision:
    """The next action, with its reason; `now` in epoch seconds. Checked in this order:

    1. rollback: the e-value against "not worse" reached 1/alpha at some time (once crossed it stays crossed);
    2. rollback: the challenger's error rate is above the spec's limit, confirmed by an e-process over all its calls;
       hold instead where the champion fails about as often: then the cluster is broken, not the challenger;
    3. hold: p95 latency over the limit and worse than the champion's; or one arm misses feedback more often
       (Fisher's exact test, two-sided, p < `MISSING_P`, and at least `MISSING_GAP` apart);
    4. wait: a person's hold, too few scored sessions, too short a bake, or evidence that leans against it;
    5. advance.

    A hold by automation ends when its cause has gone; one by a person ends when a person resumes the rollout.
    """
    lower, upper = confidence_sequence(evidence.differences, rollout.spec.alpha)
    present, largest = harm(evidence.increments)
    decision = Decision(
        action="wait",
        reason="",
        e_value=QUALITY_SHARE * largest,
        sessions=evidence.comparisons if rollout.stage == "shadow" else evidence.challenger.sessions,
        needed=_needed(rollout),
        lower=lower,
        upper=upper,
    )
    if rollout.stage in TERMINAL:
        return msgspec.structs.replace(decision, reason=f"this rollout has ended: {rollout.stage}")
    if evidence.stage != rollout.stage:
        return msgspec.structs.replace(decision, reason=f"the evidence is of stage {evidence.stage}: gather it again")
    action, reason = (
        _worse(rollout, decision)
        or _fails(rollout, evidence)
        or _slow(rollout, evidence)
        or _unheard(evidence)
        or _too_early(rollout, evidence, decision, QUALITY_SHARE * present, now)
        or ("advance", _praise(evidence, decision))
    )
    return msgspec.structs.replace(decision, action=action, reason=reason)


def _needed(rollout: Rollout) -> int:
    spec = rollout.spec
    return {"shadow": spec.min_shadow_pairs, "watch": spec.min_watch_sessions}.get(
        rollout.stage, spec.min_stage_sessions
    )


def _worse(rollout: Rollout, decision: Decision) -> _Found | None:
    limit = 1.0 / rollout.spec.alpha
    if decision.e_value < limit:
        return None
    return "rollback", f"worse than the champion: evidence {decision.e_value:.3g} reached {limit:.3g}"


def _fails(rollout: Rollout, evidence: Evidence) -> _Found | None:
    spec, failures, champion = rollout.spec, evidence.failures, evidence.champion_overall
    if excess_rate(failures, spec.max_error_rate) < 1.0 / (ERROR_SHARE * spec.alpha):
        return None
    told = f"{sum(failures)} of {len(failures)} calls failed, more than {spec.max_error_rate:.0%} allow"
    if champion.calls >= FEW_CALLS:
        p = more_often(sum(failures), len(failures), champion.errors, champion.calls)
        if p > FAILS_MORE_P:
            return "hold", f"{told}, but so did {champion.errors} of {champion.calls} champion calls: check the servers"
    return "rollback", told


def _slow(rollout: Rollout, evidence: Evidence) -> _Found | None:
    spec, mine, theirs = rollout.spec, evidence.challenger, evidence.champion_overall.p95_s
    if mine.p95_s is None or mine.latencies < spec.min_latency_samples or mine.p95_s <= spec.max_p95_latency_s:
        return None
    if theirs is not None and mine.p95_s <= theirs:
        return None
    beside = "" if theirs is None else f", the champion's is {theirs:.2f} s"
    return "hold", f"p95 latency {mine.p95_s:.2f} s is over {spec.max_p95_latency_s:.2f} s{beside}"


def _unheard(evidence: Evidence) -> _Found | None:
    mine, theirs = evidence.challenger, evidence.champion
    if not mine.settled or not theirs.settled:
        return None
    if abs(mine.missing / mine.settled - theirs.missing / theirs.settled) < MISSING_GAP:
        return None
    if different(mine.missing, mine.settled, theirs.missing, theirs.settled) >= MISSING_P:
        return None
    return "hold", (
        f"feedback is missing for {mine.missing} of {mine.settled} challenger and {theirs.missing} of "
        f"{theirs.settled} champion sessions: check its source"
    )


def _too_early(rollout: Rollout, evidence: Evidence, decision: Decision, present: float, now: float) -> _Found | None:
    if rollout.held and rollout.history and rollout.history[-1].by not in AUTOMATION:
        return "wait", f"held by {rollout.history[-1].by}: goes on when a person resumes it"
    if decision.sessions < decision.needed:
        what = "pairs" if rollout.stage == "shadow" else "challenger sessions"
        return "wait", f"{decision.sessions} of {decision.needed} scored {what}"
    if rollout.stage not in ALONE and evidence.comparisons == 0:
        return "wait", "no scored champion session to compare with yet"
    left = rollout.spec.min_bake_s - (now - rollout.stage_since)
    if left > 0:
        return "wait", f"bakes for {left:.0f} s more"
    if present >= CAUTION / rollout.spec.alpha:
        return "wait", f"evidence {present:.3g} leans against the challenger: more sessions first"
    return None


def _praise(evidence: Evidence, decision: Decision) -> str:
    if evidence.stage in ALONE and evidence.reference is None:
        return (
            f"{decision.sessions} scored sessions without a failure of a guardrail; no champion scores to compare with"
        )
    return f"{decision.sessions} scored sessions without evidence of harm ({decision.e_value:.3g})"
