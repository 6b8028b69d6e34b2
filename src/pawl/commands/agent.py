"""`pawl agent`: which tasks there are, and a new agent with a task of one's own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from pawl.errors import ConfigError, SourceError
from pawl.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Agents: which tasks there are, and a new one of your own.")
_NAME = re.compile(r"[a-z][a-z0-9-]{1,60}")


@app.command()
def tasks() -> None:
    """List the built-in tasks: name, kinds of source (the first is the default), what they are about.

    One of them stands as `task:` of an agent in fleet.yaml, with `source: {kind: ..., location: ...}`.
    Example: pawl agent tasks
    """
    from pawl.qe.tasks import names, task_of

    width = max(map(len, names()))
    for name in names():
        try:
            found = task_of(name)
            kinds = ", ".join(found.kinds) or "clients bring them"
            told = _sentence(type(found).__doc__ or "")
        except SourceError as error:
            kinds, told = "cannot be loaded", str(error)
        typer.echo(f"{name:{width}}  [{kinds}]  {told}")
    typer.echo("A task of your own is module:Class; `pawl agent new NAME` writes one that works.")


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="of the agent: small letters, digits and hyphens, e.g. ticket-triage")],
    folder: Annotated[Path, typer.Option(help="where its files go; must exist")] = Path(),
    write: Annotated[bool, typer.Option("--write", help="append the entry to fleet.yaml; its comments stay")] = False,
) -> None:
    """Write a new agent: a task with a small working grader, sample data, a contract test, and its fleet.yaml entry.

    Makes three files and overwrites none: NAME_task.py (a class to change piece by piece), NAME.jsonl (nine rows),
    test_NAME.py (`pytest test_NAME.py` passes at once, and says later what a change broke). The entry is printed, or
    with --write appended to the fleet file (PAWL_FLEET). Hyphens become underscores in names of files.

    Example: pawl agent new ticket-triage --write
    """
    from pawl.fleet.append_yaml import append, shown
    from pawl.qe.scaffold import Names, entry, files
    from pawl.qe.tasks import names

    settings = Settings()
    if not _NAME.fullmatch(name):
        raise typer.BadParameter("small letters, digits and hyphens, beginning with a letter: ticket-triage")
    if name in names():
        raise typer.BadParameter(f"{name} is a built-in task; `task: {name}` in fleet.yaml is all that it takes")
    if not folder.is_dir():
        raise typer.BadParameter(f"{folder} is not a folder: make it first")
    wanted = files(name)
    if taken := [file for file in wanted if (folder / file).exists()]:
        raise ConfigError(str(folder), [f"{file} exists already: move it, or choose another name" for file in taken])
    names_of = Names(name)
    made = entry(name, str(folder / f"{names_of.stem}.jsonl"), _first_upstream(settings.fleet))
    if write:  # first: a fleet file that is not good leaves no files behind
        append(settings.fleet, made, names())
    for file, text in wanted.items():
        with (folder / file).open("x", encoding="utf-8") as out:
            out.write(text)
        typer.echo(f"wrote {folder / file}")
    if write:
        typer.echo(f"appended {name} to {settings.fleet}")
    else:
        typer.echo(f"Below `agents:` of {settings.fleet} (or do it by --write):\n\n{shown(made)}")
    typer.echo(
        f"Next: pytest {folder / f'test_{names_of.stem}.py'}, then put your own data and grade into "
        f"{names_of.stem}_task.py. Pawl finds the module in the folder of the fleet file and where it is started."
    )


def _first_upstream(path: Path) -> str:
    """An upstream of the fleet: `local`, or where there is none of that name, the first."""
    from pawl.fleet.load_yaml import load

    try:
        known = list(load(path).upstreams)
    except ConfigError:
        return "local"
    return "local" if "local" in known or not known else known[0]


def _sentence(told: str) -> str:
    """The first sentence of a docstring, in one line."""
    return re.split(r"(?<=\.)\s", " ".join(told.split()), maxsplit=1)[0]
