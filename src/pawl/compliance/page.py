"""The report as a page for people who would rather look than read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from pawl.compliance.facts import Day, Report
from pawl.compliance.licences import ORDER
from pawl.monitoring.html_page import rendered

_SHOWN = 60  # licences; all of them are in the bill of materials
_BINS, _HEIGHT, _WIDTH = 62, 150.0, 1000.0
ATTENTION = ("unknown", "restricted", "network copyleft", "copyleft", "weak copyleft")


class Bar(NamedTuple):
    """A part of one column, in the picture's units."""

    kind: str
    x: float
    y: float
    width: float
    height: float


class Label(NamedTuple):
    """A text in the picture."""

    x: float
    y: float
    anchor: str
    text: str


class Chart(NamedTuple):
    """Columns by day."""

    height: float
    bars: tuple[Bar, ...]
    labels: tuple[Label, ...]
    alt: str


def render(report: Report) -> str:
    """The page as HTML, complete in itself; everything is escaped."""
    lights = Counter(c.light for c in report.controls)
    kinds = Counter(i.category for i in report.licences)
    # Libraries under usual terms are no news; models and data are, whatever their terms.
    listed = [i for i in report.licences if i.category in ATTENTION or i.kind != "library"]
    return rendered(
        "compliance.html.j2",
        r=report,
        plots={},
        counts=(lights["green"], lights["red"], lights["grey"]),
        tone="bad" if lights["red"] else "wait" if lights["grey"] else "good",
        verdict=verdict(report),
        blocked=sum(b.requests for b in report.egress.blocked),
        attention=sum(n for kind, n in kinds.items() if kind in ATTENTION),
        by_category=[(kind, kinds[kind]) for kind in ORDER if kinds[kind]],
        listed=listed[:_SHOWN],
        exceptional=sorted(report.access.exceptional, key=lambda x: (not x.forced, -x.seq)),
        chart=chart(report.egress.days),
    )


def verdict(report: Report) -> str:
    """What needs doing, in a sentence or two."""
    red = list(dict.fromkeys(c.found for c in report.controls if c.light == "red"))
    if not red:
        return "Nothing in the data speaks against a requirement. What is not known here stays with you."
    first = max(red, key=lambda said: sum(c.found == said for c in report.controls))
    more = f" {len(red) - 1} other findings are below." if len(red) > 1 else ""
    return f"To be seen to first: {first}.{more}"


def chart(days: Sequence[Day]) -> Chart | None:
    """Columns by day, several days in one where there are many; None where there is nothing to draw."""
    if not days:
        return None
    size = -(-len(days) // _BINS)
    bins = [days[n : n + size] for n in range(0, len(days), size)]
    sums = [(sum(d.calls for d in b), sum(d.shadows for d in b), sum(d.blocked for d in b)) for b in bins]
    most = max(map(sum, sums)) or 1
    step = min(_WIDTH / len(sums), 60.0)
    bars = []
    for n, parts in enumerate(sums):
        top = _HEIGHT + 14
        for kind, value in zip(("request", "shadow", "stopped"), parts, strict=True):
            height = round(_HEIGHT * value / most, 2)
            top -= height
            if value:
                bars.append(Bar(kind, round(n * step + step * 0.1, 2), round(top, 2), round(step * 0.8, 2), height))
    below = _HEIGHT + 30
    labels = [
        Label(0, below, "start", days[0].day),
        Label(0, 10, "start", f"{most:,} at most" + (f" in {size} days" if size > 1 else "")),
    ]
    if len(sums) > 1:
        labels.append(Label(max(len(sums) * step, 160), below, "end", days[-1].day))
    total = [sum(s[n] for s in sums) for n in range(3)]
    span = f"from {days[0].day} to {days[-1].day}"
    alt = f"{total[0]:,} requests and {total[1]:,} shadows left {span}, {total[2]:,} were stopped."
    return Chart(_HEIGHT + 36, tuple(bars), tuple(labels), alt)
