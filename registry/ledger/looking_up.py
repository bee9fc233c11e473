"""What a ledger answers: lists, filters, prefixes of ids. All in the caller's transaction."""

from __future__ import annotations

import difflib
import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    Table,
    and_,
    exists,
    or_,
    select,
)

from registry.errors import BadIdentifier, BadInput, NotFound
from registry.ledger import tables
from registry.ledger.base import CircuitEntry, CircuitFilter
from registry.ledger.record_rows import circuit_entry, folded, record_from_row
from registry.records import Record, SourceFile

__all__ = [
    "artifact_addresses",
    "circuit_entries",
    "find_circuits",
    "records",
    "records_among",
    "resolve",
    "source_file_hashes",
]

R = TypeVar("R", bound=Record)

_PREFIX = re.compile(r"[0-9a-f]{4,64}")
_SHOWN_DIGITS = 12
_SHOWN_MATCHES = 5
_KEYS_A_STATEMENT = 500
"""Well below the number of parameters either database takes."""


def records(connection: Connection, kind: type[R], query: Select[Any]) -> tuple[R, ...]:
    """The records a query finds."""
    return tuple(record_from_row(kind, row) for row in connection.execute(query).mappings())


def records_among(
    connection: Connection,
    kind: type[R],
    query: Select[Any],
    column: Column[Any],
    keys: Iterable[str],
) -> Iterator[R]:
    """The records a query finds whose ``column`` is one of ``keys``, so many keys at a time."""
    left = iter(dict.fromkeys(keys))
    while some := list(itertools.islice(left, _KEYS_A_STATEMENT)):
        yield from records(connection, kind, query.where(column.in_(some)))


def resolve(connection: Connection, kind: str, table: Table, prefix: str) -> str:
    """The one id in ``table`` that starts with ``prefix``.

    Raises:
        NotFound: None does; the hint names the nearest.
        BadInput: Several do, or it is no prefix of four hexadecimal digits or more.
    """
    start = prefix.strip().lower()
    if not _PREFIX.fullmatch(start):
        raise BadIdentifier(prefix, f"the start of a {kind}'s id: 4 to 64 hexadecimal digits")
    query = select(table.c.id).where(table.c.id.startswith(start)).order_by(table.c.id)
    matches = connection.execute(query.limit(_SHOWN_MATCHES + 1)).scalars().all()
    if not matches:
        raise NotFound(kind, prefix, _nearest(connection, kind, table, start))
    if len(matches) > 1:
        listed = ", ".join(key[:_SHOWN_DIGITS] for key in matches[:_SHOWN_MATCHES])
        more = ", ..." if len(matches) > _SHOWN_MATCHES else ""
        raise BadInput(f"{prefix!r} starts several {kind}s; give more digits: {listed}{more}")
    return str(matches[0])


def find_circuits(which: CircuitFilter) -> Select[Any]:
    """The query for the circuits of a filter, newest first."""
    columns = tables.circuits.c
    exact = {"model": which.model, "method": which.method, "author": which.author}
    conditions: list[ColumnElement[bool]] = [
        columns[name] == value for name, value in exact.items() if value is not None
    ]
    if which.state is not None:
        conditions.append(columns.state == which.state.value)
    if which.task is not None:
        # Slugs are lower case; SQLite would compare the prefix without regard to case.
        slug = which.task.lower()
        within = columns.task.startswith(slug + "/", autoescape=True)
        conditions.append(or_(columns.task == slug, within))
    if which.tag is not None:
        tagged = tables.circuit_tags.c
        conditions.append(exists().where(tagged.circuit == columns.id, tagged.tag == which.tag))
    conditions += [
        columns.search_text.contains(word, autoescape=True)
        for word in folded(which.text or "").split()
    ]
    query = select(tables.circuits).where(and_(True, *conditions))
    return query.order_by(columns.recorded_at.desc(), columns.id).limit(which.limit)


def circuit_entries(connection: Connection, query: Select[Any]) -> tuple[CircuitEntry, ...]:
    """The circuits a query of whole ``circuits`` rows finds, with what hangs on them."""
    rows = connection.execute(query).mappings().all()
    if not rows:
        return ()
    ids = select(query.subquery().c.id)
    tags = _by_circuit(connection, tables.circuit_tags, ids, "position")
    runs = _by_circuit(connection, tables.circuit_runs, ids, "recorded_at", "position", "run")
    files = _by_circuit(connection, tables.circuit_files, ids, "recorded_at", "position", "sha256")
    faithful = _faithfulness(connection, ids)
    return tuple(
        circuit_entry(
            row,
            [tag["tag"] for tag in tags[row["id"]]],
            [run["run"] for run in runs[row["id"]]],
            [record_from_row(SourceFile, file) for file in files[row["id"]]],
            faithful.get(row["id"]),
        )
        for row in rows
    )


def artifact_addresses(connection: Connection) -> frozenset[str]:
    """Addresses of all artifacts that some record refers to."""
    found: set[str] = set()
    for column in (
        tables.circuits.c.id,
        tables.circuits.c.scores,
        tables.prompt_sets.c.artifact,
    ):
        found.update(connection.execute(select(column).where(column.is_not(None))).scalars())
    return frozenset(found)


def source_file_hashes(connection: Connection) -> frozenset[str]:
    """Hashes of all files that were imported."""
    found: set[str] = set()
    for table in (tables.circuit_files, tables.edit_files, tables.imported_files):
        found.update(connection.execute(select(table.c.sha256)).scalars())
    return frozenset(found)


def _by_circuit(
    connection: Connection, table: Table, ids: Select[Any], *order: str
) -> Mapping[str, list[RowMapping]]:
    query = select(table).where(table.c.circuit.in_(ids)).order_by(*(table.c[n] for n in order))
    found: dict[str, list[RowMapping]] = defaultdict(list)
    for row in connection.execute(query).mappings():
        found[row["circuit"]].append(row)
    return found


def _faithfulness(connection: Connection, ids: Select[Any]) -> dict[str, float]:
    """The latest faithfulness of each circuit on its own task."""
    columns, circuits = tables.evaluations.c, tables.circuits.c
    query = (
        select(columns.circuit, columns.value)
        .join(tables.circuits, and_(circuits.id == columns.circuit, circuits.task == columns.task))
        .where(columns.circuit.in_(ids), columns.measure == "faithfulness")
        .order_by(columns.recorded_at, columns.position, columns.id)
    )
    return {row.circuit: row.value for row in connection.execute(query)}


def _nearest(connection: Connection, kind: str, table: Table, start: str) -> str:
    ids = connection.execute(select(table.c.id)).scalars().all()
    if not ids:
        return f"no {kind} is stored yet"
    shortened = {key[: len(start)]: key for key in ids}
    close = difflib.get_close_matches(start, shortened, n=1)
    near = f"nearest: {shortened[close[0]][:_SHOWN_DIGITS]}; " if close else ""
    listing = "circuits list" if kind == "circuit" else "circuits edits list"
    return f"{near}see '{listing}'"
