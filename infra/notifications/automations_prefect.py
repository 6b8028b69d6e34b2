"""Notification blocks and automations on a Prefect server, made from the environment; repeated runs change nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from uuid import UUID

from httpx import HTTPError
from prefect.blocks.core import Block
from prefect.blocks.fields import SecretDict
from prefect.blocks.notifications import CustomWebhookNotificationBlock, SlackWebhook
from prefect.client.orchestration import get_client
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import PrefectException
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import SecretStr

from infra.notifications.channels import Channels, mail_address
from infra.notifications.notices import NOTICES, Notice
from pawl.errors import PawlError, ServerNotUp

TAG = "pawl-notices"


def block(channels: Channels, name: str) -> SlackWebhook | CustomWebhookNotificationBlock:
    """The block that sends by this channel."""
    if name == "slack":
        assert channels.slack_url is not None
        return SlackWebhook(url=channels.slack_url)
    if name == "email":
        # Prefect's server has no block for a mail server of one's own. This one hands whatever address it has to
        # Apprise, which speaks SMTP.
        return SlackWebhook(url=SecretStr(mail_address(channels)))
    assert channels.webhook_url is not None
    secrets = {"address": channels.webhook_url.get_secret_value()}
    headers = None
    if channels.webhook_token:
        secrets["token"] = channels.webhook_token.get_secret_value()
        headers = {"Authorization": "Bearer {{token}}"}
    return CustomWebhookNotificationBlock(
        name="pawl",
        url="{{address}}",  # may hold a key: it is kept among the secrets
        json_data={"subject": "{{subject}}", "body": "{{body}}"},
        headers=headers,
        secrets=SecretDict(secrets),
    )


def automation(notice: Notice, blocks: list[UUID]) -> AutomationCore:
    """Once for each event, by every channel."""
    return AutomationCore(
        name=notice.name,
        description="Made by python -m infra.notifications; what is changed here is overwritten by its next run.",
        tags=[TAG],
        trigger=EventTrigger(
            expect=set(notice.events),
            match={"prefect.resource.id": notice.about},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=[SendNotification(block_document_id=one, subject=notice.subject, body=notice.body) for one in blocks],
    )


def put(channels: Channels, api: str) -> list[str]:
    """Make or change the blocks of the given channels and one automation a notice; a line for each.

    Without any channel the automations go. ServerNotUp where Prefect at `api` does not answer, PawlError where it
    refuses.
    """
    with _server(api), get_client(sync_client=True) as client:
        names, told = channels.names(), []
        saved: list[UUID] = []
        for name in names:
            made = block(channels, name)
            saved.append(UUID(str(_save(made, f"pawl-{name}"))))
            told.append(f"block pawl-{name}: by {name}")
        for notice in NOTICES:
            known = client.read_automations_by_name(notice.name)
            if saved and known:
                client.update_automation(known[0].id, automation(notice, saved))
                told.append(f"automation {notice.name!r}: brought up to date")
            elif saved:
                client.create_automation(automation(notice, saved))
                told.append(f"automation {notice.name!r}: made")
            for extra in known[1 if saved else 0 :]:
                client.delete_automation(extra.id)
                told.append(f"automation {notice.name!r}: removed")
        return told


def send_test(channels: Channels) -> list[str]:
    """Send a message by every channel from here; a line for each. PawlError for the first that does not take it."""
    told = []
    for name in channels.names():
        one = block(channels, name)
        try:
            with one.raise_on_failure():
                asyncio.run(one.anotify("Sent by `python -m infra.notifications --test`.", "pawl: a test"))
        except Exception as e:  # a client of its own for each channel, each with errors of its own
            # Without its text, which may hold the address, and with it a key.
            raise PawlError(f"{name} did not take the test message ({type(e).__name__}): check its address") from None
        told.append(f"{name}: the test message was taken")
    return told


def _save(made: Block, name: str) -> UUID:
    return UUID(str(made.save(name, overwrite=True)))


@contextmanager
def _server(api: str) -> Iterator[None]:
    try:
        with temporary_settings({PREFECT_API_URL: api}):
            yield
    except (HTTPError, PrefectException) as e:
        answer = getattr(e, "response", None)
        if answer is not None and answer.status_code < 500:
            raise PawlError(f"Prefect at {api} refused ({answer.status_code}): {answer.text[:300]}") from e
        raise ServerNotUp(f"Prefect at {api} does not answer ({e}); start it, or look at its log") from e
    except RuntimeError as e:  # Prefect's client, where it reaches nothing
        if "reach" not in str(e).lower():
            raise
        raise ServerNotUp(f"Prefect at {api} does not answer ({e}); start it, or look at its log") from e
