"""Long code in a short prompt: which lines stay is decided by the code alone, never by what is true of it."""

from __future__ import annotations

import re

_GAP = "    ..."


def excerpt(code: str, most: int, matters: re.Pattern[str]) -> str:
    """Code of at most `most` characters, whole where it fits.

    Kept are the first two lines (the signature), then lines in which `matters` finds something, from the top, each
    with the line before it, then the remaining lines from the top, as long as they fit. The order stays that of the
    code; `...` stands where lines are missing. Lines of more than 160 characters are cut first.
    """
    code = code.expandtabs(4).strip("\n").rstrip()
    if len(code) <= most:
        return code
    lines = [line if len(line) <= 160 else line[:157] + "..." for line in code.split("\n") if line.strip()]
    telling = [n for n, line in enumerate(lines) if matters.search(line)]
    order = [0, 1, *(k for n in telling for k in (n, n - 1)), *range(len(lines))]
    kept: set[int] = set()
    room = most
    for n in order:
        if n in kept or not 0 <= n < len(lines):
            continue
        cost = len(lines[n]) + 1 + len(_GAP) + 1  # as though a gap came with every line: never too long
        if cost > room:
            continue
        kept.add(n)
        room -= cost
    made: list[str] = []
    last = -1
    for n in sorted(kept):
        if n != last + 1:
            made.append(_GAP)
        made.append(lines[n])
        last = n
    if last != len(lines) - 1:
        made.append(_GAP)
    return "\n".join(made)[:most]
