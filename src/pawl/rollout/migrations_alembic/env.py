"""Alembic runs this for every command: on the connection it is given, or into a text (`--sql`)."""

from __future__ import annotations

from alembic import context

given = context.config.attributes
if context.is_offline_mode():
    context.configure(dialect_name=given["kind"], transactional_ddl=True)
else:
    context.configure(connection=given["connection"])
with context.begin_transaction():
    context.run_migrations()
