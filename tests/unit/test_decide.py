"""Evidence and decisions: examples of every rule, and the error probabilities of whole rollouts by simulation."""

from __future__ import annotations

import random
from math import sqrt

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import fisher_exact

from pawl.fleet.spec import RolloutSpec
from pawl.lake.records import Feedback, Interaction
from pawl.rollout.decide import decide, evidence_path
from pawl.rollout.differences import scores
from pawl.rollout.evidence import Evidence, gather
from pawl.rollout.exact import different, more_often
from pawl.rollout.route import Arm, choose
from pawl.rollout.sequential import lower_bound
from pawl.rollout.state import Decision, Rollout, move, resumed, route_of

OLD = Arm("base", "local", "base", "local")
NEW = Arm("agent-v1-aaaaaaaa", "local", "agent-v1-aaaaaaaa", "local")
SPEC = RolloutSpec(min_shadow_pairs=10, min_stage_sessions=4, min_watch_sessions=6, min_bake_s=5.0)


def spec_with(**more: object) -> RolloutSpec:
    return SPEC.model_copy(update=more)


def at_stage(stage: str, **more: object) -> Rollout:
    fields = {
        "id": "r1",
        "agent": "agent",
        "version": "1",
        "champion": OLD,
        "challenger": NEW,
        "stage": stage,
        "opened_at": 0.0,
        "stage_since": 0.0,
        "spec": SPEC,
    }
    return Rollout(**{**fields, **more})  # type: ignore[arg-type]


class Traffic:
    """Records as a gateway would journal them: sessions go where the real split sends them."""

    def __init__(self, rollout: Rollout, seed: int = 0) -> None:
        self.rollout, self.now, self.n = rollout, 0.0, 0
        self.random = random.Random(seed)
        self.seen: list[Interaction] = []
        self.said: list[Feedback] = []

    def call(self, session: str, arm: Arm, **more: object) -> Interaction:
        self.n += 1
        fields = {
            "id": f"i{self.n}",
            "at": self.now,
            "agent": "agent",
            "session": session,
            "key_id": "k",
            "arm": arm.name,
            "arm_kind": "local",
            "messages": [],
            "rollout": "r1",
            "stage": self.rollout.stage,
            "latency_s": 1.0,
        }
        self.seen.append(Interaction(**{**fields, **more}))  # type: ignore[arg-type]
        return self.seen[-1]

    def score(self, call: Interaction, score: float | None, kind: str = "outcome", source: str = "client") -> None:
        self.n += 1
        self.said.append(
            Feedback(
                id=f"f{self.n}", at=self.now, interaction=call.id, agent="agent", kind=kind, score=score, source=source
            )  # type: ignore[arg-type]
        )

    def session_of(self, arm: Arm) -> str:
        """The name of a session that the split sends to this arm now."""
        while True:
            session = f"s{self.random.random()}"
            if choose(route_of(self.rollout), session) == arm:
                return session

    def answered(self, arm: Arm, score: float, **more: object) -> Interaction:
        self.now += 1.0
        call = self.call(self.session_of(arm), arm, **more)
        self.score(call, score)
        return call

    def shadowed(self, champion: float, challenger: float) -> None:
        answer = self.answered(OLD, champion)
        shadow = self.call(answer.session, NEW, role="shadow", shadow_of=answer.id)
        self.score(shadow, challenger)

    def drafted(self, arm: Arm, score: float, session: str = "") -> Interaction:
        """What a cascade refused; the client got a stronger model's answer, with the id that is returned."""
        self.now += 1.0
        stronger = self.call(session or self.session_of(arm), Arm("big", "cloud", "big", "cloud"))
        draft = self.call(stronger.session, arm, role="draft", shadow_of=stronger.id)
        self.score(draft, score, source="grader")
        self.score(stronger, 1.0)
        return stronger

    def arrives(self, old: float, new: float) -> None:
        """One more session from the crowd; what it scores depends on the arm it meets."""
        self.now += 1.0
        if self.rollout.stage == "shadow":
            self.shadowed(old, new)
            return
        session = f"s{self.random.random()}"
        arm = choose(route_of(self.rollout), session)
        self.score(self.call(session, arm), new if arm == NEW else old)

    def evidence(self) -> Evidence:
        return gather(self.rollout, self.seen, self.said)

    def decision(self) -> Decision:
        return decide(self.rollout, self.evidence(), self.now)

    def step(self) -> Decision:
        decision = self.decision()
        self.rollout = move(self.rollout, decision, by="roll_out", now=self.now)
        return decision


