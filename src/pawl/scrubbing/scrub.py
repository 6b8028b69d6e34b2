"""Personal data and secrets out of training examples: spans in, pseudonyms out (pure).

What a span is comes from recognizers (`scrubber_presidio`, `secrets_detect_secrets`, `names`). Here it is decided
which spans win, what stands in their place, and that a second scrub would change nothing.

A pseudonym is numbered in the order of appearance inside one example. No table of values is kept and none is hashed:
the way back does not exist. Where a range is reserved for documentation the pseudonym comes from it, so that a payload
keeps passing format checks: RFC 2606 (e-mail), RFC 5737 and RFC 3849 (addresses), the North American numbers 555-01xx
that are set aside for fiction. Values that lie in these ranges already are left alone.
"""

from __future__ import annotations

import ipaddress
import re
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

# The kinds, the surest first: of two spans that overlap, the earlier kind wins.
KINDS = (
    "PRIVATE_KEY",
    "CONNECTION_STRING",
    "JWT",
    "SECRET",
    "EMAIL",
    "IBAN",
    "CARD",
    "NATIONAL_ID",
    "IP",
    "PHONE",
    "ADDRESS",
    "PERSON",
)
_RANK = {kind: rank for rank, kind in enumerate(KINDS)}
_MOST_ROUNDS = 8

_PLACEHOLDER = re.compile(r"<[A-Z][A-Z_]*_[0-9]+>")
_RESERVED_MAIL = re.compile(r"(?:^|[@.])(?:example\.(?:com|org|net)|(?:[\w-]+\.)*(?:test|example|invalid|localhost))$")
_DIGITS = re.compile(r"[0-9]")
_NOT_DIGITS = re.compile(r"[^0-9]+")
_FICTION = re.compile(r"1?[2-9][0-9]{2}55501[0-9]{2}")
_AREAS = ("202", "303", "404", "512", "617", "702", "808", "913")  # of fictional numbers; each holds a hundred
_NETS_V4 = ("192.0.2", "198.51.100", "203.0.113")
_DOCUMENTATION = tuple(
    ipaddress.ip_network(n) for n in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
)
_BEFORE_NUMBER = re.compile(r"(?:[\"']\s*:|[\[,]|\s=)\s*$")
_AFTER_NUMBER = re.compile(r"\s*(?:[,}\]]|$)")


class Scrubbed(NamedTuple):
    """The texts of one example without personal data and secrets."""

    texts: tuple[str, ...]  # in the order they came
    found: dict[str, int]  # entity kind -> how many were replaced


class Scrubber(Protocol):
    """Replaces personal data and secrets by pseudonyms."""

    def scrub(self, texts: Sequence[str]) -> Scrubbed:
        """The texts of one example: the same value gets the same pseudonym in all of them."""
        ...


class Span(NamedTuple):
    """A place in a text, in characters, and what was recognized there."""

    start: int
    end: int
    kind: str


Recognize = Callable[[str], Iterable[Span]]


def scrub(texts: Sequence[str], recognize: Recognize) -> Scrubbed:
    """Replace what `recognize` finds, until it finds nothing more.

    A replacement can uncover what an overlapping one had hidden, so the texts that changed are looked at again. What
    comes out holds nothing that would be found, hence a second scrub is the identity.
    """
    current = list(texts)
    found: Counter[str] = Counter()
    pseudonyms: Pseudonyms | None = None
    waiting: Sequence[int] = range(len(current))
    for _ in range(_MOST_ROUNDS):
        spans = {n: s for n in waiting if (s := winners(current[n], recognize(current[n])))}
        if not spans:
            break
        pseudonyms = pseudonyms or Pseudonyms(texts)
        for n, more in _repeated(current, spans).items():
            spans[n] = winners(current[n], [*spans.get(n, ()), *more])
        for n in sorted(spans):
            current[n] = _replaced(current[n], spans[n], pseudonyms)
            found.update(s.kind for s in spans[n])
        waiting = sorted(spans)
    return Scrubbed(tuple(current), dict(found))


