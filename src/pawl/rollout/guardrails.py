"""Limits that hold whatever the comparison says: failures, latency, cost, privacy, a floor of quality (pure).

Each looks at one rollout's evidence and says what it demands and why, or None where the limit holds.
"""

from __future__ import annotations

from pawl.rollout.evidence import Evidence
from pawl.rollout.exact import different, more_often
from pawl.rollout.sequential import excess_rate, lower_bound
from pawl.rollout.state import Action, Rollout

ERROR_SHARE = 0.2  # of the rollout's alpha: the risk of rolling back one that fails as often as it may
FLOOR_SHARE = 0.1  # the same for one that is at the floor of quality, where there is one
# A hold costs little and ends by itself, so the feedback test is not anytime-valid: it is merely strict.
MISSING_P = 0.001
MISSING_GAP = 0.2
FAILS_MORE_P = 0.05
FEW_CALLS = 5

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
    """An outage too: four failures in a row suffice at the default limit.

    Where the champion's calls fail as often it holds, until later calls have outweighed those failures.
    """
    spec, failures, champion = rollout.spec, evidence.failures, evidence.champion_overall
    present, largest = excess_rate(failures, spec.max_error_rate)
    target = 1.0 / (ERROR_SHARE * spec.alpha)
    if largest < target:
        return None
    told = f"{sum(failures)} of {len(failures)} calls failed, more than {spec.max_error_rate:.0%} allow"
    if champion.calls >= FEW_CALLS:
        p = more_often(sum(failures), len(failures), champion.errors, champion.calls)
        if p > FAILS_MORE_P and present < target:
            return None
        if p > FAILS_MORE_P:
            return "hold", f"{told}, but so did {champion.errors} of {champion.calls} champion calls: check the servers"
    return "rollback", told


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
