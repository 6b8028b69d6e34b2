"""Finds secrets: detect-secrets' named plugins for the tokens of well-known services, own patterns where it has none.

Its defaults are not used: the entropy plugins flood test data with false alarms and cost a hundred times as much. Of a
plugin its compiled patterns are taken, since `analyze_string` gives values without places, and for some only a prefix.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator

from pawl.scrubbing.assignments import assigned
from pawl.scrubbing.scrub import Span

# plugin module, class -> texts of which one must occur before its patterns are tried
_PLUGINS = (
    ("aws", "AWSKeyDetector", ("AKIA", "ASIA", "ABIA", "ACCA", "A3T")),
    ("azure_storage_key", "AzureStorageKeyDetector", ("AccountKey=",)),
    ("github_token", "GitHubTokenDetector", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_")),
    ("gitlab_token", "GitLabTokenDetector", ("glpat-", "gldt-", "glft-", "glsoat-", "glrt-", "glcbt-", "glptt-")),
    ("openai", "OpenAIDetector", ("T3BlbkFJ",)),
    ("pypi_token", "PypiTokenDetector", ("pypi-Ag",)),
    ("sendgrid", "SendGridDetector", ("SG.",)),
    ("slack", "SlackDetector", ("xox", "hooks.slack.com")),
    ("square_oauth", "SquareOAuthDetector", ("sq0csp-",)),
    ("stripe", "StripeDetector", ("k_live_",)),
    ("twilio", "TwilioKeyDetector", ("AC", "SK")),
)
# Formats that the plugins lack, each with a text that must occur.
_OWN = tuple(
    (mark, re.compile(r"(?<![A-Za-z0-9])" + pattern))
    for mark, pattern in (
        ("AIza", r"AIza[\w-]{35}"),
        ("AGE-SECRET-KEY-", r"AGE-SECRET-KEY-1[0-9A-Z]{58}"),
        ("dapi", r"dapi[0-9a-f]{32}(?:-[0-9])?"),
        ("dckr_", r"dckr_(?:pat|oat)_[\w-]{20,60}"),
        ("_v1_", r"do[opr]_v1_[0-9a-f]{64}"),
        ("github_pat_", r"github_pat_\w{60,100}"),
        ("glpat-", r"glpat-[\w.-]{20,64}"),
        ("gsk_", r"gsk_[A-Za-z0-9]{40,64}"),
        ("hf_", r"hf_[A-Za-z0-9]{30,40}"),
        ("hvs.", r"hvs\.[\w-]{24,220}"),
        ("key-", r"key-[0-9a-f]{32}"),
        ("lin_api_", r"lin_api_[A-Za-z0-9]{40}"),
        ("npm_", r"npm_[A-Za-z0-9]{36}"),
        ("shpat_", r"shpat_[0-9a-fA-F]{32}"),
        ("sk-", r"sk-(?:(?:proj|svcacct|admin|or-v1|ant-[a-z]+[0-9]{2})-[\w-]{20,200}|[A-Za-z0-9]{32,64})"),
        ("k_test_", r"[rs]k_test_[A-Za-z0-9]{16,128}"),
        ("k_live_", r"[rs]k_live_[A-Za-z0-9]{16,128}"),
        ("whsec_", r"whsec_[A-Za-z0-9+/=]{24,64}"),
        ("xapp-", r"xapp-[0-9]-[A-Z0-9]+-[0-9]+-[0-9a-f]+"),
        ("ya29.", r"ya29\.[\w-]{20,400}"),
    )
)
_TELEGRAM = re.compile(r"[0-9](?<![\w-].)[0-9]{7,9}:[\w-]{35}(?![\w-])", re.ASCII)
_AFTER_AWS = re.compile(r"(?<![A-Za-z0-9/+=])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])")

_JWT = re.compile(r"(?<![A-Za-z0-9_-])eyJ[\w-]{8,8192}(?:\.[\w-]{0,16384}){2,4}", re.ASCII)
_PEM_BEGIN = re.compile(r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_PEM_END = re.compile(r"-----END (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_PEM_BODY = re.compile(r"(?:[A-Za-z0-9+/=\s]|\\[nr])*")
_PEM_FOREIGN = re.compile(r"[{}\[\]]|[\"']\s*:")  # an object's edge: the block does not go on behind it
_PEM_LINE = re.compile(r"[A-Za-z0-9+/=]{16}")
_PEM_MOST = 16_384
_PUTTY = re.compile(r"PuTTY-User-Key-File-[23]: [\s\S]{0,8192}?Private-MAC: [0-9a-f]{40,64}")

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{1,30}$")
_CREDENTIALS = re.compile(r"://[^\s:/?#@\"'`<>{}\\]{0,128}:([^\s/?@\"'`<>\\]{1,256})@[^\s\"'`<>\\]{0,1024}")
_NO_CREDENTIAL = re.compile(r"\$.*|%.*|.*[{}].*|\*+|x+|\.+", re.IGNORECASE)
_TRAILING = ".,;:!?)]}"

_BEARER = re.compile(r"\b[Bb]earer[ \t]+([A-Za-z0-9._~+/-]{16,4096}={0,2})")
_BASIC = re.compile(r"\b[Bb]asic[ \t]+([A-Za-z0-9+/]{6,2048}={0,2})(?![A-Za-z0-9+/=])")
_SCHEMED = re.compile(
    r"uthorization\\*[\"']?\s?[:=,]\s?\\*[\"']?(?:[Tt]oken|[Aa]pi[Kk]ey|[Kk]ey)[ \t]+([A-Za-z0-9._~+/-]{16,4096}=?)"
)
_SIGNED = re.compile(r"[?&](?:sig|X-Amz-Signature|X-Goog-Signature)=([A-Za-z0-9%+/=_-]{40,600})")
# curl -u name:password, sshpass -p password, and the `login name password x` of .netrc
_FLAGGED = re.compile(
    r"(?:(?:-u|--user)[ =]\\*[\"']?[\w.@-]{1,64}:(?!//)|sshpass -p ?|\blogin \S{1,80}\s{1,8}password )"
    r"\\*[\"']?([^\s\"'`$<>{}\\:][^\s\"'`<>{}\\]{4,128})"
)
_NAMED = re.compile(r"(?<![a-z])(?:token|invalid|expired|fake|test|example|your|bearer)(?![a-z])", re.IGNORECASE)


class Secrets:
    """The plugins, loaded once."""

    def __init__(self) -> None:
        import importlib

        self._plugins: list[tuple[tuple[str, ...], list[re.Pattern[str]]]] = []
        for module, name, marks in _PLUGINS:
            # One pattern of AWS goes by the variable's name; `assigned` finds those.
            plugin = getattr(importlib.import_module(f"detect_secrets.plugins.{module}"), name)()
            self._plugins.append((marks, [p for p in plugin.denylist if not p.pattern.startswith("aws.{")]))
        from detect_secrets.plugins.jwt import JwtTokenDetector

        self._formally_valid = JwtTokenDetector.is_formally_valid

    def find(self, text: str) -> Iterator[Span]:
        """Every secret of a text; spans may overlap."""
        for marks, patterns in self._plugins:
            if any(mark in text for mark in marks):
                for pattern in patterns:
                    yield from _whole_tokens(text, pattern)
        for mark, pattern in _OWN:
            if mark in text:
                yield from (Span(m.start(), m.end(), "SECRET") for m in pattern.finditer(text))
        if "AKIA" in text or "ASIA" in text:
            yield from (Span(*m.span(), "SECRET") for m in _AFTER_AWS.finditer(text) if _mixed(m[0]))
        yield from (Span(*m.span(), "SECRET") for m in _TELEGRAM.finditer(text))
        if "eyJ" in text:
            yield from self._jwts(text)
        if "PRIVATE KEY" in text or "PuTTY" in text:
            yield from _private_keys(text)
        if "://" in text:
            yield from _connection_strings(text)
        if "earer" in text or "asic" in text or "uthorization" in text:
            yield from _authorizations(text)
        if " -u" in text or "--user" in text or "sshpass" in text or "login " in text:
            yield from (Span(*m.span(1), "SECRET") for m in _FLAGGED.finditer(text) if not m[1].strip(",.;").isalpha())
        if "sig=" in text or "-Signature=" in text:
            yield from (Span(*m.span(1), "SECRET") for m in _SIGNED.finditer(text))
        yield from assigned(text)

    def _jwts(self, text: str) -> Iterator[Span]:
        for m in _JWT.finditer(text):
            parts = m[0].split(".")
            token = m[0].rstrip(".") if len(parts) > 3 else m[0]
            # Five parts are an encrypted one: only its header is JSON.
            clear = ".".join(parts[:2]) if len(parts) != 5 else f"{parts[0]}.e30"
            if self._formally_valid(clear):
                yield Span(m.start(), m.start() + len(token), "JWT")


def _whole_tokens(text: str, pattern: re.Pattern[str]) -> Iterator[Span]:
    """Matches that are not part of a longer run of letters and digits, as hashes and base64 are."""
    for m in pattern.finditer(text):
        start, end = m.span()
        if m[0].startswith("AccountKey="):
            start += len("AccountKey=")
        before, after = text[start - 1 : start], text[end : end + 1]
        if not (before.isascii() and before.isalnum()) and not (after.isascii() and after.isalnum()):
            yield Span(start, end, "SECRET")


def _mixed(value: str) -> bool:
    """Upper case, lower case and a digit: no hash in hexadecimal, no path."""
    return any(c.isupper() for c in value) and any(c.islower() for c in value) and any(c.isdigit() for c in value)


def _private_keys(text: str) -> Iterator[Span]:
    for begin in _PEM_BEGIN.finditer(text):
        end = _PEM_END.search(text, begin.end(), begin.end() + _PEM_MOST)
        if end and not _PEM_FOREIGN.search(text, begin.end(), end.start()):
            # Markers alone, as documentation names them, hold no key.
            if _PEM_LINE.search(text, begin.end(), end.start()):
                yield Span(begin.start(), end.end(), "PRIVATE_KEY")
            continue
        body = _PEM_BODY.match(text, begin.end(), begin.end() + _PEM_MOST)
        if body and _PEM_LINE.search(body[0]):
            # Cut off, as in a log: what there is of it goes.
            yield Span(begin.start(), begin.end() + len(body[0].rstrip()), "PRIVATE_KEY")
    yield from (Span(*m.span(), "PRIVATE_KEY") for m in _PUTTY.finditer(text))


def _connection_strings(text: str) -> Iterator[Span]:
    for m in _CREDENTIALS.finditer(text):
        scheme = _SCHEME.search(text[max(0, m.start() - 31) : m.start()])
        if scheme and not _NO_CREDENTIAL.fullmatch(m[1]):
            whole = m[0].rstrip(_TRAILING)
            yield Span(m.start() - len(scheme[0]), m.start() + len(whole), "CONNECTION_STRING")


def _authorizations(text: str) -> Iterator[Span]:
    for pattern in (_BEARER, _SCHEMED):
        for m in pattern.finditer(text):
            if _opaque(m[1]):
                yield Span(*m.span(1), "SECRET")
    for m in _BASIC.finditer(text):
        try:
            clear = base64.b64decode(m[1] + "=" * (-len(m[1]) % 4), validate=True)
        except binascii.Error:
            continue
        if b":" in clear and clear.isascii():
            yield Span(*m.span(1), "SECRET")


def _opaque(value: str) -> bool:
    """Whether a bearer's token looks drawn by chance: one that is called `expired-token-01` is test data."""
    return sum(c.isdigit() for c in value) >= 2 and any(c.isalpha() for c in value) and not _NAMED.search(value)
