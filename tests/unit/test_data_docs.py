"""Data Docs: a page a check and an index, that read offline, ask nobody for anything, and hold no text."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pawl.errors import DataRejected, ResourceError
from pawl.validation import great_expectations_suite as suites
from pawl.validation.data_docs_great_expectations import Docs
from pawl.validation.frames_examples import examples
from pawl.validation.report import ValidationReport
from pawl.validation.rules import Context

AT = 1_795_000_000.0
PROMPT = "My name is Ada Lovelace and my password is hunter2"


def check(
    folder: Path, n: int = 0, *, name: str = "functional-negative", keep: int = 100, **changed: Any
) -> ValidationReport:
    rows: list[dict[str, Any]] = [
        {"id": f"e{i}", "messages": [{"role": "user", "content": PROMPT}], "completion": f'{{"said": "{PROMPT}"}}',
         "quality": 1.0, "source": "svc", "interactions": ["i"], "split": "train"}
        for i in range(30)
    ]  # fmt: skip
    rows[-1].update(changed)
    return suites.validate_dataset(examples(rows), Context(), Docs(folder, name, AT + n, keep))


def every_text(folder: Path) -> str:
    return "\n".join(p.read_text() for p in folder.rglob("*") if p.is_file())


def test_each_check_has_a_page_and_the_index_names_all(tmp_path: Path) -> None:
    good, warned, bad = check(tmp_path), check(tmp_path, 1, completion="no json"), check(tmp_path, 2, quality=7.5)
    index = (tmp_path / "index.html").read_text()
    assert re.findall(r'class="(passed|warned|failed)">', index) == ["failed", "warned", "passed"], "newest first"
    links = re.findall(r'<a href="([^"]+)">2026-11-18', index)
    assert [tmp_path / link for link in links] == [Path(r.docs) for r in (bad, warned, good)]
    page = Path(bad.docs).read_text()
    assert "quality is between 0 and 1" in page and "7.5" in page and "e29" in page and "functional-negative" in page
    assert "Broken rules" in page and "Broken rules" not in Path(good.docs).read_text()
    with pytest.raises(DataRejected, match=re.escape(bad.docs)):
        bad.demand()


def test_a_page_shows_some_rows_of_many_and_counts_all(tmp_path: Path) -> None:
    rows = [
        {"id": f"e{i}", "completion": "{}", "quality": 2.0 + i % 2, "source": "s", "messages": [PROMPT]}
        for i in range(500)
    ]
    report = suites.validate_dataset(examples(rows), Context(), Docs(tmp_path, "a", AT))
    page = Path(report.docs).read_text()
    (quality,) = (f for f in report.failures if "quality" in f.rule)
    assert quality.unexpected == len(quality.rows) == 500
    cells = re.findall(r'class="show-scrollbars">([^<]+)<', page)
    assert "2.0" in cells and "3.0" in cells and "e0" in page and "e20" not in page, "the page stays small"
    assert "500 unexpected values found" in page and "Of the sample" in page


def test_the_pages_ask_nobody_for_anything(tmp_path: Path) -> None:
    report = check(tmp_path, quality=7.5)
    for page in (Path(report.docs), tmp_path / "index.html"):
        text = page.read_text()
        assert "://" not in text and "<script" not in text and "<link" not in text and "<img" not in text
        assert "default-src 'none'" in text
    assert not (tmp_path / "static").exists()


def test_no_text_of_a_prompt_or_an_answer_gets_there(tmp_path: Path) -> None:
    check(tmp_path, completion=PROMPT, quality=7.5, split="elsewhere")
    told = every_text(tmp_path)
    assert "e29" in told
    assert not any(word in told for word in ("Ada", "Lovelace", "hunter2"))


def test_what_looks_like_a_tag_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    report = check(tmp_path, id="<img src=x onerror=alert(1)>", split="<b>bold</b>")
    page = Path(report.docs).read_text()
    assert "<img src=x" not in page and "<b>bold" not in page and "&lt;b&gt;bold" in page
    assert report.failures[0].rows == ("<img src=x onerror=alert(1)>",), "the report itself has the id as it is"


def test_older_checks_go(tmp_path: Path) -> None:
    made = [check(tmp_path, n, keep=3) for n in range(5)]
    assert [Path(r.docs).exists() for r in made] == [False, False, True, True, True]
    assert (tmp_path / "index.html").read_text().count("<tr>") == 1 + 3


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ResourceError, match="taken"):
        check(tmp_path / "taken")


def test_checks_of_several_processes_are_all_in_the_index(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1])\n"
        "from tests.unit.test_data_docs import check\n"
        "for n in range(3): check(pathlib.Path(sys.argv[2]), n, name=sys.argv[3])\n"
    )
    root = Path(__file__).resolve().parents[2]
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(root), str(tmp_path), name]) for name in ("one", "two")
    ]
    assert [p.wait(120) for p in running] == [0, 0]
    assert len(re.findall(r'<td class="passed">', (tmp_path / "index.html").read_text())) == 6


def test_the_page_reads_well_without_a_network(tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium: the pages were not looked at")
    report = check(tmp_path, quality=7.5)
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "--window-size=1200,900"]
    for page in (report.docs, str(tmp_path / "index.html")):
        seen = subprocess.run([*command, f"file://{page}"], capture_output=True, text=True, timeout=60, check=True)
        assert "What was checked" in seen.stdout and "functional-negative" in seen.stdout
