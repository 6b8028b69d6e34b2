"""axe-core in a real Chromium: what it finds is what was planted, and a page can neither run nor fetch anything."""

from __future__ import annotations

import http.server
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pawl.fleet.source import TaskSourceSpec
from pawl.qe.accessibility import findings_axe, oracle
from pawl.qe.accessibility.browser_chromium import Chromium, PageFailed
from pawl.qe.accessibility.findings_axe import elements, findings, ready
from pawl.qe.accessibility.oracle import Page
from pawl.qe.accessibility.simulated_pages import pages
from pawl.qe.item import CannotGrade, Grade
from pawl.qe.tasks import task_of

try:
    ready()
    _lacks = ""
except CannotGrade as error:
    _lacks = str(error)
pytestmark = pytest.mark.skipif(bool(_lacks), reason=f"skipped: axe-core in a browser ({_lacks})")

task = task_of("accessibility-advocate")
HTML = (
    '<!doctype html><html lang="en"><head><title>Shop</title></head><body><main><h1>Shop</h1>'
    '<img src="/a.jpg"><img src="/b.jpg" alt="Loaf"><input id="email"></main></body></html>'
)
ASKED = oracle.messages(Page("shop/x", HTML))


@pytest.fixture
def browser() -> Iterator[Chromium]:
    made = Chromium(
        "const twice = (n) => 2 * n; const bad = () => nothing; const never = () => new Promise(() => 0);"
        "const always = () => { for (;;); };"
    )
    yield made
    made.stop()


def graded(*violations: tuple[str, str]) -> Grade:
    found = task.grade(ASKED, oracle.told(violations))
    assert found is not None
    return found


def test_axe_finds_on_simulated_pages_what_was_planted_and_nothing_else() -> None:
    some = random.Random(4).sample(pages(), 120)
    assert [(m.page.id, sorted({f.rule for f in findings(m.page.html)})) for m in some] == [
        (m.page.id, list(m.planted)) for m in some
    ]


def test_an_element_counts_by_whatever_selector_names_it() -> None:
    assert [(f.rule, f.element) for f in findings(HTML)] == [("image-alt", 6), ("label", 8)]
    assert graded(("image-alt", "img:first-of-type"), ("label", "main > input")).score == 1.0
    assert graded(("image-alt", "h1 + img"), ("label", "#email")).score == 1.0
    twice = graded(("image-alt", "h1 + img"), ("image-alt", "img:first-of-type"), ("label", "#email"))
    assert twice.score == 1.0 and twice.conforms


@pytest.mark.parametrize("target", ["img", "#nothing", "img[", "", "x" * 400, "html"])
def test_several_elements_no_element_and_no_selector_are_wrong(target: str) -> None:
    found = graded(("image-alt", target), ("label", "#email"))
    assert found.score == pytest.approx(0.5) and found.metrics["precision"] == 0.5 == found.metrics["recall"]
    assert "1 missed" in found.problem and "1 wrong" in found.problem


@pytest.mark.parametrize(
    ("answer", "key"),
    [
        (oracle.told([("image-alt", "h1 + img"), ("label", "#email")]), ""),
        (oracle.told([("image-alt", "h1"), ("label", "#email")]), "wrong_element"),
        (oracle.told([("label", "#email")]), "missed"),
        (oracle.told([("image-alt", "h1 + img"), ("label", "#email"), ("list", "h1")]), "invented"),
        (oracle.told([("list", "h1")] * 41), "too_many"),
        ("{}", "no_list"),
        ("It is fine.", "not_json"),
        ('Here: {"violations":[]}', "prose_around_json"),
    ],
)
def test_failures_have_names(answer: str, key: str) -> None:
    assert task.cluster_key(ASKED, answer) == key
    grade = task.grade(ASKED, answer)
    assert grade is not None and (grade.score == 1.0) == (key == "")


def test_findings_do_not_depend_on_the_pages_before() -> None:
    some = random.Random(5).sample(pages(), 12)
    first = [findings(m.page.html) for m in some]
    findings_axe._found.clear()
    assert [findings(m.page.html) for m in reversed(some)] == list(reversed(first))


