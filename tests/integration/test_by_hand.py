"""People steer traffic by hand, through the command: pause, resume, advance, abort, and back to any earlier state."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from pawl.cli import app
from pawl.errors import NotAllowed, StaleWrite
from pawl.improvement import by_hand, placing, rolling
from pawl.registry import approvals
from pawl.registry.memory_registry import MemoryRegistry
from pawl.rollout.control import AuditEntry
from pawl.rollout.control_sqlite import SqliteControl
from pawl.rollout.route import Route
from pawl.rollout.state import Rollout
from tests.integration.promotion_place import AGENT, Cluster, Place, key, opened, registered, traffic

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(place: Place, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`pawl rollout ...` as an operator, on the place's own state."""
    secret = place.control.create_key("operator", "olga")[1]
    settings = place.settings
    for name, value in {"HOME": settings.home, "FLEET": settings.fleet, "VLLM_PORT": settings.vllm_port}.items():
        monkeypatch.setenv(f"PAWL_{name}", str(value))
    monkeypatch.setenv("PAWL_MLFLOW_PORT", "9")  # nobody is there
    monkeypatch.setenv("PAWL_API_KEY", secret)

    def call(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, list(arguments))
        return done.exit_code, f"{done.stdout}{done.stderr}{done.exception or ''}"

    return call


def approved(place: Place, version: str) -> None:
    request = place.control.request(AGENT, version)
    assert request is not None
    at = time.time()
    approvals.approve_by_key(place.control, request, key(place, "approver"), expires=at + 60, now=at)
    opened(place, version)


def now(place: Place) -> Rollout:
    return place.control.rollouts(AGENT)[0]


def served(place: Place) -> Route:
    route = place.control.route(AGENT)
    assert route is not None
    return route


def test_a_smaller_share_by_hand(place: Place, run: Run) -> None:
    made = registered(place)
    approved(place, made.version)
    assert "answers 0 %" in run("rollout", "reduce", AGENT, "--to", "5", "--reason", "in shadow")[1]
    for _ in range(2):
        assert run("rollout", "advance", AGENT, "--reason", "friday")[0] == 0
    assert served(place).percent == 50 and not served(place).cautious
    assert "is no smaller share" in run("rollout", "reduce", AGENT, "--to", "50", "--reason", "no less")[1]
    assert "say why" in run("rollout", "reduce", AGENT, "--to", "5", "--reason", " ")[1]
    code, said = run("rollout", "reduce", AGENT, "--to", "5", "--reason", "complaints")
    assert code == 0 and "5 % of sessions" in said
    assert served(place).percent == 5 and served(place).cautious and now(place).by_hand
    assert (rolling.advance(place) or (None, ""))[1] == "wait: held by olga: goes on when a person resumes it"
    (entry,) = [e for e in place.control.audit_log() if e["event"] == "rollout reduced by hand"]
    assert entry["by"] == "olga" and (entry["detail"]["from"], entry["detail"]["to"]) == (50, 5)
    assert run("rollout", "resume", AGENT)[0] == 0
    assert served(place).percent == 50 and not served(place).cautious


def test_pause_advance_resume_abort(place: Place, run: Run) -> None:
    made = registered(place)
    approved(place, made.version)
    assert run("rollout", "pause", AGENT, "--reason", "a demo")[0] == 0
    assert now(place).held and now(place).by_hand
    traffic(place, "shadow", {"champion": 0.5, "challenger": 0.6})
    assert (rolling.advance(place) or (None, ""))[1] == "wait: held by olga: goes on when a person resumes it"
    code, said = run("rollout", "resume", AGENT)
    assert code == 0 and not now(place).held and "shadow" in said
    assert "is not held" in run("rollout", "resume", AGENT)[1]
    code, said = run("rollout", "advance", AGENT, "--reason", "friday")
    assert code == 0 and now(place).stage == "20" and served(place).percent == 20
    assert "olga: friday (the evidence said " in said and said.strip() in now(place).history[-1].decision.reason + said
    assert run("rollout", "abort", AGENT, "--reason", "enough")[0] == 0
    assert now(place).stage == "rolled_back" and served(place).challenger is None
    assert "has no open rollout" in run("rollout", "abort", AGENT, "--reason", "again")[1]
    events = [(e["event"], e["by"]) for e in place.control.audit_log() if e["by"] == "olga"]
    assert events == [(f"rollout {what}", "olga") for what in (
        "paused by hand", "resumed", "advanced by hand", "aborted by hand")]  # fmt: skip
    assert place.control.verify_audit() is None


