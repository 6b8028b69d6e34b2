"""`pawl traffic`: where something other than the gateway splits an agent's requests between two backends."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer

from pawl import bootstrap
from pawl.commands.acting_key import acting_key
from pawl.errors import ConfigError, NotAllowed, PawlError
from pawl.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Traffic that an Envoy or an HTTPRoute splits, beside the gateway.")
Agent = Annotated[str, typer.Argument(help="the agent's name in fleet.yaml")]


@app.command("show")
def show(
    agent: Agent, as_json: Annotated[bool, typer.Option("--json", help="one JSON object on stdout")] = False
) -> None:
    """Which model stands behind which backend, the split that the route demands, and the one in force.

    Changes nothing; exit code 1 where the two splits differ or the engine does not tell.
    """
    from pawl.rollout import backends

    settings = Settings()
    fleet, control = bootstrap.fleet(settings), bootstrap.control(settings)
    serving = fleet.agent(agent).serving
    engine, names = bootstrap.traffic_engines(settings, fleet).get(agent), serving.envoy or serving.http_route
    if engine is None or names is None:
        raise NotAllowed(f"{agent} is split by the gateway itself; `serving: envoy` in fleet.yaml asks for an Envoy")
    stand, wanted, said = backends.read(control, agent), None, ""
    try:
        stand, wanted = backends.placed(bootstrap.current_route(fleet, control, fleet.agent(agent)), stand)
    except ConfigError as e:
        said = str(e)
    try:
        now = engine.read()
    except PawlError as e:
        now, said = None, f"{said}\n{e}".strip()
    rows = {
        side: {
            "backend": getattr(names, side),
            "serves": getattr(stand, side) or None,
            "wanted": wanted and getattr(wanted, side),
            "in_force": now and getattr(now, side),
        }
        for side in ("champion", "challenger")
    }
    if as_json:
        typer.echo(json.dumps({"agent": agent, "backends": rows, "problem": said or None}))
    else:
        for side, row in rows.items():
            percents = ["?" if row[k] is None else f"{row[k]} %" for k in ("wanted", "in_force")]
            typer.echo(f"{side:<10}  {row['backend']}  serves {row['serves'] or 'nothing yet'}  "
                       f"wanted {percents[0]}, in force {percents[1]}")  # fmt: skip
        if said:
            typer.echo(said, err=True)
    if said or now != wanted:
        raise typer.Exit(1)


@app.command("place")
def place(
    agent: Agent,
    model: Annotated[
        str, typer.Argument(help="the name of an arm: an adapter version, `base`, or an upstream's model")
    ],
    backend: Annotated[Literal["champion", "challenger"], typer.Argument(help="the backend, as fleet.yaml calls it")],
    reason: Annotated[str, typer.Option(help="why; kept in the audit log")],
) -> None:
    """Say that a model is served behind a backend now; whatever stood there no longer is. Needs a role of operator.

    Pawl keeps track by itself while rollouts follow each other. After `pawl restore` to a version that stands behind
    neither backend it cannot, leaves the split as it is, and says so until it is told.
    """
    from pawl.rollout import backends

    key = acting_key("operator", "admin")
    settings = Settings()
    if agent not in bootstrap.traffic_engines(settings, bootstrap.fleet(settings)):
        raise NotAllowed(f"{agent} is split by the gateway itself: there are no backends")
    control = bootstrap.control(settings)
    before = backends.read(control, agent)
    now = msgspec.structs.replace(before, **{backend: model})
    if now.champion == now.challenger:
        now = backends.Backends(**{backend: model})
    backends.say(control, agent, now)
    detail = {"agent": agent, "model": model, "backend": backend, "reason": reason}
    control.audit("traffic backend placed", key.name, detail, time.time())
    typer.echo(f"{agent}: champion's backend {now.champion or 'nothing'}, challenger's {now.challenger or 'nothing'}")


@app.command("envoy")
def envoy(
    agent: Agent,
    champion_at: Annotated[str, typer.Option(help="the champion's server, HOST:PORT")],
    challenger_at: Annotated[str, typer.Option(help="the challenger's server, HOST:PORT")],
    out: Annotated[Path, typer.Option(help="where bootstrap.json goes")] = Path("envoy"),
    listen: Annotated[str, typer.Option(help="where clients reach Envoy, HOST:PORT")] = "127.0.0.1:10000",
    session_header: Annotated[
        str, typer.Option(help="sessions stay by this header; empty: each request is drawn")
    ] = "x-pawl-session",
) -> None:
    """Write a configuration for an Envoy of its own, from the agent's `serving: envoy` in fleet.yaml.

    It is a start: TLS, limits and logs are yours to add. A route file that exists is kept. Example:
    pawl traffic envoy functional-negative --champion-at 10.0.0.5:8000 --challenger-at 10.0.0.6:8000
    """
    from pawl.rollout import envoy_config
    from pawl.rollout.traffic import Shares

    spec = bootstrap.fleet(Settings()).agent(agent).serving.envoy
    if spec is None:
        raise NotAllowed(f"{agent} has no `serving: envoy` in fleet.yaml; docs/serving.md shows it")
    file = spec.routes.resolve()
    servers = {
        spec.champion: _place(champion_at, "--champion-at"),
        spec.challenger: _place(challenger_at, "--challenger-at"),
    }
    admin = _place(spec.admin.removeprefix("http://").rstrip("/"), "serving.envoy.admin")
    whole = envoy_config.bootstrap(agent, file, listen=_place(listen, "--listen"), admin=admin, clusters=servers)
    out.mkdir(parents=True, exist_ok=True)
    target = out / "bootstrap.json"
    target.write_text(json.dumps(whole, indent=1) + "\n")
    typer.echo(f"written: {target}", err=True)
    if file.exists():
        typer.echo(f"kept: {file}", err=True)
    else:
        file.parent.mkdir(parents=True, exist_ok=True)
        made = envoy_config.routes(agent, spec.champion, spec.challenger, session_header or None, Shares(100, 0))
        file.write_text(json.dumps(made, indent=1) + "\n")
        typer.echo(f"written: {file}", err=True)
    typer.echo(f"envoy --config-path {target} --reject-unknown-dynamic-fields")


def _place(text: str, what: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(what, [f"{text} is not HOST:PORT"])
    return host.strip("[]"), int(port)
