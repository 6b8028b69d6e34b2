"""Finds personal data with Presidio's recognizers, and opens the scrubber that joins them with all others.

The recognizers are called directly, on the few characters that a cheap pattern of ours points at, and decide there
(checksums, numbering plans, public suffixes). That is many times faster than the analyzer engine, and linear in the
text where some of their own patterns are not. No language model is loaded.

Importing Presidio takes seconds, since it brings its language engines along: it happens when a scrubber is opened.
"""

from __future__ import annotations

import multiprocessing
import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from typing import Any

from pawl.errors import ResourceError
from pawl.scrubbing.addresses import addresses
from pawl.scrubbing.names import people
from pawl.scrubbing.scrub import Scrubbed, Scrubber, Span, scrub
from pawl.scrubbing.secrets_detect_secrets import Secrets
from pawl.scrubbing.shapes import (
    CARD,
    DIGITS,
    IBAN,
    IDS_OF_DIGITS,
    IDS_WITH_LETTERS,
    IPV4,
    IPV6,
    LETTERED,
    LONG_IPV6,
    PHONE_ABROAD,
    PHONE_NATIONAL,
    PHONE_REGIONS,
    PHONE_US,
    PHONE_WORDS,
    is_card,
    is_version,
)

_FEW = 200  # examples that are sooner scrubbed than a second process is up
_CHUNK = 100  # examples

_LOCAL_PART = re.compile(r"(?:[OoDdLlMm]['’])?(?:[\w.+-]|%2[bB])+$")
_DOMAIN = re.compile(r"[^\W_][\w-]{0,63}(?:\.[\w-]{1,63}){1,8}")


def open_scrubber(names: bool) -> Scrubber:
    """A scrubber for this process; takes seconds to open. `names`: with the names of people, which is slower."""
    return _Scrubber(names)


def scrub_all(examples: Iterable[Sequence[str]], *, names: bool, workers: int = 1) -> Iterator[Scrubbed]:
    """Scrub many examples, in order; each is the texts of one example.

    With more than one worker, and more than a few examples, in processes of their own. They are started afresh, so the
    caller's main module must be importable.

    Raises:
        ResourceError: a process was killed, most likely for memory.
    """
    coming = iter(examples)
    first = list(islice(coming, _FEW if workers > 1 else 1))
    if len(first) < _FEW:
        if first:
            yield from map(open_scrubber(names).scrub, chain(first, coming))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(names,)) as pool:
        chunks = _chunks(chain(first, coming))
        running: deque[Future[list[Scrubbed]]] = deque()
        try:
            # Few are ahead of the reader: neither the examples nor the answers pile up.
            for chunk in chunks:
                running.append(pool.submit(_scrub_chunk, chunk))
                if len(running) > 3 * workers:
                    yield from running.popleft().result()
            while running:
                yield from running.popleft().result()
        except BrokenProcessPool as error:
            raise ResourceError(
                "a process that scrubs examples was killed, most likely for want of memory (each takes 250 MB): "
                "use fewer workers"
            ) from error
        finally:
            for left in running:
                left.cancel()


def _chunks(examples: Iterator[Sequence[str]]) -> Iterator[list[tuple[str, ...]]]:
    while chunk := [tuple(texts) for texts in islice(examples, _CHUNK)]:
        yield chunk


_own: Scrubber | None = None  # of a worker process


def _start(names: bool) -> None:
    global _own
    # Presidio's engines import these where they can, 500 MB and 5 seconds for nothing: this process only scrubs.
    for module in ("torch", "transformers"):
        sys.modules.setdefault(module, None)  # type: ignore[arg-type]
    _own = open_scrubber(names)


def _scrub_chunk(chunk: list[tuple[str, ...]]) -> list[Scrubbed]:
    assert _own is not None
    return [_own.scrub(texts) for texts in chunk]


class _Scrubber:
    def __init__(self, names: bool) -> None:
        self._personal = _Recognizers()
        self._secrets = Secrets()
        self._names = names

    def scrub(self, texts: Sequence[str]) -> Scrubbed:
        return scrub(texts, self.recognize)

    def recognize(self, text: str) -> list[Span]:
        spans = [*self._secrets.find(text), *self._personal.find(text), *addresses(text)]
        if self._names:
            spans += people(text)
        return spans


