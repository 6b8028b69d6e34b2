"""The control database in SQL: routes, rollouts and approvals; keys, audit and quarantine in its base classes."""

from __future__ import annotations

import msgspec

from pawl.errors import StaleWrite
from pawl.rollout.control import Approval, AuditEntry, Request
from pawl.rollout.control_sql_access import SqlAccess
from pawl.rollout.control_sql_audit import append_audit
from pawl.rollout.control_sql_quarantine import SqlQuarantine
from pawl.rollout.control_sql_store import Transaction, decode, encode
from pawl.rollout.route import Route
from pawl.rollout.state import TERMINAL, Rollout, percent_of, route_of


class SqlControl(SqlAccess, SqlQuarantine):
    """`ControlStore` on whatever `SqlStore` it is mixed with."""

    # -- routes --------------------------------------------------------------------------------------------------

    def route(self, agent: str) -> Route | None:
        return self.one_of(Route, "SELECT body FROM routes WHERE agent = ?", (agent,))

    def routes(self) -> list[Route]:
        return sorted(self.all_of(Route, "SELECT body FROM routes"), key=lambda r: r.agent)

    def changes(self) -> int:
        row = self.row("SELECT ticks FROM clock")
        return int(row[0]) if row else 0

    def put_route(self, route: Route) -> Route:
        with self.transaction() as db:
            current = self._route_revision(db, route.agent)
            if route.revision != current:
                raise StaleWrite(
                    f"the route of {route.agent} is at revision {current}, not {route.revision}: read it again"
                )
            rolling = db.execute("SELECT id FROM rollouts WHERE agent = ? AND open = 1", (route.agent,)).fetchone()
            if rolling:
                raise StaleWrite(
                    f"the route of {route.agent} belongs to its open rollout ({rolling[0]}): abort or finish that first"
                )
            return self._write_route(db, route, current)

    @staticmethod
    def _route_revision(db: Transaction, agent: str) -> int:
        row = db.execute("SELECT revision FROM routes WHERE agent = ?", (agent,)).fetchone()
        return int(row[0]) if row else 0

    @staticmethod
    def _write_route(db: Transaction, route: Route, current: int) -> Route:
        written = msgspec.structs.replace(route, revision=current + 1)
        db.execute(
            "INSERT INTO routes (agent, revision, body) VALUES (?, ?, ?) "
            "ON CONFLICT (agent) DO UPDATE SET revision = excluded.revision, body = excluded.body",
            (written.agent, written.revision, encode(written)),
        )
        return written

    # -- rollouts ------------------------------------------------------------------------------------------------

    def rollout(self, rollout_id: str) -> Rollout | None:
        return self.one_of(Rollout, "SELECT body FROM rollouts WHERE id = ?", (rollout_id,))

    def rollouts(self, agent: str | None = None) -> list[Rollout]:
        query = "SELECT body FROM rollouts WHERE (? IS NULL OR agent = ?) ORDER BY opened_at DESC, rowid DESC"
        return self.all_of(Rollout, query, (agent, agent))

    def open_rollout(self, agent: str) -> Rollout | None:
        return self.one_of(Rollout, "SELECT body FROM rollouts WHERE agent = ? AND open = 1", (agent,))

    def save_rollout(self, rollout: Rollout, told: AuditEntry | None = None) -> Rollout:
        """A finished rollout is never written again: it would take the route from the one that followed it.

        The way back is open whatever happened to the route; every other move wants it as this rollout left it.
        """
        with self.transaction() as db:
            row = db.execute("SELECT revision, open FROM rollouts WHERE id = ?", (rollout.id,)).fetchone()
            current, is_open = (int(row[0]), bool(row[1])) if row else (0, True)
            if rollout.revision != current:
                raise StaleWrite(
                    f"rollout {rollout.id} is at revision {current}, not {rollout.revision}: read it again and retry"
                )
            if not is_open:
                raise StaleWrite(f"rollout {rollout.id} has ended: open a new one")
            other = db.execute(
                "SELECT id FROM rollouts WHERE agent = ? AND open = 1 AND id <> ?", (rollout.agent, rollout.id)
            ).fetchone()
            if other:
                raise StaleWrite(f"{rollout.agent} has an open rollout ({other[0]}): finish it or roll it back first")
            at = self._route_revision(db, rollout.agent)
            left = _left_at(rollout)
            if left not in (None, at) and rollout.stage != "rolled_back":
                raise StaleWrite(
                    f"the route of {rollout.agent} is at revision {at}, {rollout.id} left it at {left}: somebody else "
                    "wrote it; look at it and abort the rollout"
                )
            saved = _with_route(msgspec.structs.replace(rollout, revision=current + 1), at + 1)
            stays_open = int(saved.stage not in TERMINAL)
            db.execute(
                "INSERT INTO rollouts (id, agent, revision, open, opened_at, body) VALUES (?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET revision = excluded.revision, open = excluded.open, "
                "body = excluded.body",
                (saved.id, saved.agent, saved.revision, stays_open, saved.opened_at, encode(saved)),
            )
            self._write_route(db, route_of(saved), at)
            append_audit(db, [told] if told else [])
            return saved

    # -- pointers ------------------------------------------------------------------------------------------------

    def pointer(self, name: str) -> tuple[int, str]:
        row = self.row("SELECT revision, value FROM pointers WHERE name = ?", (name,))
        return (int(row[0]), str(row[1])) if row else (0, "")

    def move_pointer(self, name: str, revision: int, value: str) -> None:
        with self.transaction() as db:
            row = db.execute("SELECT revision FROM pointers WHERE name = ?", (name,)).fetchone()
            current = int(row[0]) if row else 0
            if current != revision:
                raise StaleWrite(f"pointer {name} is at revision {current}, not {revision}: read it again")
            db.execute(
                "INSERT INTO pointers VALUES (?, ?, ?) "
                "ON CONFLICT (name) DO UPDATE SET revision = excluded.revision, value = excluded.value",
                (name, revision + 1, value),
            )

    # -- approvals -----------------------------------------------------------------------------------------------

    def ask(self, request: Request) -> None:
        """A request for the same version replaces the earlier one (its evidence or its expiry changed)."""
        with self.transaction() as db:
            db.execute(
                "INSERT INTO requests (agent, version, asked_at, body) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (agent, version) DO UPDATE SET asked_at = excluded.asked_at, body = excluded.body",
                (request.agent, request.version, request.asked_at, encode(request)),
            )

    def amend_request(self, was: Request, now: Request) -> None:
        """Never brings back what was asked before: a request that was asked anew in between stays."""
        with self.transaction() as db:
            row = db.execute(
                "SELECT body FROM requests WHERE agent = ? AND version = ?", (was.agent, was.version)
            ).fetchone()
            if row is None or decode(row[0], Request) != was:
                raise StaleWrite(f"the request for {was.agent} version {was.version} changed: read it again")
            db.execute(
                "UPDATE requests SET body = ?, asked_at = ? WHERE agent = ? AND version = ?",
                (encode(now), now.asked_at, was.agent, was.version),
            )

    def request(self, agent: str, version: str) -> Request | None:
        return self.one_of(Request, "SELECT body FROM requests WHERE agent = ? AND version = ?", (agent, version))

    def requests(self) -> list[Request]:
        """Newest first."""
        return self.all_of(Request, "SELECT body FROM requests ORDER BY asked_at DESC, rowid DESC")

    def record_approval(self, approval: Approval) -> None:
        """Recording the same approval twice changes nothing; another one under its id is a StaleWrite."""
        with self.transaction() as db:
            row = db.execute("SELECT body FROM approvals WHERE id = ?", (approval.id,)).fetchone()
            if row and decode(row[0], Approval) != approval:
                raise StaleWrite(f"approval {approval.id} is recorded with other content: give the new one its own id")
            if not row:
                db.execute(
                    "INSERT INTO approvals (id, agent, version, at, body) VALUES (?, ?, ?, ?, ?)",
                    (approval.id, approval.agent, approval.version, approval.at, encode(approval)),
                )

    def approvals(self, agent: str, version: str) -> list[Approval]:
        """In the order in which they were given."""
        query = "SELECT body FROM approvals WHERE agent = ? AND version = ? ORDER BY at, rowid"
        return self.all_of(Approval, query, (agent, version))

    def spend_code(self, nonce: str, at: float) -> bool:
        with self.transaction() as db:
            return db.execute("INSERT INTO spent_codes VALUES (?, ?) ON CONFLICT DO NOTHING", (nonce, at)).rowcount == 1

    def reject_adapter(self, sha256: str, agent: str, reason: str, at: float) -> None:
        """The first reason stays."""
        with self.transaction() as db:
            db.execute("INSERT INTO rejections VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", (sha256, agent, reason, at))

    def rejection(self, sha256: str) -> str | None:
        row = self.row("SELECT reason FROM rejections WHERE sha256 = ?", (sha256,))
        return str(row[0]) if row else None


def _left_at(rollout: Rollout) -> int | None:
    """The revision that its agent's route must still have. A new rollout's 0 says that there was no route yet, a
    stored one's is what earlier versions wrote where they did not know."""
    return None if rollout.revision and not rollout.route_revision else rollout.route_revision


def _with_route(rollout: Rollout, revision: int) -> Rollout:
    """The rollout as it is with its route written at that revision: from it on the challenger has this share."""
    percent = percent_of(rollout)
    before = rollout.shares[-1][1] if rollout.shares else None
    shares = rollout.shares if percent == before else (*rollout.shares, (revision, percent))
    return msgspec.structs.replace(rollout, route_revision=revision, shares=shares)
