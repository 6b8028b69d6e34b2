"""Go or no-go for the four phases: each criterion green or red by what was shown, grey where it was not (pure).

Green: the whole interval lies on the right side. Red: the whole interval lies on the wrong side. Anything else is grey
and says what is missing: nothing is green because nobody looked, and nothing is red by two unlucky sessions. What the
records see only the better part of can be red, and is green only where Prometheus saw the rest.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import msgspec

from pawl.monitoring.independence import LEAST_PAIRS, LEAST_SESSIONS, Figure, Independence, Unit

State = Literal["green", "red", "grey"]
UNSEEN_DOWN = (
    "an upper bound: requests refused before any model was called (queues, breakers, open requests), and those that "
    "came while the gateway was down, are in no record"
)
UNSEEN_WAIT = "a lower bound: the wait for a place in a queue is in no record"
NO_PATTERNS = "not measured: nothing records answers of a pattern memory, so there is no growth over 30 days to show"


class Criterion(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a phase's table."""

    name: str
    wanted: str  # "at least 90 %"
    state: State
    why: str  # of grey: what is missing
    figure: Figure | None = None
    unit: Unit = "share"
    stand_in: bool = False  # rests on a stand-in for a cloud


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """One phase with its verdict: go, not yet, or what the issue calls for where quality is shown to be too low."""

    name: str
    criteria: tuple[Criterion, ...]
    verdict: str
    tone: Literal["good", "wait", "bad"]
    why: str


class _Wanted(NamedTuple):
    name: str
    figure: Figure | None
    bound: float
    missing: str
    least: bool = True  # at least; else under
    unit: Unit = "share"
    against_cloud: bool = False
    unseen: str = ""  # what the figure would be worse by, were it recorded
    blind: str = ""  # what its bounds are wide by


def phases(r: Independence) -> tuple[Phase, ...]:
    """MVP, production, fine-tuning, independence."""
    line = r.line
    simple, quality = line.quality.get("simple"), line.quality.get("all")
    tuned = line.quality.get("tuned")
    saved = None if r.unpriced else line.saved_share
    no_pairs = _no_pairs(r)
    nobody = "no request was recorded"

    def local(bound: float) -> _Wanted:
        return _Wanted("Answered by local models", line.local, bound, nobody)

    def against(name: str, figure: Figure | None, bound: float) -> _Wanted:
        return _Wanted(name, figure, bound, no_pairs, unit="ratio", against_cloud=True)

    def cheaper(name: str, bound: float) -> _Wanted:
        return _Wanted(name, saved, bound, r.unpriced or "nothing was answered", against_cloud=True)

    def quick(name: str, figure: Figure | None, bound: float) -> _Wanted:
        unseen = UNSEEN_WAIT if r.service is None else ""
        return _Wanted(name, figure, bound, nobody, least=False, unit="seconds", unseen=unseen, blind=_blind(r))

    def up(bound: float) -> _Wanted:
        unseen = UNSEEN_DOWN if r.service is None else ""
        return _Wanted("Availability", r.availability, bound, nobody, unseen=unseen, blind=_blind(r))

    mvp = [against("Quality of cloud's, simple tasks", simple, 0.90), cheaper("Savings", 0.50), local(0.40)]
    production = [
        local(0.80), against("Quality of cloud's", quality, 0.95), cheaper("Cost down by", 0.60),
        quick("Latency p50", r.p50, 2.0), quick("Latency p95", r.p95, 5.0), up(0.995),
    ]  # fmt: skip
    tuning = [against("Quality of cloud's, answers of adapters", tuned, 0.95)]
    independent = [
        local(0.99), _Wanted("Cloud fallback", line.fallback, 0.01, nobody, least=False),
        against("Quality of cloud's", quality, 0.95), up(0.999),
    ]  # fmt: skip
    return (
        _phase("MVP", _judged(mvp, r), simple, 0.85, "change approach"),
        _phase("Production", _judged(production, r), quality, 0.90, "pause"),
        _phase("Fine-tuning", (*_judged(tuning, r), memory_saved(r), domains_up(r)), tuned, 0.90, "extend"),
        _phase("Independence", (*_judged(independent, r), cloud_spend(r), patterns()), None, 0.0, ""),
    )


