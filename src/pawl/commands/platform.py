"""`pawl up`, `pawl down`, `pawl logs`: the whole platform on this machine."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from pawl import bootstrap
from pawl.settings import Settings

if TYPE_CHECKING:
    from pawl.platform.bring_up import Outcome
    from pawl.platform.process import Server
    from pawl.platform.servers import Step
    from pawl.platform.take_down import Ended

Names = list[str]
_MARKS = {"started": "up", "ran": "runs already", "done": "done", "was done": "done before"}


def up(
    only: Annotated[Names, typer.Option("--only", help="these servers alone; may be repeated, or a,b")] = [],  # noqa: B006 - typer copies it
    without: Annotated[Names, typer.Option("--without", help="all but these")] = [],  # noqa: B006
    extra: Annotated[Names, typer.Option("--with", help="also prometheus, grafana, where they are installed")] = [],  # noqa: B006
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show what would be started, start nothing")] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="until everything answers; otherwise what others need")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on stdout, progress on stderr")] = False,
) -> None:
    """Start the platform on this machine: PostgreSQL, MLflow, Prefect with a worker, vLLM, the gateway.

    What runs already is left alone, so it may be repeated at any time: after one server died it starts that one. Where
    the settings name a server elsewhere (PAWL_MLFLOW_ADDRESS, PAWL_PREFECT_ADDRESS, PAWL_VLLM_URLS) it is not started
    here. Exits with 1 where something did not come up; what did stays up. Logs: .pawl/logs, `pawl logs NAME`.

    Example: pawl up --without vllm --with prometheus
    """
    from rich.console import Console

    from pawl.platform.bring_up import BAD, Start, chosen
    from pawl.platform.run_lock import alone
    from pawl.platform.servers import platform

    settings = Settings()
    bootstrap.demand_home(settings.home)
    here = platform(settings, bootstrap.fleet(settings))
    servers, steps = chosen(here, _split(only), _split(without), _split(extra))
    if dry_run:
        _show_plan(servers, steps, dict(here.elsewhere), as_json)
        return
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    began = time.monotonic()

    def tell(o: Outcome) -> None:
        if o.state in BAD:
            console.print(f"  [red]{o.state}[/] {o.name}: ", end="")
            console.print(o.why, markup=False)
        else:
            after = f" after {time.monotonic() - began:.0f} s" if o.state in ("started", "done") else ""
            console.print(f"  [green]{_MARKS[o.state]}[/] {o.name}{after}{'  ' + o.url if o.url else ''}")

    with alone(settings.home, lambda said: console.print(f"  {said}")):
        start = Start(settings.home, servers, steps, tell)
        with console.status("starting ...") as status:
            start.on_wait = lambda names: status.update(
                f"{time.monotonic() - began:.0f} s, waiting for {', '.join(names)}"
            )
            outcomes = start.run(wait=wait)
    failed = [o.name for o in outcomes if o.state in BAD]
    if as_json:
        typer.echo(msgspec.json.encode({"outcomes": outcomes, "elsewhere": here.elsewhere, "failed": failed}))
    elif failed:
        console.print(
            f"{', '.join(failed)}: not up. Mend what its message says and run `pawl up` again. "
            "`pawl doctor` looks at ports, memory, disk and versions; `pawl down` ends what is up."
        )
    if failed:
        raise typer.Exit(1)


def down(
    only: Annotated[Names, typer.Option("--only", help="these servers alone; may be repeated, or a,b")] = [],  # noqa: B006
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on stdout, progress on stderr")] = False,
) -> None:
    """End what `pawl up` started: worker and gateway first, which answers what is under way; the database last.

    Each gets its time and is killed after it. Processes that others started are never touched. Example: pawl down
    --only vllm
    """
    from rich.console import Console

    from pawl.platform.run_lock import alone
    from pawl.platform.take_down import take_down, to_end

    settings = Settings()
    console = Console(stderr=as_json, highlight=False)

    def tell(e: Ended) -> None:
        late = " (it did not end by itself)" if e.how == "killed" else ""
        console.print(f"  {e.how} {e.name} in {e.seconds:.0f} s{late}")

    with alone(settings.home, lambda said: console.print(f"  {said}")), console.status("stopping ..."):
        ended = take_down(to_end(settings.home, _split(only)), tell)
    if as_json:
        typer.echo(msgspec.json.encode({"ended": ended}))
    elif not ended:
        console.print("nothing was started here")


def logs(
    name: Annotated[str, typer.Argument(help="a server, as `pawl status` has it")],
    follow: Annotated[bool, typer.Option("-f", "--follow", help="and what comes, until Ctrl-C")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="the last ones")] = 50,
) -> None:
    """Print the end of a server's log. Example: pawl logs gateway -f"""
    from pawl.errors import ConfigError
    from pawl.platform import log_files

    folder = Settings().logs_dir
    path = folder / f"{name}.log"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.log"))) or "none"
        raise ConfigError("the choice of a log", [f"{folder} has no {name}.log; there are: {known}"])
    found = log_files.tail(path, lines)
    if found:
        typer.echo(found)
    if follow:
        try:
            for text in log_files.follow(path, lambda: False):
                sys.stdout.write(text)
                sys.stdout.flush()
        except KeyboardInterrupt:
            return


def _show_plan(servers: Sequence[Server], steps: Sequence[Step], elsewhere: dict[str, str], as_json: bool) -> None:
    from pawl.platform.listeners import holder_of

    names = {s.name for s in servers} | {p.name for p in steps}
    rows = []
    for s in servers:
        process = s.running()
        holder = holder_of(s.port) if process is None and s.port is not None else None
        rows.append(
            {
                "name": s.name, "runs": process.pid if process else None, "port": s.port, "taken_by": holder,
                "needs": [n for n in s.needs if n in names], "command": s.command,
                "env": dict(s.env), "log": str(s.log), "url": s.url,
            }
        )  # fmt: skip
    if as_json:
        plan = {"servers": rows, "steps": [{"name": p.name, "does": p.told} for p in steps], "elsewhere": elsewhere}
        typer.echo(msgspec.json.encode(plan))
        return
    for s, row in zip(servers, rows, strict=True):
        runs = f"runs already, pid {row['runs']}" if row["runs"] else "would be started"
        typer.echo(f"{s.name}: {runs}{f', port {s.port}' if s.port else ''}")
        if row["taken_by"]:
            typer.echo(f"  port {s.port} is held by {row['taken_by']}; set {s.port_setting} to a free one")
        typer.echo(f"  {' '.join(s.command)}")
    for p in steps:
        typer.echo(f"{p.name}: {p.told}")
    for name, address in elsewhere.items():
        typer.echo(f"{name}: elsewhere, {address}")


def _split(names: Sequence[str]) -> list[str]:
    return [part.strip() for name in names for part in name.split(",") if part.strip()]
