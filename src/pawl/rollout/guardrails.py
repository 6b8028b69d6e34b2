"""Limits that hold whatever the comparison says: failures, latency, cost, privacy, a floor of quality (pure).

Each looks at one rollout's evidence and says what it demands and why, or None where the limit holds.
"""

from __future__ import annotations

from math import inf

from pawl.rollout.evidence import Evidence
from pawl.rollout.exact import different, more_often
from pawl.rollout.sequential import excesses, lower_bound
from pawl.rollout.state import Action, Rollout

ERROR_SHARE = 0.2  # of the rollout's alpha: the risk of rolling back one that fails as often as it may
FLOOR_SHARE = 0.1  # the same for one that is at the floor of quality, where there is one
# A hold costs little and ends by itself, so the feedback test is not anytime-valid: it is merely strict.
MISSING_P = 0.001
MISSING_GAP = 0.2
# Nor is the comparison of failures, looked at while they go on: it only spares a challenger that did break its limit.
# Where half or a third of both arms' calls failed, 1 of 120 simulated challengers was not spared (at 0.01, 4 were).
FAILS_MORE_P = 0.002
FEW_CALLS = 3

Found = tuple[Action, str]


def broken(rollout: Rollout, evidence: Evidence) -> Found | None:
    """The first limit that is broken, the gravest first."""
    return (
        _fails(rollout, evidence)
        or _poor(rollout, evidence)
        or _kept_private(rollout, evidence)
        or _slow(rollout, evidence)
        or _dear(rollout, evidence)
        or _unheard(evidence)
    )


def _fails(rollout: Rollout, evidence: Evidence) -> Found | None:
    """An outage too: at the default limit four failures in a row suffice at the beginning, eleven after 2,000 good
    calls.

    Each stretch of failures is set beside the champion's calls of the same time, those included in which it stood in
    for the challenger: where they fail as often the servers are to blame, whatever share each arm had before, and it
    holds until later calls have outweighed those failures.
    """
    spec, calls = rollout.spec, evidence.calls
    found = excesses([c.failed for c in calls], spec.max_error_rate, 1.0 / (ERROR_SHARE * spec.alpha))
    both = ""
    for stretch in found:
        mine = calls[stretch.first : stretch.last + 1]
        until = calls[stretch.last + 1].at if stretch.last + 1 < len(calls) else inf
        theirs = [c for c in evidence.champion_calls if mine[0].at <= c.at <= until]
        bad, errors = sum(c.failed for c in mine), sum(c.failed for c in theirs)
        told = f"{bad} of {len(mine)} calls failed, more than {spec.max_error_rate:.0%} allow"
        if len(theirs) < FEW_CALLS or more_often(bad, len(mine), errors, len(theirs)) <= FAILS_MORE_P:
            return "rollback", told
        if not stretch.over:
            both = f"{told}, but so did {errors} of {len(theirs)} champion calls: check the servers"
    return ("hold", both) if both else None


def _poor(rollout: Rollout, evidence: Evidence) -> Found | None:
    floor = rollout.spec.min_quality
    if floor is None or not evidence.scores:
        return None
    most = 1.0 - lower_bound([1.0 - score for score in evidence.scores], FLOOR_SHARE * rollout.spec.alpha)
    return ("rollback", f"its mean score is below {most:.3f}, the floor is {floor:g}") if most < floor else None


def _kept_private(rollout: Rollout, evidence: Evidence) -> Found | None:
    kept, most = evidence.challenger.barred, rollout.spec.max_privacy_blocks
    if kept <= most:
        return None
    return "hold", f"{kept} of its requests were private and it is a cloud, {most} may be: a local one must answer them"


def _slow(rollout: Rollout, evidence: Evidence) -> Found | None:
    spec, mine, theirs = rollout.spec, evidence.challenger, evidence.champion_overall
    for what, number, p95, beside, limit in (
        ("latency", mine.latencies, mine.p95_s, theirs.p95_s, spec.max_p95_latency_s),
        ("time to the first token", mine.first_tokens, mine.p95_first_token_s, theirs.p95_first_token_s,
         spec.max_p95_first_token_s),
    ):  # fmt: skip
        if limit is None or p95 is None or number < spec.min_latency_samples or p95 <= limit:
            continue
        if beside is None or p95 > beside:
            told = "" if beside is None else f", the champion's is {beside:.2f} s"
            return "hold", f"p95 {what} {p95:.2f} s is over {limit:.2f} s{told}"
    return None


def _dear(rollout: Rollout, evidence: Evidence) -> Found | None:
    spec, mine = rollout.spec, evidence.challenger
    limit = spec.max_usd_per_request
    if limit is None or mine.latencies < spec.min_latency_samples or mine.usd <= limit:
        return None
    return "hold", f"a request costs {mine.usd:.6f} USD, the limit is {limit:.6f}"


def _unheard(evidence: Evidence) -> Found | None:
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
