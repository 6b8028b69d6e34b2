"""Where a number could be a card, an account, an address of the network, a telephone or an identity card (pure).

Cheap patterns and what stands around them; whether it is one, checksums and numbering plans, is Presidio's to say
(`scrubber_presidio`). What is never one is kept away here: identifiers, versions, sections, networks, slices.
"""

from __future__ import annotations

import re

# Patterns begin with the characters that can begin a match, and look behind them: `re` skips to these quickly, but not
# where a look-behind comes first.
DIGITS = re.compile(r"[0-9][0-9 ().\-]{5,40}[0-9]")  # without it no number below can occur
CARD = re.compile(r"[2-6](?<![\w.+-].)(?:[ -]?[0-9]){11,18}(?![\w]|[ .-]?[0-9])", re.ASCII)
_CARD_GROUPS = ((4, 4, 4, 4), (4, 6, 5), (4, 6, 4), (4, 4, 4, 4, 3))
_CARD_WORDS = re.compile(r"card|visa|master|maestro|amex|diners|pan\b|credit|debit|payment|jcb|discover", re.IGNORECASE)
_ID_WORDS = re.compile(
    r"(?:(?:\b|_|[a-z])(?:id|ids|imei|isbn|ean|gtin|sku|serial|seq|timestamp|ts|nanos|epoch|order|trace|span|hash|arn|"
    r"facebook|snowflake|iccid|tracking|parcel))(?:[ _-]?(?:id|no|nr|number))?[\"']?\s?[:=#]?\s?[\"']?$",
    re.IGNORECASE,
)

IPV4 = re.compile(r"[0-9](?<![\w.].)[0-9]{0,2}(?:\.[0-9]{1,3}){3}(?![\w]|\.[\w])", re.ASCII)
_VERSION_BEFORE = re.compile(
    r"(?:(?<![A-Za-z])(?:v|ver|versions?|releases?|released|build|firmware|driver|oid|identifier|"
    r"section|chapter|clause|paragraph|table|figure|fig\.)|§|"
    r"[=<>~^!]=|[<>~^]|[\w.+]-|(?<![/:])[A-Za-z][\w.+-]*/)[\s:=\"']{0,3}$",
    re.IGNORECASE,
)
_HOST_AROUND = re.compile(
    r"\b(?:ip|Ip|IP)|_ip\b|I[pP]\b|(?i:addr|host|client|peer|remote|from|server|src|dst|source|dest|gateway|dns|ping|proxy|"
    r"node|upstream|connect|resolver|bind|listen|block|route|//|forwarded)"
)
_VERSION_NEAR = re.compile(r"version|upgrade|release", re.IGNORECASE)
_PORT = re.compile(r":[0-9]{2,5}\b|/[0-9]")
_NETWORK = re.compile(r"/(?:[0-9]|[12][0-9])(?![0-9.])")
LONG_IPV6 = re.compile(r":[0-9A-Fa-f]{1,4}:[0-9A-Fa-f]{1,4}:[0-9A-Fa-f]{1,4}:")
IPV6 = re.compile(
    r"[0-9A-Fa-f:](?<![\w:.].)(?:(?<!:)[0-9A-Fa-f]{0,3}(?=:)|(?<=:)(?=:))(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:]|\.[0-9])",
    re.ASCII,
)

IBAN = re.compile(r"[A-Z](?<![A-Za-z0-9].)[A-Z][0-9]{2}[ -]?[A-Z0-9]{4}[ -]?[A-Z0-9]{3}[A-Z0-9 -]{1,30}")

PHONE_ABROAD = re.compile(r"\+(?<![\w+].)[0-9][0-9 ().\-]{6,20}[0-9](?![0-9])", re.ASCII)
PHONE_US = re.compile(
    r"[(12-9](?<![\w.+-].)(?:(?<=1)[-. ](?:\([2-9]|[2-9])|(?<=\()[2-9]|(?<=[2-9]))"
    r"[0-9]{2}(?:\) ?|([-. ]))[2-9][0-9]{2}[-. ][0-9]{4}(?![\w]|[-.][0-9])",
    re.ASCII,
)
PHONE_WORDS = re.compile(
    r"(?:phone|tel|telefon|t[ée]l[ée]phone|tel[ée]fono|mobile?|cell|fax|handy|hotline|whatsapp|sms|call|ring|dial|unter|msisdn)"
    r"(?:[_-]?(?:number|no|nr))?[\"'\s:=.\\]{1,6}(?:(?:number|no|nr|me at|us at|at|on|is|me on)[\"'\s:=.]{1,4})?$",
    re.IGNORECASE,
)
PHONE_NATIONAL = re.compile(r"[(0-9](?<![\w.+(-].)[0-9 ()/.\-]{6,19}[0-9](?![\w]|[-.:/][0-9])", re.ASCII)
PHONE_REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "IN", "BR", "AU")

