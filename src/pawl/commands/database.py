"""`pawl database`: the control database's schema, its move to PostgreSQL, and who may do what there."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer

from pawl import bootstrap
from pawl.errors import PawlError
from pawl.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    help="The control database: a SQLite file under PAWL_HOME, or PostgreSQL by PAWL_CONTROL_URL. Its schema has "
    "revisions; a SQLite file is brought up (and copied first) by whoever opens it, PostgreSQL by `upgrade` alone.",
)
Sql = Annotated[bool, typer.Option("--sql", help="print the statements and run nothing")]


@app.command("current")
def current(as_json: Annotated[bool, typer.Option("--json", help="for machines")] = False) -> None:
    """Print which revision of the schema it has, and which one this Pawl wants."""
    from pawl.rollout.control_schema import CURRENT

    found = bootstrap.migrations(Settings())
    revision = found.current()
    if as_json:
        typer.echo(json.dumps({"kind": found.kind, "revision": revision, "wanted": CURRENT}))
        return
    state = "as it should be" if revision == CURRENT else f"this Pawl wants {CURRENT}: `pawl database upgrade`"
    typer.echo(f"{found.kind}: schema {revision or 'none yet'}; {state}")


@app.command("upgrade")
def upgrade(to: Annotated[str, typer.Option(help="a revision; not given: the newest")] = "", sql: Sql = False) -> None:
    """Bring the schema up, in one transaction. PostgreSQL: as the database's owner, after a pg_dump."""
    from pawl.rollout.control_schema import CURRENT

    found = bootstrap.migrations(Settings())
    before, to = found.current(), to or CURRENT
    if sql:
        typer.echo(found.sql(before, to))
        return
    copy = found.upgrade(to)
    typer.echo(
        f"the schema was {before or 'none'} and is {found.current()}" + (f"; copied before: {copy}" if copy else "")
    )


@app.command("downgrade")
def downgrade(
    to: Annotated[str, typer.Option(help="the revision that an earlier Pawl wants")],
    yes: Annotated[bool, typer.Option("--yes", help="do it without being asked")] = False,
    sql: Sql = False,
) -> None:
    """Bring the schema back for an earlier Pawl. Stop everything first: this version refuses the older schema."""
    found = bootstrap.migrations(Settings())
    before = found.current()
    if sql:
        typer.echo(found.sql(before, to))
        return
    if not yes:
        typer.confirm(f"Schema {before} goes back to {to}; what only {before} keeps is dropped. Go on?", abort=True)
    copy = found.downgrade(to)
    typer.echo(f"the schema was {before} and is {to}" + (f"; copied before: {copy}" if copy else ""))


@app.command("copy")
def copy(
    to: Annotated[str, typer.Option(help="postgresql://USER@HOST/DATABASE; its password by PGPASSWORD")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="look at both and say what would be moved; write nothing")
    ] = False,
) -> None:
    """Move the SQLite control database to an empty PostgreSQL: all rows or none, the audit chain checked on both sides.

    Stop gateways and workers first: what they write to the file afterwards stays behind. Then:

      PAWL_CONTROL_URL=URL pawl database upgrade
      pawl database copy --to URL
      and start everything with PAWL_CONTROL_URL=URL

    Interrupted, it has moved nothing; run it again. The file stays as it is.
    """
    from pawl.rollout.control import AuditEntry
    from pawl.rollout.control_copy import copy as move
    from pawl.rollout.control_copy import rehearsed
    from pawl.rollout.control_postgres import PostgresControl
    from pawl.rollout.control_sqlite import SqliteControl

    settings = Settings()
    if not settings.control_db.exists():
        raise PawlError(f"there is no {settings.control_db}: PAWL_HOME says where the file lies")
    target = PostgresControl(to)
    source = SqliteControl(settings.control_db)
    if dry_run:
        would = rehearsed(source, target)
        for table, rows in would.rows.items():
            typer.echo(f"{table:12} {rows:>9} rows")
        state = "has them all: nothing would be done" if would.already else "is empty, in the right schema"
        typer.echo(f"the audit log is whole; the target {state}")
        return
    told = AuditEntry("control database copied", "pawl database copy", {"from": settings.control_db.name}, time.time())
    done = move(source, target, told, lambda table, rows: typer.echo(f"{table:12} {rows:>9} rows"))
    if done.already:
        typer.echo("it had been moved before: nothing was done")
        return
    typer.echo(f"{sum(done.rows.values())} rows moved, the audit log is whole; set PAWL_CONTROL_URL for all that run")


@app.command("grants")
def grants(
    gateway: Annotated[str, typer.Option(help="the role that gateways log in with")],
    flow: Annotated[str, typer.Option(help="the role that flows log in with")],
    webhook: Annotated[bool, typer.Option("--webhook", help="gateways take codes from MLflow's webhook")] = False,
    traffic: Annotated[
        bool, typer.Option("--traffic", help="gateways move the split of an Envoy or an HTTPRoute")
    ] = False,
    sql: Sql = False,
) -> None:
    """Give two roles of PostgreSQL what gateways and flows need and no more. Run as the owner, after each upgrade.

    Gateways cannot write approvals, requests, rejections or keys; neither can change the audit log. Keys are made by
    the owner alone. Passwords of MLflow accounts are for flows and the owner.
    """
    from pawl.rollout.control_grants import grants as statements
    from pawl.rollout.control_postgres import PostgresControl

    wanted = statements(gateway, flow, webhook=webhook, traffic=traffic)
    if sql:
        typer.echo(";\n".join(wanted) + ";")
        return
    settings = Settings()
    if not settings.control_url:
        raise PawlError("a SQLite file has no roles: who may read the file may do everything; see PAWL_CONTROL_URL")
    with PostgresControl(settings.control_url).transaction() as db:
        for statement in wanted:
            db.execute(statement)
    typer.echo(f"{gateway} and {flow} may do what gateways and flows need")