def test_a_rollout_is_drawn_with_its_stages_and_its_limit(place: Place, run: Run, tmp_path: Path) -> None:
    assert "has no such rollout" in run("rollout", "plot", AGENT, "--out", str(tmp_path / "x.svg"))[1]
    made = registered(place)
    approved(place, made.version)
    traffic(place, "shadow", {"champion": 0.9, "challenger": 0.0})
    rolling.advance(place, time.time() + 10)
    assert now(place).stage == "rolled_back"
    code, said = run("rollout", "plot", AGENT, "--out", str(tmp_path / "x.svg"))
    assert code == 0, said
    drawn = (tmp_path / "x.svg").read_text()
    assert drawn.startswith("<svg") and "rolls back at 20" in drawn and "evidence of harm" in drawn


def test_nobody_advances_past_proof_of_harm_or_without_a_reason(place: Place, run: Run) -> None:
    made = registered(place)
    approved(place, made.version)
    traffic(place, "shadow", {"champion": 0.9, "challenger": 0.1})
    code, said = run("rollout", "advance", AGENT, "--reason", "I believe in it")
    assert code != 0 and "the evidence demands rollback: worse than the champion" in said
    assert now(place).stage == "shadow"
    assert "say why" in run("rollout", "pause", AGENT, "--reason", " ")[1]


def finished(place: Place, weights: bytes) -> str:
    """A version that went all the way."""
    made = registered(place, weights=weights)
    approved(place, made.version)
    for _ in range(6):
        rollout = place.control.open_rollout(AGENT)
        assert rollout is not None
        from pawl.rollout.state import Decision, move

        place.control.save_rollout(move(rollout, Decision(action="advance", reason="t"), by="roll_out", now=2.0))
    rolling.settle(place, now(place))
    return str(made.version)


def test_any_earlier_version_serves_again_by_one_command_without_the_registry(
    place: Place, cluster: Cluster, run: Run
) -> None:
    first, second = finished(place, b"one"), finished(place, b"two")
    older = served(place).champion.name
    third = registered(place, weights=b"three")
    approved(place, third.version)
    cluster.loaded = {"base": "base"}
    code, said = run("restore", AGENT, "--to", first, "--reason", "two breaks our parser")
    assert code == 0, said
    assert served(place).champion.name.startswith(f"{AGENT}-v{first}-") and served(place).challenger is None
    assert served(place).champion.name in cluster.loaded, "it was loaded and verified before any traffic"
    assert older.startswith(f"{AGENT}-v{second}-") and place.control.open_rollout(AGENT) is None
    restored, aborted = place.control.rollouts(AGENT)[:2]
    assert (aborted.version, aborted.stage) == (third.version, "rolled_back") and restored.restores
    # The registry is up again: the minute's tick has the aliases follow, the oldest first, and only once.
    for rollout in reversed(place.control.rollouts(AGENT)):
        if not rolling.settled(place, rollout):
            rolling.settle(place, rollout)
    champion, previous = (place.registry.by_alias(AGENT, a) for a in ("champion", "previous"))
    assert champion is not None and champion.number == first and previous is not None and previous.number == second
    assert all(rolling.settled(place, r) for r in place.control.rollouts(AGENT))
    assert "serves functional-negative already" in run("restore", AGENT, "--to", first, "--reason", "x")[1]


@pytest.mark.parametrize(("to", "kind"), [("base", "local"), ("cloud", "cloud")])
def test_the_base_model_and_the_cloud_serve_again(place: Place, run: Run, to: str, kind: str) -> None:
    finished(place, b"one")
    code, said = run("restore", AGENT, "--to", to, "--reason", "an emergency")
    assert code == 0, said
    assert (served(place).champion.kind, served(place).percent) == (kind, 0)
    rolling.settle(place, now(place))
    champion = place.registry.by_alias(AGENT, "champion")
    assert rolling.settled(place, now(place)) and champion is not None and champion.number == "1"


