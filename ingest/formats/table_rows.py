"""Rows of CSV, TSV and JSON Lines, by our names of columns, with where each stands."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from ingest.formats.base import Context, Said
from ingest.formats.columns import Columns, find_columns
from ingest.formats.reading import check_lines, read_text
from registry.csv_cells import unguarded_cell
from registry.errors import BadInput

__all__ = ["Row", "Table", "read_table"]

_MAX_COLUMNS = 1_000
_MAX_KNOWN = 1_000
_JSON_LINES = frozenset({".jsonl", ".ndjson"})
Row = tuple[str, Mapping[str, Any]]
"""Where a row stands (``line 3``), and its values by our names of columns."""


class Table(Protocol):
    """Rows that are read once, and the columns that they were found to have."""

    @property
    def columns(self) -> Columns | None:
        """Which columns are ours, as far as rows were read; None where there is no row."""

    def __iter__(self) -> Iterator[Row]:
        """The rows."""


def read_table(path: Path, context: Context) -> Table:
    """A table of a file.

    Raises:
        BadInput: It is malformed; some of that is found only as its rows are read.
    """
    text = read_text(path, context.limits)
    is_json = path.suffix.lower() in _JSON_LINES
    check_lines(text, path.name, context.limits, header=not is_json)
    if is_json:
        return _JsonTable(text, path.name, context.said)
    return _CsvTable(text, path, context.said)


class _JsonTable:
    """Objects, which need not all have the same names: one line may leave out what is unknown."""

    def __init__(self, text: str, name: str, said: Said) -> None:
        self._name, self._said = name, said
        self._known: dict[tuple[str, ...], Columns] = {}
        self.columns: Columns | None = None
        objects = _objects(text, name)
        first = list(itertools.islice(objects, 1))
        for where, row in first:
            self._columns_of(row, where)
        self._objects = itertools.chain(first, objects)

    def __iter__(self) -> Iterator[Row]:
        for where, row in self._objects:
            names = self._columns_of(row, where).names
            yield where, {ours: row[theirs] for ours, theirs in names.items()}

    def _columns_of(self, row: Mapping[str, Any], where: str) -> Columns:
        there = tuple(row)
        if there not in self._known:
            if len(self._known) == _MAX_KNOWN:  # no tool writes so many kinds of lines
                self._known.clear()
            place = f"{self._name}, {where}"
            found = find_columns(there, self._said, place, all_there=False)
            self.columns = found if self.columns is None else _joined(self.columns, found, place)
            self._known[there] = found
        return self._known[there]


class _CsvTable:
    """Lines of values below one line of names."""

    def __init__(self, text: str, path: Path, said: Said) -> None:
        delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        self._name = path.name
        self._reader = csv.reader(io.StringIO(text), delimiter=delimiter)
        # Our own tables guard against spreadsheets so; most hold nothing to take back.
        self._guarded = "'" in text
        try:
            self._header = next(self._reader, [])
        except csv.Error as error:
            raise self._malformed(error) from error
        if len(self._header) > _MAX_COLUMNS:
            raise BadInput(
                f"{path.name} has {len(self._header):,} columns and {_MAX_COLUMNS:,} are allowed"
            )
        self.columns = find_columns(self._header, said, path.name) if self._header else None

    def __iter__(self) -> Iterator[Row]:
        names = {} if self.columns is None else self.columns.names
        # Of two columns of one name the last counts, as in a dictionary of them.
        places = {theirs: place for place, theirs in enumerate(self._header)}
        known = [(ours, places[theirs]) for ours, theirs in names.items()]
        try:
            for row in filter(None, self._reader):
                if len(row) > len(self._header):
                    raise BadInput(
                        f"{self._name}, line {self._reader.line_num}: more values than columns"
                    )
                # A line may be shorter than the header, and only what it has is looked at.
                cells = [unguarded_cell(cell) for cell in row] if self._guarded else row
                values = {ours: cells[at] if at < len(row) else None for ours, at in known}
                yield f"line {self._reader.line_num}", values
        except csv.Error as error:
            raise self._malformed(error) from error

    def _malformed(self, error: csv.Error) -> BadInput:
        return BadInput(f"{self._name}, line {self._reader.line_num}: {error}")


def _objects(text: str, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(io.StringIO(text), 1):
        if not line.strip():
            continue
        where = f"line {number}"
        try:
            row = json.loads(line, parse_constant=float)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{name}, {where}: no JSON: {error}") from error
        if not isinstance(row, dict):
            raise BadInput(f"{name}, {where}: no object with source and target")
        yield where, row


def _joined(columns: Columns, more: Columns, where: str) -> Columns:
    """The columns of lines before, and those of a line with other names.

    Raises:
        BadInput: One is an edge and one a node, or they call one of ours by different names.
    """
    if columns.of_edges != more.of_edges:
        raise BadInput(f"{where}: some lines are edges and some are nodes; a table is of one kind")
    for ours, theirs in more.names.items():
        other = columns.names.get(ours, theirs)
        if other != theirs:
            raise BadInput(
                f"{where}: {other!r} of other lines and {theirs!r} may each be the column {ours!r};"
                f" say which with --column {ours}={other}"
            )
    return Columns(
        columns.of_edges,
        {**columns.names, **more.names},
        {**columns.guessed, **more.guessed},
    )
