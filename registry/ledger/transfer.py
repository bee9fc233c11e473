"""All rows of a ledger as JSON types: read from one database and written into another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Table, delete, func, insert, select, text
from sqlalchemy.exc import OperationalError, StatementError

from registry.errors import LedgerError
from registry.files.attachments import Attachment
from registry.ledger import tables
from registry.ledger.base import CircuitFilter
from registry.ledger.lives import lives
from registry.ledger.looking_up import OWNER_TABLES, circuit_entries, find_circuits, records
from registry.records import (
    Annotation,
    Edit,
    Evaluation,
    Model,
    Outcome,
    PromptSet,
    Record,
    Run,
    SourceFile,
    Task,
    in_utc,
)

__all__ = ["dump_rows", "is_empty", "load_rows"]

_CHUNK = 500
_OF_THIS_LEDGER = (tables.changes, tables.graphs, tables.revisions)
_TABLES = {
    table.name: table for table in tables.metadata.sorted_tables if table not in _OF_THIS_LEDGER
}
"""Tables of a backup, in order of reference. Without revisions: a restored ledger has its own."""
_TAKEN = ("0002", "0003", tables.REVISION)
"""Revisions whose rows can be loaded; columns that were added later may be absent."""
_ADDED: Mapping[str, Mapping[str, frozenset[str]]] = {
    "0004": {
        "runs": frozenset(
            {
                "host",
                "pid",
                "process_started",
                "boot",
                "beats",
                "beat_at",
                "seen_beats",
                "seen_at",
                "stages",
            }
        ),
        "evaluations": frozenset({"run"}),
        "edits": frozenset({"run"}),
    }
}
"""By revision, the columns that it added to each table; rows of earlier revisions lack them."""
_RECORDS: tuple[tuple[type[Record], Table], ...] = (
    (Model, tables.models),
    (Task, tables.tasks),
    (PromptSet, tables.prompt_sets),
    (Run, tables.runs),
    (Evaluation, tables.evaluations),
    (Annotation, tables.circuit_annotations),
    (Edit, tables.edits),
    (Outcome, tables.outcomes),
    (SourceFile, tables.edit_files),
    (SourceFile, tables.imported_files),
    (Attachment, tables.attachments),
)
_UNFIT = (StatementError, OverflowError, TypeError, ValueError)
"""Errors of databases and their drivers for values that they cannot hold."""
_OWN_COLUMNS = ("instance", "restored_from")
"""Columns of the registry's row that belong to this ledger, not to the dumped one."""


def dump_rows(connection: Connection) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every row as ``(table, row)``; first the schema's revision."""
    # Queried from the database, because the first query fixes the moment of all rows.
    found = connection.execute(text(f"SELECT version_num FROM {tables.REVISION_TABLE}"))
    yield tables.REVISION_TABLE, {"version_num": found.scalar_one()}
    for name, table in _TABLES.items():
        dumped = _dumped_columns(table)
        query = select(table).order_by(*table.primary_key).execution_options(yield_per=_CHUNK)
        # Also closed if the caller stops early.
        with connection.execute(query) as result:
            for row in result.mappings():
                yield name, {column: _to_json(row[column]) for column in dumped}


def load_rows(
    connection: Connection,
    rows: Iterable[tuple[str, Mapping[str, Any]]],
    *,
    instance: str,
    digest: str | None,
) -> None:
    """Write the rows of :func:`dump_rows`, and the registry's id with them.

    Args:
        connection: In the transaction that fills an empty ledger.
        rows: The dumped rows.
        instance: Instance that the ledger keeps.
        digest: Identifies the backup of the rows.

    Raises:
        LedgerError: They are of another version, or not of a ledger.
    """
    remaining = iter(rows)
    revision = _checked_revision(next(remaining, None))
    connection.execute(delete(tables.registry))
    own = {"instance": instance, "restored_from": digest}
    for table, some in _chunks(remaining, revision):
        if table is tables.registry:
            some = [{**row, **own} for row in some]
        try:
            connection.execute(insert(table), some)
        except _UNFIT as error:
            if isinstance(error, OperationalError):  # a problem of the database itself
                raise
            raise LedgerError(
                f"the backup has rows of {table.name!r} that the ledger cannot hold: {_said(error)}"
            ) from error
    if connection.execute(select(func.count()).select_from(tables.registry)).scalar_one() != 1:
        raise LedgerError("the backup does not name its registry; it is incomplete")
    _require_records(connection)


