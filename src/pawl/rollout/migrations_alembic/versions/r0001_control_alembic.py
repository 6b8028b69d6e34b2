"""Routes, rollouts, approvals, keys, spending, pointers, quarantine and the audit log."""

from __future__ import annotations

from pawl.rollout.migrations_alembic.statements_alembic import up

revision = "0001"
down_revision = None


def upgrade() -> None:
    up(revision)
