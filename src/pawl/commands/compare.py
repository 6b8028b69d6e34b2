"""`pawl compare`: any two models on any agent."""

from __future__ import annotations

from typing import Annotated

import typer

from pawl.settings import Settings


def compare(
    first: Annotated[str, typer.Argument(help="what the second is measured against")],
    second: Annotated[
        str, typer.Argument(help="base, champion, challenger, a version's number, an upstream's name ...")
    ],
    agent: Annotated[str, typer.Option("--agent", help="the agent's name in fleet.yaml; default: the first")] = "",
    usd: Annotated[
        float, typer.Option(help="most that clouds may cost; more is refused before anything is asked")
    ] = 1.0,
    mlflow: Annotated[
        bool, typer.Option("--mlflow/--no-mlflow", help="record it on MLflow too: page, plots, a row for each item")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object instead of text")] = False,
) -> None:
    """Ask two models the same held-out items, check the answers by the agent's oracle, and say which is better.

    Models: `base`, `champion`, `challenger`, `previous`, the number of a version in the registry, a candidate's id, or
    the name of an upstream in fleet.yaml (a cloud too, where the agent's privacy is open). vLLM must be running.
    Answers are kept: an interrupted comparison continues. The page, its plots and both answers to each item go to
    MLflow, into the agent's experiment; where it is not up, that is said and the page alone is written.

    Example: pawl compare base champion --agent functional-negative
    """
    import msgspec
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from pawl import bootstrap
    from pawl.improvement.comparing import compare_models
    from pawl.improvement.workplace import Workplace

    settings = Settings()
    fleet = bootstrap.fleet(settings)
    name = agent or fleet.agents[0].name
    if name not in [a.name for a in fleet.agents]:
        raise typer.BadParameter(f"no agent is called {name!r}: {', '.join(a.name for a in fleet.agents)}")
    place = Workplace(settings, name)
    bars = Progress(TextColumn("{task.description}"), BarColumn(20), TimeElapsedColumn(), console=Console(stderr=True))
    running: dict[str, int] = {}

    def tell(who: str, done: int, total: int) -> None:
        if who not in running:
            running[who] = int(bars.add_task(who, total=total))
        bars.update(running[who], completed=done)  # type: ignore[arg-type]

    with bars:
        found = compare_models(place, first, second, usd, tell, logged=mlflow)
    if found.unlogged:
        typer.echo(f"not recorded: {found.unlogged}", err=True)
    if as_json:
        typer.echo(msgspec.json.encode(found, enc_hook=str).decode())
        return
    c = found.comparison
    if found.same:
        typer.echo(f"{first} and {second} are the same model, {c.champion.name}: nothing can differ.")
    else:
        typer.echo(_sentence(c.verdict, c.champion.name, c.challenger.name, c.pairs, c.sources))
    if c.contaminated:
        typer.echo(f"  void: one of them was trained on {', '.join(c.contaminated)}, which are asked here")
    for side in (c.champion, c.challenger):
        s = side.score
        typer.echo(f"  {side.name}: {s.mean:.3f} [{s.lower:.3f}, {s.upper:.3f}], {100 * side.conforms:.0f} % in form")
        t = side.metrics.token_accuracy if side.metrics else None
        if t is not None and t.share is not None:
            typer.echo(
                f"    {100 * t.share.mean:.1f} % [{100 * t.share.lower:.1f}, {100 * t.share.upper:.1f}] of the tokens "
                f"of {t.items} right answers are its first choice"
            )
        if t is not None and t.problem:
            typer.echo(f"    token accuracy: {t.problem}")
    d = c.difference
    typer.echo(
        f"  change {d.mean:+.3f} [{d.lower:+.3f}, {d.upper:+.3f}], p(better) {c.p_better:.4f}, p(worse) {c.p_worse:.4f}"
    )
    if found.of_baseline is not None:
        r = found.of_baseline
        typer.echo(f"  {100 * r.mean:.1f} % [{100 * r.lower:.1f}, {100 * r.upper:.1f}] of {c.champion.name}")
    for m in found.modes:
        typer.echo(
            f"  {m.name}: quality {m.quality.mean:.3f} [{m.quality.lower:.3f}, {m.quality.upper:.3f}], "
            f"{m.usd_per_thousand:.3f} USD a thousand, p50 {m.latency_p50_s:.2f} s, p95 {m.latency_p95_s:.2f} s, "
            f"cloud asked for {100 * m.cloud_share:.0f} %"
        )
    typer.echo(f"page: {found.page}")
    if found.run:
        typer.echo(f"run: {found.run}")


def _sentence(verdict: str, first: str, second: str, items: int, sources: int) -> str:
    said = {
        "better": f"{second} is better than {first}",
        "worse": f"{second} is worse than {first}",
        "not_worse": f"{second} is not worse than {first} by more than the margin",
        "not_enough_evidence": f"{items} items are not enough to say which of {first} and {second} is better",
    }
    return f"{said[verdict]} ({items} items of {sources} sources)."
