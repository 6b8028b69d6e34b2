"""`pawl adapter`: adapters from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pawl.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Adapters from elsewhere.")


@app.callback()
def adapters() -> None:
    """Adapters from elsewhere."""


@app.command("check")
def check(
    folder: Annotated[Path, typer.Argument(help="the adapter's folder, as peft saves it")],
    training: Annotated[
        bool, typer.Option("--training", help="only to go on training from, not to be served: DoRA too")
    ] = False,
) -> None:
    """Look at an adapter before anything loads it: files, config, shapes against the base model, values.

    Exit code 1 with every problem at once where it must not be loaded.
    """
    from pawl import bootstrap
    from pawl.registry.adapter_hash import adapter_sha256
    from pawl.training.adapter_check import check_adapter
    from pawl.training.base_model_transformers import prepare_base

    settings = Settings()
    base = prepare_base(bootstrap.fleet(settings).base_model.source, settings.models_dir)
    found = check_adapter(folder, base, hot=not training)
    typer.echo(
        f"sound: rank {found.rank}, alpha {found.alpha:g}, {found.layers} layers, {found.parameters:,} parameters, "
        f"{found.bytes / 1e6:.1f} MB {', '.join(found.dtypes)}, for {found.base}; sha256 {adapter_sha256(folder)}"
    )
