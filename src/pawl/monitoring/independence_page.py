"""The month's report for people: as text on a terminal, and as one page complete in itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from pawl.monitoring.html_page import duration, money, rendered, written
from pawl.monitoring.independence import Figure, Independence, Service
from pawl.monitoring.months import zone_of
from pawl.monitoring.phases import Criterion, Phase
from pawl.monitoring.plots_matplotlib import Picture

_MARKS = {"green": "+", "red": "-", "grey": "?"}
STAND_IN = "STAND-IN"


def told(figure: Figure | None, missing: str = "not measured") -> str:
    """A figure for people, with its bounds where they differ."""
    if figure is None:
        return missing
    value = _one(figure.value, figure.unit)
    if figure.lower == figure.value == figure.upper:
        return value
    return f"{value} ({_one(figure.lower, figure.unit)} to {_one(figure.upper, figure.unit)})"


def seen(c: Criterion) -> str:
    """What a criterion's figure is."""
    shown = told(c.figure, "-")
    return f"{shown}, {STAND_IN}" if c.stand_in and c.figure is not None else shown


def headline(r: Independence) -> str:
    """The month in a sentence or two, for a reader who knows no statistics. Says nothing that is not in `r`."""
    line = r.line
    if not line.answered:
        return "Nothing was answered in this time, so nothing can be said of money or independence."
    local = f"{100 * (line.local.value if line.local else 0):.1f} %"
    parts = [f"Local models answered {local} of {line.answered:,} calls."]
    if r.unpriced:
        parts.append(f"What was saved is not known: {r.unpriced}.")
    elif line.saved is not None and line.saved_share is not None:
        word = "saved" if line.saved.value >= 0 else "lost"
        cloud = f"a {STAND_IN} for the cloud" if r.stand_in else "the cloud"
        share = f"{100 * abs(line.saved_share.value):.0f} % of {money(line.all_cloud_usd)}"
        parts.append(f"Against {cloud}, {money(abs(line.saved.value))} was {word}, {share}.")
    return " ".join(parts)


def text(r: Independence, phases: Sequence[Phase]) -> str:
    """For a terminal."""
    line, rows, mark = r.line, [], f", {STAND_IN}" if r.stand_in else ""
    until = "" if r.whole else f", to date ({_moment(r, r.facts.last):%d %b})" if r.facts.last else ", to date"
    rows.append(f"{r.month}{until}, {r.agent or 'the fleet'}: {headline(r)}")
    if r.stand_in:
        rows.append(
            f"The cloud here is a {STAND_IN}: its prices are list prices, its bills and its quality are not real."
        )
    figures = [
        ("local share", told(line.local)),
        ("cloud fallback", told(line.fallback)),
        ("quality over cloud's", told(line.quality.get("all")) + (mark if line.quality else "")),
        ("availability", told(r.availability)),
        ("latency p50", told(r.p50)),
        ("latency p95", told(r.p95)),
        ("cost", f"{money(line.cost_usd)}, shadow traffic {money(line.shadow_usd)}; all in the cloud "
                 f"{money(line.all_cloud_usd)}{mark}"),
        ("cost a call", per_call(line.cost_per_call)),
        ("saved", "not known" if r.unpriced else "not measured" if line.saved is None else
            f"{told(line.saved)}; {told(line.saved_share)}{mark}"),
        ("break-even", even(r) + (mark if r.even else "")),
    ]  # fmt: skip
    rows += ["", *(f"  {name:21} {value}" for name, value in figures)]
    for title, lines in (("agent", [(x.name, x.answered, x.cost_usd, x.cost_per_call) for x in r.agents]),
                         ("workflow", [(w.name, w.runs, w.paid, w.paid / w.runs if w.runs else None)
                                       for w in r.workflows])):  # fmt: skip
        if lines:
            unit = "answers" if title == "agent" else "runs"
            rows += ["", f"  {title:32} {unit:>9} {'cost':>12} {'each':>12}"]
            rows += [f"  {n:32} {count:>9,} {money(usd):>12} {per_call(each):>12}" for n, count, usd, each in lines]
    for p in phases:
        rows += ["", f"  {p.name}: {p.verdict.upper()} ({p.why})"]
        rows += [f"    [{_MARKS[c.state]}] {c.name:42} {c.wanted:23} {seen(c)}{_why(c)}" for c in p.criteria]
    rows += ["", "  [+] shown  [-] shown not to hold  [?] not measured, or not shown either way"]
    rows += [f"  note: {n}" for n in notes(r)]
    return "\n".join(rows)


