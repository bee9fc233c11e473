"""Models, tasks, prompt sets, runs, circuits, evaluations, edits and the outbox."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_moment = sa.DateTime(timezone=True)
_json = sa.JSON(none_as_null=True)


def upgrade() -> None:
    """Make all tables, those that others refer to first."""
    _create_described()
    _create_circuits()
    _create_measured()


def downgrade() -> None:
    """Not supported: restore a backup instead."""
    raise NotImplementedError("restore a backup made before the upgrade")


def _create_described() -> None:
    op.create_table(
        "registry",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("created_at", _moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_registry")),
    )
    op.create_table(
        "models",
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("source", sa.Text()),
        sa.Column("revision", sa.Text()),
        sa.Column("weights_sha256", sa.Text()),
        sa.Column("architecture", sa.Text()),
        sa.Column("n_layers", sa.BigInteger()),
        sa.Column("n_heads", sa.BigInteger()),
        sa.Column("n_kv_heads", sa.BigInteger()),
        sa.Column("d_model", sa.BigInteger()),
        sa.Column("d_head", sa.BigInteger()),
        sa.Column("d_mlp", sa.BigInteger()),
        sa.Column("d_vocab", sa.BigInteger()),
        sa.Column("parallel_attn_mlp", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("slug", name=op.f("pk_models")),
    )
    op.create_table(
        "tasks",
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("family", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("slug", name=op.f("pk_tasks")),
    )
    op.create_table(
        "prompt_sets",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("seed", sa.BigInteger()),
        sa.Column("n_prompts", sa.BigInteger(), nullable=False),
        sa.Column("bos", sa.Boolean()),
        sa.Column("tokenizer", sa.Text()),
        sa.Column("model", sa.Text()),
        sa.Column("share_correct", sa.Double()),
        sa.Column("share_top1", sa.Double()),
        sa.Column("artifact", sa.Text()),
        sa.ForeignKeyConstraint(["model"], ["models.slug"], name=op.f("fk_prompt_sets_model")),
        sa.ForeignKeyConstraint(["task"], ["tasks.slug"], name=op.f("fk_prompt_sets_task")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_prompt_sets")),
    )
    op.create_index(op.f("ix_prompt_sets_task"), "prompt_sets", ["task"])
    op.create_table(
        "runs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("configuration", _json, nullable=False),
        sa.Column("configuration_sha256", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("started_at", _moment, nullable=False),
        sa.Column("finished_at", _moment),
        sa.Column("device", sa.Text()),
        sa.Column("packages", _json, nullable=False),
        sa.Column("error", sa.Text()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
    )
    op.create_index(op.f("ix_runs_configuration_sha256"), "runs", ["configuration_sha256"])
    op.create_index(op.f("ix_runs_started_at"), "runs", ["started_at"])


def _create_circuits() -> None:
    op.create_table(
        "circuits",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("prompt_set", sa.Text()),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("metric", sa.Text()),
        sa.Column("ablation", sa.Text()),
        sa.Column("sign", sa.Text(), nullable=False),
        sa.Column("level", sa.Text(), nullable=False),
        sa.Column("n_nodes", sa.BigInteger(), nullable=False),
        sa.Column("n_edges", sa.BigInteger(), nullable=False),
        sa.Column("universe_size", sa.BigInteger()),
        sa.Column("scores", sa.Text()),
        sa.Column("recorded_at", _moment, nullable=False),
        sa.Column("title", sa.Text()),
        sa.Column("notes", _json, nullable=False),
        sa.Column("author", sa.Text()),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("superseded_by", sa.Text()),
        sa.Column("reason", sa.Text()),
        sa.Column("search_text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["model"], ["models.slug"], name=op.f("fk_circuits_model")),
        sa.ForeignKeyConstraint(
            ["prompt_set"], ["prompt_sets.id"], name=op.f("fk_circuits_prompt_set")
        ),
        sa.ForeignKeyConstraint(
            ["superseded_by"],
            ["circuits.id"],
            name=op.f("fk_circuits_superseded_by"),
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.ForeignKeyConstraint(["task"], ["tasks.slug"], name=op.f("fk_circuits_task")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_circuits")),
    )
    op.create_index(op.f("ix_circuits_model"), "circuits", ["model"])
    op.create_index(op.f("ix_circuits_recorded_at"), "circuits", ["recorded_at"])
    op.create_index(op.f("ix_circuits_task"), "circuits", ["task"])
    op.create_table(
        "circuit_tags",
        sa.Column("circuit", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("tag", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["circuit"], ["circuits.id"], name=op.f("fk_circuit_tags_circuit")),
        sa.PrimaryKeyConstraint("circuit", "position", name=op.f("pk_circuit_tags")),
    )
    op.create_table(
        "circuit_runs",
        sa.Column("circuit", sa.Text(), nullable=False),
        sa.Column("run", sa.Text(), nullable=False),
        sa.Column("recorded_at", _moment, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["circuit"], ["circuits.id"], name=op.f("fk_circuit_runs_circuit")),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name=op.f("fk_circuit_runs_run")),
        sa.PrimaryKeyConstraint("circuit", "run", name=op.f("pk_circuit_runs")),
    )
    op.create_table(
        "circuit_files",
        sa.Column("circuit", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("recorded_at", _moment, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["circuit"], ["circuits.id"], name=op.f("fk_circuit_files_circuit")
        ),
        sa.PrimaryKeyConstraint("circuit", "sha256", name=op.f("pk_circuit_files")),
    )


def _create_measured() -> None:
    op.create_table(
        "evaluations",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("circuit", sa.Text(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("prompt_set", sa.Text()),
        sa.Column("measure", sa.Text(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("full", sa.Double()),
        sa.Column("empty", sa.Double()),
        sa.Column("ablation", sa.Text()),
        sa.Column("n_prompts", sa.BigInteger()),
        sa.Column("parameters", _json, nullable=False),
        sa.Column("recorded_at", _moment, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["circuit"], ["circuits.id"], name=op.f("fk_evaluations_circuit")),
        sa.ForeignKeyConstraint(
            ["prompt_set"], ["prompt_sets.id"], name=op.f("fk_evaluations_prompt_set")
        ),
        sa.ForeignKeyConstraint(["task"], ["tasks.slug"], name=op.f("fk_evaluations_task")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evaluations")),
    )
    op.create_index(op.f("ix_evaluations_circuit"), "evaluations", ["circuit"])
    op.create_table(
        "edits",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("editor", sa.Text(), nullable=False),
        sa.Column("hyperparameters", _json, nullable=False),
        sa.Column("request", _json, nullable=False),
        sa.Column("restriction", sa.Text()),
        sa.Column("components", _json, nullable=False),
        sa.Column("circuits", _json, nullable=False),
        sa.Column("note", sa.Text()),
        sa.Column("recorded_at", _moment, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["model"], ["models.slug"], name=op.f("fk_edits_model")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_edits")),
    )
    op.create_table(
        "outcomes",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("edit", sa.Text(), nullable=False),
        sa.Column("metric", sa.Text(), nullable=False),
        sa.Column("protocol", sa.Text(), nullable=False),
        sa.Column("task", sa.Text()),
        sa.Column("before", sa.Double()),
        sa.Column("after", sa.Double()),
        sa.Column("n_prompts", sa.BigInteger()),
        sa.Column("recorded_at", _moment, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["edit"], ["edits.id"], name=op.f("fk_outcomes_edit")),
        sa.ForeignKeyConstraint(["task"], ["tasks.slug"], name=op.f("fk_outcomes_task")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outcomes")),
    )
    op.create_index(op.f("ix_outcomes_edit"), "outcomes", ["edit"])
    op.create_table(
        "outbox",
        sa.Column(
            "sequence",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_outbox")),
        sqlite_autoincrement=True,
    )