def winners(text: str, spans: Iterable[Span]) -> list[Span]:
    """The spans to replace, in order and apart from each other: no reserved values, no halves of JSON escapes."""
    kept: list[Span] = []
    for span in sorted(spans, key=lambda s: (_RANK[s.kind], s.start - s.end, s.start)):
        start, end = outside_escapes(text, span.start, span.end)
        fits = Span(start, end, span.kind)
        at = bisect(kept, fits)
        free = (at == 0 or kept[at - 1].end <= start) and (at == len(kept) or end <= kept[at].start)
        if start < end and free:
            kept.insert(at, fits)
    return [s for s in kept if not (reserved(s.kind, text[s.start : s.end]) or _in_placeholder(text, s))]


def _in_placeholder(text: str, span: Span) -> bool:
    at = text.rfind("<", max(0, span.start - 32), span.start + 1)
    placed = _PLACEHOLDER.match(text, at) if at >= 0 else None
    return placed is not None and span.end <= placed.end()


def reserved(kind: str, value: str) -> bool:
    """Whether a value means nobody: reserved for documentation, or an address of no host in particular."""
    if kind == "EMAIL":
        return _RESERVED_MAIL.search(value.lower().replace("%40", "@")) is not None
    if kind == "PHONE":
        return _FICTION.fullmatch(_NOT_DIGITS.sub("", value)) is not None
    if kind == "CARD":
        return value.startswith("9")
    if kind == "IP":
        try:
            address = ipaddress.ip_address(value)
        except ValueError:
            return False
        nobody = address.is_loopback or address.is_unspecified or address.is_multicast or address.is_reserved
        # A link-local address of version 6 holds the hardware's number; that of version 4 is the metadata service.
        nobody = nobody or (address.version == 4 and (address.is_link_local or value.startswith("255.")))
        return nobody or any(address in net for net in _DOCUMENTATION if net.version == address.version)
    return False