def _require_records(connection: Connection) -> None:
    """Read every row as the record it holds: rows that pass can be shown and projected."""
    try:
        circuit_entries(connection, find_circuits(CircuitFilter()))
        for kind, table in _RECORDS:
            records(connection, kind, select(table))
        lives(connection, connection.execute(select(tables.runs.c.id)).scalars())
    except ValueError as error:
        raise LedgerError(f"the backup has a row that is not a record: {_said(error)}") from error
    attached = tables.attachments.c
    for owner_kind, owners in OWNER_TABLES.items():
        lacking = attached.owner_kind == owner_kind, attached.owner.not_in(select(owners.c.id))
        lost = connection.execute(select(attached.owner).where(*lacking)).scalars().first()
        if lost is not None:
            raise LedgerError(
                f"the backup has an attachment of the {owner_kind.words} {lost[:12]}, which is not"
                " in it"
            )


def is_empty(connection: Connection) -> bool:
    """Whether nothing has been recorded."""
    recorded = (table for name, table in _TABLES.items() if name != tables.registry.name)
    return not any(connection.execute(select(table).limit(1)).first() for table in recorded)


def _checked_revision(first: tuple[str, Mapping[str, Any]] | None) -> str:
    if first is None or first[0] != tables.REVISION_TABLE:
        raise LedgerError("the backup does not begin with its ledger's revision; it is incomplete")
    found = first[1].get("version_num")
    if found not in _TAKEN:
        raise LedgerError(
            f"the backup is of revision {found}, this program reads {tables.REVISION}: restore it"
            " with the version of circuit-registry that wrote it, then run 'circuits migrate'"
        )
    return str(found)


def _chunks(
    rows: Iterable[tuple[str, Mapping[str, Any]]], revision: str
) -> Iterator[tuple[Table, list[dict[str, Any]]]]:
    """Consecutive rows of one table, a few hundred at a time."""
    table: Table | None = None
    some: list[dict[str, Any]] = []
    for name, row in rows:
        if name not in _TABLES or set(row) != _columns_at(_TABLES[name], revision):
            raise LedgerError(f"the backup has rows of {name!r} that this program does not know")
        if some and (table is not _TABLES[name] or len(some) == _CHUNK):
            assert table is not None
            yield table, some
            some = []
        table = _TABLES[name]
        some.append({column: _from_json(table, column, value) for column, value in row.items()})
    if table is not None and some:
        yield table, some


def _dumped_columns(table: Table) -> list[str]:
    own = _OWN_COLUMNS if table is tables.registry else ()
    return [name for name in map(str, table.columns.keys()) if name not in own]


def _columns_at(table: Table, revision: str) -> set[str]:
    """The columns of that table in a backup of that revision."""
    later = (added for of, added in _ADDED.items() if of > revision)
    return set(_dumped_columns(table)).difference(*(one.get(table.name, ()) for one in later))


def _to_json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _from_json(table: Table, column: str, value: Any) -> Any:
    if value is None or not isinstance(table.columns[column].type, tables.UtcDateTime):
        return value
    try:
        return in_utc(datetime.fromisoformat(value))
    except (TypeError, ValueError) as error:
        raise LedgerError(f"the backup has {value!r} where {column} must be a time") from error


def _said(error: Exception) -> str:
    cause = error.orig if isinstance(error, StatementError) and error.orig else error
    return " ".join(str(cause).split())[:200]
