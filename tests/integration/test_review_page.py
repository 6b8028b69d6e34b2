"""`pawl review` as raters meet it: the page, in a real browser too, the terminal, and what a killed server keeps."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from pawl.lake.parquet_lake import ParquetLake
from pawl.lake.records import Interaction
from pawl.review.files import Reviews
from pawl.review.sample import Sample, draw
from pawl.rollout.control_sqlite import SqliteControl
from pawl.scrubbing.scrub import Scrubbed
from tests.integration.gateway_process import FLEET, GOOD, PROMPT

AGENT = "functional-negative"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0",
)  # fmt: skip
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="skipped: that two people can rate by keyboard; there is no chromium here"
)
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


class Masks:
    """A scrubber that knows one address."""

    def scrub(self, texts: Sequence[str]) -> Scrubbed:
        found = sum(t.count("jane@corp.com") for t in texts)
        return Scrubbed(tuple(t.replace("jane@corp.com", "a@example.com") for t in texts), {"EMAIL": found})


def call(n: int) -> Interaction:
    return Interaction(
        id=f"chatcmpl-secret{n}", at=1.79e9 + n, agent=AGENT, session=f"session-secret{n}", key_id="key-secret",
        arm=f"arm-secret{n % 2}", arm_kind="cloud", role="shadow" if n % 2 else "answer",
        messages=[{"role": "system", "content": f"Be brief. {HOSTILE}"}, {"role": "user", "content": PROMPT}],
        completion=GOOD.replace("missing n", f"missing n {n} jane@corp.com"),
    )  # fmt: skip


class Home:
    """A home with a lake, one review, and the command in it."""

    def __init__(self, path: Path, items: int) -> None:
        self.path = path
        (path / "fleet.yaml").write_text(FLEET.format(port=1))
        self.control = SqliteControl(path / "control.sqlite")
        self.key = self.control.create_key("operator", "olga")[1]
        self.lake = ParquetLake(path / "lake", path / "journal")
        calls = [call(n) for n in range(items)]
        self.lake.add(calls)
        quality = {c.id: 0.987654 for c in calls}
        self.sample: Sample = draw(
            AGENT, calls, quality, Masks(), lambda i: "class-secret", items=items, seed=3, now=1.7905e9
        )
        self.reviews = Reviews(path / "reviews")
        assert self.reviews.add(self.sample)

    @property
    def ratings(self) -> list[tuple[str, str, str]]:
        found = self.reviews.ratings(AGENT, self.sample.sheet.id)
        return [(r.rater, r.item, r.verdict) for r in found]

    def command(self, *arguments: str) -> tuple[list[str], dict[str, str]]:
        # The command's own app: whatever else `pawl` has.
        code = "from pawl.commands.review import app; app()"
        env = os.environ | {
            "PAWL_HOME": str(self.path), "PAWL_FLEET": str(self.path / "fleet.yaml"), "PAWL_API_KEY": self.key,
            "COLUMNS": "160",
        }  # fmt: skip
        return [sys.executable, "-c", code, *arguments], env

    def pawl(self, *arguments: str, typed: str = "") -> str:
        command, env = self.command(*arguments)
        done = subprocess.run(command, env=env, input=typed, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextlib.contextmanager
    def serving(self, *raters: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
        """The server's process, and each rater's link."""
        command, env = self.command("serve", AGENT, *(x for r in raters for x in ("--rater", r)))
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as server:
            try:
                links: dict[str, str] = {}
                assert server.stdout is not None
                while len(links) < len(raters):
                    line = server.stdout.readline()
                    assert line, "the server ended"
                    if found := re.fullmatch(r"(\w+): (http://127\.0\.0\.1:\d+/#\S+)\n", line):
                        links[found[1]] = found[2]
                yield server, links
            finally:
                server.terminate()
                server.wait(20)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path, 12)


class Page:
    """What the page's script does, over plain HTTP."""

    def __init__(self, link: str) -> None:
        self.origin, token = link.split("/#")
        self.session = ""
        self.state = self.post("/enter", {"token": token})
        self.session = self.state["session"]

    def post(self, path: str, body: Any, **headers: str) -> Any:
        return fetch(self.origin + path, body, self.session, **headers)

    def rate(self, verdict: str, **more: str) -> None:
        self.state = self.post("/ratings", {"item": self.state["item"]["id"], "verdict": verdict, **more})