def judged(figure: Figure, bound: float, *, least: bool) -> tuple[State, str]:
    """What an interval shows of a bound: `least`: at least that; else under it."""
    if figure.unit == "ratio" and figure.counted < LEAST_PAIRS:
        lacking = LEAST_PAIRS - figure.counted
        return "grey", f"{figure.counted} pairs of answers: {lacking} more are needed before they say anything"
    if figure.sessions < LEAST_SESSIONS:
        lacking, noun = LEAST_SESSIONS - figure.sessions, _noun(figure)
        return "grey", f"{figure.sessions} {noun}: {lacking} more are needed before they say anything"
    if (figure.lower >= bound) if least else (figure.upper < bound):
        return "green", "shown"
    if (figure.upper < bound) if least else (figure.lower >= bound):
        return "red", "shown not to hold"
    more = missing(figure, bound)
    if more is None:
        return "grey", "not shown either way, and no number of sessions would tell while it lies on the bound"
    return "grey", f"not shown either way: about {more:,} {_noun(figure)} more would tell, were they like these"


def _told(w: _Wanted, figure: Figure) -> tuple[State, str]:
    """`judged`, but for what is worse than its records by an amount that nobody knows: that can only be red."""
    state, why = judged(figure, w.bound, least=w.least)
    if w.blind and state == "grey" and figure.sessions >= LEAST_SESSIONS:
        return "grey", f"not shown either way: {w.blind}"
    if not w.unseen or state == "red":
        return state, why
    return "grey", f"reached by what is recorded, but that is {w.unseen}" if state == "green" else f"{why}; {w.unseen}"


def missing(figure: Figure, bound: float) -> int | None:
    """How many sessions (sources) more would take the interval off the bound, by its present width.

    Widths shrink with the root of the number; where a share stands at 0 or 1, with the number itself. None where the
    value lies on the bound.
    """
    gap = abs(figure.value - bound)
    towards = figure.value - figure.lower if figure.value > bound else figure.upper - figure.value
    if gap <= 1e-12:
        return None
    if not math.isfinite(towards):
        return LEAST_SESSIONS
    ratio = towards / gap
    at_the_end = figure.unit == "share" and figure.value in (0.0, 1.0)
    return max(1, math.ceil(figure.sessions * ((ratio if at_the_end else ratio**2) - 1)))


def memory_saved(r: Independence) -> Criterion:
    """Weights of adapters, and of the base model that they need once, against as many full models, by their files."""
    name, wanted = "Adapter memory against full models", "down at least 80 %"
    m = r.memory
    if m is None or not m.adapters or m.base <= 0:
        why = "not measured: no adapter serves" if m is not None and m.base > 0 else "not measured: no base model here"
        return Criterion(name=name, wanted=wanted, state="grey", why=why)
    number, weights = len(m.adapters), sum(m.adapters.values())
    value, alone = (1 - size / (number * m.base) for size in (m.base + weights, weights))
    told = Figure(value=value, lower=value, upper=value, counted=number)
    state: State = "green" if value >= 0.80 else "red"
    why = (
        f"{number} adapter(s) of {weights / 1e6:,.1f} MB on one base model of {m.base / 1e6:,.1f} MB (files), against "
        f"{number} such model(s); {100 * alone:,.1f} % were the base not counted, that all of them need"
    )
    return Criterion(name=name, wanted=wanted, state=state, why=why, figure=told)


def domains_up(r: Independence) -> Criterion:
    """Adapters that learnt from several agents, on their own agent's items; the one least up decides."""
    name, wanted = "Multi-task adapters in their domain", "up at least 10 %"
    if not r.domains:
        why = "not measured: no adapter that learnt from several agents was evaluated"
        return Criterion(name=name, wanted=wanted, state="grey", why=why, unit="ratio")
    worst = min(r.domains, key=lambda d: d.ratio.lower)
    figure = Figure(
        value=worst.ratio.mean, lower=worst.ratio.lower, upper=worst.ratio.upper, unit="ratio", sessions=worst.items,
        counted=worst.items,
    )  # fmt: skip
    state, why = judged(figure, 1.10, least=True)
    why = f"{worst.adapter} against the one before it, {why}"
    return Criterion(name=name, wanted=wanted, state=state, why=why, figure=figure, unit="ratio")


