"""`pawl report compliance`: for reviews under GDPR, HIPAA and SOC 2."""

from __future__ import annotations

import datetime as dt
import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from pawl import bootstrap
from pawl.commands.acting_key import acting_key
from pawl.errors import NotAllowed, PawlError
from pawl.settings import Settings

_USUAL_DAYS = 90


def compliance(
    since: Annotated[
        str, typer.Option(help="first day or moment (ISO 8601, UTC); default: 90 days before the end")
    ] = "",
    until: Annotated[str, typer.Option(help="the end, itself not included; default: now")] = "",
    out: Annotated[
        Path | None, typer.Option(help="folder for the files; default: a new one under .pawl/reports")
    ] = None,
    agent: Annotated[str, typer.Option(help="one agent's traffic and data alone; default: all")] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="print the report as JSON, besides writing the files")
    ] = False,
) -> None:
    """What left, who did what, what is kept, licences and security settings: a page, lists and a bill of materials.

    Writes compliance.html, compliance.json, egress.csv and egress.parquet (every request that left, without texts),
    access.csv (the access and approval log) and sbom.cdx.json (CycloneDX). No text of a client or a model and no secret
    is in any of them. PAWL_API_KEY must hold a key with role operator or admin; the audit log keeps who made it, and
    the digest of each file. Example: pawl report compliance --since 2026-07-01 --until 2026-10-01
    """
    key = acting_key("operator", "admin")
    now = time.time()
    end = moment(until, "--until") if until else now
    begin = moment(since, "--since") if since else end - _USUAL_DAYS * 86_400
    if begin >= end:
        raise NotAllowed("--since must be before --until; both are days or moments like 2026-07-01")
    from pawl.compliance import page, sbom_cyclonedx
    from pawl.compliance.access import REPORT
    from pawl.compliance.gathering import digests, gather
    from pawl.monitoring.html_page import written

    settings = Settings()
    folder = out or settings.reports_dir / f"compliance-{dt.datetime.fromtimestamp(now, dt.UTC):%Y%m%d-%H%M%S}"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as e:
        raise PawlError(f"{folder} cannot be made: {e.strerror or e}; name another with --out") from e
    report, files = gather(settings, folder, key.name, begin, end, agent, now,
                           lambda step: typer.echo(f"  reading {step}", err=True))  # fmt: skip
    data = folder / "compliance.json"
    data.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1))
    html = written(page.render(report), folder / "compliance.html")
    bill = folder / "sbom.cdx.json"
    bill.write_text(sbom_cyclonedx.bill(report.licences, [c for c in report.egress.channels if c.cloud]))
    files += [html, data, bill]
    detail = {"since": begin, "until": end, "agent": agent, "files": digests(files)}
    bootstrap.control(settings).audit(REPORT, key.name, detail, now)
    if as_json:
        typer.echo(data.read_text())
        return
    for light, said in (("green", "hold"), ("red", "do not hold"), ("grey", "are not known here")):
        typer.echo(f"{sum(c.light == light for c in report.controls):3} requirements {said}")
    for found in dict.fromkeys(c.found for c in report.controls if c.light == "red"):
        typer.echo(f"  red  {found}")
    for path in files:
        typer.echo(f"{path}")


def moment(text: str, option: str) -> float:
    """A day or moment as epoch seconds, UTC where it says nothing else. NotAllowed where it is none."""
    try:
        when = dt.datetime.fromisoformat(text)
    except ValueError as e:
        raise NotAllowed(
            f"{option}: {text!r} is no day or moment; write it like 2026-07-01 or 2026-07-01T12:00Z"
        ) from e
    return (when if when.tzinfo else when.replace(tzinfo=dt.UTC)).timestamp()
