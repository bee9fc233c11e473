"""All rows of a ledger as JSON types, out of one database and into another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Table, delete, func, insert, select, text
from sqlalchemy.exc import OperationalError, StatementError

from registry.errors import LedgerError
from registry.ledger import tables
from registry.ledger.base import CircuitFilter
from registry.ledger.looking_up import circuit_entries, find_circuits, records
from registry.records import (
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
"""What a backup holds, referred-to first. Not revisions: a restored ledger begins its own."""
_TAKEN = ("0002", tables.REVISION)
"""Revisions whose rows can be loaded: between them, only what a backup leaves out has changed."""
_RECORDS: tuple[tuple[type[Record], Table], ...] = (
    (Model, tables.models),
    (Task, tables.tasks),
    (PromptSet, tables.prompt_sets),
    (Run, tables.runs),
    (Evaluation, tables.evaluations),
    (Edit, tables.edits),
    (Outcome, tables.outcomes),
    (SourceFile, tables.edit_files),
    (SourceFile, tables.imported_files),
)
_UNFIT = (StatementError, OverflowError, TypeError, ValueError)
"""What databases and their drivers raise for values they cannot hold."""
_OWN_COLUMNS = ("instance", "restored_from")
"""Columns of the registry's row that are this ledger's own, not the dumped one's."""


def dump_rows(connection: Connection) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every row as ``(table, row)``; first the schema's revision."""
    # Asked of the database, as the moment that all rows are of is that of the first question.
    found = connection.execute(text(f"SELECT version_num FROM {tables.REVISION_TABLE}"))
    yield tables.REVISION_TABLE, {"version_num": found.scalar_one()}
    for name, table in _TABLES.items():
        dumped = _dumped_columns(table)
        query = select(table).order_by(*table.primary_key).execution_options(yield_per=_CHUNK)
        # Closed also where the caller stops half-way.
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
        rows: What was dumped.
        instance: What the ledger goes on being called.
        digest: Which backup the rows come from.

    Raises:
        LedgerError: They are of another version, or no ledger's.
    """
    remaining = iter(rows)
    _check_revision(next(remaining, None))
    connection.execute(delete(tables.registry))
    own = {"instance": instance, "restored_from": digest}
    for table, some in _chunks(remaining):
        if table is tables.registry:
            some = [{**row, **own} for row in some]
        try:
            connection.execute(insert(table), some)
        except _UNFIT as error:
            if isinstance(error, OperationalError):  # the database's own trouble
                raise
            raise LedgerError(
                f"the backup has rows of {table.name!r} that the ledger cannot hold: {_said(error)}"
            ) from error
    if connection.execute(select(func.count()).select_from(tables.registry)).scalar_one() != 1:
        raise LedgerError("the backup does not name its registry; it is not whole")
    _require_records(connection)


def _require_records(connection: Connection) -> None:
    """Read every row as the record it holds: what passes here can be shown, and projected."""
    try:
        circuit_entries(connection, find_circuits(CircuitFilter()))
        for kind, table in _RECORDS:
            records(connection, kind, select(table))
    except ValueError as error:
        raise LedgerError(f"the backup has a row that is no record: {_said(error)}") from error


def is_empty(connection: Connection) -> bool:
    """Whether nothing has been recorded."""
    recorded = (table for name, table in _TABLES.items() if name != tables.registry.name)
    return not any(connection.execute(select(table).limit(1)).first() for table in recorded)


def _check_revision(first: tuple[str, Mapping[str, Any]] | None) -> None:
    if first is None or first[0] != tables.REVISION_TABLE:
        raise LedgerError("the backup does not begin with its ledger's revision; it is not whole")
    found = first[1].get("version_num")
    if found not in _TAKEN:
        raise LedgerError(
            f"the backup is of revision {found}, this program reads {tables.REVISION}: restore it"
            " with the version of circuit-registry that wrote it, then run 'circuits migrate'"
        )


def _chunks(
    rows: Iterable[tuple[str, Mapping[str, Any]]],
) -> Iterator[tuple[Table, list[dict[str, Any]]]]:
    """Rows of one table that follow each other, a few hundred at a time."""
    table: Table | None = None
    some: list[dict[str, Any]] = []
    for name, row in rows:
        if name not in _TABLES or set(row) != set(_dumped_columns(_TABLES[name])):
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


def _to_json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _from_json(table: Table, column: str, value: Any) -> Any:
    if value is None or not isinstance(table.columns[column].type, tables.UtcDateTime):
        return value
    try:
        return in_utc(datetime.fromisoformat(value))
    except (TypeError, ValueError) as error:
        raise LedgerError(f"the backup has {value!r} where {column} is a time") from error


def _said(error: Exception) -> str:
    cause = error.orig if isinstance(error, StatementError) and error.orig else error
    return " ".join(str(cause).split())[:200]
