"""Program that Alembic runs: applies the revisions in ``versions`` on a given connection.

``circuits migrate`` passes a connection inside one transaction, so that a database gets all of the
pending revisions or none of them.
"""

from __future__ import annotations

from alembic import context

from registry.ledger.tables import REVISION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=REVISION_TABLE,
    render_as_batch=True,  # SQLite changes a table by copying it
)
with context.begin_transaction():
    context.run_migrations()
