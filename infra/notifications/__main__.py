"""`python -m infra.notifications`: who is told of failed runs, waiting approvals, rollbacks and drift."""

from __future__ import annotations

from typing import Annotated

import typer

from infra.notifications.channels import Channels
from infra.notifications.notices import NOTICES
from pawl.errors import PawlError
from pawl.settings import Settings


def main(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be made; change nothing")] = False,
    test: Annotated[bool, typer.Option("--test", help="send a test message by every channel, from here")] = False,
) -> None:
    """Make Prefect tell people by Slack, e-mail and webhook. Run it again after a change; no channel: nobody is told.

    \b
    PAWL_NOTIFY_SLACK_URL      an incoming webhook of Slack
    PAWL_NOTIFY_WEBHOOK_URL    gets POST with {"subject", "body"}; PAWL_NOTIFY_WEBHOOK_TOKEN as its bearer token
    PAWL_NOTIFY_SMTP_URL       smtps://USER:PASSWORD@HOST, smtp+starttls://..., smtp://HOST:PORT,
                               with PAWL_NOTIFY_EMAIL_FROM and PAWL_NOTIFY_EMAIL_TO
    """
    from infra.notifications.automations_prefect import put, send_test

    channels, settings = Channels(), Settings()
    try:
        names = channels.names()
        if dry_run:
            by = ", ".join(names) or "nobody: no channel is given"
            lines = [f"{n.name}: {', '.join(n.events)} -> {by}" for n in NOTICES]
        elif test:
            lines = send_test(channels) or ["no channel is given"]
        else:
            lines = put(channels, settings.prefect_api_url) or ["no channel is given, and nothing was there"]
    except PawlError as e:
        typer.echo(f"error: {e}", err=True)
        raise typer.Exit(1) from None
    typer.echo("\n".join(lines))


if __name__ == "__main__":
    typer.run(main)