# -- scores and differences ----------------------------------------------------------------------------------------


def test_outcomes_win_over_ratings_and_sources_share() -> None:
    t = Traffic(at_stage("20"))
    a, b, c = (t.call(s, OLD) for s in "abc")
    t.score(a, 0.2, source="client")
    t.score(a, 0.6, source="client")  # the latest of a source counts
    t.score(a, 1.0, source="grader")
    t.score(a, 0.0, kind="rating")
    t.score(b, 0.5, kind="rating")
    t.score(b, 1.0, kind="accepted")
    t.score(c, None, kind="correction")
    found = {i: score for i, (score, _) in scores(t.said).items()}
    assert found == {a.id: pytest.approx(0.8), b.id: pytest.approx(0.75)}


def test_shadow_pairs_are_averaged_by_session() -> None:
    t = Traffic(at_stage("shadow"))
    for old, new in ((0.5, 1.0), (1.0, 0.5)):
        answer = t.call("one", OLD)
        t.score(answer, old)
        t.score(t.call("whatever", NEW, role="shadow", shadow_of=answer.id, stage=None), new)
    t.shadowed(0.25, 1.0)
    unscored = t.call("two", OLD)
    t.score(t.call("two", NEW, role="shadow", shadow_of=unscored.id), 1.0)
    t.score(t.call("three", NEW, role="shadow", shadow_of="unknown"), 1.0)
    evidence = t.evidence()
    assert evidence.compared == ((0.75, 0.75), (1.0, 0.25)) and evidence.comparisons == 2
    assert t.decision().sessions == 2 and t.decision().needed == 10


def test_blocks_take_all_that_wait() -> None:
    t = Traffic(at_stage("50"))
    t.answered(OLD, 0.0)
    t.answered(OLD, 1.0)
    t.answered(NEW, 1.0)  # closes a block: 1 - 0.5
    t.answered(NEW, 0.0)
    t.answered(NEW, 0.5)  # both wait
    assert t.evidence().differences == (0.5,)
    t.answered(OLD, 1.0)  # closes it: 0.25 - 1
    assert t.evidence().differences == (0.5, -0.75) and t.evidence().challenger.sessions == 3


def test_turns_of_a_session_are_one_unit() -> None:
    t = Traffic(at_stage("50"))
    mine = t.session_of(NEW)
    for score in (0.0, 1.0, 1.0, 1.0):
        t.score(t.call(mine, NEW), score)
    t.answered(OLD, 0.25)
    assert t.evidence().differences == (0.5,) and t.evidence().challenger.sessions == 1


def test_what_does_not_belong_is_passed_over() -> None:
    t = Traffic(at_stage("20"))
    t.answered(NEW, 1.0)
    t.answered(OLD, 0.0)
    before = t.evidence()
    t.score(t.call(t.session_of(OLD), OLD, rollout="r0"), 1.0)
    t.score(t.call(t.session_of(NEW), NEW, rollout=None, stage=None), 0.0)
    t.score(t.call(t.session_of(OLD), Arm("cloud", "cloud", "cloud", "cloud")), 1.0)
    assert t.evidence() == before
    t.score(t.call(t.session_of(NEW), OLD), 1.0)  # the champion stands in for a failed challenger: told apart
    after = msgspec.structs.replace(before, champion_calls=(*before.champion_calls, (t.now, False)))
    assert t.evidence() == after
    t.seen += t.seen  # a record read twice counts once
    assert t.evidence() == after


def test_blocks_do_not_cross_stages() -> None:
    t = Traffic(at_stage("20"))
    t.answered(OLD, 1.0)
    t.rollout = at_stage("50")
    t.answered(NEW, 0.0)
    assert t.evidence().differences == ()


def test_failed_calls_are_neither_success_nor_failure_of_quality() -> None:
    t = Traffic(at_stage("50"))
    for fault in ({"status": 503}, {"status": 0}, {"error": "timeout"}, {"broken": True}):
        t.answered(NEW, 0.0, latency_s=99.0, **fault)
    t.answered(OLD, 1.0)
    found = t.evidence()
    assert found.differences == () and [c.failed for c in found.calls] == [True] * 4
    assert (found.challenger.calls, found.challenger.errors, found.challenger.p95_s) == (4, 4, None)


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.3, 1.0])), max_size=30))
def test_a_later_look_only_appends(arrivals: list[tuple[bool, float]]) -> None:
    t, before = Traffic(at_stage("50")), ()
    for is_new, score in arrivals:
        t.answered(NEW if is_new else OLD, score)
        found = t.evidence().differences
        assert found[: len(before)] == before and all(-1 <= d <= 1 for d in found)
        before = found


