"""The ledger's instance and revisions, and the state of each graph, instead of one outbox."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_moment = sa.DateTime(timezone=True)
_PROJECTED = {
    "model": ("models", "slug"),
    "task": ("tasks", "slug"),
    "prompt_set": ("prompt_sets", "id"),
    "run": ("runs", "id"),
    "circuit": ("circuits", "id"),
    "evaluation": ("evaluations", "id"),
    "edit": ("edits", "id"),
}


def upgrade() -> None:
    """Give all records the first revision, so that every graph projects them again."""
    op.create_table(
        "revisions",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_revisions")),
    )
    op.create_table(
        "changes",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "key", name=op.f("pk_changes")),
    )
    op.create_index(op.f("ix_changes_revision"), "changes", ["revision"])
    op.create_table(
        "graphs",
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("noted_at", _moment, nullable=False),
        sa.PrimaryKeyConstraint("address", name=op.f("pk_graphs")),
    )
    for kind, (table, key) in _PROJECTED.items():
        op.execute(f"INSERT INTO changes SELECT '{kind}', {key}, 1 FROM {table}")
    token = _random()
    op.execute(f"INSERT INTO revisions SELECT 1, {token} WHERE EXISTS (SELECT 1 FROM changes)")
    op.add_column("registry", sa.Column("instance", sa.Text(), nullable=True))
    op.add_column("registry", sa.Column("restored_from", sa.Text(), nullable=True))
    op.execute(f"UPDATE registry SET instance = {token}")
    with op.batch_alter_table("registry") as registry:
        registry.alter_column("instance", existing_type=sa.Text(), nullable=False)
    op.drop_table("outbox")


def downgrade() -> None:
    """Not supported: restore a backup instead."""
    raise NotImplementedError("restore a backup made before the upgrade")


def _random() -> str:
    """32 random hexadecimal digits made by the database."""
    if op.get_bind().dialect.name == "sqlite":
        return "lower(hex(randomblob(16)))"
    return "replace(CAST(gen_random_uuid() AS text), '-', '')"
