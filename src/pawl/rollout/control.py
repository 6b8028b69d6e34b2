"""The control database's port: routes, rollouts, approvals, keys, audit. Survives a restart of everything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from pawl.fleet.limits import KeyTerms
from pawl.rollout.route import Route
from pawl.rollout.state import Rollout

SCHEDULE = "the schedule"  # the starter of a training that no person started
Role = Literal["client", "feedback", "operator", "approver", "admin"]


class Key(msgspec.Struct, frozen=True):
    """An API key as stored: never the secret itself."""

    id: str
    role: Role
    name: str
    revoked: bool = False
    terms: KeyTerms = KeyTerms()


class Spent(msgspec.Struct, frozen=True):
    """What one scope used in one period."""

    scope: str  # "key:<id>" or "agent:<name>"
    period: str  # UTC day "2026-11-21" or month "2026-11"
    usd: float = 0.0
    tokens: int = 0
    requests: int = 0

    def plus(self, other: Spent) -> Spent:
        """Both together, of the same scope and period."""
        return Spent(
            self.scope,
            self.period,
            self.usd + other.usd,
            self.tokens + other.tokens,
            self.requests + other.requests,
        )


class AuditEntry(NamedTuple):
    """One entry of the audit log before it is chained."""

    event: str
    by: str
    detail: dict[str, Any]
    at: float  # epoch seconds


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """A person's yes or no, bound to the evidence they saw."""

    id: str
    agent: str
    version: str
    evidence: str  # sha256 of the evaluation report
    verdict: Literal["approved", "rejected"]
    by: str
    at: float
    expires: float
    reason: str = ""
    # Where it was given. Neither UI says who clicked, so there it is a code that names the person; "code" is what
    # earlier versions wrote of both.
    via: Literal["cli", "code", "mlflow", "prefect"] = "cli"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """An approval that is asked for; it waits without holding a worker. Its terms are those it was asked under."""

    agent: str
    version: str
    adapter: str
    adapter_sha256: str
    evidence: str
    asked_at: float
    expires: float
    override_by: str | None = None  # set where an operator forced it past the gate
    override_reason: str = ""
    skips: tuple[str, ...] = ()
    quorum: int = 1  # different people who must say yes
    starter: str = ""  # who started the training; "" where nobody knows
    starter_alone: bool = True  # whether the starter's own yes may be the only one
    candidate: str = ""  # whose evidence it is
    link: str = ""  # where a person sees the version
    reminded_at: float | None = None
    closed_at: float | None = None
    closed_as: Literal["", "held", "rejected"] = ""  # held: nobody answered in time


class Quarantined(msgspec.Struct, frozen=True):
    """A row that failed a critical check and is left out until somebody lets it go: its id, never its content."""

    table: str  # interactions or feedback
    row: str  # its id
    agent: str
    rule: str  # in words
    at: float  # epoch seconds
    released_at: float | None = None
    released_by: str = ""


class ControlStore(Protocol):
    """One SQLite file in the embedded set-up. Every method is one transaction."""

    def route(self, agent: str) -> Route | None: ...
    def routes(self) -> list[Route]: ...
    def changes(self) -> int:
        """A number that rises with every write of a route or a rollout, whoever wrote it; costs microseconds."""
        ...

    def put_route(self, route: Route) -> Route:
        """Write where `route.revision` is still current (0: must not exist) and no rollout of the agent is open;
        returns it with the next revision. StaleWrite otherwise."""
        ...

    def rollout(self, rollout_id: str) -> Rollout | None: ...
    def rollouts(self, agent: str | None = None) -> list[Rollout]:
        """Newest first."""
        ...

    def open_rollout(self, agent: str) -> Rollout | None: ...
    def save_rollout(self, rollout: Rollout, told: AuditEntry | None = None) -> Rollout:
        """Write where `rollout.revision` is still current (0: new), and in the same transaction `told` and the route it
        demands (`route_of`). StaleWrite where somebody else wrote the route since `route_revision` (of a new one 0:
        there was no route; rolling back goes through all the same), and for a new one while another is open for the
        agent. Returns it with the next revision."""
        ...

    def ask(self, request: Request) -> None: ...
    def amend_request(self, was: Request, now: Request) -> None:
        """Replace a request where it still is as it was read. StaleWrite otherwise."""
        ...

    def request(self, agent: str, version: str) -> Request | None: ...
    def requests(self) -> list[Request]: ...
    def record_approval(self, approval: Approval) -> None: ...
    def approvals(self, agent: str, version: str) -> list[Approval]: ...
    def spend_code(self, nonce: str, at: float) -> bool:
        """True the first time, False ever after."""
        ...

    def reject_adapter(self, sha256: str, agent: str, reason: str, at: float) -> None: ...
    def rejection(self, sha256: str) -> str | None:
        """The reason this adapter was rejected for, None where it was not."""
        ...

    def secret(self, name: str) -> bytes:
        """32 random bytes made at first use; the file is readable by its owner alone."""
        ...

    def create_key(self, role: Role, name: str, terms: KeyTerms = KeyTerms()) -> tuple[Key, str]:  # noqa: B008 - frozen
        """The stored key and, this once, its secret (`pawl_...`)."""
        ...

    def rotate_key(self, key_id: str, old_until: float) -> str | None:
        """A new secret of an active key; the old ones work until then (epoch seconds). None without such a key."""
        ...

    def find_key(self, secret: str) -> Key | None:
        """The key of that secret; None where it is unknown, revoked, or rotated away."""
        ...

    def keys(self) -> list[Key]: ...
    def revoke_key(self, key_id: str) -> bool: ...
    def spend(self, rows: Sequence[Spent]) -> None:
        """Add to what was spent."""
        ...

    def spending(self, periods: Sequence[str]) -> list[Spent]:
        """Everything spent in those periods."""
        ...

    def pointer(self, name: str) -> tuple[int, str]:
        """(revision, value) of a named value; (0, "") before the first."""
        ...

    def move_pointer(self, name: str, revision: int, value: str) -> None:
        """Set it where `revision` is still current. StaleWrite otherwise."""
        ...

    def quarantine(self, table: str, agent: str, rows: Mapping[str, str], at: float) -> int:
        """Leave these rows (id -> the rule that each broke) out from now on; returns how many were not before.
        One that was let go and fails again is set aside again."""
        ...

    def quarantined(self, agent: str | None = None) -> list[Quarantined]:
        """Those that are left out, oldest first."""
        ...

    def release(self, table: str, rows: Iterable[str], by: str, at: float) -> int:
        """Let rows go: the next run takes them in and checks them anew. Returns how many were held."""
        ...

    def audit(self, event: str, by: str, detail: dict[str, Any], at: float) -> None:
        """Append to the hash-chained log."""
        ...

    def audit_many(self, entries: Sequence[AuditEntry]) -> None:
        """As `audit`, all of them in one commit."""
        ...

    def audit_log(self) -> list[dict[str, Any]]: ...
    def verify_audit(self) -> str | None:
        """None where the chain is whole, else what is wrong with it."""
        ...
