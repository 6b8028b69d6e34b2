"""What the compliance report tells: no text of a client or a model, and no secret. Times are epoch seconds."""

from __future__ import annotations

from typing import Literal

import msgspec

Light = Literal["green", "red", "grey"]  # shown to hold, shown not to, not known
Category = Literal["unknown", "restricted", "network copyleft", "copyleft", "weak copyleft", "permissive"]


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """Requests of one caller for one agent to one upstream that is not local, under one privacy mode."""

    agent: str
    by: str  # the key's name, or the identity provider's subject
    key_id: str
    upstream: str
    host: str
    mode: str
    kind: Literal["request", "shadow"]
    requests: int
    attempts: int  # calls: a busy upstream is asked again
    first: float
    last: float
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float


class Blocked(msgspec.Struct, frozen=True, kw_only=True):
    """What did not leave, and why."""

    agent: str
    by: str
    upstream: str
    mode: str  # the privacy mode that forbade it
    kind: Literal["request", "shadow"]
    requests: int


class Day(msgspec.Struct, frozen=True):
    """One UTC day. `calls` and `shadows` are requests that left."""

    day: str
    calls: int
    shadows: int
    blocked: int


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Prompts that an evaluation sent to a cloud."""

    seq: int  # of the audit entry
    at: float
    agent: str
    by: str
    upstream: str
    host: str
    items: int


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """A server that Pawl talks to, by its configuration."""

    name: str
    host: str
    scheme: str
    outside: bool  # beyond this machine
    carries: str
    cloud: bool = False


class Egress(msgspec.Struct, frozen=True, kw_only=True):
    """What left the machine."""

    interactions: int  # recorded in the window, of all arms
    local: int  # answered by local arms
    requests: int  # that left
    shadows: int
    attempts: int
    unaudited: int  # recorded as answered by a cloud, unknown to the audit log
    against_mode: int  # that left though their mode keeps them in
    imported: int  # of other tools: they never went through this gateway
    stand_ins: tuple[str, ...]  # upstreams that only simulate a cloud
    denied: int  # whose client or key forbids learning from them
    sent: tuple[Sent, ...]
    blocked: tuple[Blocked, ...]
    days: tuple[Day, ...]
    evaluations: tuple[Asked, ...]
    channels: tuple[Channel, ...]


class KeyFact(msgspec.Struct, frozen=True, kw_only=True):
    """One API key, without its secret."""

    id: str
    name: str
    role: str
    revoked: bool
    agents: tuple[str, ...]  # empty: all
    privacy: str
    made: float | None  # by the audit log
    rotated: float | None
    revoked_at: float | None
    used: float | None  # last, by the lake and the audit log


class Event(msgspec.Struct, frozen=True):
    """How often something is in the audit log."""

    name: str
    times: int
    first: float
    last: float


class Exceptional(msgspec.Struct, frozen=True, kw_only=True):
    """An entry that a reviewer wants to look at; what was said with it stands in the audit log under `seq`."""

    seq: int
    at: float
    event: str
    by: str
    about: str  # agent, version, counts: never free text
    forced: bool


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A version that was put before clients, and on whose word."""

    agent: str
    version: str
    rollout: str
    opened: float
    stage: str
    approved_by: tuple[str, ...]
    forced_by: str
    starter: str


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """Who may do what, and who did."""

    entries: int  # in the whole audit log
    last: float | None
    broken: str  # where the chain of hashes breaks; empty where it is whole
    events: tuple[Event, ...]
    exceptional: tuple[Exceptional, ...]
    strangers: tuple[str, ...]  # who acted and is neither a key nor automation
    keys: tuple[KeyFact, ...]
    changes: tuple[Change, ...]


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What the lake holds of one table and agent, against the limits."""

    table: str
    agent: str
    rows: int
    oldest: float
    oldest_text: float | None  # None: retention has taken all texts
    text_overdue: int  # rows whose text should have gone
    row_overdue: int
    partitions: tuple[str, ...]  # the overdue ones, by UTC date


class Beside(msgspec.Struct, frozen=True, kw_only=True):
    """What lies beside the lake and may repeat texts; no limit of time is kept there."""

    what: str
    files: int
    bytes: int
    oldest: float | None


class Erasure(msgspec.Struct, frozen=True, kw_only=True):
    """A person that was erased: that it was done, not who it was."""

    seq: int
    at: float
    by: str
    interactions: int
    unreached: int  # places that did not answer
    still: tuple[str, ...]  # datasets and adapters that learnt from them and are still there


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept, for how long, and what was erased."""

    payload_days: float
    audit_days: float
    told: str  # where those limits come from
    last_run: float | None
    kept: tuple[Kept, ...]
    waiting: int  # records that the journal holds and the lake not yet
    beside: tuple[Beside, ...]
    erasures: tuple[Erasure, ...]
    marks: int  # erased subjects that the lake remembers by digest
    ids: int  # erased interactions that it remembers by digest
    leftovers: int  # records in the lake that one of those marks should have taken out


class Licensed(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is used, and its terms."""

    kind: Literal["model", "adapter", "dataset", "library", "service"]
    name: str
    version: str
    licence: str
    category: Category
    note: str = ""


class Scrubbed(msgspec.Struct, frozen=True):
    """What was taken out of a dataset's texts before anything learnt from them."""

    dataset: str
    counts: dict[str, int]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One security setting, as configured or as found."""

    name: str
    light: Light
    found: str
    measured: bool  # looked at on this machine; otherwise as configured or told


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """One requirement of a framework, what is known of it here, and what stays with the operator."""

    framework: str
    ref: str
    title: str
    light: Light
    found: str
    duty: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    v: int = 1
    made: float
    by: str
    since: float
    until: float
    agent: str  # empty: all
    pawl: str
    egress: Egress
    access: Access
    retention: Retention
    licences: tuple[Licensed, ...]
    scrubbed: tuple[Scrubbed, ...]
    security: tuple[Finding, ...]
    controls: tuple[Control, ...] = ()