def test_alone_it_is_compared_with_a_bound_of_the_champions_mean() -> None:
    t = Traffic(at_stage("50"))
    for n in range(40):
        t.answered(OLD if n % 2 else NEW, 0.8)
    t.rollout = at_stage("watch")
    t.answered(NEW, 0.1)
    found = t.evidence()
    assert found.reference == pytest.approx(lower_bound([0.8] * 20, 0.1 * SPEC.alpha))
    assert 0.3 < found.reference < 0.8
    assert found.increments == (*found.compared, (pytest.approx(0.1), found.reference))


# -- decisions -----------------------------------------------------------------------------------------------------


def test_it_waits_for_sessions_then_for_the_bake_then_advances() -> None:
    t = Traffic(at_stage("20"))
    for _ in range(3):
        t.answered(OLD, 0.5)
        t.answered(NEW, 0.5)
    assert (t.decision().action, t.decision().sessions, t.decision().needed) == ("wait", 3, 4)
    t.answered(NEW, 0.5)
    assert decide(t.rollout, t.evidence(), 4.0).reason == "bakes for 1 s more"
    assert decide(t.rollout, t.evidence(), 5.0).action == "advance"


def test_each_stage_has_its_own_minimum() -> None:
    needed = {s: decide(at_stage(s), Evidence(stage=s), 9.0).needed for s in ("shadow", "20", "100", "watch")}
    assert needed == {"shadow": 10, "20": 4, "100": 4, "watch": 6}


def test_without_champion_scores_a_percentage_stage_waits() -> None:
    t = Traffic(at_stage("20"))
    for _ in range(6):
        t.answered(NEW, 1.0)
    assert t.decision().action == "wait" and "champion" in t.decision().reason


def test_an_override_past_shadow_works_alike() -> None:
    t = Traffic(at_stage("20"))
    while t.rollout.stage != "done" and t.n < 5000:
        t.arrives(0.5, 0.6)
        t.step()
    assert [h.stage_to for h in t.rollout.history] == ["50", "80", "100", "watch", "done"]


def test_the_path_of_evidence_ends_at_what_decides() -> None:
    t = Traffic(at_stage("50"))
    while t.decision().action != "rollback":
        t.answered(OLD, 1.0)
        t.answered(NEW, 0.0)
    path = evidence_path(t.rollout, t.evidence())
    assert [at for at, _ in path] == sorted(at for at, _ in path) and path[-1][0] == t.now
    assert max(e for _, e in path) == pytest.approx(t.decision().e_value) and path[-1][1] >= 20 > path[-2][1]


def test_harm_seen_once_is_not_forgotten() -> None:
    t = Traffic(at_stage("50"))
    while t.decision().action != "rollback":
        t.answered(OLD, 1.0)
        t.answered(NEW, 0.0)
    for _ in range(40):
        t.answered(OLD, 0.0)
        t.answered(NEW, 1.0)
    assert t.decision().action == "rollback" and t.decision().e_value >= 20
    assert t.decision().lower is not None and t.decision().upper is not None


def test_evidence_that_leans_against_it_delays_the_advance() -> None:
    t = Traffic(at_stage("50"))
    for _ in range(5):
        t.answered(OLD, 0.9)
        t.answered(NEW, 0.3)
    assert t.evidence().challenger.sessions == 5 and 2 <= t.decision().e_value < 20
    assert t.decision().action == "wait" and "leans" in t.decision().reason
    for _ in range(6):
        t.answered(OLD, 0.3)
        t.answered(NEW, 0.7)
    assert t.decision().action == "advance"


def test_a_regression_after_100_percent_is_rolled_back() -> None:
    t = Traffic(at_stage("50"))
    for n in range(60):
        t.answered(OLD if n % 2 else NEW, 0.9)
    t.rollout = at_stage("watch")
    taken = 0
    while t.decision().action != "rollback":
        t.answered(NEW, 0.0)
        taken += 1
    assert taken <= 15


