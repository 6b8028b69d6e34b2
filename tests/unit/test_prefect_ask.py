"""How often Prefect's API is asked: what reads as long as it stumbles, what writes only where nothing was done."""

from __future__ import annotations

import urllib.error
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from pawl.platform import prefect_server
from pawl.settings import Settings


class Stumbling:
    """A real server that answers the given statuses in turn, then 200."""

    def __init__(self) -> None:
        self.first: list[int] = []
        self.asked: list[str] = []
        here = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """Silent."""

            def do_GET(self) -> None:
                self.rfile.read(int(self.headers["content-length"] or 0))
                here.asked.append(self.command)
                self.send_response(here.first.pop(0) if here.first else 200)
                self.end_headers()
                self.wfile.write(b"{}")

            do_POST = do_PATCH = do_GET

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def stumbling(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stumbling]:
    monkeypatch.setattr(prefect_server.time, "sleep", lambda _: None)
    made = Stumbling()
    yield made
    made.server.shutdown()


@pytest.mark.parametrize(
    ("method", "statuses", "times", "taken"),
    [
        ("GET", [500, 503, 502], 4, True),
        ("GET", [404], 1, False),
        ("POST", [503, 503], 3, True),
        ("POST", [500], 1, False),
        ("POST", [409], 1, False),
        ("PATCH", [500, 503], 3, True),
    ],
)
def test_asked_again(
    stumbling: Stumbling, tmp_path: Path, method: str, statuses: list[int], times: int, taken: bool
) -> None:
    settings = Settings(home=tmp_path, prefect_port=stumbling.server.server_address[1])
    stumbling.first = list(statuses)
    body = None if method == "GET" else {}
    if taken:
        assert prefect_server.ask(settings, "/x", body, patience_s=60, method=method) == {}
    else:
        with pytest.raises(urllib.error.HTTPError):
            prefect_server.ask(settings, "/x", body, patience_s=60, method=method)
    assert stumbling.asked == [method] * times


def test_one_that_is_not_there_is_waited_for_no_longer_than_asked(tmp_path: Path, unused: Callable[[], int]) -> None:
    settings = Settings(home=tmp_path, prefect_port=unused())
    with pytest.raises(OSError, match="refused"):
        prefect_server.ask(settings, "/x", {}, patience_s=0)
