"""What kind of terms a licence sets, from how it calls itself (pure): a first sorting, and no legal advice."""

from __future__ import annotations

import re

from pawl.compliance.facts import Category

# From what wants most attention to what wants least.
ORDER: tuple[Category, ...] = (
    "unknown", "restricted", "network copyleft", "copyleft", "weak copyleft", "permissive",
)  # fmt: skip
# Identifiers of SPDX (spdx.org/licenses), the Hub's of model licences, and trove classifiers; the first that fits.
_KINDS: tuple[tuple[str, Category], ...] = (
    (r"agpl|affero|sspl|server side public|osl-|eupl", "network copyleft"),
    (r"lgpl|lesser general public|mpl|mozilla|epl-|eclipse|cddl|cc-by-sa|ms-rl", "weak copyleft"),
    (r"gpl|general public", "copyleft"),
    (r"\bnc\b|noncommercial|non-commercial|llama\d|gemma|research|proprietary|nvidia|other/proprietary|busl|qwen|rail"
     r"|cc-by-nd|commons-clause|elastic", "restricted"),
    (r"apache|mit\b|mit-|bsd|isc\b|zlib|psf|python|unlicense|cc0|cc-by-|public domain|hpnd|boost|bsl-1|0bsd|zpl|zope"
     r"|artistic|ofl|cnri|wtfpl|unicode|blueoak|afl|ncsa|postgresql|libpng|ijg", "permissive"),
)  # fmt: skip


def category(licence: str) -> Category:
    """The kind of an SPDX expression or another name; of `A OR B` the freer one, of `A AND B` the stricter one.

    A name of which nothing is known, and no name at all, is `unknown`.
    """
    if "; " in licence:  # several, and nobody says whether one may choose: the strictest
        return min((category(part) for part in licence.split("; ")), key=ORDER.index)
    words = re.findall(r"\(|\)|[^\s()]+", licence)
    if not words:
        return "unknown"
    if re.search(r"\s(or|and|with)\s", licence, re.IGNORECASE) and "::" not in licence:
        found, rest = _either(words)
        return found if not rest else _single(licence)
    return _single(licence)


def _either(words: list[str]) -> tuple[Category, list[str]]:
    best, rest = _both(words)
    while rest and rest[0].upper() == "OR":
        other, rest = _both(rest[1:])
        best = max(best, other, key=ORDER.index)
    return best, rest


def _both(words: list[str]) -> tuple[Category, list[str]]:
    worst, rest = _one(words)
    while rest and rest[0].upper() == "AND":
        other, rest = _one(rest[1:])
        worst = min(worst, other, key=ORDER.index)
    return worst, rest


def _one(words: list[str]) -> tuple[Category, list[str]]:
    if not words:
        return "unknown", []
    if words[0] == "(":
        inner, rest = _either(words[1:])
        return inner, rest[1:]
    rest = words[1:]
    if len(rest) > 1 and rest[0].upper() == "WITH":  # an exception only ever allows more
        rest = rest[2:]
    return _single(words[0]), rest


def _single(name: str) -> Category:
    return next((kind for pattern, kind in _KINDS if re.search(pattern, name.lower())), "unknown")