def test_a_failing_challenger_is_rolled_back_and_one_unlucky_call_is_not() -> None:
    t = Traffic(at_stage("20"))
    for _ in range(12):
        t.answered(OLD, 0.5)
    t.call(t.session_of(NEW), NEW, status=500)
    assert t.decision().action == "wait"
    while t.decision().action != "rollback":
        t.call(t.session_of(NEW), NEW, status=500)
    assert t.evidence().challenger.errors <= 6 and "calls failed" in t.decision().reason


def test_requests_that_were_wrong_themselves_count_against_nobody() -> None:
    t = Traffic(at_stage("50"))
    stage_of(t, 6, 0.5, 0.5)
    before = t.evidence()
    for status in (400, 413, 422):
        for _ in range(8):
            t.call(t.session_of(NEW), NEW, status=status, error="the prompt is longer than the context")
    assert t.evidence() == before and t.decision().action == "advance"
    for status in (401, 404, 408, 429):  # these are the arm's: another one may do better
        t.call(t.session_of(NEW), NEW, status=status, error="no such model")
    assert t.evidence().challenger.errors == 4


def test_a_hold_for_servers_that_failed_ends_when_they_are_well_again() -> None:
    t = Traffic(at_stage("50"))
    for _ in range(12):
        t.call(t.session_of(NEW), NEW, status=0)
        t.call(t.session_of(OLD), OLD, status=0)
    assert t.decision().action == "hold" and "servers" in t.decision().reason
    n = 0
    while t.decision().action == "hold" and n < 200:
        stage_of(t, 1, 0.5, 0.5)
        n += 1
    assert t.decision().action == "advance" and 5 < n < 30, n
    for _ in range(30):  # now it alone fails, and the champion stands in
        t.call(session := t.session_of(NEW), NEW, status=500)
        t.call(session, OLD)
    assert t.decision().action == "rollback"


def test_where_both_arms_fail_it_holds() -> None:
    t = Traffic(at_stage("50"))
    for _ in range(20):
        t.call(t.session_of(NEW), NEW, status=0)
        t.call(t.session_of(OLD), OLD, status=0)
    assert t.decision().action == "hold" and "servers" in t.decision().reason


def outage(t: Traffic, calls: int, challenger: float, champion: float) -> list[str]:
    """Calls that go where the split sends them and fail with these chances, the champion standing in; the decisions."""
    found = []
    for _ in range(calls):
        t.now += 10.0
        session = f"o{t.random.random()}"
        arm = choose(route_of(t.rollout), session)
        bad = t.random.random() < (challenger if arm == NEW else champion)
        t.call(session, arm, status=503 if bad else 200)
        if bad and arm == NEW:
            t.now += 0.1
            t.call(session, OLD, status=503 if t.random.random() < champion else 200)
        if arm == NEW:
            found.append(t.decision().action)
            if found[-1] == "rollback":
                break
    return found


@pytest.mark.parametrize("before", [0, 100, 400])
@pytest.mark.parametrize("stage", ["20", "80", "100", "watch"])
def test_an_outage_of_the_challenger_is_found_within_a_few_calls(stage: str, before: int) -> None:
    t = Traffic(at_stage("20"))
    for n in range(before):
        t.answered(OLD if n % 4 == 0 else NEW, 0.5)
    t.rollout = at_stage(stage)
    actions = outage(t, 200, 1.0, 0.0)
    assert actions[-1] == "rollback" and len(actions) <= 10 and "calls failed" in t.decision().reason


@pytest.mark.parametrize("stage", ["20", "50", "80", "100", "watch"])
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_an_outage_of_both_arms_holds_in_every_stage(stage: str, share: float) -> None:
    ends = []
    for seed in range(5):
        t = Traffic(at_stage("20"), seed)
        for n in range(100):  # the champion answered most of what went well
            t.answered(NEW if n % 5 == 0 else OLD, 0.5)
        t.rollout = at_stage(stage)
        actions = outage(t, 120, share, share)
        ends.append(actions[-1])
        assert share < 1.0 or "hold" in actions
        if actions[-1] == "hold":  # it is over, and the split is another one later
            t.rollout = at_stage("20")
            for n in range(40):
                t.answered(NEW if n % 5 == 0 else OLD, 0.5)
            assert t.decision().action != "rollback"
    assert ends.count("rollback") == 0


