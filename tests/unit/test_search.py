"""The search's pure half: the space, the verdict, the proposal and its difference to fleet.yaml."""

from __future__ import annotations

import math
import random
import re
from pathlib import Path

import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from pawl.fleet.training import EwcSpec, MergeSpec, PretrainSpec, SearchSpec, TrainingSpec
from pawl.training.proposal_yaml import block, diff, proposal
from pawl.training.search import (
    ExampleLoss,
    Trial,
    best_of,
    corrected,
    difference,
    inside,
    left_out,
    mean_loss,
    problems,
    trial_spec,
    values_of,
    with_values,
)
from pawl.training.search_report import SearchReport, conclusion, markdown, report_of, table

PRESENT = TrainingSpec(rank=16, alpha=32, learning_rate=1e-3)
OTHER = {"rank": 8, "learning_rate": 0.00123456, "method": "rslora", "epochs": 1.23456}


def losses(count: int, mean: float, *, seed: int = 0, sources: int = 0, noise: float = 0.3) -> list[ExampleLoss]:
    rng = random.Random(seed)
    found = []
    for i in range(count):
        tokens = rng.randint(5, 20)
        found.append(ExampleLoss(f"e{i}", f"s{i % (sources or count)}", tokens * (mean + rng.gauss(0, noise)), tokens))
    return found


def trial(number: int, loss: float | None, spec: TrainingSpec = PRESENT, present: bool = False) -> Trial:
    state = "complete" if loss is not None else "pruned"
    return Trial(number=number, state=state, spec=spec, loss=loss, present=present, points=((25, 2.0),), seconds=30)


def report(after: list[ExampleLoss], before: list[ExampleLoss]) -> SearchReport:
    tried = with_values(PRESENT, OTHER, continues=False)
    trials = [trial(0, mean_loss(before).mean, present=True), trial(1, None), trial(2, mean_loss(after).mean, tried)]
    present = PRESENT.model_copy(update={"merge": MergeSpec()})
    return report_of("a", "a-123", "f" * 64, "1.0", present, trials, before, after)


def test_values_make_a_spec_that_keeps_the_rest() -> None:
    made = with_values(PRESENT.model_copy(update={"batch_size": 4}), OTHER, continues=False)
    assert (made.rank, made.alpha, made.method, made.batch_size) == (8, 16, "rslora", 4)
    assert (made.learning_rate, made.epochs, made.start) == (0.00123, 1.23, "champion")


def test_what_cannot_continue_an_adapter_begins_with_the_base() -> None:
    assert with_values(PRESENT, OTHER, continues=True).start == "base"
    same = {**OTHER, "rank": 16, "method": "lora"}
    assert with_values(PRESENT, same, continues=True).start == "champion"
    grown = with_values(PRESENT, {**OTHER, "method": "adalora", "rank": 32}, continues=False)
    assert grown.start == "base" and grown.adalora.initial_rank == 48
    with pytest.raises(ValidationError, match="merged: true"):
        with_values(PRESENT, {**OTHER, "method": "dora"}, continues=False)
    whole = with_values(PRESENT.model_copy(update={"merged": True}), {**OTHER, "method": "full"}, continues=False)
    assert (whole.method, whole.start) == ("full", "base")


def test_trials_train_the_examples_alone() -> None:
    whole = PRESENT.model_copy(update={"pretrain": PretrainSpec(files=("*.md",)), "ewc": EwcSpec()})
    assert trial_spec(whole) == PRESENT
    assert not trial_spec(TrainingSpec(method="dora", merged=True)).merged
    assert left_out(whole) == ("pretrain", "ewc") and left_out(PRESENT) == ()


@pytest.mark.parametrize(
    ("present", "space", "continues", "said"),
    [
        (PRESENT, SearchSpec(), True, None),
        (PRESENT, SearchSpec(methods=("lora", "adalora")), True, None),
        (PRESENT, SearchSpec(methods=("lora", "dora")), False, "method dora with rank 16: vLLM cannot load dora"),
        (PRESENT, SearchSpec(learning_rates=(1e-2, 1e-3)), False, "learning_rates: .* must rise"),
        (PRESENT, SearchSpec(epochs=(0.0, 1.0)), False, "epochs: .* above 0"),
        (PRESENT, SearchSpec(ranks=()), False, "ranks is empty"),
        (
            PRESENT,
            SearchSpec(ranks=(16,), methods=("lora",), learning_rates=(1e-3, 1e-3), epochs=(1, 1)),
            False,
            "nothing to try",
        ),
        (PRESENT.model_copy(update={"ewc": EwcSpec()}), SearchSpec(), True, r"set search.ranks: \[16\]"),
        (PRESENT.model_copy(update={"ewc": EwcSpec()}), SearchSpec(), False, None),
        (
            PRESENT.model_copy(update={"ewc": EwcSpec()}),
            SearchSpec(ranks=(16,), methods=("lora",)),
            True,
            None,
        ),
    ],
)
def test_a_space_that_would_fail_is_told_before(
    present: TrainingSpec, space: SearchSpec, continues: bool, said: str | None
) -> None:
    found = problems(present, space, continues=continues)
    if said is None:
        assert found == []
    else:
        assert any(re.search(said, p) for p in found), found


def test_the_present_settings_may_lie_outside_the_space() -> None:
    assert inside(SearchSpec(), values_of(PRESENT))
    assert not inside(SearchSpec(), values_of(TrainingSpec(rank=64)))
    assert not inside(SearchSpec(), values_of(TrainingSpec(learning_rate=1e-5)))


