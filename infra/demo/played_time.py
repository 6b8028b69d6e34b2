"""A demo plays a week in minutes: what real clocks and real drift would start meanwhile is switched off in Prefect."""

from __future__ import annotations

from pawl.platform.prefect_server import ask
from pawl.settings import Settings

PATIENCE_S = 60.0  # deployments were made this moment: on SQLite the server has much to write
PLAYED = ("minute",)  # schedules that the story needs
STARTS = ("roll-out", "await-approval")  # flows that events go on starting


def only_what_is_played(settings: Settings) -> None:
    """Pause the schedules and the triggers of prefect.yaml that the story does without. A deployment made anew has
    them again. OSError where Prefect does not answer."""
    flows = {f["id"]: f["name"] for f in ask(settings, "/flows/filter", {}, PATIENCE_S)}
    deployments = ask(settings, "/deployments/filter", {}, PATIENCE_S)
    for one in deployments:
        for schedule in one["schedules"]:
            if schedule["slug"] not in PLAYED:
                at = f"/deployments/{one['id']}/schedules/{schedule['id']}"
                ask(settings, at, {"active": False}, PATIENCE_S, method="PATCH")
    played = {d["id"] for d in deployments if flows.get(d["flow_id"]) in STARTS}
    for automation in ask(settings, "/automations/filter", {}, PATIENCE_S):
        started = {a.get("deployment_id") for a in automation["actions"]} - {None}
        if started and not started & played:
            ask(settings, f"/automations/{automation['id']}", {"enabled": False}, PATIENCE_S, method="PATCH")
