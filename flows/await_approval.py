"""Waiting for a person, where Prefect's page shows it: the form takes a code, and no process waits."""

from __future__ import annotations

from prefect import flow
from prefect.flow_runs import suspend_flow_run

from tasks.approval import ApprovalCode, form, look, take
from tasks.values import Waited


@flow(flow_run_name="approval of {agent} version {version}")
def await_approval(agent: str, version: str, evidence: str) -> Waited:
    """Ends when people have answered in whatever way. Resumed, it begins from the top: what was pasted comes to the
    same again, and a code that answers nothing asks for another.

    Args:
        agent: its name in fleet.yaml
        version: its number in the registry
        evidence: the digest of the report that the answer is bound to
    """
    said, attempt = "", 1
    while (waited := look(agent, version, evidence, said)).outcome == "waiting":
        # A key that was answered gives its answer back; each attempt has its own.
        given: ApprovalCode = suspend_flow_run(
            wait_for_input=form(agent, version, said), timeout=waited.timeout_s, key=f"answer-{attempt}"
        )
        said, attempt = take(agent, version, evidence, given.code), attempt + 1
    return waited
