"""`pawl audit`: the tamper-evident log."""

from __future__ import annotations

import time

import typer

from pawl import bootstrap
from pawl.errors import PawlError
from pawl.settings import Settings

app = typer.Typer(no_args_is_help=True, help="The tamper-evident audit log.")


@app.command("verify")
def audit_verify() -> None:
    """Check the hash chain of the audit log."""
    broken = bootstrap.control(Settings()).verify_audit()
    if broken:
        raise PawlError(f"the audit log was changed: {broken}")
    typer.echo("the audit log is whole")


@app.command("show")
def audit_show() -> None:
    """Print the audit log."""
    for e in bootstrap.control(Settings()).audit_log():
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(e["at"]))
        typer.echo(f"{at}  {e['event']}  by {e['by']}  {e['detail']}")
