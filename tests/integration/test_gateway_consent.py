"""Consent to learning through a running gateway: clients and keys say it, the lake holds it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from tests.integration.gateway_process import PROMPT, LiveGateway
from tests.waiting import until

AGENT = "functional-negative"
ASK: list[Any] = [{"role": "user", "content": PROMPT}]


def test_what_clients_and_keys_say_is_recorded(live: LiveGateway) -> None:
    env = os.environ | {"PAWL_HOME": str(live.home), "PAWL_FLEET": str(live.settings.fleet)}
    made = subprocess.run(
        [sys.executable, "-m", "pawl.cli", "keys", "create", "client", "quiet", "--no-learn"],
        env=env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    listed = subprocess.run(
        [sys.executable, "-m", "pawl.cli", "keys", "list"], env=env, capture_output=True, text=True, check=True
    )
    assert "learn=False" in next(row for row in listed.stdout.splitlines() if "quiet" in row)
    client, quiet = live.client(), live.client(made.stdout.strip())
    answers = {
        "": [client.chat.completions.create(model=AGENT, messages=ASK).id],
        "denied": [
            client.chat.completions.create(model=AGENT, messages=ASK, store=False).id,
            client.responses.create(model=AGENT, input=PROMPT, store=False).id,
            quiet.chat.completions.create(model=AGENT, messages=ASK, store=True).id,
        ],
        "granted": [client.chat.completions.create(model=AGENT, messages=ASK, metadata={"learn": "yes"}).id],
    }
    until(lambda: len(live.recorded()) == 10)  # the cloud's shadows too
    found = {i.id: i.consent for i in live.recorded()} | {
        f"shadow of {i.shadow_of}": i.consent for i in live.recorded() if i.shadow_of
    }
    for wanted, ids in answers.items():
        for i in ids:
            assert found[i] == wanted and found[f"shadow of {i}"] == wanted
    status, body = live.request(
        "/v1/chat/completions", {"model": AGENT, "messages": ASK, "metadata": {"learn": "never"}}
    )
    assert status == 400 and "metadata.learn" in body["error"]["message"]