@pytest.mark.parametrize("settled", [True, False])
def test_what_was_rejected_serves_only_on_somebodys_word(place: Place, run: Run, settled: bool) -> None:
    finished(place, b"one")
    bad = registered(place, weights=b"bad")
    approved(place, bad.version)
    assert run("rollout", "abort", AGENT, "--reason", "bad")[0] == 0
    if settled:
        rolling.settle(place, now(place))
    code, said = run("restore", AGENT, "--to", bad.version, "--reason", "x")
    assert code != 0 and "was rejected (rolled back: olga: bad)" in said
    assert served(place).champion.name.startswith(f"{AGENT}-v1-")
    assert run("restore", AGENT, "--to", bad.version, "--reason", "x", "--despite-rejection")[0] == 0
    assert served(place).champion.name.startswith(f"{AGENT}-v{bad.version}-")


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_the_open_rollouts_challenger_is_nothing_to_go_back_to(place: Place, run: Run, steps: int) -> None:
    finished(place, b"one")
    new = registered(place, weights=b"two")
    approved(place, new.version)
    for _ in range(steps):
        assert run("rollout", "advance", AGENT, "--reason", "friday")[0] == 0
    before, route = now(place), served(place)
    for more in ((), ("--despite-rejection",)):
        code, said = run("restore", AGENT, "--to", new.version, "--reason", "I want it now", *more)
        assert code == 1 and f"`pawl rollout advance {AGENT}`" in said and f"`pawl rollout abort {AGENT}`" in said
        assert now(place) == before and served(place) == route, "neither aborted nor served"
    assert run("rollout", "abort", AGENT, "--reason", "x")[0] == 0
    assert run("restore", AGENT, "--to", new.version, "--reason", "x", "--despite-rejection")[0] == 0
    assert served(place).champion.name == new.adapter


def test_of_several_rollouts_of_a_version_the_latest_one_counts(place: Place, run: Run) -> None:
    first, second = finished(place, b"one"), finished(place, b"two")
    assert run("restore", AGENT, "--to", first, "--reason", "two breaks our parser")[0] == 0
    at = time.time()
    again = msgspec.structs.replace(
        next(r for r in place.control.rollouts(AGENT) if r.version == second), id="again", stage="20", revision=0,
        opened_at=at, stage_since=at, route_revision=served(place).revision, history=(), shares=(),
    )  # fmt: skip
    place.control.save_rollout(again)
    assert run("rollout", "abort", AGENT, "--reason", "worse than then")[0] == 0
    code, said = run("restore", AGENT, "--to", second, "--reason", "x")
    assert code == 1 and "was rejected (rolled back: olga: worse than then)" in said
    assert run("restore", AGENT, "--to", second, "--reason", "x", "--despite-rejection")[0] == 0
    assert run("restore", AGENT, "--to", first, "--reason", "x")[0] == 0, "it was restored before"
    assert run("restore", AGENT, "--to", second, "--reason", "x")[0] == 0, "and so was this one"


@pytest.mark.parametrize(
    ("to", "why"),
    [("nobody", "there is no 'nobody' to go back to"), ("7", "version 7 of functional-negative never had a rollout")],
)
def test_what_cannot_be_gone_back_to(place: Place, run: Run, to: str, why: str) -> None:
    finished(place, b"one")
    before = json.dumps([r.id for r in place.control.rollouts(AGENT)])
    code, said = run("restore", AGENT, "--to", to, "--reason", "x")
    assert code != 0 and why in said
    assert json.dumps([r.id for r in place.control.rollouts(AGENT)]) == before, "nothing was changed"


def test_what_nobody_ever_let_out_is_nothing_to_go_back_to(place: Place, run: Run) -> None:
    finished(place, b"one")
    waiting = registered(place, weights=b"two")
    folder = place.settings.adapters_dir / waiting.adapter
    placing.fetch(place, place.registry.version(AGENT, waiting.version))  # as what waits for its approval is warmed
    assert folder.is_dir()
    code, said = run("restore", AGENT, "--to", waiting.version, "--reason", "I want it now")
    assert code == 1 and "never had a rollout" in said and served(place).champion.name != waiting.adapter


def test_back_to_the_champion_of_an_open_rollout_is_to_abort_it(place: Place, run: Run) -> None:
    made = registered(place)
    approved(place, made.version)
    assert run("rollout", "advance", AGENT, "--reason", "x")[0] == 0 and served(place).percent == 20
    code, said = run("restore", AGENT, "--to", "base", "--reason", "something is odd")
    assert code == 0 and "aborted; base has all traffic" in said, said
    assert (served(place).champion.name, served(place).challenger) == ("base", None)
    assert len(place.control.rollouts(AGENT)) == 1 and now(place).stage == "rolled_back"


