"""`pawl lake` and `pawl erase`: what was recorded, its care, and its end."""

from __future__ import annotations

import csv
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from pawl import bootstrap
from pawl.commands.acting_key import acting_key
from pawl.errors import NotAllowed
from pawl.lake.care import AUDIT_DAYS, PAYLOAD_DAYS
from pawl.settings import Settings

if TYPE_CHECKING:
    from pawl.importers.imported import Rows
    from pawl.lake.parquet_lake import ParquetLake
    from pawl.lake.records import LakeRecord

_SHOWN, _SHOWN_REJECTS = 3, 20
_AT_ONCE = 20_000  # records: each time is one change of the manifest

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
    sql: Annotated[str, typer.Argument(help="over the tables interactions, feedback and observations")],
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
    payload_days: Annotated[float, typer.Option(help="after these prompts, answers and details go")] = PAYLOAD_DAYS,
    audit_days: Annotated[float, typer.Option(help="after these the rows go too")] = AUDIT_DAYS,
) -> None:
    """Apply retention now."""
    key = acting_key("operator", "admin")
    settings = Settings()
    bared, dropped = bootstrap.lake(settings).expire(time.time(), payload_days=payload_days, audit_days=audit_days)
    detail = {"payloads": bared, "rows": dropped, "payload_days": payload_days, "audit_days": audit_days}
    bootstrap.control(settings).audit("retention", key.name, detail, time.time())
    typer.echo(f"{bared} rows without their text now, {dropped} rows gone")


def take_in(
    form: Annotated[
        str, typer.Argument(help="openai, langfuse, langsmith, mlflow, csv, junit, github, jira, k6 or jmeter")
    ],
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="the export")],
    agent: Annotated[str, typer.Option(help="for which agent; csv and junit find it themselves")] = "",
    at: Annotated[str, typer.Option(help="when it was (ISO 8601), for a k6 summary; otherwise the file's time")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="show what would be taken and what not, change nothing")
    ] = False,
) -> None:
    """Import another tool's export into the lake. The same file again changes nothing.

    PAWL_API_KEY must hold a key with role operator or admin. Example: pawl import langfuse traces.jsonl --agent
    functional-negative --dry-run
    """
    from pawl.importers.formats import FIND_THEIR_AGENT, FORMATS
    from pawl.importers.imported import Problem, Target, moment

    settings = Settings()
    key = acting_key("operator", "admin")
    if form not in FORMATS:
        raise NotAllowed(f"no format {form!r}; there are: {', '.join(FORMATS)}")
    if form not in FIND_THEIR_AGENT:
        bootstrap.fleet(settings).agent(agent)
    try:
        when = moment(at) if at else None
    except Problem as e:
        raise NotAllowed(f"--at: {e}; write it like 2026-11-18T10:00:00Z") from e
    lake = bootstrap.lake(settings)

    def find_agents(ids: set[str]) -> dict[str, str]:
        return {i: found[0] for i, found in lake.owners(ids).items()}

    counts = _Counts()
    try:
        _import(FORMATS[form](file, Target(agent, key.id, find_agents, when)), None if dry_run else lake, counts)
    finally:
        if not dry_run:  # of a file that breaks off in the middle, what came before may be in
            bootstrap.control(settings).audit("import", key.name, {"format": form, **asdict(counts)}, time.time())
    if dry_run:
        typer.echo(f"{counts.records} records would be taken, {counts.rejects} rows not; nothing was changed")
    else:
        typer.echo(f"{counts.records} records taken ({counts.new} of them new), {counts.rejects} rows not")


@dataclass
class _Counts:
    """What became of an import's rows."""

    records: int = 0
    new: int = 0
    rejects: int = 0