def test_threads_share_one_browser() -> None:
    some = random.Random(6).sample(pages(), 30)
    findings_axe._found.clear()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda m: {f.rule for f in findings(m.page.html)}, some))
    assert found == [set(m.planted) for m in some]


def test_pages_of_ones_own_are_graded(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "cart.html").write_text(HTML)
    (item,) = task.items(TaskSourceSpec(kind="html", location=str(tmp_path)))
    answer = task.reference(item, random.Random(1)) or ""
    grade = task.grade(item.messages, answer)
    assert grade is not None and grade.score == 1.0 and '"label"' in answer


LATER = """
const later = (html) => {
  const refused = [];
  document.addEventListener("securitypolicyviolation", (e) => refused.push(e.effectiveDirective));
  pawlShow(html);
  return new Promise((done) => setTimeout(() => done([document.title, location.protocol, refused]), 800));
};
"""


def test_a_page_runs_nothing_and_asks_for_nothing() -> None:
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    at = f"http://127.0.0.1:{server.server_address[1]}"
    owned = "document.title='owned'"
    hostile = (
        f'<!doctype html><html lang="en"><head><title>Before</title><script>{owned}</script>'
        f'<meta http-equiv="refresh" content="0;url={at}/refresh"><link rel="stylesheet" href="{at}/css"></head>'
        f'<body><img src="{at}/image" alt="a" onerror="{owned}"><details open ontoggle="{owned}">x</details>'
        f'<iframe src="{at}/frame"></iframe><iframe srcdoc="<script>parent.{owned}</script>"></iframe>'
        f'<video src="{at}/video"></video><object data="{at}/object"></object></body></html>'
    )
    browser = Chromium(findings_axe._LOOK + LATER)
    try:
        title, protocol, refused = browser.call("later", hostile)
    finally:
        browser.stop()
        server.shutdown()
        server.server_close()
    assert (title, protocol) == ("Before", "data:") and asked == []
    # Refused by the policy, each of them; without it some would have run.
    assert set(refused) >= {"script-src-attr", "frame-src", "media-src", "object-src"}
    assert {f.rule for f in findings(hostile)} >= {"frame-title"} and findings(HTML)


def test_elements_of_a_page_are_named_by_number() -> None:
    assert elements(HTML, ["html", "h1", "img", "nothing"]) == [0, 5, -1, -1]


def test_a_browser_that_fails_is_replaced(browser: Chromium) -> None:
    assert browser.call("twice", 21) == 42
    with pytest.raises(PageFailed, match="nothing is not defined"):
        browser.call("bad")
    assert browser.call("twice", 4) == 8
    os.killpg(browser._pid, signal.SIGKILL)
    with pytest.raises(PageFailed):
        browser.call("twice", 1)
    assert browser.call("twice", 2) == 4


@pytest.mark.parametrize("function", ["never", "always"])
def test_a_page_that_never_ends_is_given_up(browser: Chromium, function: str) -> None:
    browser.call("twice", 1)
    started = time.monotonic()
    with pytest.raises(PageFailed, match="did not answer"):
        browser.call(function, seconds=1.0)
    assert 0.9 < time.monotonic() - started < 5
    assert browser.call("twice", 2) == 4


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_the_browser_ends_with_the_process_that_started_it(how: str) -> None:
    code = (
        "import os, signal, sys\n"
        "from pawl.qe.accessibility.findings_axe import _browser, findings\n"
        "findings('<p>hello</p>')\n"
        "print(_browser()._pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    # Not under pytest's folder: a Unix socket's path may have 107 characters.
    folder = tempfile.mkdtemp(prefix="t")
    env = {**os.environ, "TMPDIR": folder}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    )
    assert process.stdin and process.stdout
    pid = int(process.stdout.readline())
    os.kill(pid, 0)
    if how == "kill":
        process.kill()
    process.stdin.close()
    process.wait(20)
    until = time.monotonic() + 10
    while time.monotonic() < until and running(pid):
        time.sleep(0.05)
    assert not running(pid)
    assert how == "kill" or not list(Path(folder).glob("pawl-chromium-*")), "its profile goes too"
    shutil.rmtree(folder, ignore_errors=True)


def running(pid: int) -> bool:
    """Whether a process lives; one that nobody has collected yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
