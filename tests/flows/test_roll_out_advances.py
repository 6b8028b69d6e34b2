"""From the feedback that makes a stage ready to the new share on every gateway: by an event, in a run people see."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from pawl.fleet.spec import RolloutSpec
from pawl.improvement.workplace import Workplace
from pawl.rollout.route import Arm, bucket
from pawl.rollout.state import Rollout
from tests.flows.orchestration import Orchestration
from tests.integration.gateway_process import PROMPT, LiveGateway
from tests.integration.promotion_place import AGENT
from tests.tiny_adapter import make_adapter
from tests.waiting import until

OLD, NAME = Arm("base", "local", "base", "local"), f"{AGENT}-v1-0123abcd"
NEW = Arm(NAME, "local", NAME, "local")
SPEC = RolloutSpec(min_stage_sessions=6, min_bake_s=0)
CHAT = "/v1/chat/completions"


@pytest.fixture
def gateways(place: Workplace, root: Path, unused: object) -> Iterator[list[LiveGateway]]:
    """Two of them, on the place's control database, in front of its cluster."""
    fleet = (root / "infra" / "fleet.yaml").read_text().replace("{", "{{").replace("}", "}}")
    upstream = SimpleNamespace(port=place.settings.vllm_port)
    made = [LiveGateway(place.settings.home, unused(), upstream, fleet) for _ in range(2)]  # type: ignore[operator, arg-type]
    yield made
    for live in made:
        live.stop()


def ask(live: LiveGateway, session: str) -> str:
    """The answer's id."""
    body = {"model": AGENT, "messages": [{"role": "user", "content": PROMPT}]}
    status, answer = live.request(CHAT, body, headers={"x-pawl-session": session})
    assert status == 200, answer
    return str(answer["id"])


def arm(live: LiveGateway, session: str) -> str:
    """Who answers this session now."""
    made = ask(live, session)
    return until(lambda: next((i.arm for i in live.recorded(AGENT) if i.id == made), ""), 10)


@pytest.mark.servers
@pytest.mark.timeout(600)
def test_a_stage_goes_on_by_an_event(place: Workplace, prefect: Orchestration, gateways: list[LiveGateway]) -> None:
    make_adapter(place.settings.adapters_dir / NAME)
    now = time.time()
    place.control.save_rollout(
        Rollout(
            id="r1", agent=AGENT, version="1", champion=OLD, challenger=NEW, stage="20", opened_at=now,
            stage_since=now, spec=SPEC,
        )
    )  # fmt: skip
    sessions = {"new": [], "old": [], "moves": []}  # type: dict[str, list[str]]
    for n in range(400):
        place_of = bucket(AGENT, "r1", f"s{n}")
        sessions["new" if place_of < 2000 else "moves" if place_of < 5000 else "old"].append(f"s{n}")
    until(lambda: all(arm(live, sessions["new"][0]) == NAME for live in gateways), 60)
    for n, (new, old) in enumerate(zip(sessions["new"][1:7], sessions["old"][:6], strict=True)):
        live = gateways[n % 2]
        rows = [
            {"interaction": ask(live, new), "kind": "outcome", "score": 0.9},
            {"interaction": ask(live, old), "kind": "outcome", "score": 0.8},
        ]
        assert live.request("/v1/feedback", rows)[0] == 200
    decided = time.monotonic()
    until(lambda: (r := place.control.open_rollout(AGENT)) is not None and r.stage == "50", 180)
    moved = time.monotonic() - decided
    until(lambda: all(arm(live, sessions["moves"][0]) == NAME for live in gateways), 5)
    every = time.monotonic() - decided
    # Told, not held: a machine that does something else meanwhile takes longer (docs/benchmarks/rollout.md).
    print(f"from the deciding feedback to 50 %: {moved:.1f} s, on both gateways: {every:.1f} s")
    # Both gateways tell of it; one of the runs made the move.
    runs = [r for r in prefect.runs("roll-out", "when-answered") if r["parameters"] == {"agent": AGENT}]
    assert any(r["state"]["type"] in ("RUNNING", "COMPLETED") for r in runs), "a run that people can see made the move"
    (move,) = place.control.rollouts(AGENT)[0].history
    assert (move.by, move.stage_from, move.stage_to) == ("roll_out", "20", "50")