class _Recognizers:
    """Presidio's recognizers, and where to call them."""

    def __init__(self) -> None:
        import tldextract

        # Before the first call: it would fetch the list of public suffixes. The one that comes with it will do.
        tldextract.extract = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)  # type: ignore[assignment]
        from presidio_analyzer import Pattern
        from presidio_analyzer import predefined_recognizers as known

        self._email = known.EmailRecognizer()
        # Issuers and groups are ours to check; its own pattern lacks the newer numbers of Mastercard.
        self._card = known.CreditCardRecognizer(patterns=[Pattern("card", r"[0-9][0-9 -]{10,22}[0-9]", 0.5)])
        self._iban = known.IbanRecognizer()
        self._ip = known.IpRecognizer()
        self._phone = {r: known.PhoneRecognizer(supported_regions=(r,)) for r in PHONE_REGIONS}
        self._ids = [(getattr(known, name)(), shape, says) for name, shape, says in IDS_OF_DIGITS]
        self._lettered_ids = [(getattr(known, name)(), shape, says) for name, shape, says in IDS_WITH_LETTERS]

    def find(self, text: str) -> Iterator[Span]:
        """Every span of personal data with a format of its own; spans may overlap."""
        if "@" in text or "%40" in text:
            yield from self._emails(text)
        if DIGITS.search(text):
            yield from self._cards(text)
            yield from self._ipv4(text)
            yield from self._phones(text)
            yield from _ids(text, self._ids)
        if "::" in text or LONG_IPV6.search(text):
            yield from self._ipv6(text)
        if LETTERED.search(text):
            yield from _ids(text, self._lettered_ids)
            for m in IBAN.finditer(text):
                for start, end in _confirmed(self._iban, m[0]):
                    yield Span(m.start() + start, m.start() + end, "IBAN")

    def _emails(self, text: str) -> Iterator[Span]:
        for at in re.finditer("@|%40", text):
            local = _LOCAL_PART.search(text[max(0, at.start() - 64) : at.start()])
            domain = _DOMAIN.match(text, at.end())
            if local is None or domain is None:
                continue
            name = local[0].lstrip(".-+")
            # `git@host:path` is how everybody reaches a repository.
            # Neither is who stands before the host of a URL an address.
            start = at.start() - len(name)
            user = name == "git" or text[max(0, start - 2) : start] == "//" or text[max(0, start - 1) : start] == "@"
            if name and not user and _confirmed(self._email, f"{name.strip('’')}@{domain[0]}"):
                yield Span(start, domain.end(), "EMAIL")

    def _cards(self, text: str) -> Iterator[Span]:
        for m in CARD.finditer(text):
            if is_card(text, m) and _confirmed(self._card, m[0]):
                yield Span(*m.span(), "CARD")

    def _ipv4(self, text: str) -> Iterator[Span]:
        for m in IPV4.finditer(text):
            if not is_version(text, m) and _confirmed(self._ip, m[0]):
                yield Span(*m.span(), "IP")

    def _ipv6(self, text: str) -> Iterator[Span]:
        for m in IPV6.finditer(text):
            groups = [g for g in m[0].split(":") if g]
            short = "::" in m[0]
            # Slices (`[1::2]`), hardware addresses, fingerprints and scopes (`a::b`) are none.
            real = (short and groups and len(groups[0]) == 4) or (len(groups) >= 4 and any(len(g) > 2 for g in groups))
            network = short and m[0].endswith(":") and text[m.end() : m.end() + 1] == "/"
            if (
                real
                and not network
                and (short or len(groups) == 8)
                and any(c.isdigit() for c in m[0])
                and _confirmed(self._ip, m[0])
            ):
                yield Span(*m.span(), "IP")

    def _phones(self, text: str) -> Iterator[Span]:
        for m in PHONE_ABROAD.finditer(text):
            if "(0)" not in m[0]:
                yield from self._numbers(m[0], m.start(), ("US",))
            elif _confirmed(self._phone["US"], m[0].replace("(0)", "")):  # the digit that is dialled at home only
                yield Span(*m.span(), "PHONE")
        for m in PHONE_US.finditer(text):
            if m[1] != " " or PHONE_WORDS.search(text, max(0, m.start() - 40), m.start()):
                yield from self._numbers(m[0], m.start(), ("US",))
        for m in PHONE_NATIONAL.finditer(text):
            if not PHONE_WORDS.search(text, max(0, m.start() - 40), m.start()):
                continue
            if not m[0].startswith("00"):
                yield from self._numbers(m[0], m.start(), PHONE_REGIONS)
            elif _confirmed(self._phone["US"], f"+{m[0][2:]}"):
                yield Span(*m.span(), "PHONE")

    def _numbers(self, candidate: str, at: int, regions: Sequence[str]) -> Iterator[Span]:
        for region in regions:
            if found := _confirmed(self._phone[region], candidate):
                yield from (Span(at + start, at + end, "PHONE") for start, end in found)
                return


def _confirmed(recognizer: Any, text: str) -> list[tuple[int, int]]:
    """Where the recognizer sees its entity; candidates that fail its checks are not among its results."""
    return [(r.start, r.end) for r in recognizer.analyze(text, recognizer.supported_entities)]


def _ids(text: str, shapes: Sequence[tuple[Any, re.Pattern[str], re.Pattern[str] | None]]) -> Iterator[Span]:
    for recognizer, shape, says in shapes:
        for m in shape.finditer(text):
            said = says is None or says.search(text, max(0, m.start() - 80), m.end() + 20)
            if said and _confirmed(recognizer, m[0]):
                yield Span(*m.span(), "NATIONAL_ID")
