"""`pawl dataset` on a real lake: from recorded answers to a datasheet, with the checks that stop it."""

from __future__ import annotations

import random
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from ruamel.yaml import YAML

from pawl.cli import main
from pawl.curation import dataset as datasets
from pawl.fleet.spec import TaskSourceSpec
from pawl.improvement.preparing import reports_of
from pawl.lake.records import Feedback, Interaction
from pawl.qe.functional_negative import oracle as task
from pawl.qe.functional_negative import reference
from pawl.qe.operations import sources
from pawl.qe.operations.prompt import parsed
from tests.integration.test_lake_commands import AGENT, Home

SECRET = "ghp_" + "a1B2c3D4e5" * 3 + "f6G7h8"
DATA = {
    "max_examples": 120, "min_examples": 20, "replay_share": 0.0, "augment": 0.3, "regression_items": 10,
    "licence": "ours",
    "requirements": {"production_examples": 1000, "retrain_examples": 50},
}  # fmt: skip


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


class Typed:
    """The command in this process: what is large is imported once, not at every step."""

    def __init__(self, home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.home, self._monkeypatch, self._capsys = home, monkeypatch, capsys
        monkeypatch.setenv("PAWL_HOME", str(home.path))
        monkeypatch.setenv("PAWL_FLEET", str(home.path / "fleet.yaml"))
        monkeypatch.setenv("PAWL_API_KEY", home.keys["operator"])

    def __call__(self, *arguments: str) -> Done:
        self._capsys.readouterr()
        self._monkeypatch.setattr(sys, "argv", ["pawl", *arguments])
        try:
            main()
            code = 0
        except SystemExit as e:
            code = int(e.code or 0)
        return Done(code, *self._capsys.readouterr())


@pytest.fixture
def pawl(home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    return Typed(home, monkeypatch, capsys)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    yaml = YAML()
    fleet = yaml.load(tmp_path / "fleet.yaml")
    fleet["agents"] = [a for a in fleet["agents"] if a["name"] == AGENT]
    fleet["agents"][0] |= {"data": DATA, "source": {"kind": "botocore", "max_schema_chars": 400}}
    yaml.dump(fleet, tmp_path / "fleet.yaml")
    return made


def traffic(amount: int, seed: int = 1) -> Iterator[Interaction | Feedback]:
    """A local answer that fails and the shadow that does better, as the gateway records them, over ten days."""
    rng = random.Random(seed)
    picked = rng.sample(sources.load(TaskSourceSpec(max_schema_chars=400)), amount)
    for n, op in enumerate(picked):
        at = time.time() - 86_400 * 10 * (1 - n / amount)
        base = {"at": at, "agent": AGENT, "session": f"s{n}", "key_id": "k", "finish_reason": "stop"}
        messages = task.messages(op)
        if n % 10 == 0:
            messages[0] = {**messages[0], "content": f"{task.SYSTEM} The token is {SECRET}, ask jane.roe@corp-mail.com"}
        mine = Interaction(id=f"a{seed}-{n}", arm="base", arm_kind="local", messages=messages, completion="{}", **base)
        good = reference.answer(op.schema, rng, 0.2)
        yield mine
        yield Interaction(id=f"b{seed}-{n}", arm="cloud", arm_kind="cloud", role="shadow", shadow_of=mine.id,
                          messages=messages, completion=good, **base)  # fmt: skip
        for about, text in ((mine.id, "{}"), (f"b{seed}-{n}", good)):
            score = task.grade(op.schema, text).score
            yield Feedback(id=f"f-{about}", at=at + 9, interaction=about, agent=AGENT, kind="outcome", score=score,
                           source="grader")  # fmt: skip


def test_prepare_show_compare_and_erase(
    home: Home, pawl: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.lake.add(traffic(300))
    dry = pawl("dataset", "prepare", AGENT, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "nothing was kept" in dry.stdout and "## Readiness" in dry.stdout
    assert "none yet" in pawl("dataset", "list").stdout
    assert not any((tmp_path / name).exists() for name in ("regression", "validation", "datasets"))

    done = pawl("dataset", "prepare", AGENT)
    assert done.returncode == 0, done.stderr
    (path,) = filter(datasets.is_dataset, (tmp_path / "datasets").glob("*.json"))
    made = datasets.load(path)
    assert f"written to {path}" in done.stdout
    assert len(made.train) >= 20 and min(made.by_split.values()) > 0 and made.pairs
    assert {e.kind for e in made.train} == {"answer", "variant"}
    assert len({e.scenario for e in made.train}) >= 4
    # Nothing of a person and no key is in anything that is kept.
    text = "".join(p.read_text(errors="replace") for d in ("datasets", "regression", "validation")
                   for p in (tmp_path / d).rglob("*") if p.is_file())  # fmt: skip
    assert SECRET not in text and "jane.roe" not in text
    assert made.scrubbed["SECRET"] > 0 and made.scrubbed["EMAIL"] > 0
    assert "user1@example.com" in text
    # Every example is still right by the oracle, and none is of a source of the regression suite.
    for e in made.examples:
        assert task.grade(parsed(e.messages).schema, e.completion).score >= 0.99
    suite = (tmp_path / "regression" / f"{AGENT}.json").read_text()
    assert suite.count('"cluster"') == 10
    assert {e.source for e in made.train}.isdisjoint(re.findall(r'"source": "([^"]+)"', suite))

    shown = pawl("dataset", "show", path.stem[-6:]).stdout
    for told in ("## Steps", "near", "volume for production | red", "| licence | ours |", "## Validation"):
        assert told in shown
    for report in reports_of(path):
        page = Path(report.docs).read_text()
        assert "http://" not in page.replace("http://www.w3.org", "") and "cdn" not in page

    home.lake.add(traffic(60, seed=2))
    again = pawl("dataset", "prepare", AGENT)
    assert again.returncode == 0, again.stderr
    newer = next(p for p in (tmp_path / "datasets").glob("*.json") if datasets.is_dataset(p) and p != path)
    told = pawl("dataset", "diff", path.stem, newer.stem).stdout
    assert re.search(r"added: [1-9]", told) and "train examples" in told
    assert "no single dataset" in pawl("dataset", "show", AGENT).stderr

    # A person goes: out of the lake and of the suite; the versions that learnt from them are named.
    (learnt,) = [i for i in made.train[0].interactions if i.startswith("a")]
    tested = re.findall(r'"interaction": "(a1-[0-9]+)"', suite)[0]
    monkeypatch.setenv("PAWL_API_KEY", home.keys["admin"])
    for interaction in (learnt, tested):
        gone = pawl("erase", "--yes", "--subject", interaction.replace("a1-", "s"))
        assert gone.returncode == 0 and "interactions removed" in gone.stdout, gone.stderr
        assert path.stem in gone.stdout
    left = (tmp_path / "regression" / f"{AGENT}.json").read_text()
    assert tested not in left and left.count('"cluster"') == 9


def test_a_critical_failure_names_the_rows_and_the_next_run_does_without_them(home: Home, pawl: Typed) -> None:
    home.lake.add(traffic(200))
    bad = Interaction(id="from-the-future", at=time.time() + 90_000, agent=AGENT, session="s", key_id="k", arm="x",
                      arm_kind="cloud", messages=[{"role": "user", "content": "q"}], completion="a")  # fmt: skip
    home.lake.add([bad])
    stopped = pawl("dataset", "prepare", AGENT)
    assert stopped.returncode == 1
    assert "from-the-future" in stopped.stderr and "Nothing was trained" in stopped.stderr
    assert "from-the-future" in pawl("lake", "quarantine").stdout
    done = pawl("dataset", "prepare", AGENT)
    assert done.returncode == 0, done.stderr
    pawl("lake", "quarantine", "--release", "from-the-future")
    assert pawl("dataset", "prepare", AGENT).returncode == 1


@pytest.mark.parametrize("late", [False, True])
def test_feedback_from_the_future_speaks_for_nothing(home: Home, pawl: Typed, late: bool) -> None:
    home.lake.add(traffic(120))
    said = Feedback(id="tomorrow", at=time.time() + (90_000 if late else 0), interaction="b1-1", agent=AGENT,
                    kind="outcome", score=0.0)  # fmt: skip
    home.lake.add([said])
    assert (pawl("dataset", "prepare", AGENT, "--dry-run").returncode == 1) == late
    assert home.control.quarantined(AGENT) == []


def test_one_foreign_row_does_not_stop_the_others(home: Home, pawl: Typed, tmp_path: Path) -> None:
    home.lake.add(traffic(150))
    for n, (asked, said) in enumerate((("ping", "pong"), ("", "x"), ("y", "Y"))):
        odd = Interaction(id=f"odd{n}", at=time.time() - 99, agent=AGENT, session="s", key_id="k", arm="cloud",
                          arm_kind="cloud", messages=[{"role": "user", "content": asked}], completion=said)  # fmt: skip
        home.lake.add([odd, Feedback(id=f"fo{n}", at=time.time() - 9, interaction=odd.id, agent=AGENT, kind="rating",
                                     score=1.0)])  # fmt: skip
    done = pawl("dataset", "prepare", AGENT)
    assert done.returncode == 0, done.stderr
    assert "not of the agent's form" in done.stdout


def test_too_little_says_what_is_missing(home: Home, pawl: Typed) -> None:
    home.lake.add(traffic(12))
    few = pawl("dataset", "prepare", AGENT)
    assert few.returncode == 1 and "its spec demands 20" in few.stderr and "Traceback" not in few.stderr
    assert pawl("dataset", "prepare", "nobody").returncode == 1