def test_an_outage_of_its_own_after_one_that_both_had_is_not_excused_by_it() -> None:
    t = Traffic(at_stage("50"))
    assert outage(t, 60, 1.0, 1.0)[-1] == "hold"
    for _ in range(150):
        t.answered(OLD, 0.5)
        t.answered(NEW, 0.5)
    assert t.decision().action != "hold"
    assert outage(t, 60, 1.0, 0.0)[-1] == "rollback"


@pytest.mark.parametrize(
    ("mine", "theirs", "calls", "action"),
    [
        (50.0, 1.0, 20, "hold"),
        (50.0, 1.0, 19, "advance"),  # too few samples
        (50.0, 60.0, 20, "advance"),  # the champion is slower still
        (29.0, 1.0, 20, "advance"),  # within the limit
    ],
)
def test_latency_holds(mine: float, theirs: float, calls: int, action: str) -> None:
    t = Traffic(at_stage("50"))
    for _ in range(calls):
        t.answered(NEW, 0.5, latency_s=mine)
        t.answered(OLD, 0.5, latency_s=theirs)
    assert t.decision().action == action


def test_latency_still_holds_when_no_champion_answers_any_more() -> None:
    t = Traffic(at_stage("100"))
    for _ in range(25):
        t.answered(NEW, 0.5, latency_s=50.0)
    assert t.decision().action == "hold"


def test_one_slow_call_in_twenty_is_not_the_p95() -> None:
    t = Traffic(at_stage("50"))
    for n in range(20):
        t.answered(NEW, 0.5, latency_s=500.0 if n == 7 else 1.0)
        t.answered(OLD, 0.5)
    assert t.evidence().challenger.p95_s == 1.0


def test_feedback_missing_in_one_arm_holds_until_it_comes() -> None:
    t = Traffic(at_stage("50"))
    silent = []
    for n in range(24):
        if n < 16:
            t.now += 1
            silent.append(t.call(t.session_of(NEW), NEW))
        else:
            t.answered(NEW, 0.5)
        t.answered(OLD, 0.5)
    found = t.evidence()
    assert (found.challenger.missing, found.challenger.settled, found.champion.missing) == (16, 24, 0)
    assert t.decision().action == "hold" and "16 of 24" in t.decision().reason
    t.rollout = move(t.rollout, t.decision(), by="roll_out", now=t.now)
    assert t.rollout.held
    for call in silent:
        t.score(call, 0.5)
    assert t.decision().action == "advance"


def test_feedback_that_is_only_late_does_not_hold() -> None:
    t = Traffic(at_stage("50"))
    for _ in range(5):
        t.answered(NEW, 0.5)
        t.answered(OLD, 0.5)
    for _ in range(30):  # younger than the newest score
        t.now += 1
        t.call(t.session_of(NEW), NEW)
    assert t.evidence().challenger.missing == 0 and t.decision().action == "advance"


def test_a_persons_hold_stays_and_rollback_still_works() -> None:
    t = Traffic(at_stage("50"))
    for _ in range(6):
        t.answered(OLD, 0.5)
        t.answered(NEW, 0.5)
    assert t.decision().action == "advance"
    t.rollout = move(t.rollout, Decision(action="hold", reason="ann: demo"), by="ann", now=t.now)
    assert t.decision().action == "wait" and "ann" in t.decision().reason
    for _ in range(40):
        t.answered(OLD, 1.0)
        t.answered(NEW, 0.0)
    assert t.decision().action == "rollback"


def stage_of(t: Traffic, pairs: int, old: float, new: float, **more: object) -> None:
    for _ in range(pairs):
        t.answered(OLD, old, **more)
        t.answered(NEW, new, **more)


def test_bands_hold_and_halve_before_there_is_proof() -> None:
    seen: list[str] = []
    t = Traffic(at_stage("50", spec=spec_with(min_stage_sessions=50)))
    while not seen or seen[-1] != "rollback":
        stage_of(t, 1, 0.9, 0.45)
        if not seen or seen[-1] != t.decision().action:
            seen.append(t.decision().action)
    assert seen == ["wait", "hold", "halve", "rollback"]
    assert "half of the share" not in t.decision().reason and "of the champion's quality" in t.decision().reason
    below = t.decision().below
    assert below is not None and 0.5 < below < 1.0


