"""Facts in files: CounterFact's shape, zsRE's shape, and plain JSON or CSV.

The shape is recognised by what a file holds, not by its name:

- CounterFact (ROME, MEMIT): a list of objects with ``requested_rewrite``. HierarchyData has this
  shape too, without neighbours.
- zsRE: a list of objects with ``src``. The subject stands in ``src``; ``alt`` is the new answer and
  the first of ``answers`` the true one. ``loc`` is a question with an answer of its own
  (``loc_ans``), not with the true answer of the fact. So it is no neighbour, and it is not read.
- Plain: objects with ``prompt``, ``subject``, ``target_new``, and optionally ``target_true``,
  ``paraphrases`` and ``neighbours``, as a list or one object a line (JSON Lines).
- CSV: the same names as columns. Several texts in a cell of ``paraphrases`` or ``neighbours`` are
  separated by `` | ``; an empty cell is none.

``{}`` stands for the subject in a prompt. A prompt without it that has the subject itself, once, is
read like one with ``{}``. In ``paraphrases`` and ``neighbours`` the subject replaces every ``{}``.
All records of a file have the shape of its first one.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ingest.facts.base import Fact
from ingest.facts.shapes import PLAIN, Shape, check_known, fact_of, shape_of
from ingest.formats.base import Limits
from ingest.formats.reading import check_count, parse_json, read_text
from registry.errors import BadInput

__all__ = ["SEPARATOR", "read_facts"]

SEPARATOR = " | "
"""Separates several texts in one cell of CSV."""

_LISTS = ("paraphrases", "neighbours")
_EXPECTED = (
    "expected CounterFact's or zsRE's records, or objects or columns with prompt, subject, "
    "target_new and optionally target_true, paraphrases and neighbours"
)
_Records = Sequence[tuple[str, Any]]
"""The place of each record (``line 3``), and its value as JSON has it."""


def read_facts(path: Path, limits: Limits) -> tuple[Fact, ...]:
    """Read a file of facts, in the order of the file.

    Args:
        path: The file, in UTF-8.
        limits: Its allowed size; ``max_edges`` is the allowed number of facts.

    Raises:
        BadInput: The file cannot be read, is too large, holds no facts or one fact twice, or a
            record is malformed; the text names the record or the line.
    """
    text, name = read_text(path, limits), path.name
    if not text.strip():
        raise BadInput(f"{name} is empty; {_EXPECTED}")
    records = _records(text, name, limits)
    check_count(len(records), "facts", name, limits)
    if not records:
        raise BadInput(f"{name} holds no facts; {_EXPECTED}")
    shape = _shape(records[0][1])
    places = [f"{name}, {where}" for where, _ in records]
    facts = tuple(fact_of(one, shape, at) for at, (_, one) in zip(places, records, strict=True))
    _refuse_repeated(facts, places)
    return facts


def _records(text: str, name: str, limits: Limits) -> _Records:
    first = text.lstrip()[0]
    if first not in "[{":
        return _csv_records(text, name)
    lines = [(at, line) for at, line in enumerate(text.split("\n"), 1) if line.strip()]
    if first == "{" and _is_lines([line.strip() for _, line in lines[:2]]):
        check_count(len(lines), "facts", name, limits)
        return [
            (f"line {at}", parse_json(line, f"{name}, line {at},", limits, odd=True))
            for at, line in lines
        ]
    found = parse_json(text, name, limits, odd=True)
    listed = found if isinstance(found, list) else [found]
    return [(f"record {at} (counted from 0)", one) for at, one in enumerate(listed)]


def _is_lines(lines: Sequence[str]) -> bool:
    """Return whether the first two lines are one object each; the second may be missing."""
    return lines[0].endswith("}") and all(line.startswith("{") for line in lines)


def _shape(record: Any) -> Shape:
    return shape_of(record) if isinstance(record, dict) else PLAIN


def _csv_records(text: str, name: str) -> _Records:
    """Return the rows of a CSV, as plain records.

    Raises:
        BadInput: A row is malformed, or a column is unknown, missing or named twice.
    """
    (where, header), *rows = _rows(text, name)
    columns = [column.strip() for column in header]
    _check_columns(columns, f"{name}, {where}")
    for where, row in rows:
        if len(row) != len(columns):
            raise BadInput(
                f"{name}, {where}: {len(row)} columns, but the first line names {len(columns)}; "
                "put a text that contains a comma in double quotes"
            )
    return [(where, _record(zip(columns, row, strict=True))) for where, row in rows]


def _rows(text: str, name: str) -> list[tuple[str, list[str]]]:
    """Return the rows that are not empty, each with the line on which it begins."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    found, at = [], 1
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                found.append((f"line {at}", row))
            at = reader.line_num + 1
    except csv.Error as error:
        why = "a quote is not closed" if "unexpected end" in str(error) else str(error)
        raise BadInput(f"{name}, line {at}: {why}") from error
    if not found:
        raise BadInput(f"{name} holds no facts; {_EXPECTED}")
    return found


def _check_columns(columns: Sequence[str], where: str) -> None:
    twice = next((column for column in columns if columns.count(column) > 1), None)
    if twice is not None:
        raise BadInput(f"{where}: the column {twice!r:.80} appears twice; name each once")
    try:
        check_known(columns, PLAIN, "column")
    except BadInput as error:
        raise BadInput(f"{where}: the table {error}") from error


def _record(cells: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return a row as a record of JSON: optional cells that are empty are left out."""
    return {
        column: cell.split(SEPARATOR) if column in _LISTS else cell
        for column, cell in cells
        if cell.strip() or column in PLAIN.needed
    }


def _refuse_repeated(facts: Sequence[Fact], places: Sequence[str]) -> None:
    first: dict[Fact, str] = {}
    for fact, where in zip(facts, places, strict=True):
        if fact in first:
            raise BadInput(
                f"{where}: the fact {fact.text[:60]!r} is named twice, first in {first[fact]}; "
                "it would count twice, so give it once"
            )
        first[fact] = where
