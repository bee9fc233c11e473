"""The list of changes that the graph does not show yet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Column, Connection, delete, func, insert, literal, select

from registry.ledger import tables
from registry.ledger.base import Change, ChangeKind

__all__ = ["acknowledge", "append_changes", "pending", "pending_count", "requeue_everything"]

_sequence = tables.outbox.c.sequence
_ROWS_A_STATEMENT = 500

_PROJECTED: dict[ChangeKind, tuple[Column[Any], ...]] = {
    ChangeKind.MODEL: (tables.models.c.slug,),
    ChangeKind.TASK: (tables.tasks.c.slug,),
    ChangeKind.PROMPT_SET: (tables.prompt_sets.c.id,),
    ChangeKind.RUN: (tables.runs.c.id, tables.runs.c.started_at),
    ChangeKind.CIRCUIT: (tables.circuits.c.id, tables.circuits.c.recorded_at),
    ChangeKind.EVALUATION: (tables.evaluations.c.id, tables.evaluations.c.recorded_at),
    ChangeKind.EDIT: (tables.edits.c.id, tables.edits.c.recorded_at),
}
"""What has a place in the graph: its key and what orders it. What others refer to stands first."""


def append_changes(connection: Connection, changes: Iterable[tuple[ChangeKind, str]]) -> None:
    """Put changes at the end of the outbox, each once, in that order."""
    rows = [{"kind": kind.value, "key": key} for kind, key in dict.fromkeys(changes)]
    if rows:
        connection.execute(insert(tables.outbox), rows)


def pending(connection: Connection, limit: int | None) -> tuple[Change, ...]:
    """The oldest changes."""
    query = select(tables.outbox).order_by(_sequence).limit(limit)
    return tuple(
        Change(row["sequence"], ChangeKind(row["kind"]), row["key"])
        for row in connection.execute(query).mappings()
    )


def pending_count(connection: Connection) -> int:
    """How many changes wait."""
    return int(connection.execute(select(func.count()).select_from(tables.outbox)).scalar_one())


def acknowledge(connection: Connection, sequences: Sequence[int]) -> None:
    """Delete precisely these rows: nothing says that lower numbers were seen by the caller."""
    for start in range(0, len(sequences), _ROWS_A_STATEMENT):
        some = sequences[start : start + _ROWS_A_STATEMENT]
        connection.execute(delete(tables.outbox).where(_sequence.in_(some)))


def requeue_everything(connection: Connection) -> int:
    """Put every record into the outbox, instead of what was there; return how many."""
    connection.execute(delete(tables.outbox))
    for kind, (key, *order) in _PROJECTED.items():
        rows = select(literal(kind.value), key).order_by(*order, key)
        connection.execute(insert(tables.outbox).from_select(["kind", "key"], rows))
    return pending_count(connection)
