"""Tables for many kinds of jobs: runs of measurements, heartbeats, files, annotations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add columns and tables; existing data do not change and have no run."""
    _runs_of_measurements()
    _lives_of_runs()
    _attachments()
    _annotations()


def _runs_of_measurements() -> None:
    for table in ("evaluations", "edits"):
        # As SQL that both databases accept: Alembic would copy SQLite's table for the key.
        op.execute(
            f"ALTER TABLE {table} ADD COLUMN run TEXT"
            f" CONSTRAINT {op.f(f'fk_{table}_run')} REFERENCES runs (id)"
        )
        op.create_index(op.f(f"ix_{table}_run"), table, ["run"])


def _lives_of_runs() -> None:
    """The machine of a run, and its heartbeats; running runs get their last beat now."""
    for column in (
        sa.Column("host", sa.Text(), nullable=True),
        sa.Column("pid", sa.BigInteger(), nullable=True),
        sa.Column("process_started", sa.Text(), nullable=True),
        sa.Column("boot", sa.Text(), nullable=True),
        sa.Column("beats", sa.BigInteger(), nullable=True),
        sa.Column("beat_at", _moment, nullable=True),
        sa.Column("seen_beats", sa.BigInteger(), nullable=True),
        sa.Column("seen_at", _moment, nullable=True),
        sa.Column("stages", sa.JSON(), nullable=True),
    ):
        op.add_column("runs", column)
    op.execute("UPDATE runs SET beat_at = CURRENT_TIMESTAMP WHERE status = 'running'")


def _attachments() -> None:
    op.create_table(
        "attachments",
        sa.Column("owner_kind", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("says", sa.Text(), nullable=False),
        sa.Column("recorded_at", _moment, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("owner_kind", "owner", "name", name=op.f("pk_attachments")),
    )


def _annotations() -> None:
    op.create_table(
        "annotations",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("circuit", sa.Text(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("said_by", sa.Text(), nullable=False),
        sa.Column("run", sa.Text(), nullable=True),
        sa.Column("scores", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("recorded_at", _moment, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["circuit"], ["circuits.id"], name=op.f("fk_annotations_circuit")),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name=op.f("fk_annotations_run")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_annotations")),
    )
    op.create_index(op.f("ix_annotations_circuit"), "annotations", ["circuit"])


def downgrade() -> None:
    """Not supported: restore a backup instead."""
    raise NotImplementedError("restore a backup made before the upgrade")