def test_the_loss_is_a_mean_over_tokens_not_over_examples() -> None:
    rows = [ExampleLoss("a", "s", 1.0, 1), ExampleLoss("b", "t", 3.0, 9)]
    assert mean_loss(rows).mean == pytest.approx(0.4)
    assert mean_loss([rows[0]]).lower == -math.inf  # one source bounds nothing
    assert math.isnan(mean_loss([]).mean)


def test_the_difference_is_paired_and_finds_what_unpaired_bounds_would_not() -> None:
    before = losses(80, 1.0, noise=0.5)
    after = [ExampleLoss(x.id, x.source, x.nats - 0.02 * x.tokens, x.tokens) for x in before]
    change = difference(before, after)
    assert change.mean == pytest.approx(-0.02) and change.upper < 0
    assert mean_loss(after).upper > mean_loss(before).mean  # each by itself overlaps
    assert difference(before, [*after[:40], ExampleLoss("new", "s", 9.0, 1)]).mean == pytest.approx(-0.02)


def test_bounds_hold_as_often_as_they_say() -> None:
    """The interval of a ratio over sources covers the truth in about 95 % of draws."""
    covered = sum(
        (x := mean_loss(losses(120, 1.0, seed=seed, sources=40))).lower <= 1.0 <= x.upper for seed in range(120)
    )
    assert 107 <= covered <= 120  # 95 % of 120 is 114, with three standard deviations


def test_the_more_was_tried_the_more_is_asked() -> None:
    trials = [trial(0, 1.0, present=True), *(trial(i, 1.0 + i) for i in range(1, 11)), trial(11, None)]
    assert corrected(trials) == pytest.approx(0.005)
    assert corrected(trials[:1]) == 0.05
    before = losses(60, 1.0)
    after = losses(60, 0.93, seed=5)
    assert difference(before, after, 0.005).upper > difference(before, after, 0.05).upper


def test_the_earlier_of_equals_is_the_best() -> None:
    assert best_of([trial(0, 1.0, present=True), trial(1, None), trial(2, 1.0)]).number == 0  # type: ignore[union-attr]
    assert best_of([trial(1, None)]) is None


def test_verdicts() -> None:
    before = losses(60, 1.0)
    clear = report(losses(60, 0.6, seed=1), before)
    assert clear.verdict == "better" and "better beyond noise" in conclusion(clear)
    hair = [ExampleLoss(x.id, x.source, x.nats + (1.0 if i % 2 else -1.02), x.tokens) for i, x in enumerate(before)]
    slight = report(hair, before)
    assert slight.change.mean < 0
    assert slight.verdict == "within_noise" and "WARNING" in conclusion(slight)
    same = report(losses(60, 1.5, seed=1), before)
    assert same.verdict == "present_is_best" and "keep them" in conclusion(same)


def test_the_page_names_every_trial_and_its_limits() -> None:
    found = report(losses(60, 0.6, seed=1), losses(60, 1.0))
    page = markdown(found, "--- a\n+++ b\n")
    assert len(table(found)) == 4 and "| 1 | lora | 16 | 0.001 | 1 | (2.0000) | pruned | 0.5 |" in page
    assert "complete, best" in page and "complete, present" in page and "without merge" in page and "```diff" in page
    assert "97.50 %" not in page and "95.00 %" in page  # one complete trial beside the present one


def test_the_proposal_is_yaml_that_the_spec_takes(root: Path) -> None:
    text = proposal(report(losses(60, 0.6, seed=1), losses(60, 1.0)))
    assert text.startswith("# Proposed training settings of a. Nothing reads this file")
    tree = YAML(typ="safe").load(text)
    taken = TrainingSpec.model_validate(tree["training"])
    assert (taken.rank, taken.alpha, taken.method, taken.learning_rate, taken.epochs) == (
        8,
        16,
        "rslora",
        0.00123,
        1.23,
    )
    assert tree["verdict"] == "better" and tree["evidence"]["dataset"] == "a-123"
    assert tree["evidence"]["nats_a_token"]["difference"]["upper"] < 0
    assert [t["state"] for t in tree["evidence"]["trials"]] == ["complete", "pruned", "complete"]
    assert str(root) not in text


def test_the_difference_touches_what_changes_and_nothing_else(root: Path) -> None:
    text = (root / "infra" / "fleet.yaml").read_text()
    present = TrainingSpec(rank=16, alpha=32, learning_rate=1e-3, batch_size=8)
    assert diff(text, "functional-negative", present) == ""
    found = diff(text, "functional-negative", present.model_copy(update={"epochs": 2.5, "rank": 8, "alpha": 16}))
    changed = [line for line in found.splitlines() if line[0] in "+-" and line[:3] not in ("+++", "---")]
    assert [line[0] for line in changed] == ["-", "+"] and "rank: 8, alpha: 16" in changed[1]
    assert "learning_rate: 1.0e-3" in changed[1] and "epochs: 2.5" in changed[1]
    with pytest.raises(KeyError):
        diff(text, "nobody", present)


def test_an_agent_without_a_block_gets_one() -> None:
    text = "agents:\n  - name: a   # ours\n    task: generic\n  - name: b\n    task: generic\n"
    found = diff(text, "a", TrainingSpec(rank=8, alpha=16))
    assert "+    training:\n+      rank: 8\n+      alpha: 16\n" in found
    assert not [line for line in found.splitlines() if line.startswith("-") and not line.startswith("---")]
    assert diff(text, "a", TrainingSpec()) == ""
    assert block(TrainingSpec(batch_size=4)).keys() == {
        "method",
        "rank",
        "alpha",
        "learning_rate",
        "epochs",
        "batch_size",
    }
