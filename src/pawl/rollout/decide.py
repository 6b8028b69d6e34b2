"""What a rollout's evidence demands (pure). The flow and the watchdog apply the same function.

The rollout's alpha is shared out, so that a challenger that is no worse and fails no more than it may is rolled back
with probability alpha at most, over the whole rollout, however often one looks: `REFERENCE_SHARE` for the champion's
bound at 100 and in watch, `ERROR_SHARE` for the error rate, `FLOOR_SHARE` for a floor of quality where there is one,
and the rest for the comparison.
"""

from __future__ import annotations

import msgspec

from pawl.fleet.rollout import RolloutSpec
from pawl.rollout.bands import band, ratio_bound
from pawl.rollout.evidence import ALONE, REFERENCE_SHARE, Evidence
from pawl.rollout.guardrails import ERROR_SHARE, FLOOR_SHARE, Found, broken
from pawl.rollout.sequential import confidence_sequence, harm, harm_path
from pawl.rollout.state import TERMINAL, Decision, Rollout, order

# At this share of 1/alpha (an e-value of 2 at alpha = 0.05) the evidence leans too far against the challenger for it
# to get more traffic. Simulated with the fleet's minimums and binary scores, 28 of 60 challengers that were worse by
# 0.25 got through, where a share of 0.5 let 38; an equal one needed 126 sessions in place of 125.
CAUTION = 0.1


def quality_share(spec: RolloutSpec) -> float:
    """The comparison's share of the rollout's alpha."""
    return 1.0 - REFERENCE_SHARE - ERROR_SHARE - (FLOOR_SHARE if spec.min_quality is not None else 0.0)


def evidence_path(rollout: Rollout, evidence: Evidence) -> list[tuple[float, float]]:
    """(epoch seconds, e-value against "the challenger is not worse") after each comparison: what step 1 of `decide`
    compares with 1/alpha."""
    share = quality_share(rollout.spec)
    values = harm_path([mine - theirs for mine, theirs in evidence.increments])
    return [(at, share * e) for at, e in zip(evidence.moments, values, strict=True)]


def decide(rollout: Rollout, evidence: Evidence, now: float) -> Decision:
    """The next action, with its reason; `now` in epoch seconds. Checked in this order:

    1. rollback: the e-value against "not worse" reached 1/alpha at some time (once crossed it stays crossed);
    2. a guardrail (`guardrails.broken`): rolls back or holds;
    3. halve, hold: the quality lies in a band below the champion's (`bands.band`);
    4. wait: a person's hold, too few scored sessions, too short a bake, evidence that leans against it, or a margin
       that is not ruled out yet. A stage that waits longer than the spec allows has stalled: hold, or rollback;
    5. advance.

    A hold by automation ends when its cause has gone; one by a person ends when a person resumes the rollout.
    """
    spec = rollout.spec
    lower, upper = confidence_sequence(evidence.differences, spec.alpha)
    share = quality_share(spec)
    present, largest = harm([mine - theirs for mine, theirs in evidence.increments])
    decision = Decision(
        action="wait",
        reason="",
        e_value=share * largest,
        sessions=evidence.comparisons if rollout.stage == "shadow" else evidence.challenger.sessions,
        needed=_needed(rollout),
        lower=lower,
        upper=upper,
    )
    if rollout.stage in TERMINAL:
        return msgspec.structs.replace(decision, reason=f"this rollout has ended: {rollout.stage}")
    if evidence.stage != rollout.stage:
        return msgspec.structs.replace(decision, reason=f"the evidence is of stage {evidence.stage}: gather it again")
    if decision.e_value >= 1.0 / spec.alpha:
        return _worse(rollout, evidence, decision, share)
    action, reason = (
        broken(rollout, evidence)
        or _in_band(rollout, evidence)
        or _too_early(rollout, evidence, decision, share * present, now)
        or ("advance", _praise(rollout, evidence, decision))
    )
    return msgspec.structs.replace(decision, action=action, reason=reason)


