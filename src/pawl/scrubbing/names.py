"""Finds names of people without a model (pure, best effort).

A capitalised word is a name only where something around it says so: a greeting, a title, a signature, a git trailer, an
e-mail address behind it, a field called `customer_name`, or a frequent given name before a surname. Test names, classes
and terms ("Grace Period") must stay, so given names that are words of English count only with such a context.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from pawl.scrubbing.name_words import GIVEN, NAME_FIELDS, NO_NAME, PARTICLES, PERSON_FIELDS
from pawl.scrubbing.scrub import Span

_W = r"[A-ZÀ-ÖØ-ÞĀ-Ž](?:[^\W\d_]|['’-](?=[^\W\d_])|\\u0[01][0-9a-f]{2})*\.?"
_MORE = rf"(?: (?:(?:al|bin|da|de|del|der|di|dos|du|la|le|van|von) ){{0,2}}{_W})"
_NAME = rf"(?P<name>{_W}{_MORE}{{0,3}})"
_FULL = rf"(?P<name>{_W}{_MORE}{{1,3}})"  # at least two words
_TITLED = rf"(?P<titled>{_W}{_MORE}{{0,3}})"
_ADDRESSED = r"(?:(?:Mr|Mrs|Ms|Dr|Prof|Herr|Frau|Madame|Monsieur)\.? )?"
_BREAK = r"(?:\r?\n|\\r\\n|\\n|<br ?/?>)"

# Texts of which one must occur, and a pattern whose one group is a name: as it stands (`name`), but for what follows it
# (`titled`), or only if it begins with a frequent given name (`given`).
_CONTEXTS = tuple(
    (marks, re.compile(pattern))
    for marks, pattern in (
        (
            ("Hi ", "Hello ", "Hey ", "Dear ", "Hallo ", "Hola ", "Bonjour ", "Ciao ", "Liebe", "Good "),
            r"\b(?:Hi|Hello|Hey|Dear|Hallo|Hola|Bonjour|Ciao|Lieber?|Good (?:morning|afternoon|evening)),? "
            rf"{_ADDRESSED}(?P<name>{_W}(?: {_W}){{0,2}})(?=\s?[,!.:;?]| (?:[-–—]|and|&|und|et) |\s?{_BREAK}|\s?$)",
        ),
        (
            ("egards", "hank", "heers", "incerely", "Best", "Grüße", "ordialement", "aludos", "Yours"),
            r"(?:[Rr]egards|[Tt]hank(?:s| you)|[Cc]heers|[Ss]incerely|Best|Grüßen?|[Cc]ordialement|[Ss]aludos|"
            rf"Yours \w{{4,12}})[,!.]? ?{_BREAK}{{1,3}}[ \t]*(?:[-–] ?)?{_NAME}(?=[ \t]*(?:{_BREAK}|[\"',]|$))",
        ),
        (
            (" and ", " & ", " und ", " et "),
            rf"\b(?:Hi|Hello|Hey|Dear|Hallo|Bonjour) \S{{2,20}} (?:and|&|und|et) (?P<name>{_W})",
        ),
        ((" -", " –", " —"), rf" [-–—] ?(?P<given>{_W})(?=$|\n|\\n|[\"'])"),
        ((" wrote", " commented", " replied"), rf"(?:^|\n|\\n){_FULL} (?:wrote|commented|replied)\b"),
        (("hanks", "heers"), rf"\b(?:[Tt]hanks|[Cc]heers), (?P<given>{_W})(?=[.!]?(?:[\"\n]|$))"),
        (("Mr", "Dr", "Prof"), rf"\b(?:Mr|Dr|Prof)\.? {_TITLED}"),
        (
            ("Mrs", "Ms", "Frau", "Herr", "M.", "Mme", "Madame", "Monsieur"),
            rf"(?:\b(?:Mrs\.?|Ms\.?|Frau|Herrn?|Mme|Madame|Monsieur)|(?<=[a-zé] )M\.(?= [A-Z][a-z]{{2}})) {_TITLED}",
        ),
        ((" <",), rf"(?<![\w.]){_FULL}[\"']? <[^<>\s@]{{1,64}}@"),
        (
            ("-by: ", "Author: ", "author "),
            rf"(?:^|\n|\*)[ \t*]*(?:[A-Z][a-z]+(?:-[a-z]+)*-by: |Author: |@author ){_FULL}",
        ),
        (
            ("y name is ", "his is ", "spoke ", "igned, ", "t by "),
            rf"\b(?:[Mm]y name is|[Tt]his is|[Ss]poke (?:to|with)|[Ss]igned,|Comment by) {_FULL}",
        ),
        (
            ("ustomer ", "atient ", "mployee ", "ssigned to ", "eported by ", "sk for ", "ontact ", "ired by ", "ing "),
            r"\b(?:[Cc]ustomer|[Pp]atient|[Ee]mployee|[Aa]ssigned to|[Rr]eported by|[Aa]sk for|[Cc]ontact|[Hh]ired by|"
            rf"[Rr]ing) (?P<given>{_W} {_W})(?! ?[A-Z])",
        ),
    )
)
_FIELD = re.compile(
    r"[:=]\s{0,4}\\*[\"'](?=[^a-z]|(?:al|da|de|del|di|el|la|le|van|von) )"
    r"(?P<value>(?:[^\"'\\\n<>{}@/_0-9]|\\u[0-9a-fA-F]{4}|['](?=[A-Z])){2,60})\\*[\"']"
)
_KEY = re.compile(r"([A-Za-z_-]{3,40})\\*[\"']?\s{0,4}$")
_PAIR = re.compile(
    r"([A-Z](?<![\w.@#/-].)[a-zà-ÿ]{1,12})"
    r"(?= ((?:(?:de|van|von|der|da|di) ){0,2}(?:O['’]|Mc|Al-)?[A-ZÀ-Þ][a-zà-ÿ]{2,16}(?:-[A-Z][a-zà-ÿ]{2,16})?)"
    r"(?![\w(-]))"
)


# A capitalised word behind a space or a break: compact JSON and most of code have none, and no name in running text.
_CAPITAL = re.compile(r"[ \n\\>](?:n[ \t]*)?(?:[A-ZÀ-Ž][^\W\d_]|\\?u0[01])")


def people(text: str) -> Iterator[Span]:
    """Names of people in the text; spans may overlap."""
    if _CAPITAL.search(text):
        for marks, pattern in _CONTEXTS:
            if _any(text, marks):
                for m in pattern.finditer(text):
                    yield from _of_context(m)
        for m in _PAIR.finditer(text):
            if m[1].lower() in GIVEN and not _stops(m[2]):
                yield Span(m.start(), m.end(2), "PERSON")
    for m in _FIELD.finditer(text):
        if key := _KEY.search(text, max(0, m.start() - 48), m.start()):
            field = key[1].replace("_", "").replace("-", "").lower()
            alone = field in NAME_FIELDS
            if (alone or field in PERSON_FIELDS) and _is_value(m["value"], alone=alone):
                yield Span(*m.span("value"), "PERSON")


def _any(text: str, marks: tuple[str, ...]) -> bool:
    for mark in marks:  # noqa: SIM110 - twice as fast as a generator, and most of the time goes here
        if mark in text:
            return True
    return False


def _of_context(m: re.Match[str]) -> Iterator[Span]:
    (group,) = m.re.groupindex
    name = m[group].rstrip(".")
    words = name.split()
    while group == "titled" and len(words) > 1 and _stops(words[-1]):  # "Dr. Nakamura Test Page"
        name = name.removesuffix(words.pop()).rstrip()
    if any(_stops(w) for w in words) or all(w.isupper() and len(w) > 3 for w in words):
        return
    if group == "given" and words[0].lower() not in GIVEN:
        return
    yield Span(m.start(group), m.start(group) + len(name), "PERSON")


def _stops(words: str) -> bool:
    return any(w.lower().strip(".,'’") in NO_NAME for w in words.split())


def _is_value(value: str, *, alone: bool) -> bool:
    """Whether the value of a field that is called after a person is a name; `alone`: one word suffices."""
    if "\\u" in value:
        value = json.loads(f'"{value}"')
    words = value.replace(",", " ").split()
    if not words or len(words) > 5 or any(_stops(w) for w in words):
        return False
    if len(words) == 1 and not alone and value.isascii():
        return False
    named = [w for w in words if w.lower() not in PARTICLES]
    return bool(named) and all(_is_part(w) for w in named)


def _is_part(word: str) -> bool:
    bare = word.strip(".,").replace("-", "").replace("'", "").replace("’", "")
    if not bare.isalpha():
        return False
    # Scripts without capitals have none to ask for.
    return not bare[0].islower() and not (bare.isascii() and bare.isupper() and len(bare) > 2)