def fetch(url: str, body: Any = None, session: str = "", **headers: str) -> Any:
    data = None if body is None else json.dumps(body).encode()
    given = {"Content-Type": "application/json", "Authorization": f"Bearer {session}", **headers}
    with urllib.request.urlopen(urllib.request.Request(url, data, given), timeout=10) as answer:
        return json.loads(answer.read())


def refused(url: str, body: Any = None, session: str = "", **headers: str) -> int:
    with pytest.raises(urllib.error.HTTPError) as e:
        fetch(url, body, session, **headers)
    return e.value.code


def test_a_link_works_once_and_other_sites_are_refused(home: Home) -> None:
    with home.serving("ann") as (_, links):
        origin, token = links["ann"].split("/#")
        elsewhere = {"Origin": "http://evil.example"}
        assert refused(f"{origin}/enter", {"token": token}, **elsewhere) == 403
        assert refused(f"{origin}/enter", {"token": token}, **{"Content-Type": "text/plain"}) == 403
        assert refused(f"{origin}/next", Host="evil.example") == 403, "a name rebound to this machine"
        assert refused(f"{origin}/next") == 401
        assert refused(f"{origin}/enter", {"token": "x" * 32}) == 401
        page = Page(links["ann"])
        assert refused(f"{origin}/enter", {"token": token}) == 401, "the second time"
        rating = {"item": page.state["item"]["id"], "verdict": "right"}
        assert refused(f"{origin}/ratings", rating, page.session, **elsewhere) == 403
        assert refused(f"{origin}/ratings", rating, "wrong") == 401
        assert refused(f"{origin}/ratings", {**rating, "rater": "ben"}, page.session) == 400
        assert refused(f"{origin}/ratings", {**rating, "verdict": "fine"}, page.session) == 400
        assert refused(f"{origin}/ratings", {**rating, "item": "0" * 12}, page.session) == 409
        assert refused(f"{origin}/ratings", {**rating, "comment": "x" * 600_000}, page.session) == 413
        assert refused(f"{origin}/ratings", {**rating, "correction": "no json"}, page.session) == 400
        assert home.ratings == []
        page.rate("right")
        assert refused(f"{origin}/ratings", {**rating, "verdict": "wrong"}, page.session) == 409, "no second word"
        assert fetch(f"{origin}/ratings", rating, page.session)["progress"]["mine"] == 1, "but the same again is fine"
        assert home.ratings == [("ann", rating["item"], "right")]
        with urllib.request.urlopen(f"{origin}/", timeout=10) as answer:
            policy, html = answer.headers["Content-Security-Policy"], answer.read().decode()
        assert "default-src 'none'; script-src 'self'" in policy and "unsafe" not in policy
        assert (
            re.findall(r"<script(?! src=\"/page.js\")| on\w+=|<style| style=|(?:src|href)=\"(?!/page|data:)", html)
            == []
        )


def test_raters_see_nothing_of_where_an_answer_comes_from(home: Home) -> None:
    with home.serving("ann") as (_, links):
        page, seen = Page(links["ann"]), []
        while page.state["item"] is not None:
            seen.append(json.dumps(page.state))
            page.rate("right")
    shown = "".join(seen) + (home.path / "reviews" / f"{AGENT}-{home.sample.sheet.id}.json").read_text()
    assert len(seen) == 12 and "a@example.com" in shown
    for hidden in ("secret", "0.98", "quality", "cloud", "shadow", "jane@corp.com", "session-", "chatcmpl"):
        assert hidden not in re.sub(r'"session":"[^"]*"', "", shown), hidden


def test_two_raters_get_every_item_once_in_orders_of_their_own(home: Home) -> None:
    orders: dict[str, list[str]] = {"ann": [], "ben": [], "cleo": []}
    with home.serving("ann", "ben", "cleo") as (_, links):
        pages = {name: Page(links[name]) for name in ("ann", "ben")}
        for _ in range(12):
            for name, page in pages.items():
                orders[name].append(page.state["item"]["id"])
                page.rate("right")
        assert pages["ann"].state["item"] is None and pages["ben"].state["item"] is None
        assert Page(links["cleo"]).state["item"] is None, "two raters are enough"
    assert set(orders["ann"]) == set(orders["ben"]) and len(set(orders["ann"])) == 12
    assert orders["ann"] != orders["ben"]


