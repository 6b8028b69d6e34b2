"""`pawl doctor`: what is wrong with the platform on this machine, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from pawl.settings import Settings

if TYPE_CHECKING:
    from rich.console import Console

    from pawl.platform.findings import Finding


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on stdout")] = False,
    fix: Annotated[
        bool,
        typer.Option(
            "--fix", help="close files to others, take the journal in, drop ended leases, deploy prefect.yaml"
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="only what is not well")] = False,
    within: Annotated[float, typer.Option(min=1, help="seconds for all of it; what takes longer is told")] = 20.0,
) -> None:
    """Look at everything that may be wrong here: exits with 1 where something fails, with 0 otherwise.

    Versions, ports, disk, memory, sandbox, clock, permissions; fleet.yaml, control database and audit log, journal,
    approvals, model files; whether the servers answer, and whether Prefect has what prefect.yaml says, a worker, and no
    stuck runs; aliases and adapters. Changes nothing without --fix. Example: pawl doctor -q
    """
    from rich.console import Console

    from pawl.platform.doctor import examine, mend
    from pawl.platform.findings import worst

    settings = Settings()
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    with console.status("looking ...") as status:
        findings = examine(settings, lambda left: status.update(f"looking at {left}"), within)
        if fix and mend(settings, findings, lambda said: console.print(f"mending: {said}", markup=False)):
            findings = examine(settings, lambda left: status.update(f"looking again at {left}"), within)
    level = worst(findings)
    if as_json:
        typer.echo(msgspec.json.encode({"level": level, "findings": findings}))
    else:
        _show(console, findings, quiet)
    if level == "fail":
        raise typer.Exit(1)


def _show(console: Console, findings: Sequence[Finding], quiet: bool) -> None:
    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    for f in findings:
        if quiet and f.level == "ok":
            continue
        console.print(f"  [{colours[f.level]}]{f.level:4}[/] {f.check}: ", end="")
        console.print(f.what, markup=False)
        if f.todo:
            mended = "  (--fix does it)" if f.fix else ""
            console.print(f"         {f.todo}{mended}", markup=False)
    counts = {level: sum(f.level == level for f in findings) for level in colours}
    console.print(f"{counts['fail']} fail, {counts['warn']} to look at, {counts['ok']} well")
