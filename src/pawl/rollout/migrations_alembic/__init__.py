"""The control database's schema by revision, in the layout that Alembic wants."""
