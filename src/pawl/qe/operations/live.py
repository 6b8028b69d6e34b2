"""Test cases about an operation, sent to a server that runs: does it do what the case says?

What is sent may be accepted and change something there: it is meant for an instance of its own, for tests.
"""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.parse
import urllib.request
from functools import lru_cache
from typing import Any, Literal

import orjson

from pawl.errors import ServerNotUp
from pawl.qe.operations.operation import Operation

Expected = Literal["refused", "taken"]
Outcome = Literal["as_expected", "taken", "refused", "broken", "elsewhere", "unsendable"]
REFUSED = (400, 422)
_ELSEWHERE = (401, 403, 405, 415, 429)  # it never came to the payload
_PLACE = re.compile(r"\{[^{}/]*\}")
_NOBODY = "00000000-0000-4000-8000-000000000000"  # in place of every id in a path: syntactically right, not there


def is_local(base_url: str) -> bool:
    """Whether a server is on this machine."""
    return urllib.parse.urlsplit(base_url).hostname in ("127.0.0.1", "localhost", "::1")


def outcome_of(status: int, expected: Expected) -> Outcome:
    """What a status says of a case (RFC 9110, section 15).

    A payload is refused by 400 or 422. Anything else below 500, a 404 for the id that is not there too, took it:
    servers look at the payload before they look for what a path names. A redirection is not followed: it may lead to
    a login page, or to another machine.
    """
    if status >= 500:
        return "broken"
    if status in _ELSEWHERE or 300 <= status < 400:
        return "elsewhere"
    found: Expected = "refused" if status in REFUSED else "taken"
    return "as_expected" if found == expected else found


class _Stays(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: its status is the answer."""

    def redirect_request(self, *_: Any) -> None:
        """Nowhere."""


@lru_cache(maxsize=2)
def _opener(local: bool) -> urllib.request.OpenerDirector:
    # What is on this machine is asked without the environment's proxy.
    proxies = urllib.request.ProxyHandler({} if local else None)
    return urllib.request.build_opener(_Stays, proxies)


def send(operation: Operation, payload: Any, base_url: str, timeout_s: float = 10.0) -> int | None:
    """The status with which a server answers this payload; None where the payload cannot be written.

    Raises:
        ServerNotUp: nobody answers there.
    """
    try:
        body = orjson.dumps(payload)
    except TypeError:
        return None
    # The slash is ours: without one a path would go on with the name of the host.
    path = urllib.parse.quote(_PLACE.sub(_NOBODY, operation.path).lstrip("/"), safe="/?=&%")
    url = f"{base_url.rstrip('/')}/{path}"
    request = urllib.request.Request(  # noqa: S310 - the address is the user's
        url, body, {"content-type": "application/json"}, method=operation.method
    )
    try:
        with _opener(is_local(base_url)).open(request, timeout=timeout_s) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as e:
        return int(e.code)
    except (OSError, http.client.HTTPException) as e:
        raise ServerNotUp(f"{base_url} does not answer ({e}): start the service, or leave --against away") from e


def try_case(operation: Operation, case: Any, expected: Expected, base_url: str) -> Outcome:
    """What a running server does with a test case. ServerNotUp where nobody answers."""
    if not isinstance(case, dict) or "payload" not in case:
        return "unsendable"
    status = send(operation, case["payload"], base_url)
    return "unsendable" if status is None else outcome_of(status, expected)
