"""The commands that the pages' blocks show are run, each in a state in which a reader would type it.

What they start for good, or need a model, a cluster or MLflow's server for, is named in ELSEWHERE with the test that
runs it. A new block needs neither: it is run, and fails here if it fails for a reader.
"""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pawl import bootstrap
from pawl.cli import app
from pawl.improvement import approving, rolling
from pawl.lake.journal import Journal
from pawl.lake.records import Interaction
from pawl.registry import approvals
from pawl.rollout.state import Decision, move
from pawl.settings import Settings
from tests.integration.promotion_place import AGENT, Place, key, opened, registered
from tests.unit.test_docs_commands import PAGES, ROOT, typed

# The beginning of a command -> what runs it instead.
ELSEWHERE = {
    "up": "tests/integration/test_platform.py",
    "down": "tests/integration/test_platform.py",
    "logs": "tests/integration/test_platform.py",
    "doctor": "tests/integration/test_doctor.py",
    "database": "tests/contract/test_control_migrations.py",
    "improve": "tests/unit/test_improve_command.py",
    "gateway": "tests/integration/test_gateway_live.py",
    "review": "tests/unit/test_review.py",
    "search": "tests/integration/test_search_settings.py",
    "chain measure": "tests/integration/test_chain_measure.py",
    "dataset": "tests/integration/test_dataset_commands.py",
    "export": "tests/unit/test_export.py",
    "plan-training": "tests/unit/test_plan.py",
    "adapter check": "tests/unit/test_adapter_check.py",
    "import": "tests/integration/test_lake_commands.py",
    "regression must-pass": "tests/unit/test_regression.py",
    "registry": "tests/integration/test_mlflow_webhook.py",
}
# What starts servers for good or takes a port is never typed here, whatever the pages come to show.
NEVER = ("up", "down", "gateway")
# A verdict that is told by the exit code too.
VERDICTS = {"plan-evaluation functional-negative": 1}
_PLACEHOLDERS = {
    "AGENT": AGENT,
    "functional-negative": AGENT,
    "NAME": "ann",
    "S": "session-1",
    "...": "as the page says",
}
_weights = itertools.count(1)


def blocks() -> list[tuple[str, list[str]]]:
    """(page, words) of every `pawl` command in an indented or fenced block, each once, in the pages' order."""
    found: dict[tuple[str, ...], str] = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        # Inline code says what there is; a block is there to be typed, and a query wherever it stands. What stands
        # after two blanks explains it.
        typeable = re.sub(r"`([^`\n]+)`", lambda m: m[0] if m[1].startswith("pawl lake query ") else "", text)
        typeable = re.sub(r"(?<=\S) {2,}(?=\S).*$", "", typeable, flags=re.M)
        for words in typed(typeable):
            if words[0] == "pawl" and len(words) > 1:
                found.setdefault(tuple(words[1:]), str(page.relative_to(ROOT)))
    return [(page, list(words)) for words, page in found.items()]