def outside_escapes(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without the halves of JSON escapes at its edges (``\\n``, ``\\u00e9``), which would break the string."""
    for back in range(1, 6):
        at = start - back
        if at >= 0 and text[at] == "\\" and (after := at + _escape(text, at)) > start:
            start = after
            break
    for back in range(1, 6):
        at = end - back
        if at >= start and text[at] == "\\" and at + _escape(text, at) > end:
            end = at
            break
    return start, end


def _escape(text: str, at: int) -> int:
    """Length of the escape that begins with the backslash at this place; 0 where none begins."""
    before = at
    while before > 0 and text[before - 1] == "\\":
        before -= 1
    if (at - before) % 2 or at + 1 >= len(text):
        return 0 if (at - before) % 2 else 2
    if text[at + 1] == "u" and all(c in "0123456789abcdefABCDEF" for c in text[at + 2 : at + 6]):
        return 6
    return 2 if text[at + 1] in '"\\/bfnrt' else 0


def _repeated(texts: Sequence[str], spans: dict[int, list[Span]]) -> dict[int, list[Span]]:
    """Where full names and secrets that one place gave away stand elsewhere in the example, without context."""
    known = {
        (texts[n][s.start : s.end], s.kind)
        for n, found in spans.items()
        for s in found
        if s.kind in ("PERSON", "SECRET") and _worth_repeating(texts[n][s.start : s.end], s.kind)
    }
    more: dict[int, list[Span]] = {}
    for value, kind in known:
        for n, text in enumerate(texts):
            for start in _occurrences(text, value):
                more.setdefault(n, []).append(Span(start, start + len(value), kind))
    return more


def _worth_repeating(value: str, kind: str) -> bool:
    if kind == "PERSON":
        return " " in value
    return len(value) >= 8 and any(c.isdigit() for c in value) and any(c.isalpha() for c in value)


def _occurrences(text: str, value: str) -> Iterator[int]:
    start = text.find(value)
    while start >= 0:
        end = start + len(value)
        inside = (start > 0 and text[start - 1].isalnum()) or (end < len(text) and text[end].isalnum())
        if not inside:
            yield start
        start = text.find(value, end)


def _replaced(text: str, spans: Sequence[Span], pseudonyms: Pseudonyms) -> str:
    parts: list[str] = []
    at = 0
    for s in spans:
        value = text[s.start : s.end]
        parts += (text[at : s.start], pseudonyms.of(s.kind, value, number=_is_json_number(text, s, value)))
        at = s.end
    return "".join((*parts, text[at:]))


def _is_json_number(text: str, span: Span, value: str) -> bool:
    """Whether a run of digits stands where JSON has a number: anything else in its place would not parse."""
    return (
        value.isdigit()
        and _BEFORE_NUMBER.search(text, max(0, span.start - 40), span.start) is not None
        and _AFTER_NUMBER.match(text, span.end) is not None
    )


class Pseudonyms:
    """What stands for each value of one example; forgotten with it."""

    def __init__(self, texts: Sequence[str]) -> None:
        """`texts`: the example as it came. A pseudonym that it already holds is not given to anybody else."""
        self._texts = texts
        self._numbers: dict[tuple[str, str], int] = {}
        self._last: Counter[str] = Counter()

    def of(self, kind: str, value: str, *, number: bool = False) -> str:
        """The pseudonym of a value; `number`: as a bare number of as many digits."""
        series, same = _identity(kind, value)
        n = self._numbers.get((series, same))
        while n is None:
            self._last[series] += 1
            drawn = _spellings(_usual(series, self._last[series]), series)
            if not any(drawn.search(text) for text in self._texts):
                n = self._numbers[series, same] = self._last[series]
        return _written(series, n, value, number)


def _identity(kind: str, value: str) -> tuple[str, str]:
    """(series that the pseudonym is drawn from, what makes two spellings the same value)."""
    if kind == "EMAIL":
        return kind, value.lower().replace("%40", "@")
    if kind in ("PHONE", "CARD"):
        return kind, _NOT_DIGITS.sub("", value)
    if kind == "IP":
        try:
            address = ipaddress.ip_address(value)
        except ValueError:
            return "IPV6", value.lower()
        return f"IPV{address.version}", str(address)
    if kind in ("IBAN", "NATIONAL_ID"):
        return kind, re.sub(r"[\s-]", "", value).upper()
    if kind in ("PERSON", "ADDRESS"):
        return kind, " ".join(value.casefold().split())
    return kind, value


def _usual(series: str, n: int) -> str:
    """The n-th pseudonym of a series, from 1, in its usual spelling."""
    if series == "EMAIL":
        return f"user{n}@example.com"
    if series == "PHONE" and n <= 99 * len(_AREAS):
        return f"+1 {_AREAS[(n - 1) // 99]} 555 01{(n - 1) % 99 + 1:02d}"
    if series == "IPV4" and n <= 254 * len(_NETS_V4):
        return f"{_NETS_V4[(n - 1) // 254]}.{(n - 1) % 254 + 1}"
    if series == "IPV6":
        return f"2001:db8::{n:x}" if n < 0x10000 else f"2001:db8::{n >> 16:x}:{n & 0xFFFF:x}"
    return f"<{series.removesuffix('V4')}_{n}>"


def _spellings(usual: str, series: str) -> re.Pattern[str]:
    """Finds a pseudonym in every spelling that `_written` gives it."""
    if series == "PHONE" and usual.startswith("+"):
        return re.compile(r"[^0-9]{0,2}".join(_NOT_DIGITS.sub("", usual)[1:]))
    return re.compile(re.escape(usual).replace("@", "(?:@|%40)") + r"(?![0-9])", re.IGNORECASE)


def _written(series: str, n: int, value: str, number: bool) -> str:
    """The pseudonym in the spelling of the value that it replaces, where a format check could tell the difference."""
    usual = _usual(series, n)
    if series == "EMAIL" and "@" not in value:
        return usual.replace("@", "%40")
    if series == "PHONE" and usual.startswith("+"):
        digits = _NOT_DIGITS.sub("", usual)
        old = _NOT_DIGITS.sub("", value)
        if len(old) == 10 and not value.startswith("+"):
            digits = digits[1:]
        if len(old) == len(digits) and (len(old) == 10 or old.startswith("1")):
            new = iter(digits)
            return _DIGITS.sub(lambda _: next(new), value)
        if number or value.isdigit():
            return digits
        return f"+{digits}" if value[1:].isdigit() else usual
    return _number_of_nobody(n, len(value)) if number else usual


def _number_of_nobody(n: int, length: int) -> str:
    """A number of this length that is no card, since no network's begins with 9, and no identity card's either."""
    return "9" + str(n).rjust(length - 1, "0")
