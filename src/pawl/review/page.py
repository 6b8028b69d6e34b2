"""The raters' page: one answer at a time, on loopback, for those who were given a link.

A link's token is in the URL's fragment, which browsers send to nobody; the page trades it, once, for a session that it
keeps in its own tab and sends as a header. So no other site can rate in a rater's name, and no other port of this
machine is sent anything, as it would be with a cookie. All text of models and clients is set as text, never as markup.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pawl.errors import LakeError, NotAllowed, ResourceError
from pawl.review.files import Reviews
from pawl.review.readable import corrected, is_json, laid_out, readable, visible
from pawl.review.sample import Rating, Sheet, Shown, Verdict, next_item, progress

MOST_BODY = 512 << 10  # bytes
MOST_COMMENT = 4_000  # characters
HOLD_S = 900.0  # an item that nobody has rated by then is dealt to others too
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
ASGI = Callable[[Any, Any, Any], Awaitable[None]]


class Token(msgspec.Struct, forbid_unknown_fields=True):
    """What a link holds."""

    token: str


class Said(msgspec.Struct, forbid_unknown_fields=True):
    """A rating as the page sends it."""

    item: str
    verdict: Verdict
    correction: str = ""
    comment: str = ""


class Desk:
    """Who may rate, and what each has before them. Links and sessions live as long as the process."""

    def __init__(self, raters: Sequence[str], clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.links = {secrets.token_urlsafe(24): rater for rater in raters}
        self._unused = {_digest(token): rater for token, rater in self.links.items()}
        self._sessions: dict[str, str] = {}
        self._held: dict[str, tuple[str, float]] = {}  # rater -> (item, until)

    def enter(self, token: str) -> tuple[str, str] | None:
        """(session, rater) for a link that nobody has used; None for any other."""
        rater = self._unused.pop(_digest(token), None)
        if rater is None:
            return None
        session = secrets.token_urlsafe(24)
        self._sessions[_digest(session)] = rater
        return session, rater

    def rater(self, session: str) -> str | None:
        """Whose session it is."""
        return self._sessions.get(_digest(session))

    def deal(self, sheet: Sheet, ratings: Sequence[Rating], rater: str) -> Shown | None:
        """What this rater gets now; it is theirs for a while."""
        now = self._clock()
        held = [(item, who) for who, (item, until) in self._held.items() if until > now]
        item = next_item(sheet, ratings, rater, held)
        self._held.pop(rater, None)
        if item is not None:
            self._held[rater] = (item.id, now + HOLD_S)
        return item

    def now(self) -> float:
        """Epoch seconds."""
        return self._clock()


def application(reviews: Reviews, agent: str, review: str, desk: Desk) -> ASGI:
    """The page over one review."""

    def who(request: Request) -> str:
        scheme, _, session = request.headers.get("authorization", "").partition(" ")
        rater = desk.rater(session) if scheme == "Bearer" else None
        if rater is None:
            raise HTTPException(401, "This page's link is no longer good. Ask whoever sent it to you for a new one.")
        return rater

    async def state(rater: str) -> dict[str, Any]:
        sheet, ratings = await asyncio.to_thread(_read, reviews, agent, review)
        item = desk.deal(sheet, ratings, rater)
        return {
            "agent": agent,
            "rater": rater,
            "question": sheet.question,
            "progress": progress(sheet, ratings, rater),
            "item": None if item is None else _item(item),
        }

    async def file(request: Request) -> Response:
        name, kind = FILES[request.url.path]
        return Response(await asyncio.to_thread(Path(__file__).with_name(name).read_bytes), media_type=kind)

    async def enter(request: Request) -> Response:
        entered = desk.enter((await _body(request, Token)).token)
        if entered is None:
            raise HTTPException(
                401, "This link has been used already, or is not one of this review. Ask for a new one."
            )
        session, rater = entered
        return _json({"session": session, **await state(rater)})

    async def following(request: Request) -> Response:
        return _json(await state(who(request)))

    async def rate(request: Request) -> Response:
        rater = who(request)
        said = await _body(request, Said)
        await asyncio.to_thread(_keep, reviews, agent, review, rater, said, desk.now())
        return _json(await state(rater))  # only now: it is on the disk

    routes = [Route(path, file) for path in FILES]
    routes += [
        Route("/enter", enter, methods=["POST"]),
        Route("/next", following),
        Route("/ratings", rate, methods=["POST"]),
    ]
    return _guarded(Starlette(routes=routes, exception_handlers={HTTPException: _refused}))


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any that is free. ResourceError where it is taken."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as e:
        listener.close()
        raise ResourceError(f"port {port} on {host} is taken ({e.strerror}); leave --port out for a free one") from e
    listener.listen()
    return listener


def serve(app: ASGI, listener: socket.socket) -> None:
    """Blocks until SIGTERM or SIGINT."""
    config = uvicorn.Config(
        app, lifespan="off", access_log=False, log_level="warning", server_header=False, proxy_headers=False,
        timeout_graceful_shutdown=5,
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[listener])


def _guarded(app: ASGI) -> ASGI:
    """Refuses what no rater's page sends, and marks every answer with the page's policy."""

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}

        async def marked(message: Any) -> None:
            if message["type"] == "http.response.start":
                policy = [(k.lower().encode(), v.encode()) for k, v in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *policy]}
            await send(message)

        problem = _foreign(scope["method"], headers)
        if problem:
            await _error(403, problem)(scope, receive, marked)
        else:
            await app(scope, receive, marked)

    return guarded


def _foreign(method: str, headers: dict[str, str]) -> str | None:
    """Why a request is none of the page's (pure).

    A name that was rebound to this machine has another Host; another site has another Origin.
    """
    host = headers.get("host", "")
    if urlsplit(f"//{host}").hostname not in ("127.0.0.1", "localhost", "::1"):
        return "This page is served on this machine only."
    if method not in ("GET", "HEAD"):
        if headers.get("origin", f"http://{host}") != f"http://{host}":
            return "Only the raters' page itself may send ratings."
        if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return "Ratings are sent as application/json."
    return None


async def _body(request: Request, kind: type[Any]) -> Any:
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > MOST_BODY:
            raise HTTPException(413, f"That is too long: at most {MOST_BODY >> 10} KB.")
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as e:
        raise HTTPException(400, f"That cannot be understood: {e}.") from e


def _read(reviews: Reviews, agent: str, review: str) -> tuple[Sheet, list[Rating]]:
    try:
        return reviews.sheet(agent, review), reviews.ratings(agent, review)
    except LakeError as e:
        raise HTTPException(503, str(e)) from e


def _keep(reviews: Reviews, agent: str, review: str, rater: str, said: Said, now: float) -> None:
    try:
        answer = next((i.answer for i in reviews.sheet(agent, review).items if i.id == said.item), "")
        reviews.rate(
            agent,
            review,
            Rating(
                item=said.item,
                rater=rater,
                verdict=said.verdict,
                at=now,
                correction=corrected(answer, said.correction),
                comment=said.comment.strip()[:MOST_COMMENT],
            ),
        )
    except ValueError as e:
        raise HTTPException(400, str(e)) from e
    except NotAllowed as e:
        raise HTTPException(409, str(e)) from e
    except LakeError as e:
        raise HTTPException(503, str(e)) from e


def _item(item: Shown) -> dict[str, Any]:
    return {
        "id": item.id,
        "prompt": [{"role": t.role, "text": readable(t.text)} for t in item.prompt],
        "answer": readable(item.answer),
        "as_sent": visible(item.answer),
        "editable": laid_out(item.answer) if is_json(item.answer) else item.answer,
    }


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def _error(status: int, text: str) -> Response:
    return Response(msgspec.json.encode({"problem": text}), status, media_type="application/json")


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, error.detail)


def _digest(secret: str) -> str:
    # Looked up by digest: how long it takes says nothing of the secret.
    return hashlib.sha256(secret.encode()).hexdigest()