def even(r: Independence) -> str:
    """When serving locally has paid for itself, in words."""
    e = r.even
    if e is None:
        return "not known: see fleet.yaml's costs" if r.unpriced else "not computed"
    if e.net <= 0:
        needed = "" if e.calls_to_cover is None else (
            f"; {e.calls_to_cover:,.0f} answers a month would pay for that, there were {e.calls:,.0f}"
        )  # fmt: skip
        what = "monthly costs" if r.by_token else "machines"
        return f"never at this volume: {money(e.avoided)} a month against {money(e.machines)} for {what}{needed}"
    surely = "" if e.net_lower > 0 else "; not shown, the lower bound is a loss"
    if not e.fixed:
        return f"from the first month, {money(e.net)} a month{surely}"
    latest = f"{e.months_latest:.1f}" if e.months_latest is not None else "never"
    soonest = f"{e.months_soonest:.1f}" if e.months_soonest is not None else "never"
    return f"after {e.months or 0:.1f} months ({soonest} to {latest}), {money(e.net)} a month{surely}"


def notes(r: Independence) -> list[str]:
    """What a reader must know of the figures, by what was recorded."""
    found, t, m = [], r.line, r.facts
    scope = next((a for a in m.agents if a.name == r.agent), m.fleet) if r.agent else m.fleet
    tallies = scope.tallies
    if not r.whole and r.hours > 0:
        found.append(f"The month is not over: the figures cover {duration(3600 * r.hours)} of it.")
    if t.answered:
        found.append(
            f"All in the cloud: {tallies.priced_by_shadow:,} answers are priced by what the cloud wrote to the same "
            f"request, {tallies.priced_by_own:,} by their own tokens (the cloud's own answers by what it took for "
            f"them), {tallies.unpriced:,} not at all."
        )
        found.append(_service(r.service))
    pairs = scope.pairs.get("all")
    if pairs is not None and pairs.count:
        number = round(sum(pairs.count))
        found.append(
            f"Quality is compared on {number:,} requests that both answered and both were scored on; in "
            f"{pairs.same_voice:,} of them one judge scored both, in the others two did (a client, and the grader)."
        )
    if r.machines_usd is not None and r.by_token:
        found.append(f"Monthly costs were {money(r.machines_usd)} in this time, shared by agents by their local "
                     "tokens; these cost what fleet.yaml says of them.")  # fmt: skip
    elif r.machines_usd is not None:
        found.append(f"Machines cost {money(r.machines_usd)} in this time; agents share it by their local tokens.")
    elif t.answered:
        found.append("The machines' price by the hour is not known; local tokens cost what fleet.yaml says of them.")
    if m.imported:
        found.append(f"{m.imported:,} rows that came from other tools are not counted.")
    if m.embeddings:
        found.append(f"{m.embeddings:,} calls for embeddings are not counted: no chat price is theirs.")
    if m.hours_down:
        found.append(f"In {m.hours_down} of {m.hours_used} hours with requests none was served.")
    return [*found, *r.notes]


def _service(s: Service | None) -> str:
    if s is None:
        return (
            "Availability and latency are by the records of calls: a request that was refused before any model was "
            "called, or that came while the gateway was down, left none, and the wait in a queue is in none. So they "
            "can be red and never green; PAWL_PROMETHEUS_ADDRESS names a Prometheus that knows."
        )
    return (
        f"Availability and latency are by Prometheus, of {s.requests:,} requests with their refusals and their waits "
        f"in queues. Of {s.minutes:,} minutes, {s.silent:,} were without a gateway and Prometheus has nothing of "
        f"{s.unseen:,}. Those of each agent are by the records of calls."
    )