def cloud_spend(r: Independence) -> Criterion:
    """What clouds got for anything but fallback: a fact of the month, and no estimate."""
    scope = next((a for a in r.facts.agents if a.name == r.agent), r.facts.fleet) if r.agent else r.facts.fleet
    tallies, name, wanted = scope.tallies, "Cloud spend beside fallback", "none"
    if not r.line.answered:
        return Criterion(name=name, wanted=wanted, state="grey", why="no request was recorded", unit="usd")
    state: State
    calls, usd = tallies.cloud_calls_beside_fallback, tallies.cloud_usd_beside_fallback
    figure = Figure(value=usd, lower=usd, upper=usd, unit="usd", counted=calls)
    if calls:
        what = "answers, shadows or drafts of a cloud that were no fallback"
        why, state = f"{calls:,} {what}", "red"
    elif r.line.sessions < LEAST_SESSIONS:
        why, state = f"{r.line.sessions} sessions: too few to say so", "grey"
    else:
        why, state = "no cloud was asked but where local failed", "green"
    stand_in = r.stand_in and bool(calls)
    return Criterion(name=name, wanted=wanted, state=state, why=why, figure=figure, unit="usd", stand_in=stand_in)


def patterns() -> Criterion:
    """Nothing of the kind is recorded, and what was not recorded is not green."""
    return Criterion(
        name="Quality by pattern memory", wanted="up 5-10 % over 30 days", state="grey", why=NO_PATTERNS, unit="ratio"
    )


def _judged(wanted: list[_Wanted], r: Independence) -> tuple[Criterion, ...]:
    found = []
    state: State
    for w in wanted:
        state, why = ("grey", w.missing) if w.figure is None else _told(w, w.figure)
        bound = f"{w.bound:g} s" if w.unit == "seconds" else f"{100 * w.bound:g} %"
        found.append(
            Criterion(
                name=w.name,
                wanted=f"{'at least' if w.least else 'under'} {bound}",
                state=state,
                why=why,
                figure=w.figure,
                unit=w.unit,
                stand_in=w.against_cloud and r.stand_in,
            )
        )
    return tuple(found)


def _phase(name: str, criteria: tuple[Criterion, ...], quality: Figure | None, floor: float, stop: str) -> Phase:
    rests = ", against a STAND-IN for the cloud" if any(c.stand_in and c.figure is not None for c in criteria) else ""
    red, grey = ([c.name for c in criteria if c.state == s] for s in ("red", "grey"))
    told = quality is not None and quality.counted >= LEAST_PAIRS and quality.sessions >= LEAST_SESSIONS
    if stop and told and quality is not None and quality.upper < floor:
        why = f"quality is shown to be under {100 * floor:g} % of the cloud's"
        return Phase(name=name, criteria=criteria, verdict=stop, tone="bad", why=why + rests)
    if not red and not grey:
        return Phase(name=name, criteria=criteria, verdict="go", tone="good", why="every criterion is shown" + rests)
    parts = [f"{len(red)} of {len(criteria)} not met" if red else "", f"{len(grey)} not shown" if grey else ""]
    return Phase(name=name, criteria=criteria, verdict="not yet", tone="wait", why="; ".join(p for p in parts if p))


def _no_pairs(r: Independence) -> str:
    if not r.clouds:
        return "not measured: the fleet has no cloud to compare with"
    return "not measured: no scored answer stands beside a scored shadow of the cloud (set `shadow` in fleet.yaml)"


def _blind(r: Independence) -> str:
    """What Prometheus did not see, where that is more than the criteria leave room for."""
    s = r.service
    if s is None or s.unseen * 1000 < s.minutes:
        return ""
    return f"Prometheus has nothing of {100 * s.unseen / s.minutes:.1f} % of the time, which may have been the worst"


def _noun(figure: Figure) -> str:
    return "sources" if figure.unit == "ratio" else "sessions"
