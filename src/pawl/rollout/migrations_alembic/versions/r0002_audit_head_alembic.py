"""The last number and hash that the audit log was given."""

from __future__ import annotations

from pawl.rollout.migrations_alembic.statements_alembic import down, up

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    up(revision)


def downgrade() -> None:
    down(revision)
