"""`pawl lake quarantine`: rows that failed a critical check, and letting them go."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from pawl import bootstrap
from pawl.commands.acting_key import acting_key
from pawl.errors import PawlError
from pawl.rollout.control import Quarantined
from pawl.settings import Settings

MOST_SHOWN = 50


def quarantine(
    agent: Annotated[str, typer.Option(help="of this agent only")] = "",
    release: Annotated[list[str] | None, typer.Option(help="id of a row to take in again; may be repeated")] = None,
    release_all: Annotated[bool, typer.Option("--release-all", help="take all of them in again")] = False,
) -> None:
    """List the rows that training leaves out because they failed a critical check; let them go once mended.

    A row that was let go is checked again by the next run. PAWL_API_KEY must hold a key with role operator or admin.
    Example: pawl lake quarantine --agent functional-negative --release chatcmpl-0a1b
    """
    key = acting_key("operator", "admin")
    control = bootstrap.control(Settings())
    held = control.quarantined(agent or None)
    if not release and not release_all:
        _show(held)
        return
    chosen = held if release_all else _chosen(held, release or [])
    now = time.time()
    by_table: dict[str, list[str]] = {}
    for entry in chosen:
        by_table.setdefault(entry.table, []).append(entry.row)
    gone = sum(control.release(table, rows, key.name, now) for table, rows in by_table.items())
    detail = {"agent": agent, "rows": {table: rows[:MOST_SHOWN] for table, rows in by_table.items()}, "released": gone}
    control.audit("quarantine released", key.name, detail, now)
    typer.echo(f"{gone} row(s) let go; the next run checks them anew")


def _chosen(held: list[Quarantined], ids: list[str]) -> list[Quarantined]:
    wanted = set(ids)
    unknown = sorted(wanted - {entry.row for entry in held})
    if unknown:
        raise PawlError(f"not in the quarantine: {', '.join(unknown)}; `pawl lake quarantine` lists what is")
    return [entry for entry in held if entry.row in wanted]


def _show(held: list[Quarantined]) -> None:
    rules: dict[tuple[str, str, str], list[Quarantined]] = {}
    for entry in held:
        rules.setdefault((entry.agent, entry.table, entry.rule), []).append(entry)
    for (agent, table, rule), entries in sorted(rules.items()):
        typer.echo(f"{agent}  {table}: {rule}, {len(entries)} row(s)")
        for entry in entries[:MOST_SHOWN]:
            since = time.strftime("%Y-%m-%d %H:%M", time.gmtime(entry.at))
            typer.echo(f"  {entry.row}  since {since} UTC")
        if len(entries) > MOST_SHOWN:
            typer.echo(f"  ... and {len(entries) - MOST_SHOWN} more")
    if not held:
        typer.echo("nothing is in the quarantine")
