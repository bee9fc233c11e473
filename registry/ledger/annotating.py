"""Annotations in the ledger: setting and removing the roles that sources give to circuits' nodes.

A source gives a role to a node once. Everything runs in the caller's transaction, as in
:mod:`registry.ledger.writing`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from sqlalchemy import Column, Connection, RowMapping, Select, delete, insert, select

from registry.errors import NotFound
from registry.ledger import tables
from registry.ledger.looking_up import chunks
from registry.ledger.record_rows import row_from_record
from registry.records import Annotation

__all__ = ["all_annotations", "take_back", "write_annotations"]


def all_annotations(circuit: str | None = None) -> Select[tuple[object, ...]]:
    """The query for the annotations of one circuit or all, in order of recording."""
    columns = tables.circuit_annotations.c
    query = select(tables.circuit_annotations).order_by(
        columns.recorded_at, columns.position, columns.id
    )
    return query if circuit is None else query.where(columns.circuit == circuit)


def write_annotations(
    connection: Connection, given: Sequence[Annotation], now: datetime, *, also: bool
) -> tuple[list[str], list[str]]:
    """Set annotations.

    Args:
        connection: In a writing transaction.
        given: Annotations; if several give one role to a node for one source, the last one counts.
        now: Time of recording.
        also: Keep other roles that these sources gave to these nodes.

    Returns:
        Ids of the new annotations, and of the circuits with changes.

    Raises:
        NotFound: There is no such circuit or run.
    """
    _require(connection, "circuit", tables.circuits.c.id, (one.circuit for one in given))
    _require(connection, "run", tables.runs.c.id, (one.run for one in given if one.run))
    last = {one.place: one for one in given}
    said = {place[:3] for place in last}
    stored = list(_of_circuits(connection, (one.circuit for one in given)))
    gone = [
        row
        for row in stored
        if (
            last[place].id != row["id"]
            if (place := _place(row)) in last
            else not also and place[:3] in said
        )
    ]
    known = {row["id"] for row in stored}
    added = [one for one in last.values() if one.id not in known]
    _delete(connection, [row["id"] for row in gone])
    rows = [
        row_from_record(
            tables.circuit_annotations, one, id=one.id, recorded_at=now, position=position
        )
        for position, one in enumerate(added)
    ]
    if rows:
        connection.execute(insert(tables.circuit_annotations), rows)
    changed = [*(row["circuit"] for row in gone), *(one.circuit for one in added)]
    return [one.id for one in added], list(dict.fromkeys(changed))


def take_back(
    connection: Connection, circuit: str, node: str, said_by: str, role: str | None
) -> int:
    """Remove roles that a source gave to a node: one role, or all; return their number."""
    columns = tables.circuit_annotations.c
    query = select(columns.id).where(
        columns.circuit == circuit, columns.node == node, columns.said_by == said_by
    )
    if role is not None:
        query = query.where(columns.role == role)
    ids = connection.execute(query).scalars().all()
    _delete(connection, ids)
    return len(ids)


def _place(row: RowMapping) -> tuple[str, str, str, str]:
    """Like :attr:`registry.records.Annotation.place`."""
    return row["circuit"], row["node"], row["said_by"], row["role"]


def _require(connection: Connection, kind: str, column: Column[str], keys: Iterable[str]) -> None:
    wanted = set(keys)
    found: set[str] = set()
    for some in chunks(wanted):
        found.update(connection.execute(select(column).where(column.in_(some))).scalars())
    if missing := wanted - found:
        raise NotFound(kind, min(missing), "what a record refers to is recorded with it or before")


def _of_circuits(connection: Connection, circuits: Iterable[str]) -> Iterator[RowMapping]:
    table = tables.circuit_annotations
    for some in chunks(circuits):
        query = select(table).where(table.c.circuit.in_(some))
        yield from connection.execute(query).mappings().all()


def _delete(connection: Connection, ids: Iterable[str]) -> None:
    for some in chunks(ids):
        connection.execute(
            delete(tables.circuit_annotations).where(tables.circuit_annotations.c.id.in_(some))
        )