def test_a_band_is_left_when_the_evidence_turns() -> None:
    t = Traffic(at_stage("50"))
    while t.decision().action != "hold":
        stage_of(t, 1, 0.9, 0.5)
    t.rollout = move(t.rollout, t.decision(), by="watchdog", now=t.now)
    stage_of(t, 12, 0.5, 0.9)
    assert t.rollout.held and t.decision().action == "advance"
    assert not t.step().reason.startswith("held") and not t.rollout.held


def test_in_shadow_a_band_holds() -> None:
    t = Traffic(at_stage("shadow"))
    actions = set()
    while "rollback" not in actions:
        t.shadowed(0.9, 0.4)
        actions.add(t.decision().action)
    assert actions == {"wait", "hold", "rollback"}


def test_sessions_that_halving_sent_back_are_the_champions() -> None:
    t = Traffic(at_stage("50", shares=((1, 0), (2, 50), (3, 25))))
    early = t.session_of(NEW)
    while choose(route_of(at_stage("50", share=25)), early) != OLD:
        early = t.session_of(NEW)
    t.score(t.call(early, NEW, route_revision=2), 1.0)
    t.score(t.call(early, OLD, route_revision=2), 0.0)  # the champion stood in: no random sample
    assert t.evidence().champion.sessions == 0
    t.score(t.call(early, OLD, route_revision=3), 1.0)
    t.score(t.call(early, OLD, route_revision=4), 1.0)
    assert t.evidence().champion.sessions == 1 and t.evidence().champion.mean == 1.0


@pytest.mark.parametrize(("stall", "action"), [("hold", "hold"), ("extend", "wait"), ("rollback", "rollback")])
def test_a_stage_that_lasts_too_long_has_stalled(stall: str, action: str) -> None:
    spec = spec_with(stall=stall, stall_hours=1.0)
    t = Traffic(at_stage("50", spec=spec))
    t.answered(NEW, 1.0)
    t.now = 3600.0
    assert t.decision().action == "wait" and "stalled" not in t.decision().reason
    t.now = 3601.0
    found = t.decision()
    assert found.action == action and found.reason.startswith("stalled: 1 hours in this stage, 1 of 4 scored")
    by_hand = move(t.rollout, Decision(action="hold", reason="x"), by="ann", now=1.0)
    assert decide(by_hand, t.evidence(), t.now).reason.startswith("held by ann")


@pytest.mark.parametrize("stall", ["hold", "rollback"])
def test_the_time_that_a_person_held_it_is_no_stall(stall: str) -> None:
    t = Traffic(at_stage("50", spec=spec_with(stall=stall, stall_hours=1.0)))
    t.rollout = move(t.rollout, Decision(action="hold", reason="holidays"), by="ann", now=10.0)
    t.rollout = resumed(t.rollout, by="ann", reason="back", now=50 * 3600.0)
    t.now = 50.5 * 3600.0
    assert t.decision().action == "wait" and "stalled" not in t.decision().reason
    t.now = 51.1 * 3600.0
    assert t.decision().action == stall and "1 hours since it was resumed" in t.decision().reason
    t.rollout = move(t.rollout, Decision(action="advance", reason="x"), by="ann", now=60 * 3600.0)
    t.now = 61.1 * 3600.0
    assert "1 hours in this stage" in t.decision().reason


def test_a_persons_hold_from_before_it_had_a_field_of_its_own_stays() -> None:
    t = Traffic(at_stage("50"))
    stage_of(t, 6, 0.5, 0.5)

    def as_stored_then(rollout: Rollout) -> Rollout:
        return msgspec.structs.replace(rollout, by_hand=False)

    held = move(t.rollout, Decision(action="hold", reason="demo"), by="ann", now=t.now)
    assert decide(as_stored_then(held), t.evidence(), t.now).reason.startswith("held by ann")
    later = move(held, Decision(action="halve", reason="band"), by="watchdog", now=t.now)
    assert decide(as_stored_then(later), t.evidence(), t.now).action == "wait"
    again = move(
        resumed(held, by="ann", reason="", now=t.now), Decision(action="hold", reason="p95"), by="watchdog", now=t.now
    )
    assert again.held and decide(again, t.evidence(), t.now).action == "advance"


def test_a_stage_that_has_all_it_needs_never_stalls() -> None:
    t = Traffic(at_stage("50", spec=spec_with(stall="rollback", stall_hours=1.0)))
    stage_of(t, 6, 0.9, 0.9)
    t.now = 1e6
    assert t.decision().action == "advance"


