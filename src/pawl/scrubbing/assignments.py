"""Finds secrets by the name that they are assigned to: `password = "..."`, `"api_key": "..."`, `--token=...` (pure).

The name alone says little: schemas, messages and test cases are full of passwords that are none. So the value must
look like a secret too: not a word, not an identifier, not a reference to where the secret is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pawl.scrubbing.scrub import Span

# Finding these literally and matching around them is five times as fast as one pattern with all names in it.
_PASSWORDS = (
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "passwort",
    "pwd",
    "psk",
    "pass",
    "pw",
    "contraseña",
    "contrasena",
)
_KEYS = ("secret", "token", "key", "credential")
_MARKS = tuple((mark, mark in _PASSWORDS) for mark in (*_PASSWORDS, *_KEYS))
_SHORT = ("pass", "pw")
_BEFORE_KEY = re.compile(
    r"(?:api|access|auth|account|private|signing|encryption|service|master|shared|license|webhook|secret)[_-]?$"
)
# What makes a token one of a page or a request, and no secret.
_HARMLESS = re.compile(
    r"(?:next|prev|previous|page|pagination|continue|continuation|client|request|idempotency|idempotent|start|starting|"
    r"resume|marker|cursor|sync|upload|change|publickey|prompt|completion|input|output|stop|pad|eos|bos|unk|sep|mask)[_-]?$"
)
_REST = r"s?(?:[_-]?(?:access[_-]?)?(?:key|hash|value|confirm(?:ation)?|again|[0-9]))?(?![a-z0-9_])"
# rest of the name, closing quote or bracket, a sign that assigns, value in quotes of any escaping
_FIELD_BESIDE = r"\s?,\s?\\*[\"']value\\*[\"']\s?:\s?"  # {"key": "X-Api-Key", "value": "..."}
_SIGN = r"\s{0,8}(?P<sign>=>|:=|={1,3}|!=|:|,|\(|\){0,3}\.(?:send_?keys|fill|type|set_?value)\()\s{0,8}"
_QUOTED = re.compile(
    rf"{_REST}\\*[\"'\]]{{0,2}}(?:{_FIELD_BESIDE}|{_SIGN}|\s{{1,8}}(?:value\s?=\s?)?)"
    r"(?P<quote>\\*[\"'`])(?P<value>[^\"'`\s]{5,512}?)(?P=quote)"
)
# Behind a name in quotes JSON and code have numbers, or other names.
_BARE = re.compile(
    _REST + r"\s?(?P<sign>[=:>])[ \t]{0,8}(?P<value>[^\s\"'`,;&()\[\]{}<>$%*\\][^\s\"'`,;&()\[\]{}<>\\]{4,512})"
)
_TYPE = re.compile(r"::\w*$")  # `AWS::IAM::AccessKey` names a kind of resource
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_REFERENCE = re.compile(
    r"[$%][a-zA-Z_{(].*|.*[<>{}].*|\*+|[xX.•]+|\[.*\]|arn:.*|[a-z][a-z0-9+.-]*://.*|(?:[A-Z][A-Z0-9]*_)+[A-Z0-9]+|"
    r"[A-Za-z_][A-Za-z_0-9]*(?:\.[A-Za-z_][A-Za-z_0-9]*)+|/?[a-z0-9_.-]*(?:/[a-z0-9_.-]+)+|\^.*|.*\$$|\\.*"
)
_SAYS_NO = r"(?<![a-z])(?:your|example|placeholder|change.?me|redacted|dummy|invalid|wrong|missing|required"
_NO_PASSWORD = re.compile(_SAYS_NO + r")(?![a-z])")
_NO_KEY = re.compile(_SAYS_NO + r"|test|fake|mock|sample|expired|token|secret|key|api|todo|none|null)(?![a-z])")
# What an unquoted value may be in code: another variable, or a type.
_VARIABLE = re.compile(r"(?i:(?![0-9])\w*(?:passw|pwd|secret|token|key)\w*)|[A-Z][a-z]+(?:[A-Z][a-z]+|[0-9])+")
_CAMEL = re.compile(r"(?:[A-Z][a-z]+[0-9]?){2,}")


def assigned(text: str) -> Iterator[Span]:
    """Values that are assigned to the name of a secret and look like one."""
    low = text.lower()
    if len(low) != len(text):  # a few letters become two, and places would shift
        low = "".join(c.lower() if c.isascii() else c for c in text)
    for mark, password in _MARKS:
        at = low.find(mark)
        while at >= 0:
            after = at + len(mark)
            if mark in _SHORT and not _alone(text, at):
                pass
            elif password or mark != "key" or _BEFORE_KEY.search(low, max(0, at - 12), at):
                yield from _value(text, low, (at, after), mark, password=password)
            at = low.find(mark, after)


def _alone(text: str, at: int) -> bool:
    """Whether `pass` or `pw` is a name here, and no part of a word: `DB_PASS=`, `"pw":`, `pw:`."""
    before = text[at - 1 : at] if at else ""
    return not before.isalpha() and (before in ("_", '"', "'") or text[at : at + 2].lower() == "pw")


def _value(text: str, low: str, place: tuple[int, int], mark: str, *, password: bool) -> Iterator[Span]:
    at, after = place
    if _TYPE.search(low, max(0, at - 40), at):
        return
    if mark == "token" and _HARMLESS.search(low, max(0, at - 24), at):
        return
    if m := _QUOTED.match(low, after):
        start, end = m.span("value")
        value = text[start:end]
        # `("password", "x")` assigns; `["Password", "NewPassword"]` lists names.
        unsaid = mark in _SHORT and m["sign"] is None  # 'pass "x" on'
        listed = m["sign"] == "," and (not password or _CAMEL.fullmatch(value) or not _has_digit(value))
        if not (unsaid or listed) and _is_secret(value, password=password):
            yield Span(start, end, "SECRET")
    elif m := _BARE.match(low, after):
        start, end = m.span("value")
        value = text[start:end].rstrip(".:!?")
        following = text[end : end + 1]
        code = following in ("(", "[", "{") or (following == "<" and m["sign"] != ">")
        code = code or not _has_digit(value) or _VARIABLE.fullmatch(value) is not None
        if not code and _is_secret(value, password=password):
            yield Span(start, start + len(value), "SECRET")


def _is_secret(value: str, *, password: bool) -> bool:
    if _REFERENCE.fullmatch(value) or _UUID.fullmatch(value):
        return False
    if password:
        mixed = _classes(value) >= 2 and not value.isalpha()
        return (mixed and not _NO_PASSWORD.search(value.lower())) or (value.isdigit() and len(value) >= 6)
    strong = len(value) >= 16 and _has_digit(value) and any(c.isalpha() for c in value)
    return strong and not _NO_KEY.search(value.lower())


def _has_digit(value: str) -> bool:
    return any(c.isdigit() for c in value)


def _classes(value: str) -> int:
    """Kinds of characters, where a capital at the beginning and what joins words are none of their own."""
    joins = "_-. /"
    return (
        any(c.islower() for c in value)
        + any(c.isupper() for c in value[1:])
        + _has_digit(value)
        + any(not c.isalnum() and c not in joins for c in value)
    )
