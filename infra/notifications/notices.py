"""What people are told, and in which words (pure).

No message carries what a client asked or a model answered, nor an error's text, which may quote it: a line says what
happened to which run, agent or version, and a link leads to the rest.
"""

from __future__ import annotations

from typing import NamedTuple


class Notice(NamedTuple):
    """One automation: events of these names about such resources, and Jinja templates of the message."""

    name: str
    events: tuple[str, ...]
    about: str  # resource ids, as Prefect matches them
    subject: str
    body: str


_VERSION = "{{ event.payload.agent }} version {{ event.payload.version }}"
_WHAT = "{{ event.event.split('.')[-2:] | join(' ') }}"
_RUN = "{{ flow.name }}: {{ flow_run.name }}"

NOTICES = (
    Notice(
        "pawl: a run failed",
        ("prefect.flow-run.Failed", "prefect.flow-run.Crashed", "prefect.flow-run.TimedOut"),
        "prefect.flow-run.*",
        f"{_RUN} {{{{ flow_run.state.name | lower }}}}",
        "The run says why: {{ flow_run | ui_url }}",
    ),
    Notice(
        "pawl: a run is given up",
        ("pawl.run.abandoned",),
        "prefect.flow-run.*",
        "{{ event.payload.flow }}: crashed {{ event.payload.times + 1 }} times and is not started again",
        "Its log says why: {{ event.resource.name }}",
    ),
    Notice(
        "pawl: an approval waits",
        ("pawl.approval.asked", "pawl.approval.reminder", "pawl.approval.held"),
        "pawl.version.*",
        f"{_VERSION}: {_WHAT}",
        "{{ event.payload.adapter }} on evidence {{ event.payload.evidence }}: {{ event.payload.link }}\n"
        "pawl approve {{ event.payload.agent }} {{ event.payload.version }}",
    ),
    Notice(
        "pawl: a rollout stopped",
        ("pawl.rollout.stopped",),
        "pawl.version.*",
        f"{_VERSION}: {{{{ event.payload.stage }}}}",
        "{{ event.payload.why }}\npawl rollout status {{ event.payload.agent }}",
    ),
    Notice(
        "pawl: what serves breaks a limit",
        ("pawl.champion.alarm", "pawl.champion.well"),
        "pawl.version.*",
        "{{ event.payload.agent }}: {{ event.event.split('.')[-1] }}",
        "{{ event.payload.version }}: {{ event.payload.why }}",
    ),
    Notice(
        "pawl: an alias was moved by something else",
        ("pawl.alias.restored",),
        "pawl.version.*",
        "{{ event.payload.agent }}@{{ event.payload.alias }} was moved by something else",
        "It named version {{ event.payload.found or 'none' }} and should name {{ event.payload.expected or 'none' }}.",
    ),
    Notice(
        "pawl: drift",
        ("pawl.drift.found",),
        "pawl.agent.*",
        "{{ event.payload.agent }}: its traffic is not what it was",
        "{{ event.payload.kinds | join(', ') }}\npawl drift {{ event.payload.agent }}",
    ),
)