IDS_OF_DIGITS = (  # recognizer, candidates; a weak shape must say what it is
    ("UsSsnRecognizer", re.compile(r"[0-8](?<![\w.-].)[0-9]{2}([- ])[0-9]{2}\1[0-9]{4}(?![\w-])", re.ASCII), None),
    ("InAadhaarRecognizer", re.compile(r"[2-9](?<![\w.-].)[0-9]{3}([ -])[0-9]{4}\1[0-9]{4}(?![\w]|[ -][0-9])"), None),
    (
        "PlPeselRecognizer",
        re.compile(r"[0-9](?<![\w.-].)[0-9]{10}(?![\w.-])", re.ASCII),
        re.compile(r"pesel", re.IGNORECASE),
    ),
    ("FiPersonalIdentityCodeRecognizer", re.compile(r"[0-9](?<![\w-].)[0-9]{5}[-+A][0-9]{3}[0-9A-Y](?![\w-])"), None),
)
IDS_WITH_LETTERS = (
    (
        "EsNifRecognizer",
        re.compile(r"[0-9](?<![\w-].)[0-9]{7}-?[A-Z](?![\w-])"),
        re.compile(r"\b(?:DNI|NIF)\b", re.IGNORECASE),
    ),
    ("EsNieRecognizer", re.compile(r"[XYZ](?<![\w-].)-?[0-9]{7}-?[A-Z](?![\w-])"), None),
    (
        "ItFiscalCodeRecognizer",
        re.compile(r"[A-Z](?<!\w.)[A-Z]{5}[0-9LMNP-V]{2}[A-EHLMPRST][0-9LMNP-V]{2}[A-Z][0-9LMNP-V]{3}[A-Z](?!\w)"),
        None,
    ),
    (
        "UkNinoRecognizer",
        re.compile(r"[A-CEGHJ-PR-TW-Z](?<!\w.)[A-CEGHJ-NPR-TW-Z] ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D](?!\w)"),
        re.compile(r"insurance|\bNINO?\b", re.IGNORECASE),
    ),
)
# Without it none of these, and no IBAN.
LETTERED = re.compile(r"[A-Z0-9](?:(?<=[0-9])[0-9][ -]?[A-Z](?![a-z])|(?<=[A-Z]) ?[0-9]{2})")


def is_card(text: str, m: re.Match[str]) -> bool:
    """Issuer, length and grouping of a payment card (ISO/IEC 7812); the check digit is Presidio's."""
    groups = tuple(len(g) for g in re.split("[ -]", m[0]))
    digits = re.sub("[ -]", "", m[0])
    if len(groups) > 1 and groups not in _CARD_GROUPS:
        return False
    before = text[max(0, m.start() - 40) : m.start()]
    if len(groups) == 1 and _ID_WORDS.search(before) and not _CARD_WORDS.search(before):
        return False
    n, four = len(digits), int(digits[:4])
    if n == 16:
        # The newer numbers of Mastercard begin as many other numbers do.
        told = len(groups) > 1 or before.endswith(("'", '"')) or _CARD_WORDS.search(before) is not None
        mastercard = 5100 <= four <= 5599 or (told and 2221 <= four <= 2720)
        other = digits[:2] in ("65", "62", "60") or 3528 <= four <= 3589 or 6440 <= four <= 6499
        return digits[0] == "4" or mastercard or other
    if n == 15:
        return digits[:2] in ("34", "37")
    if n == 14:
        return digits[:2] in ("36", "38", "39") or 3000 <= four <= 3059
    # Lengths that few cards have, and many other numbers.
    return digits[0] in "456" and _CARD_WORDS.search(before) is not None


def is_version(text: str, m: re.Match[str]) -> bool:
    """Whether four numbers with points are a version, a section or a network rather than somebody's address."""
    before = text[max(0, m.start() - 30) : m.start()]
    if _VERSION_BEFORE.search(before) and not re.search(r"[0-9]-$", before):
        return True
    octets = [int(o) for o in m[0].split(".")]
    network = _NETWORK.match(text, m.end())
    if network and octets[3] == 0:
        return True
    # Most versions begin so, few hosts do: these must say that they are one.
    small = octets[0] < 10 or (octets[0] != 10 and max(octets) < 20)
    if small and _VERSION_NEAR.search(before):
        return True
    begins = before == "" or before.endswith("\n")
    return small and not (begins or _HOST_AROUND.search(before) or _PORT.match(text, m.end()))
