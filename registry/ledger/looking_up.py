"""Queries of a ledger: lists, filters, prefixes of ids. All in the caller's transaction."""

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
    Text,
    and_,
    cast,
    exists,
    func,
    or_,
    select,
)

from registry.errors import BadIdentifier, BadInput, NotFound
from registry.files.attachments import AttachmentOwner
from registry.ledger import tables
from registry.ledger.base import (
    ChangeKind,
    CircuitEntry,
    CircuitFilter,
    EditFilter,
    PromptSetFilter,
)
from registry.ledger.record_rows import circuit_entry, folded, record_from_row
from registry.measures import FAITHFULNESS
from registry.records import Record, SourceFile

__all__ = [
    "OWNER_TABLES",
    "artifact_addresses",
    "chunks",
    "circuit_entries",
    "find_circuits",
    "find_edits",
    "find_prompt_sets",
    "is_of_task",
    "records",
    "records_among",
    "resolve",
    "resolve_owner",
    "resolved",
    "source_file_hashes",
]

R = TypeVar("R", bound=Record)

_PREFIX = re.compile(r"[0-9a-f]{4,64}")
_SHOWN_DIGITS = 12
_SHOWN_MATCHES = 5
_LISTINGS = {
    "circuit": "circuits list",
    "edit": "circuits edits list",
    "run": "circuits runs",
    "prompt set": "circuits prompts",
}
"""Commands that show ids of each kind."""
_KEYS_A_STATEMENT = 500
"""Well below the maximum number of parameters of either database."""


def records(connection: Connection, kind: type[R], query: Select[Any]) -> tuple[R, ...]:
    """The records that a query finds."""
    return tuple(record_from_row(kind, row) for row in connection.execute(query).mappings())


def records_among(
    connection: Connection,
    kind: type[R],
    query: Select[Any],
    column: Column[Any],
    keys: Iterable[str],
) -> Iterator[R]:
    """The records of a query whose ``column`` is one of ``keys``, read in chunks of keys."""
    for some in chunks(keys):
        yield from records(connection, kind, query.where(column.in_(some)))


def chunks(keys: Iterable[str]) -> Iterator[list[str]]:
    """The distinct keys in lists that are short enough for one statement."""
    left = iter(dict.fromkeys(keys))
    while some := list(itertools.islice(left, _KEYS_A_STATEMENT)):
        yield some


def resolve(connection: Connection, kind: str, table: Table, prefix: str) -> str:
    """The one id in ``table`` that starts with ``prefix``.

    Raises:
        NotFound: None does; the hint gives the nearest id.
        BadInput: Several do, or it is not a prefix of four hexadecimal digits or more.
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


def resolved(connection: Connection, kind: str, record: type[R], table: Table, prefix: str) -> R:
    """The one record in ``table`` whose id starts with ``prefix``; errors as in :func:`resolve`."""
    key = resolve(connection, kind, table, prefix)
    (found,) = records(connection, record, select(table).where(table.c.id == key))
    return found


OWNER_TABLES = {
    AttachmentOwner.CIRCUIT: tables.circuits,
    AttachmentOwner.RUN: tables.runs,
    AttachmentOwner.EDIT: tables.edits,
    AttachmentOwner.PROMPT_SET: tables.prompt_sets,
}
"""The tables of records that can have attachments."""


def resolve_owner(connection: Connection, prefix: str) -> tuple[AttachmentOwner, str]:
    """The one record that can have attachments whose id starts with ``prefix``.

    Raises:
        NotFound: None does.
        BadInput: Several do, or it is not a prefix of four hexadecimal digits or more.
    """
    start = prefix.strip().lower()
    if not _PREFIX.fullmatch(start):
        raise BadIdentifier(
            prefix,
            "the start of the id of a circuit, run, edit or prompt set: 4 to 64 hexadecimal digits",
        )
    found: list[tuple[AttachmentOwner, str]] = []
    for kind, table in OWNER_TABLES.items():
        query = select(table.c.id).where(table.c.id.startswith(start)).order_by(table.c.id)
        ids = connection.execute(query.limit(_SHOWN_MATCHES + 1)).scalars()
        found += [(kind, str(id)) for id in ids]
    if not found:
        hint = "'circuits list' and 'circuits edits list' show ids, 'circuits show' those of runs"
        raise NotFound("circuit, run, edit or prompt set", prefix, hint)
    if len(found) > 1:
        listed = ", ".join(
            f"{kind.words} {id[:_SHOWN_DIGITS]}" for kind, id in found[:_SHOWN_MATCHES]
        )
        more = ", ..." if len(found) > _SHOWN_MATCHES else ""
        raise BadInput(f"{prefix!r} starts several ids; give more digits: {listed}{more}")
    return found[0]


def find_circuits(which: CircuitFilter) -> Select[Any]:
    """The query for the circuits of a filter, newest first."""
    columns = tables.circuits.c
    exact = {
        "model": which.model,
        "method": which.method,
        "author": which.author,
        "prompt_set": which.prompt_set,
    }
    conditions: list[ColumnElement[bool]] = [
        columns[name] == value for name, value in exact.items() if value is not None
    ]
    if which.state is not None:
        conditions.append(columns.state == which.state.value)
    if which.task is not None:
        conditions.append(is_of_task(columns.task, which.task))
    if which.tag is not None:
        tagged = tables.circuit_tags.c
        conditions.append(exists().where(tagged.circuit == columns.id, tagged.tag == which.tag))
    conditions += [
        columns.search_text.contains(word, autoescape=True)
        for word in folded(which.text or "").split()
    ]
    query = select(tables.circuits).where(and_(True, *conditions))
    return query.order_by(columns.recorded_at.desc(), columns.id).limit(which.limit)


def find_edits(which: EditFilter) -> Select[Any]:
    """The query for the edits of a filter."""
    columns, query = tables.edits.c, select(tables.edits)
    if which.model is not None:
        query = query.where(columns.model == which.model)
    if which.circuit is not None:
        # A list of hashes, which cannot be confused with other text in it.
        query = query.where(cast(columns.circuits, Text).contains(f'"{which.circuit}"'))
    return query


def find_prompt_sets(which: PromptSetFilter) -> Select[Any]:
    """The query for the prompt sets of a filter, with the revision of each one's last change."""
    columns, changed = tables.prompt_sets.c, tables.changes.c
    of_it = and_(changed.kind == ChangeKind.PROMPT_SET.value, changed.key == columns.id)
    query = select(tables.prompt_sets, func.coalesce(changed.revision, 0).label("revision"))
    query = query.join_from(tables.prompt_sets, tables.changes, of_it, isouter=True)
    if which.model is not None:
        query = query.where(columns.model == which.model)
    if which.task is not None:
        query = query.where(is_of_task(columns.task, which.task))
    return query


def is_of_task(column: ColumnElement[Any], task: str) -> ColumnElement[bool]:
    """Whether a column holds a task's slug, or a task of the family that ``task`` names."""
    # Slugs are lower case; SQLite would ignore the case of the prefix.
    slug = task.lower()
    return or_(column == slug, column.startswith(f"{slug}/", autoescape=True))


def circuit_entries(connection: Connection, query: Select[Any]) -> tuple[CircuitEntry, ...]:
    """The circuits of a query of whole ``circuits`` rows, with their labels and provenance."""
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
        tables.attachments.c.sha256,
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
        .where(columns.circuit.in_(ids), columns.measure == FAITHFULNESS.name)
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
    return f"{near}see '{_LISTINGS[kind]}'"