def _needed(rollout: Rollout) -> int:
    spec = rollout.spec
    return {"shadow": spec.min_shadow_pairs, "watch": spec.min_watch_sessions}.get(
        rollout.stage, spec.min_stage_sessions
    )


def _worse(rollout: Rollout, evidence: Evidence, decision: Decision, share: float) -> Decision:
    spec = rollout.spec
    below = ratio_bound(evidence.increments, share * spec.alpha)
    told = f"worse than the champion: evidence {decision.e_value:.3g} reached {1.0 / spec.alpha:.3g}"
    if below is not None:
        told += f"; it has less than {below:.0%} of the champion's quality"
        told += f", under the band of {spec.bands.rollback:.0%}" if below < spec.bands.rollback else ""
    return msgspec.structs.replace(decision, action="rollback", reason=told, below=below)


def _in_band(rollout: Rollout, evidence: Evidence) -> Found | None:
    bands = rollout.spec.bands
    match band(evidence.increments, bands):
        case "halve" if rollout.stage == "shadow":
            return "hold", f"less than {bands.halve:.0%} of the champion's quality: not beyond shadow"
        case "halve":
            return "halve", f"less than {bands.halve:.0%} of the champion's quality: half of the share"
        case "hold":
            return "hold", f"less than {bands.hold:.0%} of the champion's quality: no more traffic"
    return None


def _too_early(rollout: Rollout, evidence: Evidence, decision: Decision, present: float, now: float) -> Found | None:
    if rollout.waits_for_a_person:
        by = next((t.by for t in reversed(rollout.history) if t.decision.action == "hold"), "a person")
        return "wait", f"held by {by}: goes on when a person resumes it"
    why = _missing(rollout, evidence, decision, present, now)
    if why is None:
        return None
    # What a person's hold took is not the challenger's to answer for.
    spec, resumed = rollout.spec, rollout.resumed_at
    waited = now - (rollout.stage_since if resumed is None else resumed)
    if waited <= spec.stall_hours * 3600:
        return "wait", why
    told = f"stalled: {waited / 3600:.0f} hours {'in this stage' if resumed is None else 'since it was resumed'}, {why}"
    return ("wait", f"{told}; it goes on waiting") if spec.stall == "extend" else (spec.stall, told)


def _missing(rollout: Rollout, evidence: Evidence, decision: Decision, present: float, now: float) -> str | None:
    """What this stage lacks for the next one; None where it lacks nothing."""
    spec = rollout.spec
    if decision.sessions < decision.needed:
        what = "pairs" if rollout.stage == "shadow" else "challenger sessions"
        return f"{decision.sessions} of {decision.needed} scored {what}"
    if rollout.stage not in ALONE and evidence.comparisons == 0:
        return "no scored champion session to compare with yet"
    left = spec.min_bake_s - (now - rollout.stage_since)
    if left > 0:
        return f"bakes for {left:.0f} s more"
    if present >= CAUTION / spec.alpha:
        return f"evidence {present:.3g} leans against the challenger: more sessions first"
    margin = spec.non_inferiority
    if margin is not None and rollout.stage == _last_beside(spec) and (decision.lower or 0.0) < -margin:
        return f"may still be worse by {-(decision.lower or 0.0):.3f}, {margin:g} must be ruled out"
    return None


def _last_beside(spec: RolloutSpec) -> str:
    """The last stage in which the champion answers too: later nothing new is learnt of the difference."""
    return [s for s in order(spec) if s not in (*ALONE, "done")][-1]


def _praise(rollout: Rollout, evidence: Evidence, decision: Decision) -> str:
    if evidence.stage in ALONE and evidence.reference is None:
        return (
            f"{decision.sessions} scored sessions without a failure of a guardrail; no champion scores to compare with"
        )
    told = f"{decision.sessions} scored sessions without evidence of harm ({decision.e_value:.3g})"
    if rollout.stage == "watch" and decision.lower is not None:
        told += f"; whatever was seen, it is worse by {max(0.0, -decision.lower):.3f} at most"
    return told