def _import(rows: Rows, lake: ParquetLake | None, counts: _Counts) -> None:
    """Add the rows' records to the lake, some thousands at a time; show the first ones and the first rejects."""
    from pawl.importers.imported import Reject

    waiting: list[LakeRecord] = []
    for row in rows:
        if isinstance(row, Reject):
            counts.rejects += 1
            if counts.rejects <= _SHOWN_REJECTS:
                typer.echo(f"  row {row.row}: {row.reason}", err=True)
            continue
        for record in row:
            counts.records += 1
            if counts.records <= _SHOWN:
                typer.echo(f"  {msgspec.json.encode(record).decode()[:160]}")
        if lake:
            waiting += row
            if len(waiting) >= _AT_ONCE:
                counts.new += lake.add(waiting)
                waiting = []
    if lake and waiting:
        counts.new += lake.add(waiting)
    if counts.rejects > _SHOWN_REJECTS:
        typer.echo(f"  ... and {counts.rejects - _SHOWN_REJECTS} more", err=True)


def erase(
    subject: Annotated[
        str, typer.Option(help="a session, the OpenAI field `user`, metadata.subject, or who reported a bug")
    ],
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Remove a person's interactions and reports, and what evaluations and pages repeat of them.

    Dataset and adapter versions that learnt from them are named, and so is what nobody but you can reach. Exits with 1
    where the registry did not answer: the next erasure, of whomever, goes on there. PAWL_API_KEY must hold a key with
    role admin. The audit log keeps that it happened, not what it was.
    """
    from pawl.improvement.erased_copies import batches_of, forget_copies
    from pawl.improvement.erasure import forget, lost, pages_about, traces

    key = acting_key("admin")
    if not yes:
        typer.confirm(
            "remove every interaction of this subject, all feedback about them, and every bug report by them?",
            abort=True,
        )
    settings = Settings()
    telemetry = bootstrap.fleet(
        settings
    ).gateway.telemetry  # first: what is wrong with the fleet stops nothing half-way
    now = time.time()
    lake = bootstrap.lake(settings)
    gone = lake.erase(subject, now)
    forget(lake, settings.regression_dir, settings.reviews_dir)
    found = traces({*gone, *lost(lake, settings.datasets_dir)}, settings.datasets_dir, settings.home / "candidates")
    copies = forget_copies(
        lake,
        settings.home,
        settings.regression_dir,
        settings.reports_dir,
        bootstrap.registry(settings),
        erased=bool(gone),
    )
    detail = {
        "interactions": len(gone),
        "datasets": found.datasets,
        "adapters": found.adapters,
        "comparisons": copies.comparisons,
        "pages": len(copies.pages) + len(copies.registry),
        "unreached": copies.unreached,
    }
    bootstrap.control(settings).audit("subject erased", key.name, detail, now)
    typer.echo(f"{len(gone)} interactions removed")
    for name in copies.comparisons:
        typer.echo(f"comparison  {name}  lost the texts of prompts that are gone; its figures stay, its digest changed")
    for place in (*copies.pages, *copies.registry):
        typer.echo(f"page  {place}  lost those texts too")
    if copies.answers:
        typer.echo(f"{copies.answers} kept answers of models dropped; the next evaluation asks again")
    for name in found.datasets:
        typer.echo(f"dataset  {name}  holds examples made from them, or from what was erased before")
        for page in pages_about(settings.datasets_dir / f"{name}.json"):
            typer.echo(f"  {page}  may quote them, and so may its copy in MLflow: delete both with the dataset")
    for name in found.adapters:
        typer.echo(f"adapter  {name}  was trained on such a dataset: retrain without it, or retire it")
    for name in batches_of(settings.home / "batches", gone):
        typer.echo(f"batch  {name}  holds answers to them: have its client delete its files (DELETE /v1/files/...)")
    if telemetry.content:
        typer.echo("traces  gateway.telemetry.content is on: delete theirs in MLflow, by time and gen_ai.response.id")
    for what in copies.unreached:
        typer.echo(f"not reached  {what}; erase again when it answers", err=True)
    if copies.unreached:
        raise typer.Exit(1)