def test_a_margin_must_be_ruled_out_where_the_spec_says_so() -> None:
    t = Traffic(at_stage("80", spec=spec_with(non_inferiority=0.1)))
    stage_of(t, 10, 0.8, 0.8)
    assert t.decision().action == "wait" and "0.1 must be ruled out" in t.decision().reason
    earlier = Traffic(at_stage("50", spec=spec_with(non_inferiority=0.1)))
    stage_of(earlier, 10, 0.8, 0.8)
    assert earlier.decision().action == "advance", "only where no champion answers afterwards"
    while t.decision().action == "wait":
        stage_of(t, 10, 0.8, 0.8)
    assert t.decision().action == "advance" and (t.decision().lower or -1) >= -0.1 and t.n < 2000


def test_the_end_tells_the_bound_that_was_reached() -> None:
    t = Traffic(at_stage("80"))
    stage_of(t, 30, 0.8, 0.8)
    t.rollout = at_stage("watch")
    for _ in range(6):
        t.answered(NEW, 0.8)
    assert t.decision().action == "advance" and "worse by 0." in t.decision().reason


def test_the_first_token_and_the_price_hold() -> None:
    spec = spec_with(max_p95_first_token_s=1.0, max_usd_per_request=0.001)
    t = Traffic(at_stage("50", spec=spec))
    for _ in range(25):
        t.answered(NEW, 0.5, first_token_s=2.0)
        t.answered(OLD, 0.5, first_token_s=0.5)
    assert t.decision().action == "hold" and "first token 2.00 s is over 1.00 s, the champion's" in t.decision().reason
    t = Traffic(at_stage("50", spec=spec))
    stage_of(t, 19, 0.5, 0.5, cost_usd=0.002)
    assert t.decision().action == "advance"
    stage_of(t, 1, 0.5, 0.5, cost_usd=0.002)
    assert t.decision().action == "hold" and "a request costs 0.002000 USD" in t.decision().reason


def test_a_floor_of_quality_rolls_back_whatever_the_champion_does() -> None:
    t = Traffic(at_stage("50", spec=spec_with(min_quality=0.7)))
    while t.decision().action != "rollback" and t.n < 2000:
        stage_of(t, 1, 0.4, 0.4)
    assert t.decision().action == "rollback" and "the floor is 0.7" in t.decision().reason
    good = Traffic(at_stage("50", spec=spec_with(min_quality=0.7)))
    stage_of(good, 40, 0.75, 0.75)
    assert good.decision().action == "advance"


def test_a_cloud_that_may_not_be_told_holds() -> None:
    cloud = Arm("big", "cloud", "big", "cloud")
    t = Traffic(at_stage("50", challenger=cloud))
    stage = [t.session_of(cloud) for _ in range(8)]
    for n, session in enumerate(stage):
        t.score(t.call(session, cloud), 0.5)
        t.answered(OLD, 0.5, privacy="open" if n else "local_only")  # its own session: not kept from anybody
    assert t.decision().action == "advance"
    t.call(stage[0], OLD, privacy="local_only")
    assert t.decision().action == "hold" and "1 of its requests were private" in t.decision().reason


def test_failures_inconclusive_answers_and_errors_are_counted_apart() -> None:
    t = Traffic(at_stage("50"))
    for score in (0.9, 0.2, 0.6):
        t.answered(NEW, score)
    t.score(t.call(t.session_of(NEW), NEW), None)
    t.call(t.session_of(NEW), NEW, status=500)
    mine = t.evidence().challenger
    assert (mine.sessions, mine.failures, mine.inconclusive, mine.errors, mine.calls) == (3, 1, 1, 1, 5)


def test_an_ended_rollout_and_evidence_of_another_stage_decide_nothing() -> None:
    for stage in ("done", "rolled_back"):
        assert decide(at_stage(stage), Evidence(stage=stage), 9.0).action == "wait"
    assert "gather it again" in decide(at_stage("50"), Evidence(stage="20"), 9.0).reason


def test_a_decision_survives_json() -> None:
    worst = decide(at_stage("50"), Evidence(stage="50", increments=((0.0, 1.0),) * 3000), 9.0)
    assert msgspec.json.decode(msgspec.json.encode(worst), type=Decision) == worst


