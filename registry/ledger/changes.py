"""The changed records of each revision of the ledger.

A revision is a writing transaction that changed something that a graph shows. Writers wait for each
other until their transactions end (:func:`registry.ledger.engine.writing`), so numbers are
committed in order: a process that has seen revision 7 has seen all revisions before it. A graph at
revision 7 lacks the result of :func:`changes_since` for 7, for any number of graphs.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime

from sqlalchemy import Connection, case, delete, func, insert, literal, select

from registry.ledger import tables
from registry.ledger.base import Change, ChangeKind, Delta, Revision
from registry.ledger.looking_up import chunks

__all__ = [
    "append_changes",
    "append_everything",
    "changes_since",
    "count_since",
    "has_revision",
    "newest_revision",
    "note_projected",
    "projected",
]


_PROJECTED = {
    ChangeKind.MODEL: tables.models.c.slug,
    ChangeKind.TASK: tables.tasks.c.slug,
    ChangeKind.PROMPT_SET: tables.prompt_sets.c.id,
    ChangeKind.RUN: tables.runs.c.id,
    ChangeKind.CIRCUIT: tables.circuits.c.id,
    ChangeKind.EDIT: tables.edits.c.id,
    ChangeKind.EVALUATION: tables.evaluations.c.id,
}
"""The records that a graph shows, with their keys. Records that others refer to come first."""

_PLACES = {kind.value: place for place, kind in enumerate(_PROJECTED)}


def append_changes(connection: Connection, changes: Iterable[tuple[ChangeKind, str]]) -> None:
    """Make one revision of these changes; no revision if there are none."""
    keys: dict[str, list[str]] = defaultdict(list)
    for kind, key in dict.fromkeys(changes):
        keys[kind.value].append(key)
    if not keys:
        return
    number = _new_revision(connection)
    table = tables.changes
    for name, some in ((k, part) for k, all_ in keys.items() for part in chunks(all_)):
        connection.execute(delete(table).where(table.c.kind == name, table.c.key.in_(some)))
        rows = [{"kind": name, "key": key, "revision": number} for key in some]
        connection.execute(insert(table), rows)


def append_everything(connection: Connection) -> None:
    """Make one revision that changed every record; for a ledger that was filled in one step."""
    connection.execute(delete(tables.changes))
    number = _new_revision(connection)
    for kind, key in _PROJECTED.items():
        rows = select(literal(kind.value), key, literal(number))
        columns = ["kind", "key", "revision"]
        connection.execute(insert(tables.changes).from_select(columns, rows))


def newest_revision(connection: Connection) -> Revision:
    """The revision that the ledger is at."""
    columns = tables.revisions.c
    query = select(columns.number, columns.token).order_by(columns.number.desc()).limit(1)
    found = connection.execute(query).first()
    return Revision() if found is None else Revision(found.number, found.token)


def has_revision(connection: Connection, revision: Revision) -> bool:
    """Whether the ledger went through that revision."""
    if revision == Revision():
        return True
    query = select(tables.revisions.c.token).where(tables.revisions.c.number == revision.number)
    return connection.execute(query).scalar() == revision.token


def changes_since(connection: Connection, number: int) -> Delta:
    """The changes after that revision, records that others refer to first, and the end revision."""
    table = tables.changes
    place = case(_PLACES, value=table.c.kind)
    query = select(table).where(table.c.revision > number).order_by(place, table.c.revision)
    found = connection.execute(query.order_by(table.c.key)).mappings()
    changes = tuple(Change(ChangeKind(row["kind"]), row["key"]) for row in found)
    return Delta(changes, newest_revision(connection))


def count_since(connection: Connection, number: int) -> int:
    """The number of changes after that revision."""
    query = select(func.count()).where(tables.changes.c.revision > number)
    return int(connection.execute(query).scalar_one())


def note_projected(connection: Connection, graph: str, number: int) -> None:
    """Note the revision that a graph was written up to."""
    table = tables.graphs
    connection.execute(delete(table).where(table.c.address == graph))
    row = {"address": graph, "revision": number, "noted_at": datetime.now(UTC)}
    connection.execute(insert(table), row)


def projected(connection: Connection, graph: str) -> int:
    """The revision that was last noted for a graph; 0 if none was."""
    query = select(tables.graphs.c.revision).where(tables.graphs.c.address == graph)
    return int(connection.execute(query).scalar() or 0)


def _new_revision(connection: Connection) -> int:
    number = newest_revision(connection).number + 1
    row = {"number": number, "token": uuid.uuid4().hex}
    connection.execute(insert(tables.revisions), row)
    return number
