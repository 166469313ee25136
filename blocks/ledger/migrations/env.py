"""Alembic's entry: run on the connection that `blocks.ledger.migrate` hands over."""

from alembic import context

from blocks.ledger.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