def test_what_was_acknowledged_outlives_kill_9(home: Home) -> None:
    path = home.path / "reviews" / f"{AGENT}-{home.sample.sheet.id}.ratings.jsonl"
    acknowledged = []
    for torn in (b'{"item":"half a li', b""):
        with home.serving("ann") as (server, links):
            page = Page(links["ann"])
            for _ in range(3):
                item = page.state["item"]["id"]
                page.rate("wrong", correction=page.state["item"]["editable"].replace("400", "422"))
                acknowledged.append(item)
            server.send_signal(signal.SIGKILL)
            server.wait(10)
        assert [i for _, i, _ in home.ratings] == acknowledged
        with path.open("ab") as out:
            out.write(torn)  # a write that the kill cut short: nobody was told that it was taken
    assert len(path.read_bytes().splitlines()) == len(set(acknowledged)) == 6
    with home.serving("ann") as (_, links):
        assert Page(links["ann"]).state["progress"]["mine"] == 6
    kept = home.reviews.ratings(AGENT, home.sample.sheet.id)
    assert all(json.loads(r.correction or "")["test_cases"][0]["expected_status"] == 422 for r in kept)
    assert "\n" not in (kept[0].correction or "\n"), "compact, as the agent answers"


def test_in_the_terminal_then_into_the_lake(home: Home) -> None:
    said = home.pawl("rate", AGENT, "--rater", "Ann", typed="1\nx\n2 not that\n\nq\n")
    assert "Type 1 right" in said and "ann has rated 2 answers, 10 left" in said
    home.pawl("rate", AGENT, "--rater", "ann", typed='2 again\n{"broken\n{"test_cases":[]}\n' + "1\n" * 9)
    home.pawl("rate", AGENT, "--rater", "ben", typed="1\n" * 11 + "3 who knows\n")
    assert len(home.ratings) == 24
    assert "24 of 24 ratings" in home.pawl("list", AGENT)
    for new in (24, 0):  # 23 verdicts and a correction; "can't say" says nothing of the answer
        assert f"23 ratings and 1 corrections, {new} new" in home.pawl("finish", AGENT)
    told = home.lake.feedback(AGENT)
    assert {f.source for f in told} == {"review:ann", "review:ben"}
    assert [f.detail["completion"] for f in told if f.kind == "correction"] == ['{"test_cases": []}']
    assert sorted(f.score for f in told if f.kind == "rating" and f.score is not None) == [0.0] * 2 + [1.0] * 21
    report = home.pawl("report", AGENT)
    assert "Cohen's kappa" in report and "Disagreements: " in report and "ann says wrong: again" in report
    assert "Not calibrated: " in report and " answers have a quality score, a calibration needs 30" in report
    events = [e["event"] for e in home.control.audit_log()]
    assert events == ["review finished", "review finished"]


def test_an_erased_persons_answers_leave_the_review(home: Home) -> None:
    home.pawl("rate", AGENT, "--rater", "ann", typed="1\n" * 12)
    gone = home.lake.erase("session-secret4", time.time())
    assert "1 answer(s) are no longer in the lake" in home.pawl("finish", AGENT)
    assert "missing n 4 " not in "".join(p.read_text() for p in (home.path / "reviews").glob("*.json"))
    assert len(home.ratings) == 11 and gone[0] not in {f.interaction for f in home.lake.feedback(AGENT)}


def test_sampling_by_command_takes_personal_data_out(tmp_path: Path) -> None:
    home = Home(tmp_path, 12)
    home.lake.add([msgspec.structs.replace(call(n), id=f"new-{n}", at=time.time() - 60 - n) for n in range(20)])
    said = home.pawl("sample", AGENT, "--items", "15", "--seed", "5")
    assert "15 of 20 answers" in said and "seed 5" in said and "15 EMAIL" in said
    sheet = home.reviews.choose(AGENT)
    assert len(sheet.items) == 15 and not any("jane@corp.com" in i.answer for i in sheet.items)


# -- in a browser


