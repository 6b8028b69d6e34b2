"""`pawl lake` and `pawl erase`: what was recorded, its care, and its end."""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from pawl import bootstrap
from pawl.commands.acting_key import acting_key
from pawl.errors import NotAllowed
from pawl.settings import Settings

app = typer.Typer(no_args_is_help=True, help="The lake: look, query, compact, expire.")


@app.command("status")
def status() -> None:
    """What the lake holds, by table and agent."""
    import datetime as dt

    lake = bootstrap.lake(Settings())
    sums: dict[tuple[str, str], tuple[int, int, float, float]] = {}
    for o in lake.manifest().objects:
        files, rows, first, last = sums.get((o.table, o.agent), (0, 0, o.first, o.last))
        sums[o.table, o.agent] = files + 1, rows + o.rows, min(first, o.first), max(last, o.last)
    for (table, agent), (files, rows, first, last) in sorted(sums.items()):
        begin, end = (dt.datetime.fromtimestamp(t, dt.UTC).date() for t in (first, last))
        typer.echo(f"{table:13} {agent:30} {rows:>9} rows in {files} file(s), {begin} to {end}")
    if not sums:
        typer.echo("the lake is empty; `pawl lake ingest` takes in what the journal holds")


@app.command("ingest")
def ingest() -> None:
    """Move what the journal has sealed into the lake, as collect_feedback does each hour."""
    typer.echo(f"{bootstrap.lake(Settings()).ingest()} records")


@app.command("query")
def query(
    sql: Annotated[str, typer.Argument(help="over the tables interactions and feedback")],
    most: Annotated[int, typer.Option(help="rows to print")] = 1000,
) -> None:
    """Ask the lake in SQL (DuckDB's), print CSV. PAWL_API_KEY must hold a key with role operator or admin.

    Example: pawl lake query "SELECT arm, count(*), avg(latency_s) FROM interactions GROUP BY arm"
    """
    from pawl.lake.query_duckdb import query as ask

    settings = Settings()
    key = acting_key("operator", "admin")
    bootstrap.control(settings).audit("lake query", key.name, {"sql": sql}, time.time())
    names, rows = ask(bootstrap.lake(settings), sql, most)
    out = csv.writer(sys.stdout)
    out.writerow(names)
    out.writerows(rows)


@app.command("compact")
def compact() -> None:
    """Merge the small files of each day and agent."""
    typer.echo(f"{bootstrap.lake(Settings()).compact(time.time())} files fewer")


@app.command("expire")
def expire(
    payload_days: Annotated[float, typer.Option(help="after these prompts, answers and details go")] = 400,
    audit_days: Annotated[float, typer.Option(help="after these the rows go too")] = 6 * 365.25,
) -> None:
    """Apply retention now."""
    key = acting_key("operator", "admin")
    settings = Settings()
    bared, dropped = bootstrap.lake(settings).expire(time.time(), payload_days=payload_days, audit_days=audit_days)
    detail = {"payloads": bared, "rows": dropped, "payload_days": payload_days, "audit_days": audit_days}
    bootstrap.control(settings).audit("retention", key.name, detail, time.time())
    typer.echo(f"{bared} rows without their text now, {dropped} rows gone")


def take_in(
    form: Annotated[str, typer.Argument(help="openai, langfuse, langsmith, mlflow, csv or junit")],
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="the export")],
    agent: Annotated[str, typer.Option(help="whose interactions these are; csv and junit find it themselves")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="show what would be taken and what not, change nothing")
    ] = False,
) -> None:
    """Import another tool's export into the lake. The same file again changes nothing.

    PAWL_API_KEY must hold a key with role operator or admin. Example: pawl import langfuse traces.jsonl --agent
    functional-negative --dry-run
    """
    from pawl.importers.formats import FORMATS
    from pawl.importers.imported import Reject, Target

    settings = Settings()
    key = acting_key("operator", "admin")
    if form not in FORMATS:
        raise NotAllowed(f"no format {form!r}; there are: {', '.join(FORMATS)}")
    if form not in ("csv", "junit"):
        bootstrap.fleet(settings).agent(agent)
    lake = bootstrap.lake(settings)
    owners: dict[str, str] = {}
    if form in ("csv", "junit"):
        owners = {i.id: name for name in lake.agents() for i in lake.interactions(name)}
    taken: list[Any] = []
    rejects: list[Reject] = []
    for row in FORMATS[form](file, Target(agent, key.id, owners.get)):
        if isinstance(row, Reject):
            rejects.append(row)
        else:
            taken.extend(row)
    for record in taken[:3]:
        typer.echo(f"  {msgspec.json.encode(record).decode()[:160]}")
    for reject in rejects[:20]:
        typer.echo(f"  row {reject.row}: {reject.reason}", err=True)
    if len(rejects) > 20:
        typer.echo(f"  ... and {len(rejects) - 20} more", err=True)
    if dry_run:
        typer.echo(f"{len(taken)} records would be taken, {len(rejects)} rows not; nothing was changed")
        return
    lake.add(taken)
    detail = {"format": form, "records": len(taken), "rejects": len(rejects)}
    bootstrap.control(settings).audit("import", key.name, detail, time.time())
    typer.echo(f"{len(taken)} records taken, {len(rejects)} rows not")


def erase(
    subject: Annotated[str, typer.Option(help="a session, the OpenAI field `user`, or metadata.subject")],
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Remove a person's interactions; name the dataset and adapter versions that learnt from them.

    PAWL_API_KEY must hold a key with role admin. The audit log keeps that it happened, not what it was.
    """
    from pawl.improvement.erasure import traces

    key = acting_key("admin")
    if not yes:
        typer.confirm("remove every interaction of this subject, and all feedback about them?", abort=True)
    settings = Settings()
    now = time.time()
    gone = bootstrap.lake(settings).erase(subject, now)
    found = traces(set(gone), settings.datasets_dir, settings.home / "candidates")
    detail = {"interactions": len(gone), "datasets": found.datasets, "adapters": found.adapters}
    bootstrap.control(settings).audit("subject erased", key.name, detail, now)
    typer.echo(f"{len(gone)} interactions removed")
    for name in found.datasets:
        typer.echo(f"dataset  {name}  holds examples made from them")
    for name in found.adapters:
        typer.echo(f"adapter  {name}  was trained on such a dataset: retrain without it, or retire it")
