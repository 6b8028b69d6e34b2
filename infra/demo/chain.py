"""A chain gets better step by step: one agent after the other answers with its adapter; all is measured each time."""

from __future__ import annotations

from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from infra.demo.people import People
from infra.demo.screen import Bar
from pawl import bootstrap
from pawl.errors import PawlError
from pawl.evaluation.chains import ChainReport, change
from pawl.improvement.chain_measuring import graded_by, items_for, measure
from pawl.improvement.workplace import Workplace
from pawl.rollout.route import Arm
from pawl.settings import Settings

ITEMS = 120


def chain_by_steps(settings: Settings, adapters: dict[str, str], console: Console) -> list[dict[str, Any]]:
    """Measure the fleet's first chain with its base model everywhere, then with one adapter more at a time.

    On operations of services that no training saw, and on those of Prefect's API, whose running server is sent the
    right test cases. Empty where the fleet has no chain, or one of its agents has not learnt.
    """
    fleet = bootstrap.fleet(settings)
    chain = fleet.chains[0] if fleet.chains else None
    learners = [name for step in (chain.steps if chain else ()) for name in step.agents]
    if chain is None or not set(learners) <= adapters.keys():
        return []
    people = People(settings, Workplace(settings, learners[0]))
    settings = settings.model_copy(update={"api_key": people.secret("client")})
    api = settings.prefect_api_url
    sets = {
        "AWS": (items_for(fleet, chain)[:ITEMS], ""),
        "Prefect": (items_for(fleet, chain, f"{api}/openapi.json"), api),
    }
    alpha = fleet.agent(graded_by(chain)).evaluation.alpha
    for name in learners:
        _answers_with(settings, name, None)
    rows: list[dict[str, Any]] = []
    first: dict[str, ChainReport] = {}
    for trained in ("", *learners):
        if trained:
            _answers_with(settings, trained, adapters[trained])
        for title, (items, against) in sets.items():
            with Bar(console, f"{chain.name}, {trained or 'base model'}, {title}", len(items)) as tell:
                found = measure(settings, chain, items, against=against, on_progress=lambda n, _: tell(n, ""))
            moved = change(first.setdefault(title, found), found, alpha)
            rows.append({"set": title, "step": trained, "change": msgspec.to_builtins(moved), **_figures(found)})
    return rows


def chain_table(rows: list[dict[str, Any]]) -> Table:
    """For people."""
    made = Table(title="the chain end to end, one adapter more at a time")
    for name in ("operations", "adapter added", "tests", "score", "change", "valid tests", "valid and run"):
        made.add_column(name, justify="left" if name in ("operations", "adapter added") else "right")
    for r in rows:
        made.add_row(
            f"{r['items']} of {r['set']}", r["step"] or "none", str(r["parts"]), interval(r["score"]),
            interval(r["change"]), interval(r["valid"]), interval(r["as_expected"]),
        )  # fmt: skip
    return made


def interval(found: Any) -> str:
    """A mean with its bounds; a dash where there is none."""
    return f"{found['mean']:.3f} [{found['lower']:.3f}, {found['upper']:.3f}]" if found else "-"


def _figures(found: ChainReport) -> dict[str, Any]:
    return dict(msgspec.to_builtins(msgspec.structs.replace(found, answers=())))


def _answers_with(settings: Settings, agent: str, adapter: str | None) -> None:
    """Route all of an agent's traffic to an adapter, or to the base model."""
    fleet, control = bootstrap.fleet(settings), bootstrap.control(settings)
    route = bootstrap.current_route(fleet, control, fleet.agent(agent))
    if route.rollout is not None:
        raise PawlError(f"a rollout of {agent} is open; end it before the chain is measured")
    model = adapter or fleet.base_model.served_name
    control.put_route(msgspec.structs.replace(route, champion=Arm(model, fleet.local_upstream, model, "local")))