class Tab:
    """One tab of a browser, over the DevTools protocol."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._n = socket, 0

    async def do(self, method: str, **params: Any) -> Any:
        self._n += 1
        await self._socket.send_json({"id": self._n, "method": method, "params": params})
        while True:
            told = await self._socket.receive_json(timeout=30)
            if told.get("id") == self._n:
                assert "error" not in told, told
                return told["result"]

    async def value(self, expression: str) -> Any:
        return (await self.do("Runtime.evaluate", expression=expression, returnByValue=True))["result"].get("value")

    async def until(self, expression: str) -> None:
        end = time.monotonic() + 20
        while not await self.value(expression):
            assert time.monotonic() < end, f"never: {expression}; the page says {await self.value(TEXT)}"
            await asyncio.sleep(0.05)

    async def press(self, key: str, modifiers: int = 0) -> None:
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        code = 13 if key == "Enter" else 0
        for kind in ("keyDown", "keyUp"):
            await self.do(
                "Input.dispatchKeyEvent", type=kind, key=key, text=text if kind == "keyDown" else "",
                windowsVirtualKeyCode=code, modifiers=modifiers,
            )  # fmt: skip


TEXT = "document.body.innerText"


@contextlib.asynccontextmanager
async def browser(profile: Path) -> AsyncIterator[Any]:
    """A function that opens a tab at an address."""
    assert BROWSER is not None
    command = [BROWSER, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        try:
            told, end = profile / "DevToolsActivePort", time.monotonic() + 40
            while not (told.exists() and "\n" in told.read_text()):
                assert running.poll() is None and time.monotonic() < end, "the browser did not start"
                await asyncio.sleep(0.1)
            root = f"http://127.0.0.1:{told.read_text().splitlines()[0]}"
            async with aiohttp.ClientSession() as client, contextlib.AsyncExitStack() as stack:

                async def tab(url: str) -> Tab:
                    async with client.put(f"{root}/json/new?about:blank") as answer:
                        address = (await answer.json(content_type=None))["webSocketDebuggerUrl"]
                    made = Tab(await stack.enter_async_context(client.ws_connect(address, max_msg_size=0)))
                    await made.do("Page.enable")
                    await made.do("Page.navigate", url=url)
                    await made.do("Page.bringToFront")
                    return made

                yield tab
        finally:
            running.terminate()
            running.wait(20)


@needs_browser
async def test_two_people_rate_by_keyboard(tmp_path: Path) -> None:
    home = Home(tmp_path, 2)
    with home.serving("ann", "ben") as (_, links):
        async with browser(tmp_path / "profile") as tab:
            ann, ben = await tab(links["ann"]), await tab(links["ben"])
            for rater in (ann, ben):
                await rater.until("!document.getElementById('item').hidden")
                assert await rater.value("location.href.includes('#')") is False, "the token stays in no history"
            shown = await ann.value(TEXT)
            assert "0 of 2 rated" in shown and HOSTILE in shown, "text, not markup"
            assert '"expected_status": 400' in shown, "laid out"
            await ann.press("Enter")
            await ann.until("document.getElementById('problem').innerText.includes('Choose first')")
            await ann.press("1")
            await ann.press("Enter")
            await ann.until(f"{TEXT}.includes('1 of 2 rated')")
            await ann.do("Page.reload")
            await ann.until(f"{TEXT}.includes('1 of 2 rated')")
            await ann.press("c")
            for letter in "123":  # in the box these are no verdicts
                await ann.press(letter)
            await ann.press("Escape")
            await ann.press("3")
            await ann.press("Enter")
            await ann.until(f"{TEXT}.includes('Thank you')")
            await ben.press("e")
            await ben.press(" ")
            assert await ben.value("document.querySelector('[data-verdict=wrong]').ariaPressed") == "true"
            await ben.do("Runtime.evaluate", expression="document.getElementById('correction').value = '{\"a\": [1]}'")
            await ben.press("Enter", modifiers=2)
            await ben.until(f"{TEXT}.includes('1 of 2 rated')")
            await ben.press("1")
            await ben.press("Enter")
            await ben.until(f"{TEXT}.includes('Thank you')")
            again = await tab(links["ann"])
            await again.until(f"{TEXT}.includes('has been used already')")
            assert "owned" not in [await t.value("document.title") for t in (ann, ben)]
    kept = home.reviews.ratings(AGENT, home.sample.sheet.id)
    assert {(r.rater, r.verdict) for r in kept} == {
        ("ann", "right"),
        ("ann", "cannot_say"),
        ("ben", "wrong"),
        ("ben", "right"),
    }
    assert [(r.rater, r.comment) for r in kept if r.comment] == [("ann", "123")]
    assert [r.correction for r in kept if r.correction] == ['{"a": [1]}']
