"""A demo plays a week in minutes: what real clocks and real drift would start meanwhile is switched off in Prefect."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

from pawl.settings import Settings

PLAYED = ("minute",)  # schedules that the story needs
STARTS = ("roll-out", "await-approval")  # flows that events go on starting


def only_what_is_played(settings: Settings) -> None:
    """Pause the schedules and the triggers of prefect.yaml that the story does without. A deployment made anew has
    them again. OSError where Prefect does not answer."""
    flows = {f["id"]: f["name"] for f in _ask(settings, "POST", "/flows/filter", {})}
    deployments = _ask(settings, "POST", "/deployments/filter", {})
    for one in deployments:
        for schedule in one["schedules"]:
            if schedule["slug"] not in PLAYED:
                _ask(settings, "PATCH", f"/deployments/{one['id']}/schedules/{schedule['id']}", {"active": False})
    played = {d["id"] for d in deployments if flows.get(d["flow_id"]) in STARTS}
    for automation in _ask(settings, "POST", "/automations/filter", {}):
        started = {a.get("deployment_id") for a in automation["actions"]} - {None}
        if started and not started & played:
            _ask(settings, "PATCH", f"/automations/{automation['id']}", {"enabled": False})


def _ask(settings: Settings, method: str, path: str, body: Any) -> Any:
    request = urllib.request.Request(  # noqa: S310 - the settings' own address
        settings.prefect_api_url + path, json.dumps(body).encode(), {"content-type": "application/json"}, method=method
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return json.loads(answer.read() or b"null")
