"""The baseline of the quality alert: what the version that serves was measured at before anybody was served by it.

It is the mean score of the arm on the held-out items of its evaluation, by the agent's own oracle: the figure that a
person approved. The gateway compares it with the mean score of outcomes, which come from the same oracle. It lives in
the control database, so that a gateway needs neither MLflow nor the machine that trained.
"""

from __future__ import annotations

from collections.abc import Iterable

from pawl.errors import StaleWrite
from pawl.rollout.control import ControlStore, Request
from pawl.rollout.route import Arm


def keep(control: ControlStore, agent: str, champion: str, challenger_sha256: str, *, was: float, found: float) -> None:
    """Note an evaluation: `found`, the challenger's mean score 0..1 (evaluated anew, it counts anew), and `was`, the
    champion's, where none is noted of it yet."""
    _write(control, _by_adapter(agent, challenger_sha256), found, anew=True)
    _write(control, _by_name(agent, champion), was, anew=False)


def known(control: ControlStore, agent: str, arm: Arm, requests: Iterable[Request]) -> float | None:
    """The baseline of an arm; None where it was never evaluated. `requests`: approvals that were asked, which tell
    whose weights an adapter's name stands for."""
    shas = [r.adapter_sha256 for r in requests if (r.agent, r.adapter) == (agent, arm.name)]
    for name in (*(_by_adapter(agent, sha) for sha in shas), _by_name(agent, arm.name)):
        value = control.pointer(name)[1]
        if value:
            return float(value)
    return None


def _by_adapter(agent: str, sha256: str) -> str:
    return f"quality:{agent}:sha256:{sha256}"


def _by_name(agent: str, arm: str) -> str:
    return f"quality:{agent}:arm:{arm}"


def _write(control: ControlStore, name: str, mean: float, *, anew: bool) -> None:
    while True:
        revision, value = control.pointer(name)
        if value and (not anew or float(value) == mean):
            return
        try:
            control.move_pointer(name, revision, f"{mean:.6f}")
        except StaleWrite:
            continue  # two evaluations ended in one moment
        return
