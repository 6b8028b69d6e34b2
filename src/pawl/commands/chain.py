"""`pawl chain`: what a chain of agents is worth, end to end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pawl.settings import Settings

if TYPE_CHECKING:
    from pawl.evaluation.chains import ChainReport
    from pawl.evaluation.report import Interval

app = typer.Typer(no_args_is_help=True, help="Chains: model names that answer by several agents in turn.")


@app.command("list")
def listed() -> None:
    """The chains of the fleet with their steps. Example: pawl chain list"""
    from pawl import bootstrap

    chains = bootstrap.fleet(Settings()).chains
    for c in chains:
        typer.echo(f"{c.name}: " + " -> ".join(f"{s.name} ({', '.join(s.agents)})" for s in c.steps))
    if not chains:
        typer.echo("fleet.yaml has no `chains:`; docs/chains.md shows one")


@app.command()
def measure(
    name: Annotated[str, typer.Argument(help="the chain's name in fleet.yaml")],
    items: Annotated[int, typer.Option(min=1, help="at most so many")] = 200,
    document: Annotated[
        str, typer.Option(help="path or URL of an OpenAPI 3 document: ask about its operations instead")
    ] = "",
    max_schema_chars: Annotated[int, typer.Option(min=50, help="longest schema of these operations")] = 400,
    against: Annotated[
        str, typer.Option(help="URL before the document's paths: send the right test cases to this running server")
    ] = "",
    remote: Annotated[bool, typer.Option("--remote", help="--against may be another machine")] = False,
    beside: Annotated[Path | None, typer.Option(help="an earlier measurement's --out: tell the change")] = None,
    out: Annotated[Path | None, typer.Option(help="write everything there, as JSON")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="one JSON object instead of text, without the answers")
    ] = False,
) -> None:
    """Ask a chain about operations that no training saw, through the gateway, and judge its answers by the oracle.

    With --against its right test cases are sent to a running server, which must do with them what they say. Some may
    be accepted there: name an instance for tests. PAWL_API_KEY must hold a client's key.

    Example: pawl chain measure api-tests --document http://127.0.0.1:4200/api/openapi.json --against http://127.0.0.1:4200/api
    """
    import msgspec
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from pawl import bootstrap
    from pawl.evaluation.chains import ChainReport, change
    from pawl.improvement.chain_measuring import chain_named, graded_by, items_for
    from pawl.improvement.chain_measuring import measure as measured
    from pawl.qe.operations.live import is_local

    if against and not remote and not is_local(against):
        raise typer.BadParameter(
            f"{against} is another machine: add --remote if its data may change", param_hint="--against"
        )
    try:
        earlier = msgspec.json.decode(beside.read_bytes(), type=ChainReport) if beside else None
    except (OSError, msgspec.DecodeError) as e:
        raise typer.BadParameter(f"{beside} is no earlier measurement ({e})", param_hint="--beside") from e
    settings = Settings()
    fleet = bootstrap.fleet(settings)
    chain = chain_named(fleet, name)
    asked = items_for(fleet, chain, document, max_schema_chars)[:items]
    columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        bar = bars.add_task(name, total=len(asked))
        found = measured(
            settings, chain, asked, against=against, on_progress=lambda done, total: bars.update(bar, completed=done)
        )
    if out is not None:
        out.write_bytes(msgspec.json.encode(found))
    alpha = fleet.agent(graded_by(chain)).evaluation.alpha
    moved = change(earlier, found, alpha) if earlier is not None else None
    if as_json:
        short = msgspec.structs.replace(found, answers=())
        typer.echo(msgspec.json.encode({**msgspec.to_builtins(short), "change": moved}).decode())
        return
    typer.echo(_told(found, 1 - alpha))
    if moved is not None:
        assert earlier is not None
        others = [
            f"{a}: {earlier.models.get(a, '-')} -> {m}" for a, m in found.models.items() if earlier.models.get(a) != m
        ]
        typer.echo(f"  change of score {_signed(moved)} with {'; '.join(others) or 'the same models'}")
    elif earlier is not None:
        typer.echo(f"  nothing can be said of a change: no operation was graded here and in {beside}")


def _told(found: ChainReport, sure: float) -> str:
    lines = [
        f"{found.chain}: {found.items} operations of {found.sources} sources, {found.failed} without an answer, "
        f"{found.parts} tests, p50 {found.latency_p50_s:.1f} s; intervals {100 * sure:.0f} %"
        + (f"; {left} could not be graded" if (left := len(found.answers) - found.items) else ""),
        f"  score of answers {_interval(found.score)}",
    ]
    if found.valid is not None:
        lines.append(f"  valid tests {_interval(found.valid)}" + _counts(found.problems))
    if found.as_expected is not None:
        lines.append(f"  valid and run as they say {_interval(found.as_expected)}" + _counts(found.ran))
    return "\n".join(lines)


def _counts(counts: dict[str, int]) -> str:
    return " (" + ", ".join(f"{name} {n}" for name, n in counts.items()) + ")" if counts else ""


def _interval(found: Interval) -> str:
    return f"{found.mean:.3f} [{found.lower:.3f}, {found.upper:.3f}]"


def _signed(found: Interval) -> str:
    return f"{found.mean:+.3f} [{found.lower:+.3f}, {found.upper:+.3f}]"