@given(st.integers(1, 25), st.integers(1, 25), st.data())
def test_fisher_agrees_with_scipy(n: int, m: int, data: st.DataObject) -> None:
    a, b = data.draw(st.integers(0, n)), data.draw(st.integers(0, m))
    table = [[a, n - a], [b, m - b]]
    assert different(a, n, b, m) == pytest.approx(fisher_exact(table).pvalue, rel=1e-6)
    assert more_often(a, n, b, m) == pytest.approx(fisher_exact(table, "greater").pvalue, rel=1e-6)


# -- whole rollouts ------------------------------------------------------------------------------------------------


def simulate(seed: int, old: float, new: float, spec: RolloutSpec = SPEC) -> Traffic:
    """A rollout with a decision after every observation; scores are 0 or 1 with these means."""
    t = Traffic(at_stage("shadow", spec=spec), seed)
    for _ in range(600):
        t.arrives(float(t.random.random() < old), float(t.random.random() < new))
        t.step()
        if t.rollout.stage in ("done", "rolled_back"):
            break
    return t


def test_an_equal_challenger_is_rarely_rolled_back_over_a_whole_rollout() -> None:
    runs, alpha = 200, SPEC.alpha
    ends = [simulate(seed, 0.5, 0.5).rollout.stage for seed in range(runs)]
    assert ends.count("rolled_back") / runs <= alpha + 3 * sqrt(alpha * (1 - alpha) / runs)
    assert ends.count("done") / runs >= 0.8


def test_a_much_worse_challenger_is_rolled_back_within_fifteen_sessions() -> None:
    used = []
    for seed in range(60):
        t = Traffic(at_stage("20"), seed)
        while t.rollout.stage == "20" and t.n < 2000:
            t.arrives(min(1.0, max(0.0, t.random.gauss(0.6, 0.25))), 0.0)
            decision = t.decision()
            # As the watchdog does it: it never advances, so the stage stays.
            t.rollout = (
                t.rollout if decision.action == "advance" else move(t.rollout, decision, by="watchdog", now=t.now)
            )
        assert t.rollout.stage == "rolled_back"
        used.append(len({i.session for i in t.seen if i.arm == NEW.name}))
    used.sort()
    assert used[30] <= 12 and used[-1] <= 20


def test_a_challenger_worse_by_half_seldom_gets_through() -> None:
    # With the minimums of infra/fleet.yaml. `SPEC`, which keeps the other tests short, asks for half as many sessions,
    # too few to see this: there about one in ten gets through.
    spec = RolloutSpec(min_shadow_pairs=20, min_stage_sessions=8, min_watch_sessions=12)
    ends = [simulate(1000 + seed, 0.7, 0.2, spec).rollout.stage for seed in range(40)]
    assert ends.count("done") <= 2 and ends.count("rolled_back") >= 38


# -- cascades ------------------------------------------------------------------------------------------------------


def test_a_draft_that_a_cascade_refused_counts_as_its_arms() -> None:
    t = Traffic(at_stage("50"))
    for _ in range(3):
        t.answered(OLD, 1.0)
    t.answered(NEW, 1.0)
    for _ in range(2):
        t.drafted(NEW, 0.25)
    found = t.evidence()
    assert (found.challenger.sessions, found.challenger.mean) == (3, 0.5)
    assert (found.champion.sessions, found.champion.mean) == (3, 1.0), "the stronger model's answers are neither's"
    assert found.challenger.errors == 0


def test_a_shadow_is_compared_with_the_draft_and_not_with_what_took_its_place() -> None:
    t = Traffic(at_stage("shadow"))
    got = t.drafted(OLD, 0.25, session="s")
    t.score(t.call("s", NEW, role="shadow", shadow_of=got.id), 0.75, source="grader")
    assert t.evidence().compared == ((0.75, 0.25),)


def test_equal_arms_stay_equal_behind_a_cascade() -> None:
    """Without drafts the champion's failures would be missing in shadow, and the challenger be rolled back."""
    rolled_back = 0
    for seed in range(20):
        t = Traffic(at_stage("shadow", spec=spec_with(min_shadow_pairs=1000)), seed)
        for n in range(150):
            old, new = (float(t.random.random() < 0.6) for _ in range(2))
            if old:
                t.shadowed(old, new)
            else:
                got = t.drafted(OLD, 0.0, session=f"d{n}")
                t.score(t.call(got.session, NEW, role="shadow", shadow_of=got.id), new, source="grader")
        rolled_back += t.decision().action == "rollback"
        assert len(t.evidence().compared) == 150
    assert rolled_back <= 3
