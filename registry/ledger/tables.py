"""The present tables of the ledger; ``migrations/ledger`` has their history.

Nodes and edges of circuits are not here: they are documents in the artifact store. The order of
recording is given by ``recorded_at``, the time of a transaction, and ``position`` within it.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
)

__all__ = [
    "REVISION",
    "REVISION_TABLE",
    "attachments",
    "changes",
    "circuit_annotations",
    "circuit_files",
    "circuit_runs",
    "circuit_tags",
    "circuits",
    "edit_files",
    "edits",
    "evaluations",
    "graphs",
    "imported_files",
    "metadata",
    "models",
    "outcomes",
    "prompt_sets",
    "registry",
    "revisions",
    "runs",
    "tasks",
]

REVISION = "0004"
"""Newest revision in ``migrations/ledger``, which this program reads and writes."""

REVISION_TABLE = "ledger_revision"
"""Table with the database's revision. Not Alembic's default name, which others use too."""


class UtcDateTime(TypeDecorator[datetime]):
    """Times in UTC on both databases; SQLite has no time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn a time to UTC, without its zone if the database would drop it."""
        if value is None:
            return None
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy passes it
        """Return every time in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


# Names of constraints are the same on both databases, so that a revision can drop them.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_Json = JSON(none_as_null=True)

registry = Table(
    "registry",
    metadata,
    Column("id", Text, primary_key=True),
    Column("created_at", UtcDateTime, nullable=False),
    # Of this ledger only: a copy restored from a backup has the same id and another instance.
    Column("instance", Text, nullable=False),
    # Digest of the backup that it was filled from.
    Column("restored_from", Text),
)

models = Table(
    "models",
    metadata,
    Column("slug", Text, primary_key=True),
    Column("source", Text),
    Column("revision", Text),
    Column("weights_sha256", Text),
    Column("architecture", Text),
    Column("n_layers", BigInteger),
    Column("n_heads", BigInteger),
    Column("n_kv_heads", BigInteger),
    Column("d_model", BigInteger),
    Column("d_head", BigInteger),
    Column("d_mlp", BigInteger),
    Column("d_vocab", BigInteger),
    Column("parallel_attn_mlp", Boolean, nullable=False),
)

tasks = Table(
    "tasks",
    metadata,
    Column("slug", Text, primary_key=True),
    Column("family", Text, nullable=False),
    Column("description", Text, nullable=False),
)

prompt_sets = Table(
    "prompt_sets",
    metadata,
    Column("id", Text, primary_key=True),
    Column("task", ForeignKey("tasks.slug"), nullable=False, index=True),
    Column("seed", BigInteger),
    Column("n_prompts", BigInteger, nullable=False),
    Column("bos", Boolean),
    Column("tokenizer", Text),
    Column("model", ForeignKey("models.slug")),
    Column("share_correct", Double),
    Column("share_top1", Double),
    Column("artifact", Text),
)

runs = Table(
    "runs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("job", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("configuration", _Json, nullable=False),
    Column("configuration_sha256", Text, nullable=False, index=True),
    Column("status", Text, nullable=False),
    Column("started_at", UtcDateTime, nullable=False, index=True),
    Column("finished_at", UtcDateTime),
    Column("device", Text),
    Column("packages", _Json, nullable=False),
    Column("error", Text),
    # The process that computes it, see registry.processes.
    Column("host", Text),
    Column("pid", BigInteger),
    Column("process_started", Text),
    Column("boot", Text),
    # Number of its heartbeats, and the last one's time by the database's clock.
    Column("beats", BigInteger),
    Column("beat_at", UtcDateTime),
    # Beats seen by a reader that found it silent for too long, and the time by the same clock.
    Column("seen_beats", BigInteger),
    Column("seen_at", UtcDateTime),
    Column("stages", _Json),
)

circuits = Table(
    "circuits",
    metadata,
    Column("id", Text, primary_key=True),
    Column("model", ForeignKey("models.slug"), nullable=False, index=True),
    Column("task", ForeignKey("tasks.slug"), nullable=False, index=True),
    Column("prompt_set", ForeignKey("prompt_sets.id")),
    Column("method", Text, nullable=False),
    Column("metric", Text),
    Column("ablation", Text),
    Column("sign", Text, nullable=False),
    Column("level", Text, nullable=False),
    Column("n_nodes", BigInteger, nullable=False),
    Column("n_edges", BigInteger, nullable=False),
    Column("universe_size", BigInteger),
    Column("scores", Text),
    Column("recorded_at", UtcDateTime, nullable=False, index=True),
    # Labels: the data that people may change.
    Column("title", Text),
    Column("notes", _Json, nullable=False),
    Column("author", Text),
    Column("state", Text, nullable=False),
    # Checked when a transaction ends, so that a backup's circuits load in any order.
    Column("superseded_by", ForeignKey("circuits.id", deferrable=True, initially="DEFERRED")),
    Column("reason", Text),
    # Title and notes case-folded by Python: SQLite folds only ASCII.
    Column("search_text", Text, nullable=False),
)

