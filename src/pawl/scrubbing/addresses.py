"""Finds postal addresses by their form (pure, best effort): house number and street, in a few languages."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pawl.scrubbing.scrub import Span

_WORD = r"[A-ZÀ-ÖØ-Þ][\w'’.-]{0,24}"
_TAIL = r"(?:, (?:Apt|Suite|Unit|Flat|Floor)\.? [\w-]{1,8})?"  # within the house
_US_TOWN = r"(?:, [A-Z][\w.' -]{1,30})?, [A-Z]{2} [0-9]{5}(?:-[0-9]{4})?"
_TOWN = r",? [0-9]{4,5} [A-ZÀ-ÖØ-Þ][\w-]{2,30}"
# Kinds of streets that mean little else, and those that need a town or the end of the line behind them.
_SURE = r"Street|Avenue|Boulevard|Road|Lane"
_UNSURE = r"Drive|Way|Place|Court|Square|Terrace|Parkway|Crescent|Highway|Close|St|Ave|Rd|Blvd|Ln|Dr|Ct|Pl|Sq"
_HOUSE = r"(?<![\w.])[1-9][0-9]{0,4}[A-Za-z]?,?"
_ENGLISH = rf"{_HOUSE} (?:{_WORD} ){{1,3}}"
_OF = r"(?: (?:de|del|della|dei|di|da|do|dos|das|la|las|los|el))*"
_PATTERNS = tuple(
    re.compile(p)
    for p in (
        rf"{_ENGLISH}(?:{_SURE})\b(?! [A-Z][a-z]){_TAIL}(?:{_US_TOWN}|{_TOWN})?",
        rf"{_ENGLISH}(?:{_UNSURE})\b\.?{_TAIL}(?:{_US_TOWN}|(?=[\"'\\\n<]|$))",
        r"\b[A-ZÄÖÜ][\wäöüß.-]{2,30}(?:stra(?:ß|ss)e|str\.|weg|platz|allee|gasse|ufer|damm) [1-9][0-9]{0,3} ?[a-z]?\b"
        rf"(?:{_TOWN})?",
        r"(?<![\w.])[1-9][0-9]{0,3}(?: (?:bis|ter))?,? (?:rue|avenue|boulevard|place|allée|chemin|quai|impasse) "
        rf"(?:[\w'’-]{{1,20}} ){{0,4}}[A-ZÀ-Þ][\w'’-]{{1,24}}(?:{_TOWN})?",
        rf"\b(?:Calle|Avenida|Plaza|Paseo|Via|Viale|Piazza|Corso|Rua|Praça){_OF}(?: {_WORD}){{1,3}},? [1-9]"
        rf"[0-9]{{0,3}}\b(?:{_TOWN})?",
        # Any words, if a number, a German postcode and a town follow.
        r"(?<![\w.])[A-ZÄÖÜ][\wäöüß.-]{1,30}(?: [\wäöüßÄÖÜ.-]{1,30}){0,3} [1-9][0-9]{0,2}[a-z]?, [0-9]{5} "
        r"[A-ZÄÖÜ][\wäöüß-]{2,30}",
        rf"\bP\.? ?O\.? Box [1-9][0-9]{{0,5}}(?:{_US_TOWN})?",
    )
)
_NUMBER = re.compile(r" [0-9]|[0-9][A-Za-z]?,? ")  # without a number of its own no street is meant
_POSTCODE = re.compile(", [0-9]{5} [A-ZÄÖÜ]")
_MARKS = tuple(
    f"{_SURE}|{_UNSURE}|straße|strasse|str.|weg |platz |allee |gasse |ufer |damm |rue |avenue |boulevard |place |quai |"
    "chemin |allée |impasse |Calle|Avenida|Plaza|Paseo|Via|Piazza|Corso|Rua |Praça|Box ".split("|")
)
_KEYED = re.compile(
    r"(?:street(?:_?(?:address|line|name)?_?[12]?)|address_?(?:line)?_?[12]|line_?1)\\*[\"']\s{0,4}[:=]\s{0,4}\\*[\"']"
    r"(?P<value>(?=[^\"'\\\n]{0,60}[0-9])[^\W_][^\"'\\\n<>{}]{4,80})\\*[\"']",
    re.IGNORECASE,
)
_KEY_MARKS = ("treet", "line1", "line_1", "Line1", "line2", "Line2", "line_2", "ddress1", "ddress_", "ddressLine")
_STREET = re.compile(r"[1-9][0-9]{0,4}[A-Za-z]?,? [^\W\d_]{3,}|[^\W\d_]{3,},? [1-9][0-9]{0,3} ?[A-Za-z]?$")


def addresses(text: str) -> Iterator[Span]:
    """Streets with a house number, with the town where it follows; post-office boxes; values of street fields."""
    if _NUMBER.search(text) and (any(mark in text for mark in _MARKS) or _POSTCODE.search(text)):
        for pattern in _PATTERNS:
            yield from (Span(*m.span(), "ADDRESS") for m in pattern.finditer(text))
    if any(mark in text for mark in _KEY_MARKS):
        for m in _KEYED.finditer(text):
            if _STREET.search(m["value"]):
                yield Span(*m.span("value"), "ADDRESS")
