"""Lists in pages: each page begins after the position at which the page before ended.

A position is the key of a row in the list's order, not a count of rows. The values of a key stay
when a record is recorded again or relabelled, or a run ends; only a prompt set that is filled in
moves to the front. So of the rows that were there before the first page, none comes twice, and no
other is missing. Other pages may also contain new records: runs that are imported with an earlier
time. Keys end with the id, because many rows may have the same time.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, Connection, Select, Table, and_, false, func, or_

from registry.errors import BadInput
from registry.ledger import tables
from registry.ledger.base import Page
from registry.ledger.record_rows import record_from_row
from registry.records import Record, in_utc
from registry.texts.storable import as_storable

__all__ = [
    "CIRCUITS",
    "EDITS",
    "EVALUATIONS",
    "OUTCOMES",
    "PROMPT_SETS",
    "RUNS",
    "Listing",
    "page_of",
    "records_page",
    "rows_after",
]

T = TypeVar("T")
R = TypeVar("R", bound=Record)

_INTEGERS = range(-(2**63), 2**63)


class Key(NamedTuple):
    """A part of the order of a list: the name of a value, its column, and its type."""

    name: str
    column: ColumnElement[Any]
    kind: type


@dataclass(frozen=True)
class Listing:
    """A list that can be read page by page.

    Attributes:
        name: Distinguishes its positions from those of other lists.
        keys: The sort keys; the last one is the id, which ascends, all others descend.
    """

    name: str
    keys: tuple[Key, ...]


def _recorded(table: Table) -> Listing:
    """A list of records with a position in their transaction, newest first."""
    places = ("recorded_at", datetime), ("position", int), ("id", str)
    return Listing(table.name, tuple(Key(name, table.c[name], kind) for name, kind in places))


def _dated(table: Table, moment: str) -> Listing:
    """A list of records that have only a time, newest first."""
    places = (moment, datetime), ("id", str)
    return Listing(table.name, tuple(Key(name, table.c[name], kind) for name, kind in places))


CIRCUITS = _dated(tables.circuits, "recorded_at")
RUNS = _dated(tables.runs, "started_at")
EVALUATIONS = _recorded(tables.evaluations)
EDITS = _recorded(tables.edits)
OUTCOMES = _recorded(tables.outcomes)
PROMPT_SETS = Listing(
    tables.prompt_sets.name,
    (
        Key("revision", func.coalesce(tables.changes.c.revision, 0), int),
        Key("id", tables.prompt_sets.c.id, str),
    ),
)
"""Ordered by the revision of a prompt set's last change; its rows have no time. One that is filled
in between two pages moves to the front."""


def rows_after(
    query: Select[Any], listing: Listing, after: str | None, limit: int | None
) -> Select[Any]:
    """The query for one page and the first row of the next, in the order of a list.

    Args:
        query: Finds the whole list.
        listing: The list.
        after: End of the page before; None for the first page.
        limit: Rows of a page; None for all remaining rows.

    Raises:
        BadInput: ``after`` is not a position in this list, or the limit is below 1.
    """
    if limit is not None and limit < 1:
        raise BadInput(f"a page has at least 1 row, not {limit}")
    columns = [key.column for key in listing.keys]
    if after is not None:
        query = query.where(_follows(columns, _place(listing, after)))
    order = [*(column.desc() for column in columns[:-1]), columns[-1]]
    return query.order_by(None).order_by(*order).limit(None if limit is None else limit + 1)


def page_of(
    items: Sequence[T],
    listing: Listing,
    limit: int | None,
    value: Callable[[T, str], Any] = getattr,
) -> Page[T]:
    """A page of the rows that :func:`rows_after` found, and the start of the next page.

    Args:
        items: The items found.
        listing: Their list.
        limit: Rows of a page; None for all.
        value: Returns the value of an item by the name of a key.
    """
    if limit is None or len(items) <= limit:
        return Page(tuple(items), None)
    last = [value(items[limit - 1], key.name) for key in listing.keys]
    return Page(tuple(items[:limit]), _written(listing, last))


def records_page(
    connection: Connection,
    kind: type[R],
    query: Select[Any],
    listing: Listing,
    *,
    limit: int | None,
    after: str | None,
) -> Page[R]:
    """A page of records; errors as from :func:`rows_after`."""
    found = connection.execute(rows_after(query, listing, after, limit)).mappings().all()
    page = page_of(found, listing, limit, lambda row, name: row[name])
    return Page(tuple(record_from_row(kind, row) for row in page.items), page.after)


def _follows(columns: Sequence[ColumnElement[Any]], place: Sequence[Any]) -> ColumnElement[bool]:
    """Whether a row comes after a position: the first key that differs decides."""
    comes: ColumnElement[bool] = false()
    for depth, (column, value) in enumerate(zip(columns, place, strict=True)):
        is_last = depth == len(columns) - 1
        same = [c == v for c, v in zip(columns[:depth], place[:depth], strict=True)]
        comes = or_(comes, and_(*same, column > value if is_last else column < value))
    return comes


def _written(listing: Listing, key: Sequence[Any]) -> str:
    plain = [value.isoformat() if isinstance(value, datetime) else value for value in key]
    text = json.dumps([listing.name, *plain], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _place(listing: Listing, after: str) -> list[Any]:
    try:
        padded = after.encode("ascii") + b"=" * (-len(after) % 4)
        name, *values = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        if name == listing.name:
            kinds = [key.kind for key in listing.keys]
            return [_value(kind, value) for kind, value in zip(kinds, values, strict=True)]
    # Time zones can lead out of the calendar, and JSON can be nested too deep.
    except (binascii.Error, ValueError, TypeError, OverflowError, RecursionError):
        pass
    raise BadInput(
        f"{after!r:.200} is not a position in the list of {listing.name.replace('_', ' ')};"
        " give the position that the page before printed"
    )


def _value(kind: type, value: Any) -> Any:
    """A value of a position.

    Raises:
        ValueError, TypeError: It is not valid.
    """
    if kind is datetime:
        return in_utc(datetime.fromisoformat(value))
    if type(value) is not kind or (kind is int and value not in _INTEGERS):
        raise TypeError(kind)
    if isinstance(value, str) and as_storable(value) != value:
        raise ValueError(f"no store can hold {value!r}")
    return value
