"""Any two models of an agent on the same frozen items, by the same rules and on the same page as a promotion."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from pawl.curation import dataset as datasets
from pawl.errors import LakeError, NotAllowed, PawlError
from pawl.evaluation.hybrid import Mode, modes
from pawl.evaluation.metrics import CHARS_A_TOKEN, FREE, Prices, share_of
from pawl.evaluation.report import Comparison, Interval, ItemResult
from pawl.evaluation.rows import columns, figures
from pawl.improvement.asking import Respondent, answers, frozen_items, items_beyond, respondent, side_by_side
from pawl.improvement.held_out import split_of
from pawl.improvement.referring import with_token_accuracy
from pawl.improvement.steps import Lineage
from pawl.improvement.workplace import Candidate, Workplace
from pawl.monitoring.comparison_plots import save
from pawl.monitoring.loop_data import LoopReport
from pawl.monitoring.loop_report import write
from pawl.qe.item import Item
from pawl.qe.tasks import task_of


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """What came out, and where its page is."""

    comparison: Comparison
    of_baseline: Interval | None  # the second's mean score over the first's ("95 % of cloud" where that is one)
    modes: tuple[Mode, ...]  # local only, cloud only and hybrid, where one side is a cloud and the other is not
    page: Path
    same: bool = False  # both names are of one model: its answers are kept, so that nothing can differ
    run: str = ""  # a link to its run on MLflow
    unlogged: str = ""  # why there is none, where one was wanted


def compare_models(
    place: Workplace,
    first: str,
    second: str,
    most_usd: float,
    on_progress: Callable[[str, int, int], None],
    *,
    logged: bool = True,
) -> Compared:
    """Ask both, compare, write the page; `logged`: record it on MLflow too, or tell why that was not possible.

    Raises:
        ConfigError, NotAllowed: as `respondent`; NotAllowed too where clouds could cost more than `most_usd`.
    """
    from pawl.training.base_model_transformers import base_sha256, prepare_base

    agent, task = place.agent, task_of(place.agent.task)
    held = split_of(agent).test
    items = frozen_items(agent, task, held)
    more = items_beyond(agent, task, held, items)
    base = base_sha256(prepare_base(place.fleet.base_model.source, place.settings.models_dir))
    who = [respondent(place, name, base) for name in (first, second)]
    could_cost = sum(at_most([*items, *more], agent.max_tokens, r.prices or FREE) for r in who if r.cloud)
    if could_cost > most_usd:
        raise NotAllowed(
            f"{len(items) + len(more)} items could cost {could_cost:.2f} USD at the cloud, {most_usd:.2f} are allowed: "
            f"allow more with --usd {could_cost:.2f}, or lower evaluation.items"
        )
    both, alpha = (who[0], who[1]), agent.evaluation.alpha
    asked = [answers(place, agent, task, [*items, *more], r, _telling(r, on_progress)) for r in both]
    before, after = (results[: len(items)] for results in asked)
    found = side_by_side(
        agent,
        task,
        items,
        both,
        (before, after),
        beyond=(asked[0][len(items) :], asked[1][len(items) :]),
        training_sources=trained_on(place, [r.digest for r in both]),
        available=len(held),
    )
    found = with_token_accuracy(place, agent, task, items, both, found, on_progress)
    stem = f"{agent.name}-{first}-against-{second}".replace("/", "-")
    page = write(
        LoopReport(title="Two models compared", agent=agent.name, generated_at=time.time(), comparison=found),
        place.settings.reports_dir / f"{stem}.html",
    )
    share = share_of(after, before, alpha)
    run, unlogged = _logged(place, first, second, found, page) if logged else ("", "")
    costs = _modes(both, before, after, alpha)
    same = (both[0].digest, both[0].model) == (both[1].digest, both[1].model)
    return Compared(comparison=found, of_baseline=share, modes=costs, page=page, same=same, run=run, unlogged=unlogged)


def trained_on(place: Workplace, digests: Sequence[str]) -> set[str]:
    """Sources that models with these weights learnt from, as far as this machine made them and still has the datasets.

    What is held out now was not always: the fleet's split, or the sources, may have changed since.
    """
    found: set[str] = set()
    for path in (place.settings.home / "candidates").glob(f"{place.agent_name}-*/lineage.json"):
        try:
            lineage = Candidate(path.parent).read("lineage", Lineage)
            if lineage.adapter_sha256 and any(d.endswith(lineage.adapter_sha256) for d in digests):
                found |= set(datasets.load(place.settings.datasets_dir / lineage.dataset).sources)
        except LakeError:
            continue
    return found


def _logged(place: Workplace, first: str, second: str, found: Comparison, page: Path) -> tuple[str, str]:
    """The run's link, or what kept it from being made: the comparison itself is done, and its page is written."""
    digest = found.digest()
    with tempfile.TemporaryDirectory() as folder:
        try:
            run = place.registry.log_run(
                found.agent,
                f"compare {first} {second}",
                key=f"comparison-{digest}",
                params={"first": found.champion.name, "second": found.challenger.name, "verdict": found.verdict,
                        "margin": str(found.margin), "alpha": str(found.alpha), "report_digest": digest},
                metrics=figures(found),
                files={"report.html": page, **save(found, Path(folder))},
                tables={f"evaluation-{digest[:12]}.json": columns(found)},
            )  # fmt: skip
        except PawlError as e:
            return "", f"{e}; the page is written, and the same command records it later without asking anything again"
    return run, ""


def at_most(items: Sequence[Item], max_tokens: int, prices: Prices) -> float:
    """US dollars that answers to these items can cost (pure)."""
    prompts = sum(len(str(m.get("content", ""))) for i in items for m in i.messages) / CHARS_A_TOKEN
    return prices.usd(prompts, len(items) * max_tokens)


def _modes(
    who: Sequence[Respondent], before: Sequence[ItemResult], after: Sequence[ItemResult], alpha: float
) -> tuple[Mode, ...]:
    if who[0].cloud == who[1].cloud:
        return ()
    local, cloud = (1, 0) if who[0].cloud else (0, 1)
    sides = (before, after)
    return modes(
        sides[local],
        sides[cloud],
        (who[local].prices or FREE, who[cloud].prices or FREE),
        {"hybrid: the cloud where the local answer has not the promised form": (lambda i: not i.conforms, True)},
        alpha,
    )


def _telling(who: Respondent, on_progress: Callable[[str, int, int], None]) -> Callable[[int, int], None]:
    return lambda done, total: on_progress(who.name, done, total)
