"""Rows of CSV, TSV and JSON Lines, by our names of columns, with the place of each row."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from ingest.formats.base import Context, Limits, Said
from ingest.formats.reading import check_lines, parse_json, read_text
from ingest.formats.tables.columns import Columns, find_columns
from registry.errors import BadInput
from registry.texts.csv_cells import unguarded_cell

__all__ = ["Row", "Table", "read_table"]

_MAX_COLUMNS = 1_000
_MAX_VALUES = 100_000
"""Commas in one line: unused texts, such as prompts, may have many."""
_MAX_KNOWN = 1_000
_JSON_LINES = frozenset({".jsonl", ".ndjson"})
Row = tuple[str, Mapping[str, Any]]
"""The place of a row (``line 3``), and its values by our names of columns."""


class Table(Protocol):
    """Rows that are read once, and the columns that were found in them."""

    @property
    def columns(self) -> Columns | None:
        """The columns that are ours, in the rows read so far; None if there is no row."""

    def __iter__(self) -> Iterator[Row]:
        """The rows."""


def read_table(path: Path, context: Context) -> Table:
    """Return the table of a file.

    Raises:
        BadInput: It is malformed; some errors are found only when its rows are read.
    """
    text = read_text(path, context.limits)
    is_json = path.suffix.lower() in _JSON_LINES
    check_lines(text, path.name, context.limits, header=not is_json)
    if is_json:
        return _JsonTable(text, path.name, context)
    return _CsvTable(text, path, context.said)


class _JsonTable:
    """Objects, which may have different names: a line may omit unknown values."""

    def __init__(self, text: str, name: str, context: Context) -> None:
        self._name, self._said = name, context.said
        self._known: dict[tuple[str, ...], Columns] = {}
        self.columns: Columns | None = None
        objects = _objects(text, name, context.limits)
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
        self._name, self._line = path.name, 1
        self._reader = csv.reader(self._lines(text, delimiter), delimiter=delimiter, strict=True)
        # Our own tables protect against spreadsheets in this way; most texts do not need it.
        self._guarded = "'" in text
        self._header = next(self._rows(), [])
        self.columns = find_columns(self._header, said, path.name) if self._header else None

    def __iter__(self) -> Iterator[Row]:
        names = {} if self.columns is None else self.columns.names
        # Among the columns that are read, each name appears once.
        places = {theirs: place for place, theirs in enumerate(self._header)}
        known = [(ours, places[theirs]) for ours, theirs in names.items()]
        for row in filter(None, self._rows()):
            if len(row) > len(self._header):
                raise BadInput(
                    f"{self._name}, line {self._reader.line_num}: more values than columns"
                )
            # A line may be shorter than the header; only its own values are read.
            cells = [unguarded_cell(cell) for cell in row] if self._guarded else row
            values = {ours: cells[at] if at < len(row) else None for ours, at in known}
            yield f"line {self._reader.line_num}", values

    def _rows(self) -> Iterator[list[str]]:
        """Yield the header and the remaining rows.

        Raises:
            BadInput: A row is malformed. An unclosed quote would swallow the following lines, so
                the error names the line of the quote.
        """
        try:
            while True:
                self._line = self._reader.line_num + 1
                row = next(self._reader, None)
                if row is None:
                    return
                yield row
        except csv.Error as error:
            why = "a quote is not closed" if "unexpected end" in str(error) else str(error)
            raise BadInput(f"{self._name}, line {self._line}: {why}") from error

    def _lines(self, text: str, delimiter: str) -> Iterator[str]:
        """Yield lines of the text; a line with millions of values is refused before it is split."""
        for at, line in enumerate(_each_line(text), 1):
            n_values = line.count(delimiter) + 1
            most, what = (_MAX_COLUMNS, "columns") if at == 1 else (_MAX_VALUES, "values")
            if n_values > most:
                raise BadInput(
                    f"{self._name}, line {at} has {n_values:,} {what} and {most:,} are allowed"
                )
            yield line


def _each_line(text: str) -> Iterator[str]:
    """Yield lines with their ends; ``io.StringIO`` would need four times the text in addition."""
    at = 0
    while at < len(text):
        end = text.find("\n", at) + 1 or len(text)
        yield text[at:end]
        at = end


def _objects(text: str, name: str, limits: Limits) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(_each_line(text), 1):
        if not line.strip():
            continue
        where = f"line {number}"
        row = parse_json(line, f"{name}, {where},", limits, odd=True)
        if not isinstance(row, dict):
            raise BadInput(f"{name}, {where}: no object with source and target")
        yield where, row


def _joined(columns: Columns, more: Columns, where: str) -> Columns:
    """Merge the columns of earlier lines with those of a line that has other names.

    Raises:
        BadInput: One line is an edge and another a node, or they name one column differently.
    """
    if columns.of_edges != more.of_edges:
        raise BadInput(f"{where}: some lines are edges and some are nodes; a table is of one kind")
    for ours, theirs in more.names.items():
        other = columns.names.get(ours, theirs)
        if other != theirs:
            raise BadInput(
                f"{where}: {other!r} of other lines and {theirs!r} may each be the column {ours!r};"
                f" choose one with --column {ours}={other}"
            )
    return Columns(
        columns.of_edges,
        {**columns.names, **more.names},
        {**columns.guessed, **more.guessed},
    )
