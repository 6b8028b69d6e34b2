"""Who may do what in a PostgreSQL control database, as statements of SQL.

The owner may everything: it brings the schema up and down, and makes keys.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pawl.errors import PawlError
from pawl.rollout.backends import PLACES

READS, ADDS, WRITES = "SELECT", "SELECT, INSERT", "SELECT, INSERT, UPDATE"
# What answers clients rolls back and holds (routes, rollouts), counts what is spent, and tells what it did. It decides
# nothing for people: approvals, requests, rejections, keys and secrets are not its to write, and the last not to read.
GATEWAY: Mapping[str, str] = {
    "routes": WRITES,
    "rollouts": WRITES,
    "spending": WRITES,
    "audit": ADDS,
    "requests": READS,
    "approvals": READS,
    "rejections": READS,
    "pointers": READS,
    "quarantine": READS,
    "keys": READS,
    "key_secrets": READS,
    "audit_head": READS,
    "clock": READS,
    "alembic_version": READS,
}
# With MLflow's webhook the gateway checks a pasted code, which counts as the yes of the person that it names.
WEBHOOK: Mapping[str, str] = {"secrets": ADDS, "approvals": ADDS, "spent_codes": ADDS, "rejections": ADDS}
# Where an Envoy or an HTTPRoute splits, the gateway keeps which model stands behind which of its backends.
TRAFFIC: Mapping[str, str] = {"pointers": WRITES}
# Flows do all but keys.
FLOW: Mapping[str, str] = {
    **{t: WRITES for t in ("routes", "rollouts", "spending", "requests", "pointers", "quarantine")},
    **{t: ADDS for t in ("approvals", "spent_codes", "rejections", "secrets", "audit")},
    **{t: READS for t in ("keys", "key_secrets", "audit_head", "clock", "alembic_version")},
}
# A right to a table with names is one to these rows alone, for all but flows and the owner: a gateway of the webhook
# reads no password of an MLflow account, one of an engine moves neither the lake's manifest nor what aliases mean.
ROWS: Mapping[str, str] = {
    "pointers": f"starts_with(name, '{PLACES}')",
    "secrets": "name IN ('approval', 'mlflow-webhook')",
}


def grants(gateway: str, flow: str, *, webhook: bool = False, traffic: bool = False) -> list[str]:
    """Statements that give two roles exactly this; may be repeated. PawlError for a name that is none."""
    for role in (gateway, flow):
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", role):
            raise PawlError(f"{role!r} is no name of a role: letters, digits and _ alone")
    rights = {
        gateway: {**GATEWAY, **(WEBHOOK if webhook else {}), **(TRAFFIC if traffic else {})},
        flow: dict(FLOW),
    }
    made = [f'REVOKE ALL ON ALL TABLES IN SCHEMA public FROM "{role}"' for role in rights]
    made += [f'GRANT USAGE ON SCHEMA public TO "{role}"' for role in rights]
    made += [
        f'GRANT {what} ON public.{table} TO "{role}"'
        for role, all_of in rights.items()
        for table, what in all_of.items()
    ]
    for table, rows in ROWS.items():
        made.append(f"ALTER TABLE public.{table} ENABLE ROW LEVEL SECURITY")
        made.append(f'DROP POLICY IF EXISTS "{gateway}" ON public.{table}')  # it may have been a flows' role before
        made += _policy(table, "some rows", "", f"USING ({rows}) WITH CHECK ({rows})")
        made += _policy(table, flow, f'TO "{flow}" ', "USING (true) WITH CHECK (true)")
    return made + _policy("pointers", "all may be read", "FOR SELECT ", "USING (true)")


def _policy(table: str, name: str, whose: str, what: str) -> list[str]:
    # One that names no role holds for everybody, so for a role that gateways had before, too.
    return [
        f'DROP POLICY IF EXISTS "{name}" ON public.{table}',
        f'CREATE POLICY "{name}" ON public.{table} {whose}{what}',
    ]
