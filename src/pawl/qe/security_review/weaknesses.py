"""The weaknesses that reference answers speak of: their CWE numbers, how grave they are, how one mends them.

The grades of severity are this project's own, one a weakness, for an endpoint that anybody can reach. They are no CVSS
scores: those depend on the product around the code, which a prompt does not show.
"""

from __future__ import annotations

import re
from typing import NamedTuple

SEVERITIES = ("none", "low", "medium", "high", "critical")
_NUMBER = re.compile(r"cwe[-_ ]?0*(\d{1,4})", re.IGNORECASE)


class Weakness(NamedTuple):
    """One entry of the Common Weakness Enumeration."""

    severity: str
    fix: str


WEAKNESSES: dict[str, Weakness] = {
    "CWE-022": Weakness("high", "resolve the path and refuse what leaves the base folder"),
    "CWE-078": Weakness("critical", "pass arguments as a list, without a shell"),
    "CWE-079": Weakness("medium", "escape the value before it goes into HTML"),
    "CWE-089": Weakness("critical", "bind the value as a query parameter"),
    "CWE-306": Weakness("critical", "require an authenticated caller"),
    "CWE-319": Weakness("medium", "serve it over https only"),
    "CWE-347": Weakness("high", "verify the signature before trusting the token"),
    "CWE-598": Weakness("low", "take the token from a header, not from the query"),
    "CWE-639": Weakness("high", "check that the record belongs to the caller"),
    "CWE-798": Weakness("high", "read the secret from the environment"),
}


def cwe(text: str) -> str | None:
    """`CWE-089` for cwe-89, CWE_089 and the like; None where the text is no such number."""
    found = _NUMBER.fullmatch(text.strip())
    return f"CWE-{int(found[1]):03d}" if found else None