class Reader:
    """Somebody who types what the pages say, with every role, on a machine with some history."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.earlier, _ = self._finished(), self._finished()

    def types(self, words: list[str]) -> tuple[int, str]:
        """The command as a reader completes it."""
        assert words[0] not in NEVER, f"pawl {' '.join(words)}: name it in ELSEWHERE, with the test that runs it"
        self._state_for(words)
        done = CliRunner().invoke(app, [self._meant(w, words) for w in words])
        return done.exit_code, f"{done.output}{done.exception or ''}"

    def _meant(self, word: str, words: list[str]) -> str:
        if word == "VERSION" or (
            word.isdecimal() and words[0] in ("approve", "reject", "restore", "rollout") and "--to" not in words
        ):
            return self.version
        if words[0] == "restore" and word.isdecimal():
            return self.earlier
        if word == "KEY":
            return self.place.control.create_key("client", "somebody")[0].id
        if word == "ticket-triage" and words[0] in ("approve", "rollout"):
            return AGENT  # the agent of the tutorial, in the state in which its reader is by then
        return _PLACEHOLDERS.get(word, word)

    def _state_for(self, words: list[str]) -> None:
        """What the command is about: a request that waits, an open rollout, one that is held."""
        if words[0] in ("approve", "reject") or words[:2] == ["rollout", "force"]:
            self._abort()
            self.version = registered(self.place, weights=bytes([next(_weights)])).version
        elif words[0] == "rollout" and words[1] in ("pause", "reduce", "resume", "advance", "abort", "plot"):
            self._open("20" if words[1] == "reduce" else "shadow", held=words[1] == "resume")

    def _open(self, stage: str, held: bool) -> None:
        self._abort()
        self.version = registered(self.place, weights=bytes([next(_weights)])).version
        self._approved(self.version)
        control = self.place.control
        if stage != "shadow":
            self._moved(Decision(action="advance", reason="t"))
        if held:
            self._moved(Decision(action="hold", reason="t"))
        assert control.open_rollout(AGENT) is not None

    def _abort(self) -> None:
        """No rollout is open, and none that was approved waits to be."""
        waiting = approving.ready(self.place, time.time())
        if waiting is not None:
            rolling.open_rollout(self.place, waiting)
        if self.place.control.open_rollout(AGENT) is not None:
            self._moved(Decision(action="rollback", reason="t"))
        rolling.settle(self.place, self.place.control.rollouts(AGENT)[0])

    def _moved(self, decision: Decision) -> None:
        rollout = self.place.control.open_rollout(AGENT)
        assert rollout is not None
        self.place.control.save_rollout(move(rollout, decision, by="roll_out", now=time.time()))

    def _approved(self, version: str) -> None:
        request, at = self.place.control.request(AGENT, version), time.time()
        assert request is not None
        approvals.approve_by_key(self.place.control, request, key(self.place, "approver"), expires=at + 60, now=at)
        opened(self.place, version)

    def _finished(self) -> str:
        """A version that went all the way."""
        self.version = registered(self.place, weights=bytes([next(_weights)])).version
        self._approved(self.version)
        while self.place.control.open_rollout(AGENT) is not None:
            self._moved(Decision(action="advance", reason="t"))
        rolling.settle(self.place, self.place.control.rollouts(AGENT)[0])
        return str(self.version)


@pytest.fixture
def reader(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, unused: Callable[[], int]
) -> Iterator[Reader]:
    settings = place.settings
    fleet = tmp_path / "fleet.yaml"  # some commands write to it
    fleet.write_text(settings.fleet.read_text())
    secret = place.control.create_key("admin", "root")[1]
    for name, value in {"HOME": settings.home, "FLEET": fleet, "VLLM_PORT": settings.vllm_port}.items():
        monkeypatch.setenv(f"PAWL_{name}", str(value))
    for server in ("GATEWAY", "PREFECT", "STANDIN"):  # nothing of this machine's own is asked, ended or held up
        monkeypatch.setenv(f"PAWL_{server}_PORT", str(unused()))
    monkeypatch.setenv("PAWL_MLFLOW_PORT", "9")  # nobody is there: the ports' adapter in memory takes its place
    monkeypatch.setenv("PAWL_API_KEY", secret)
    monkeypatch.setattr(bootstrap, "registry", lambda _: place.memory)
    monkeypatch.chdir(tmp_path)
    journal = Journal(settings.journal_dir, "test")
    journal.append(
        [
            Interaction(
                id=f"i{n}", at=time.time(), agent=AGENT, session=f"session-{n}", key_id="k", arm="base",
                arm_kind="local", messages=[{"role": "user", "content": "x"}], completion=json.dumps({}), latency_s=0.1,
                finish_reason="stop",
            )
            for n in range(3)
        ]
    )  # fmt: skip
    journal.close()
    yield Reader(place)


def test_the_blocks_commands_do_what_the_page_says(reader: Reader) -> None:
    ran, faults = 0, []
    for page, words in blocks():
        line = " ".join(words)
        if any(line == known or line.startswith(f"{known} ") for known in ELSEWHERE):
            continue
        code, said = reader.types(words)
        ran += 1
        if code != VERDICTS.get(line, 0):
            faults.append(f"{page}: pawl {line}\n    exit {code}: {said.strip()[-400:]}")
    assert not faults, "\n".join(faults)
    assert ran >= 12


@pytest.mark.parametrize("word", NEVER)
def test_what_starts_for_good_is_refused(reader: Reader, word: str) -> None:
    assert word in ELSEWHERE
    with pytest.raises(AssertionError, match="name it in ELSEWHERE"):
        reader.types([word, "--help"])
    assert Settings().prefect_port not in (Settings.model_fields["prefect_port"].default, None)


def test_what_is_run_elsewhere_is_in_a_block_and_has_its_test() -> None:
    lines = [" ".join(words) for _, words in blocks()]
    for known, where in ELSEWHERE.items():
        assert (ROOT / where).exists(), where
        assert any(line == known or line.startswith(f"{known} ") for line in lines), f"no block shows pawl {known}"