circuit_tags = Table(
    "circuit_tags",
    metadata,
    Column("circuit", ForeignKey("circuits.id"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("tag", Text, nullable=False),
)

circuit_runs = Table(
    "circuit_runs",
    metadata,
    Column("circuit", ForeignKey("circuits.id"), primary_key=True),
    Column("run", ForeignKey("runs.id"), primary_key=True),
    Column("recorded_at", UtcDateTime, nullable=False),
    Column("position", Integer, nullable=False),
)

circuit_files = Table(
    "circuit_files",
    metadata,
    Column("circuit", ForeignKey("circuits.id"), primary_key=True),
    Column("sha256", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("format", Text, nullable=False),
    Column("recorded_at", UtcDateTime, nullable=False),
    Column("position", Integer, nullable=False),
)

evaluations = Table(
    "evaluations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("circuit", ForeignKey("circuits.id"), nullable=False, index=True),
    Column("task", ForeignKey("tasks.slug"), nullable=False),
    Column("prompt_set", ForeignKey("prompt_sets.id")),
    Column("measure", Text, nullable=False),
    Column("value", Double, nullable=False),
    Column("full", Double),
    Column("empty", Double),
    Column("ablation", Text),
    Column("n_prompts", BigInteger),
    Column("parameters", _Json, nullable=False),
    Column("recorded_at", UtcDateTime, nullable=False),
    Column("position", Integer, nullable=False),
    Column("run", ForeignKey("runs.id"), index=True),
)

# Roles that sources give to circuits' nodes later. A source gives a role to a node once; there is
# no constraint for this, because no index takes roles of any length. (In Python, ``annotations``
# has another meaning.)
circuit_annotations = Table(
    "annotations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("circuit", ForeignKey("circuits.id"), nullable=False, index=True),
    Column("node", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("said_by", Text, nullable=False),
    Column("run", ForeignKey("runs.id")),
    Column("scores", _Json, nullable=False),
    Column("recorded_at", UtcDateTime, nullable=False),
    Column("position", Integer, nullable=False),
)

edits = Table(
    "edits",
    metadata,
    Column("id", Text, primary_key=True),
    Column("model", ForeignKey("models.slug"), nullable=False),
    Column("editor", Text, nullable=False),
    Column("hyperparameters", _Json, nullable=False),
    Column("request", _Json, nullable=False),
    Column("restriction", Text),
    Column("components", _Json, nullable=False),
    Column("circuits", _Json, nullable=False),
    Column("note", Text),
    Column("recorded_at", UtcDateTime, nullable=False),
    Column("position", Integer, nullable=False),
    Column("run", ForeignKey("runs.id"), index=True),
)

edit_files = Table(
    "edit_files",
    metadata,
    Column("edit", ForeignKey("edits.id"), primary_key=True),
    Column("sha256", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("format", Text, nullable=False),
    Column("recorded_at", UtcDateTime, nullable=False),
    Column("position", Integer, nullable=False),
)

# Files that are stored even if no circuit or edit names them.
imported_files = Table(
    "imported_files",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("format", Text, nullable=False),
    Column("recorded_at", UtcDateTime, nullable=False),
    Column("position", Integer, nullable=False),
)

outcomes = Table(
    "outcomes",
    metadata,
    Column("id", Text, primary_key=True),
    Column("edit", ForeignKey("edits.id"), nullable=False, index=True),
    Column("metric", Text, nullable=False),
    Column("protocol", Text, nullable=False),
    Column("task", ForeignKey("tasks.slug")),
    Column("before", Double),
    Column("after", Double),
    Column("n_prompts", BigInteger),
    Column("recorded_at", UtcDateTime, nullable=False),
    Column("position", Integer, nullable=False),
)

# Named files of circuits, runs, edits and prompt sets. The owner is a row of one of four tables;
# therefore the code that writes, not a constraint, checks that it exists.
attachments = Table(
    "attachments",
    metadata,
    Column("owner_kind", Text, primary_key=True),
    Column("owner", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("media_type", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("says", Text, nullable=False),
    Column("recorded_at", UtcDateTime, nullable=False),
    Column("position", Integer, nullable=False),
)

# One row for each writing transaction that changed something that a graph shows, oldest first from
# 1. The random token distinguishes two histories that have reached the same number.
revisions = Table(
    "revisions",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("token", Text, nullable=False),
)

# One row for each record that a graph shows: the revision that changed it last.
changes = Table(
    "changes",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("revision", BigInteger, nullable=False, index=True),
)

# The revision of each graph when it was last written. The graph's own marker takes precedence: this
# table informs processes that wait for a graph's writer, and gives pending changes of a graph that
# is down.
graphs = Table(
    "graphs",
    metadata,
    Column("address", Text, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("noted_at", UtcDateTime, nullable=False),
)
