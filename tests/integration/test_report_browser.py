"""The loop's page in a real browser: hostile text runs nothing and no request leaves the page."""

from __future__ import annotations

import contextlib
import http.server
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pawl.monitoring.loop_report import render
from tests.loop_page_data import at_the_end

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=2000",
)
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="skipped: that no script runs and no request leaves the page; there is no chromium here"
)


@contextlib.contextmanager
def server(pages: dict[str, str]) -> Iterator[tuple[str, list[str]]]:
    """Serves pages on loopback and notes every path that is asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            page = pages.get(self.path)
            self.send_response(200 if page is not None else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write((page or "").encode())

        def log_message(self, format: str, *args: object) -> None:
            return

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_address[1]}", asked
    finally:
        running.shutdown()
        running.server_close()


def load(url: str, profile: Path) -> str:
    """The document as it stands after loading."""
    assert BROWSER is not None
    command = [BROWSER, *FLAGS, f"--user-data-dir={profile}", "--dump-dom", url]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=90).stdout


def attacks(origin: str) -> str:
    """Text that would run a script or fetch something, were it markup."""
    return (
        f"</pre></style></title><script>document.title='owned';fetch('{origin}/fetch')</script>"
        f"<img src='{origin}/image' onerror=\"document.title='owned'\"><link rel=stylesheet href={origin}/css>"
        f"<iframe src='{origin}/frame'></iframe><svg onload=\"document.title='owned'\"></svg>"
        f"<style>@import '{origin}/import';</style>\" onmouseover=\"document.title='owned'"
    )


@needs_browser
def test_hostile_text_runs_nothing_and_fetches_nothing(tmp_path: Path) -> None:
    pages: dict[str, str] = {}
    with server(pages) as (origin, asked):
        pages["/page"] = render(at_the_end(attacks(origin)))
        dom = load(f"{origin}/page", tmp_path / "one")
        assert "Answers side by side" in dom  # it did load, to its last section
        assert "<title>A week of learning" in dom
        assert set(asked) <= {"/page", "/favicon.ico"}


@needs_browser
def test_the_policy_holds_even_where_escaping_would_fail(tmp_path: Path) -> None:
    """The second wall alone: real markup put into the page still does nothing. Without the policy it does."""
    pages: dict[str, str] = {}
    with server(pages) as (origin, asked):
        page = render(at_the_end()).replace("<footer>", attacks(origin) + "<footer>")
        pages["/page"] = page
        dom = load(f"{origin}/page", tmp_path / "two")
        assert "<title>A week of learning" in dom
        assert set(asked) <= {"/page", "/favicon.ico"}
        pages["/open"] = page.replace("Content-Security-Policy", "x-nothing")
        dom = load(f"{origin}/open", tmp_path / "three")
        assert "<title>owned</title>" in dom and {"/fetch", "/image"} <= set(asked)  # so this test can fail
