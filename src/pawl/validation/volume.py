"""How many rows a day the lake took in before: from its manifest, no file is read."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable

from pawl.lake.manifest import Object

DAYS = 56


def rows_a_day(objects: Iterable[Object], table: str, agent: str, before: float, most: int = DAYS) -> tuple[int, ...]:
    """Rows on each UTC day before that moment's day, oldest first, days without any as 0; at most `most` days.

    `before`: the window's begin (epoch seconds). The first day of all is left out: it is seldom a whole one.
    """
    end = dt.datetime.fromtimestamp(before, dt.UTC).date()
    rows: Counter[dt.date] = Counter()
    for o in objects:
        day = dt.datetime.fromtimestamp(o.first, dt.UTC).date()  # an object holds one UTC day
        if (o.table, o.agent) == (table, agent) and day < end:
            rows[day] += o.rows
    if not rows:
        return ()
    first = max(min(rows) + dt.timedelta(days=1), end - dt.timedelta(days=most))
    return tuple(rows[first + dt.timedelta(days=n)] for n in range((end - first).days))
