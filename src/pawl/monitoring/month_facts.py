"""What was recorded of a month, as sums: all that the independence figures are computed from (pure).

A column holds one value a group of sessions. Sessions are the unit that is drawn again: the calls of one resemble each
other. Up to `GROUPS` sessions each is a group of its own; beyond, sessions fall into that many groups by a hash of
their name, whose sums are as independent as the sessions' are, so that a month of any size costs the same to resample.
"""

from __future__ import annotations

import msgspec

from pawl.evaluation.report import Interval

GROUPS = 1000
Column = tuple[float, ...]


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """Of one agent, or of the fleet. US dollars and counts, by group of sessions."""

    sessions: Column = ()
    calls: Column = ()  # to arms, for clients; those that a cascade kept from them and shadows are apart
    answered: Column = ()  # whole answers
    local: Column = ()  # of those, by local models
    fallback: Column = ()  # of those, by a cloud for a local arm
    due: Column = ()  # requests that should have been answered
    served: Column = ()  # of those, the ones that were
    paid: Column = ()  # answers and drafts, by the prices of upstreams
    cloud_paid: Column = ()  # of that, to clouds
    shadow_paid: Column = ()
    shadow_cloud_paid: Column = ()
    all_cloud: Column = ()  # what the answers would have cost there

    def total(self, name: str) -> float:
        """The sum of a column."""
        return float(sum(getattr(self, name)))


class Tallies(msgspec.Struct, frozen=True, kw_only=True):
    """Plain counts of one agent, or of the fleet."""

    prompt_tokens: int = 0  # of all calls for clients, drafts too
    completion_tokens: int = 0
    local_tokens: int = 0  # of both kinds, by local models, their shadows too: what the machines worked at
    refused: int = 0  # requests that no arm could have answered
    left: int = 0  # whose client hung up
    shadows: int = 0
    drafts: int = 0
    cloud_calls: int = 0  # answers, drafts and shadows that clouds were asked for
    cloud_calls_beside_fallback: int = 0
    cloud_usd_beside_fallback: float = 0.0
    priced_by_shadow: int = 0  # answers that the cloud wrote to as well
    priced_by_own: int = 0
    unpriced: int = 0  # answers without a token count


class Pairs(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that a local model and the cloud both answered, both scored 0..1: sums by group of sources."""

    local: Column = ()
    cloud: Column = ()
    count: Column = ()
    sources: Column = ()
    same_voice: int = 0  # pairs both of whose scores came from the same judge


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """One percentile of served requests, in seconds, with its interval over sessions."""

    value: float
    lower: float
    upper: float
    requests: int
    sessions: int


class Day(msgspec.Struct, frozen=True, kw_only=True):
    """One day of the fleet, in the report's time zone."""

    day: str  # 2026-11-21
    answered: int
    local: int
    fallback: int
    due: int
    served: int
    paid: float
    shadow_paid: float
    all_cloud: float


class Workflow(msgspec.Struct, frozen=True, kw_only=True):
    """A chain of fleet.yaml, or what clients name in `metadata.workflow`."""

    name: str
    chain: bool
    runs: int  # of a chain: how often it was asked; of others: sessions
    failed: int  # runs of a chain that did not end well
    calls: int
    paid: float
    all_cloud: float


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of one agent, or of the fleet (name "")."""

    name: str
    traffic: Traffic = Traffic()
    tallies: Tallies = Tallies()
    pairs: dict[str, Pairs] = {}  # all; simple (requests); tuned (answers of adapters)
    p50: Latency | None = None
    p95: Latency | None = None


class Month(msgspec.Struct, frozen=True, kw_only=True):
    """A month's records, summed."""

    fleet: Scope
    agents: tuple[Scope, ...] = ()
    workflows: tuple[Workflow, ...] = ()
    days: tuple[Day, ...] = ()
    first: float | None = None  # epoch seconds of the first and the last interaction
    last: float | None = None
    imported: int = 0  # rows that came from other tools, and are not counted
    embeddings: int = 0  # calls that are not counted: nobody's chat price is theirs
    hours_down: int = 0  # hours with requests none of which was served
    hours_used: int = 0


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Weights of what serves, as files: adapters beside as many full models. Bytes."""

    base: int
    adapters: dict[str, int]  # what serves -> its own weights


class Domain(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter that learnt from several agents, on its own agent's held-out items."""

    agent: str
    adapter: str
    ratio: Interval  # its mean score over that of the one it was to replace, paired
    items: int