def test_a_shadow_that_served_for_a_while_is_one_again(place: Place, run: Run) -> None:
    finished(place, b"one")
    before = served(place).shadows
    assert [s.kind for s in before] == ["cloud"]
    for to in ("cloud", "01"):
        assert run("restore", AGENT, "--to", to, "--reason", "x")[0] == 0
    assert served(place).shadows == before and now(place).version == "1"


class Busy(SqliteControl):
    """A control database in which somebody else writes just before, a few times."""

    def __init__(self, path: Path, meddle: list[Callable[[], object]]) -> None:
        super().__init__(path)
        self.meddle = meddle

    def save_rollout(self, rollout: Rollout, told: AuditEntry | None = None) -> Rollout:
        if self.meddle:
            self.meddle.pop()()
        return super().save_rollout(rollout, told)


def test_a_persons_word_holds_though_others_write_at_the_same_time(place: Place) -> None:
    made = registered(place)
    approved(place, made.version)
    olga = key(place, "operator")

    def move_it() -> None:
        rollout = place.control.open_rollout(AGENT)
        assert rollout is not None
        place.control.save_rollout(msgspec.structs.replace(rollout, held=True))

    busy = Busy(place.settings.control_db, [move_it] * 3)
    assert by_hand.pause(busy, AGENT, olga, "wait").by_hand
    busy.meddle[:] = [move_it] * 3
    assert by_hand.abort(busy, AGENT, olga, "enough").stage == "rolled_back"


@pytest.mark.parametrize("the_first", [True, False])
def test_what_was_restored_in_between_is_not_overwritten_by_a_rollout_that_opens(place: Place, the_first: bool) -> None:
    if not the_first:
        finished(place, b"one")
    assert (place.control.route(AGENT) is None) == the_first
    made = registered(place, weights=b"two")
    request = place.control.request(AGENT, made.version)
    assert request is not None
    at = time.time()
    approvals.approve_by_key(place.control, request, key(place, "approver"), expires=at + 60, now=at)
    meddle: list[Callable[[], object]] = [lambda: by_hand.restore(place, "cloud", key(place, "operator"), "now")]
    busy = Place(place.settings, AGENT, place.memory)
    busy.__dict__["control"] = Busy(place.settings.control_db, meddle)
    with pytest.raises(StaleWrite, match="somebody else wrote it"):
        rolling.open_rollout(busy, request)
    cloud = served(place).champion
    assert cloud.kind == "cloud" and rolling.open_rollout(busy, request).champion == cloud


def test_a_rollout_that_opens_while_its_version_is_brought_back_goes_on(place: Place) -> None:
    finished(place, b"one")
    first = now(place)
    by_hand.restore(place, "base", key(place, "operator"), "x")

    class Overtaken(SqliteControl):
        def rollouts(self, agent: str | None = None) -> list[Rollout]:
            found = super().rollouts(agent)
            if all(r.stage != "20" for r in found):
                at = time.time()
                again = {"id": "again", "stage": "20", "revision": 0, "champion": served(place).champion}
                times: dict[str, Any] = {"opened_at": at, "stage_since": at, "route_revision": None}
                self.save_rollout(msgspec.structs.replace(first, **again, **times))
            return found

    busy = Place(place.settings, AGENT, place.memory)
    busy.__dict__["control"] = Overtaken(place.settings.control_db)
    with pytest.raises(NotAllowed, match="open rollout, in stage 20"):
        by_hand.restore(busy, first.version, key(place, "operator"), "x")
    assert served(place).percent == 20 and now(place).stage == "20"


def test_status_says_when_and_what(place: Place, run: Run) -> None:
    assert run("rollout", "status", AGENT) == (0, f"{AGENT} has had no rollout\n")
    finished(place, b"one")
    assert run("restore", AGENT, "--to", "base", "--reason", "x")[0] == 0
    said = run("rollout", "status", AGENT)[1]
    assert "  base  done" in said and "  version 1  done" in said and time.strftime("%Y-%m-%d ") in said


def test_files_that_do_not_have_their_hash_are_not_served(place: Place, run: Run) -> None:
    finished(place, b"one")
    finished(place, b"two")
    folder: Any = next(place.settings.adapters_dir.glob(f"{AGENT}-v1-*"))
    shutil.copy(next(place.settings.adapters_dir.glob(f"{AGENT}-v2-*")) / "adapter_model.safetensors", folder)
    assert "version 1 is not on this machine" in run("restore", AGENT, "--to", "1", "--reason", "x")[1]
    assert isinstance(place.registry, MemoryRegistry) and placing.fetch is not None
