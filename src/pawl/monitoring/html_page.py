"""What all pages share: templates that escape everything, filters, and files that appear whole.

A page may hold text that models and clients wrote, so nothing in it can act: everything is escaped, a
Content-Security-Policy forbids scripts and every outside resource, and plots are images.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
import unicodedata
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pawl.monitoring.comparison_plots import interval, points

MAX_TEXT = 2400  # characters of one prompt or answer; more is cut and said so


def rendered(template: str, **values: Any) -> str:
    """A page as HTML, complete in itself."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    env = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    env.filters.update(points=points, interval=interval, p_value=p_value, money=money, moment=moment)
    env.filters.update(duration=duration, csp_hash=_csp_hash, cut=_cut, words=lambda s: s.replace("_", " "))
    env.filters.update(minute=minute, day=day)
    return env.get_template(template).render(**values)


def written(html: str, path: Path) -> Path:
    """The page as a file, which appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(path.suffix + ".part")
    part.write_text(html, encoding="utf-8")
    return part.replace(path)


def _finalize(value: object) -> object:
    """Text from outside without the characters that hide or reorder what a person reads.

    Controls and lone surrogates cannot be shown, and bidirectional overrides make an answer look like another
    (CVE-2021-42574); they are shown by number instead.
    """
    if type(value) is not str:  # Markup is a str too, and is already safe
        return value
    return "".join(
        c
        if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs")
        else f"\N{REPLACEMENT CHARACTER}{ord(c):04X}"
        for c in value
    )


def _csp_hash(css: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(str(css).encode()).digest()).decode()


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}\n… {len(text) - MAX_TEXT:,} more characters"


def p_value(p: float | None) -> str:
    """For people."""
    if p is None or not math.isfinite(p):
        return "not known"
    return "p < 0.001" if p < 0.001 else "p > 0.999" if p > 0.999 else f"p = {p:.3f}"


def money(usd: float) -> str:
    """US dollars; small amounts with more digits."""
    sign, size = ("\N{MINUS SIGN}" if usd < 0 else ""), abs(usd)
    digits = 2 if size >= 10 or size == 0 else 3 if size >= 0.1 else 4
    return f"{sign}${size:,.{digits}f}"


def moment(at: float) -> str:
    """Epoch seconds as a date and time in UTC."""
    return f"{datetime.fromtimestamp(at, UTC):%d %b %Y, %H:%M:%S} UTC"


def minute(at: float) -> str:
    """Epoch seconds to the minute in UTC, for tables."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}"


def day(at: float) -> str:
    """Epoch seconds as a UTC day, for tables."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}"


def duration(seconds: float | None) -> str:
    """Seconds in the unit that suits them."""
    if seconds is None or not math.isfinite(seconds):
        return "not known"
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return re.sub(r" 0 s$", "", f"{minutes} min {rest} s")
    return re.sub(r" 0 min$", "", f"{minutes // 60} h {minutes % 60} min")
