"""Simulated tests that wait, look at the clock or draw numbers; and what each run of theirs comes to.

Every shape exists twice: as a flaky test, and as its steady twin, in which the cause is dealt with. A run is a draw
from the mechanism that the code shows (how long the job takes, what the clock says), not from a rate of failure.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

from pawl.qe.simulated_projects import Project

Fails = Callable[[random.Random], bool]


class Shape(NamedTuple):
    """A test's parameters, its lines (not indented by the function's own four spaces) and what a run comes to."""

    params: str
    lines: tuple[str, ...]
    fails: Fails
    words: str  # for its name
    is_async: bool = False


Builder = Callable[[Project, random.Random, bool], Shape]


def never(_rng: random.Random) -> bool:
    """What a steady test does."""
    return False


def _slower_than(seconds: float, typical: float, spread: float) -> Fails:
    """A job of lognormal duration with that median (seconds) that is waited for too briefly."""
    return lambda rng: bool(typical * rng.lognormvariate(0, spread) > seconds)


def sleeps_for_job(p: Project, rng: random.Random, flaky: bool) -> Shape:
    """A fixed sleep in place of waiting for the job."""
    seconds = rng.choice((0.05, 0.1, 0.2, 0.25, 0.5, 1, 2))
    job, target = rng.choice(("job", "task", "handle", "ticket")), rng.choice(("client", "service", "backend", "api"))
    args = f'{p.text}="{rng.choice("abcdefgh")}{rng.randrange(100)}", {p.number}={rng.randrange(1, 90)}'
    done = rng.choice(("done", "finished", "completed", "ready"))
    wait = f"time.sleep({seconds})" if flaky else f"{job}.wait_until({done!r}, timeout={rng.choice((10, 30, 60))})"
    lines = (
        f"{job} = {target}.{p.verb}_{p.entity}({args})",
        wait,
        f"assert {target}.state_of({job}.id) == {done!r}",
    )
    typical = seconds / rng.choice((1.2, 1.6, 2, 3, 5, 8))
    return Shape(target, lines, _slower_than(seconds, typical, 0.6) if flaky else never, f"{p.verb}s_in_background")


def sleeps_for_message(p: Project, rng: random.Random, flaky: bool) -> Shape:
    """A message is expected after an asynchronous pause."""
    seconds, n = rng.choice((0.01, 0.05, 0.1, 0.3)), rng.randrange(2, 7)
    topic, box = f"{p.module}.{p.many}", rng.choice(("inbox", "received", "events", "seen"))
    wait = f"await asyncio.sleep({seconds})" if flaky else f"await asyncio.wait_for({box}.until({n}), timeout=20)"
    lines = (
        f'{box} = await bus.subscribe("{topic}")',
        f"for n in range({n}):",
        f'    await bus.publish("{topic}", {{"{p.number}": n}})',
        wait,
        f"assert len({box}) == {n}",
    )
    typical = seconds / rng.choice((1.3, 2, 3, 4))
    return Shape("bus", lines, _slower_than(seconds, typical, 0.5) if flaky else never, f"{p.entity}_events", True)


def polls_too_few(p: Project, rng: random.Random, flaky: bool) -> Shape:
    """A loop that gives up after a few looks."""
    tries, pause = rng.randrange(3, 9), rng.choice((0.01, 0.02, 0.05, 0.1))
    page = rng.choice(("page", "screen", "view", "browser"))
    if flaky:
        body: tuple[str, ...] = (
            f"for _ in range({tries}):",
            f'    if {page}.visible("{p.entity}-{p.number}"):',
            "        break",
            f"    time.sleep({pause})",
        )
    else:
        body = (f'{page}.wait_for("{p.entity}-{p.number}", state="visible")',)
    lines = (
        f'{page}.goto("/{p.many}/{rng.randrange(1, 99)}")',
        f'{page}.click("{p.verb}")',
        *body,
        f'assert {page}.text("{p.entity}-{p.number}") == "{rng.randrange(1, 999)}"',
    )
    seconds = tries * pause
    fails = _slower_than(seconds, seconds / rng.choice((1.3, 2, 4)), 0.7) if flaky else never
    return Shape(page, lines, fails, f"{p.number}_is_shown")


def month_of_tomorrow(p: Project, rng: random.Random, flaky: bool) -> Shape:
    """What holds on most days of a month."""
    days = rng.randrange(1, 12)
    today = "date.today()" if flaky else f"date(2024, {rng.randrange(1, 13)}, {rng.randrange(1, 15)})"
    lines = (
        f"today = {today}",
        f"{p.entity} = make_{p.entity}({p.text}={rng.choice('xyz')!r}, due=today + timedelta(days={days}))",
        f"assert {p.entity}.due.month == today.month",
    )
    return Shape("", lines, (lambda r: r.randrange(1, 31) + days > 30) if flaky else never, "is_due_this_month")


def working_day(p: Project, rng: random.Random, flaky: bool) -> Shape:
    """What does not hold at weekends, or outside of hours."""
    first, last = rng.choice((6, 7, 8, 9)), rng.choice((17, 18, 20, 22))
    clock = "datetime.now()" if flaky else f"datetime(2023, 5, {rng.randrange(8, 13)}, {rng.randrange(first, last)})"
    what = rng.choice(("open", "available", "bookable", "accepted"))
    lines = (
        f"desk = {p.kind}Desk(opens={first}, closes={last})",
        f"moment = {clock}",
        f"assert desk.is_{what}(moment)",
        f"assert desk.next_slot(moment).{p.number} >= 0",
    )
    share = (last - first) / 24
    return Shape("", lines, (lambda r: r.random() >= share) if flaky else never, f"desk_is_{what}")


def quick_enough(p: Project, rng: random.Random, flaky: bool) -> Shape:
    """A bound on elapsed time, which other load on the machine breaks."""
    bound, n = rng.choice((0.02, 0.05, 0.1, 0.25, 0.5)), rng.choice((10, 50, 100, 500))
    if flaky:
        lines: tuple[str, ...] = (
            f"{p.many} = [make_{p.entity}({p.number}=i) for i in range({n})]",
            "began = time.perf_counter()",
            f"{p.verb}_all({p.many})",
            f"assert time.perf_counter() - began < {bound}",
        )
    else:
        lines = (
            f"{p.many} = [make_{p.entity}({p.number}=i) for i in range({n})]",
            "with count_queries() as queries:",
            f"    {p.verb}_all({p.many})",
            f"assert len(queries) <= {rng.randrange(2, 9)}",
        )
    fails = _slower_than(bound, bound / rng.choice((1.5, 2, 3, 6)), 0.5) if flaky else never
    return Shape("", lines, fails, f"{p.verb}s_many_quickly")


def drawn_codes(p: Project, rng: random.Random, flaky: bool) -> Shape:
    """Numbers drawn at random that must all be different."""
    n, most = rng.randrange(4, 16), rng.choice((50, 99, 200, 500, 999))
    draw = f"random.randint(1, {most})" if flaky else "next(numbers)"
    lines = (
        *(() if flaky else (f"numbers = itertools.count({rng.randrange(1, 50)})",)),
        f"{p.many} = [make_{p.entity}({p.text}=str({draw})) for _ in range({n})]",
        f"assert len({{x.{p.text} for x in {p.many}}}) == {n}",
    )
    return Shape("", lines, (lambda r: len({r.randint(1, most) for _ in range(n)}) < n) if flaky else never, "differ")


def mean_of_draws(p: Project, rng: random.Random, flaky: bool) -> Shape:
    """The mean of a sample within a tolerance."""
    n, mean, sd = rng.choice((20, 50, 100, 200)), rng.randrange(10, 200), rng.randrange(2, 20)
    tolerance = round(sd / n**0.5 * rng.choice((1.2, 1.8, 2.4, 3)), 2)
    source = "random" if flaky else f"random.Random({rng.randrange(1, 99)})"
    lines = (
        f"source = {source}",
        f"values = [source.gauss({mean}, {sd}) for _ in range({n})]",
        f"report = summarise_{p.many}(values)",
        f"assert abs(report.mean_{p.number} - {mean}) < {tolerance}",
    )

    def off(r: random.Random) -> bool:
        return bool(abs(sum(r.gauss(mean, sd) for _ in range(n)) / n - mean) >= tolerance)

    return Shape("", lines, off if flaky else never, f"mean_{p.number}")


def picked_option(p: Project, rng: random.Random, flaky: bool) -> Shape:
    """An option picked at random of which one does not do."""
    options = rng.sample(("low", "mid", "high", "none", "auto", "full", "lite", "draft"), rng.randrange(3, 7))
    pick = f"random.choice({options!r})" if flaky else repr(options[0])
    lines = (
        f"mode = {pick}",
        f"made = {p.verb}({p.kind}({p.number}={rng.randrange(1, 50)}), mode=mode)",
        f"assert made.{p.text} is not None",
        f"assert made.mode == mode and made.{p.number} > 0",
    )
    share = 1 / len(options)
    return Shape("", lines, (lambda r: r.random() < share) if flaky else never, "in_any_mode")


def plain(p: Project, rng: random.Random, _flaky: bool) -> Iterator[Shape]:
    """Steady tests without any of the causes."""
    a, b = rng.randrange(2, 60), rng.randrange(2, 60)
    word = rng.choice(("alpha", "north", "seven", "plain", "grey"))
    yield Shape(
        "",
        (
            f"{p.entity} = {p.kind}({p.text}={word!r}, {p.number}={a})",
            f"{p.entity}.{p.verb}({b})",
            f"assert {p.entity}.{p.number} == {a + b}",
            f"assert {p.entity}.{p.text} == {word!r}",
        ),
        never,
        f"{p.verb}_adds_{p.number}",
    )
    yield Shape(
        "",
        (
            f'with pytest.raises(ValueError, match="{p.number}"):',
            f"    {p.kind}({p.text}={word!r}, {p.number}=-{a})",
        ),
        never,
        f"negative_{p.number}_is_refused",
    )
    yield Shape(
        "",
        (
            f"rows = parse_{p.many}('{p.text};{p.number}\\n{word};{a}\\n{word[::-1]};{b}\\n')",
            f"assert [r.{p.number} for r in rows] == [{a}, {b}]",
            f"assert rows[0].{p.text} == {word!r}",
        ),
        never,
        f"{p.many}_are_parsed",
    )
    yield Shape(
        "",
        (
            f"first = {p.kind}({p.text}={word!r}, {p.number}={a})",
            "again = loads(dumps(first))",
            "assert again == first",
            f"assert again.{p.owner} is None",
        ),
        never,
        "survives_a_round_trip",
    )
