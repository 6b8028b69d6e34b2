"""A day on one page: what is wrong first, then every agent in a row (pure)."""

from __future__ import annotations

import msgspec

LEAST = 20  # outcomes, or requests, under which a share says nothing
LOW, VERY_LOW = 0.95, 0.90  # of the baseline, as the alerts have it
FALLBACK = 0.05
AVAILABLE = 0.99
_STALE_S = 3600.0  # a look for drift is due every quarter of an hour


class Traffic(msgspec.Struct, frozen=True):
    """Counts in requests, whatever number of models each took; money in US dollars, by the prices of tokens. What
    clients did wrong (4xx) or left is neither answered nor failed."""

    answered: int = 0
    failed: int = 0
    answered_locally: int = 0
    fallbacks: int = 0  # a cloud answered because an arm before it did not
    spent_usd: float = 0.0
    shadow_usd: float = 0.0
    p95_s: float | None = None


class Outcomes(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one arm's answers. The bounds are two-sided 95 %, over sessions; None without outcomes."""

    scored: int = 0
    sessions: int = 0
    mean: float | None = None
    lower: float | None = None
    upper: float | None = None
    rated: int = 0
    rating: float | None = None


class AgentDay(msgspec.Struct, frozen=True, kw_only=True):
    """One agent's day, and where it stands now."""

    agent: str
    champion: str
    traffic: Traffic = Traffic()
    outcomes: Outcomes = Outcomes()  # of the champion's answers
    baseline: float | None = None  # the champion's own evaluation; None where it was never evaluated
    drifting: tuple[str, ...] = ()
    drift_known: bool = False  # whether enough was seen of this champion's traffic to test any of it
    watched_at: float | None = None  # epoch seconds of the last look for drift; None: never
    alarm: bool = False  # what serves breaks a limit, by the watchdog's word
    rollouts: tuple[str, ...] = ()  # in words: open ones, and those that ended that day
    rolled_back: int = 0
    waiting: tuple[str, ...] = ()  # versions that wait for a person

    @property
    def ratio(self) -> float | None:
        """Quality against the baseline."""
        mean = self.outcomes.mean
        return mean / self.baseline if mean is not None and self.baseline else None


class DaySummary(msgspec.Struct, frozen=True, kw_only=True):
    """A day of the fleet, in its time zone."""

    day: str
    made_at: float
    over: bool  # False: the day is not over yet
    problems: tuple[str, ...]
    agents: tuple[AgentDay, ...]


def summary(day: str, made_at: float, over: bool, agents: tuple[AgentDay, ...]) -> DaySummary:
    """The agents that need somebody first."""
    found = {a.agent: problems(a, made_at) for a in agents}
    ranked = tuple(sorted(agents, key=lambda a: (-len(found[a.agent]), -a.traffic.answered, a.agent)))
    told = tuple(f"{a.agent}: {what}" for a in ranked for what in found[a.agent])
    return DaySummary(day=day, made_at=made_at, over=over, problems=told, agents=ranked)


def problems(a: AgentDay, now: float) -> list[str]:
    """What somebody should look at, the worst first. Little data is no problem, and no proof of health either."""
    found = []
    t, upper = a.traffic, a.outcomes.upper
    if a.alarm:
        found.append("what serves breaks a limit (`pawl status`)")
    if a.baseline and upper is not None and a.outcomes.scored >= LEAST and upper / a.baseline < LOW:
        bound = VERY_LOW if upper / a.baseline < VERY_LOW else LOW
        found.append(f"quality is surely under {bound:.0%} of its baseline ({_quality(a)} against {a.baseline:.2f})")
    if a.drifting:
        found.append(f"drift of {', '.join(a.drifting)} (`pawl drift {a.agent}`)")
    asked = t.answered + t.failed
    if asked >= LEAST and t.answered / asked < AVAILABLE:
        found.append(f"{t.failed} of {asked} requests failed")
    if t.answered >= LEAST and t.fallbacks / t.answered > FALLBACK:
        found.append(f"clouds stood in for {t.fallbacks / t.answered:.1%} of the answers")
    if a.rolled_back:
        found.append(f"{a.rolled_back} rollout(s) rolled back")
    if a.waiting:
        found.append(f"version {', '.join(a.waiting)} waits for approval")
    if asked and (a.watched_at is None or now - a.watched_at > _STALE_S):
        found.append("nobody has looked for drift for an hour: does the deployment of watch_quality run?")
    return found


def markdown(s: DaySummary) -> str:
    """The page."""
    lines = [f"# {s.day}{'' if s.over else ' (not over yet)'}\n"]
    if s.problems:
        lines.append(f"**{len(s.problems)} to look at**\n")
        lines += [f"- {p}" for p in s.problems]
    else:
        lines.append("Nothing to look at.")
    lines.append("\n| agent | answers | failed | local | fallback | quality (95 %) | baseline | of baseline | rated "
                 "| p95 | cost | shadows | drift | rollouts | waits |")  # fmt: skip
    lines.append("|" + "---|" * 15)
    for a in s.agents:
        lines.append(f"| {' | '.join(_cells(a))} |")
    lines.append("\nQuality: mean outcome of the champion's answers of the day, with what came of them so far; "
                 "bounds over sessions. Baseline: the champion's own evaluation. Cost: by the prices of tokens, "
                 "machines by the hour apart. Imported rows, embeddings are left out. “-”: not measured.")  # fmt: skip
    return "\n".join(lines) + "\n"


def _cells(a: AgentDay) -> list[str]:
    t = a.traffic
    unseen = "-" if a.watched_at is None else "not known yet"
    drift = ", ".join(a.drifting) or ("none" if a.drift_known else unseen)
    return [
        f"{a.agent} ({a.champion})",
        f"{t.answered:,}",
        f"{t.failed:,}",
        _share(t.answered_locally, t.answered),
        _share(t.fallbacks, t.answered),
        _quality(a),
        "-" if a.baseline is None else f"{a.baseline:.2f}",
        "-" if a.ratio is None else f"{a.ratio:.0%}",
        "-" if a.outcomes.rating is None else f"{a.outcomes.rating:.2f} ({a.outcomes.rated:,})",
        "-" if t.p95_s is None else f"{t.p95_s:.2f} s",
        f"${t.spent_usd:,.2f}",
        f"${t.shadow_usd:,.2f}",
        drift,
        "; ".join(a.rollouts) or "none",
        ", ".join(a.waiting) or "none",
    ]


def _quality(a: AgentDay) -> str:
    o = a.outcomes
    if o.mean is None:
        return "-"
    return f"{o.mean:.2f} [{o.lower:.2f}, {o.upper:.2f}], {o.scored:,}"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"