def write(r: Independence, phases: Sequence[Phase], at: float, path: Path) -> Path:
    """The page as a file, which appears whole or not at all. `at`: when it was computed, epoch seconds."""
    return written(render(r, phases, at), path)


def render(r: Independence, phases: Sequence[Phase], at: float) -> str:
    """The page as HTML, complete in itself."""
    return rendered(
        "independence.html.j2",
        r=r,
        phases=phases,
        at=at,
        headline=headline(r),
        notes=notes(r),
        even=even(r),
        told=told,
        span=f"{_moment(r, r.since):%d %b %Y} to {_moment(r, r.until - 1):%d %b %Y}",
        seen=seen,
        per_call=per_call,
        plots=_plots(r),
        title=f"Money and independence, {datetime.strptime(r.month, '%Y-%m').replace(tzinfo=UTC):%B %Y}",
        tone=_tone(phases),
    )


def per_call(usd: float | None) -> str:
    """US dollars of one call, with digits enough to tell two apart."""
    return "-" if usd is None else f"${usd:.6f}" if abs(usd) < 0.01 else money(usd)


def _plots(r: Independence) -> dict[str, Picture]:
    from pawl.monitoring import independence_matplotlib as draw
    from pawl.monitoring.plots_matplotlib import picture

    out: dict[str, Picture] = {}
    days = r.facts.days
    if days and not r.agent:
        daily = 0.0 if r.machines_usd is None or r.hours <= 0 else r.machines_usd / r.hours * 24
        alt = f"By day: all in the cloud {money(r.line.all_cloud_usd)}, paid {money(r.line.cost_usd)} and shadows."
        out["money"] = picture(draw.money_by_day(days, daily, r.stand_in), alt, width=5.2, height=2.6)
        alt = f"Share of calls that local models answered, by day; the whole {told(r.line.local)}."
        out["shares"] = picture(draw.shares_by_day(days), alt, width=5.2, height=2.6)
    quality = [(n, f) for n, f in (("all", r.line.quality.get("all")), *((a.name, a.quality.get("all"))
               for a in r.agents if len(r.agents) > 1)) if f is not None]  # fmt: skip
    if quality:
        alt = "; ".join(f"{n}: {told(f)}" for n, f in quality)
        height = 1.2 + 0.38 * len(quality)
        out["quality"] = picture(draw.quality(quality), f"Quality of the cloud's. {alt}.", width=5.2, height=height)
    if r.even is not None and r.even.machines > 0:
        out["even"] = picture(draw.coming_back(r.even), f"Break-even: {even(r)}.", width=5.2, height=2.6)
    return out


def _tone(phases: Sequence[Phase]) -> str:
    """Bad where one phase says stop, good where all say go."""
    if any(p.tone == "bad" for p in phases):
        return "bad"
    return "good" if all(p.tone == "good" for p in phases) else "wait"


def _one(value: float, unit: str) -> str:
    if unit == "usd":
        return money(value)
    if unit == "seconds":
        return f"{value:.2f} s"
    if unit == "calls":
        return f"{value:,.0f}"
    points = 100 * value
    whole = math.isclose(points, round(points), abs_tol=1e-9)
    near = f"{points:.1f}".endswith(".0") or 99 < points < 100 or 0 < points < 1
    digits = 2 if near and not whole else 1
    return f"{points:.{digits}f} %".replace("-", "\N{MINUS SIGN}")  # what rounds to a bound is told more exactly


def _why(c: Criterion) -> str:
    return f"  ({c.why})" if c.state == "grey" else ""


def _moment(r: Independence, at: float) -> datetime:
    return datetime.fromtimestamp(at, zone_of(r.timezone))
