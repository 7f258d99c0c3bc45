"""Alembic's entry point; the connection comes from ``vitsearch.storage.database``."""

from alembic import context

from vitsearch.storage.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
