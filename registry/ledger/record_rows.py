"""Turning records into the ledger's rows and back."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable
from enum import Enum
from functools import lru_cache
from typing import Any, TypeVar

from sqlalchemy import JSON, RowMapping, Table

from registry.errors import BadInput
from registry.ledger.base import CircuitEntry
from registry.limits import STORED
from registry.records import (
    Ablation,
    CircuitLabels,
    Edit,
    Level,
    Outcome,
    Record,
    Sign,
    SourceFile,
)

__all__ = ["circuit_entry", "folded", "label_row", "record_from_row", "row_from_record"]

R = TypeVar("R", bound=Record)

_HASHED: frozenset[type[Record]] = frozenset({Edit, Outcome})
"""Frequent records (tens of thousands) whose id is the hash of their content."""
_INTEGERS = range(-(2**63), 2**63)


def row_from_record(table: Table, record: Record, **beside: Any) -> dict[str, Any]:
    """The row that holds ``record``: its fields of that table's columns, and ``beside``.

    Raises:
        BadInput: A value that some database cannot hold: NaN, a NUL character, a huge integer.
    """
    is_json = _columns(table)
    row = {name: getattr(record, name) for name in _fields(table, type(record))} | beside
    return {
        name: value if value is None else _storable(name, value, is_json=is_json[name])
        for name, value in row.items()
    }


@lru_cache
def _columns(table: Table) -> dict[str, bool]:
    """Whether each column of a table holds JSON; cached, because asking the table is slow."""
    return {name: isinstance(column.type, JSON) for name, column in table.columns.items()}


@lru_cache
def _fields(table: Table, kind: type[Record]) -> tuple[str, ...]:
    """The fields of a record that are columns of its table."""
    return tuple(name for name in kind.model_fields if name in _columns(table))


def record_from_row(kind: type[R], row: RowMapping) -> R:
    """Undo :func:`row_from_record`."""
    record = kind.model_validate({name: row[name] for name in kind.model_fields}, context=STORED)
    if kind in _HASHED:
        # The recorded id; computing the hash again takes as long as reading the record.
        vars(record)["id"] = row["id"]
    return record


def label_row(table: Table, labels: CircuitLabels) -> dict[str, Any]:
    """The columns of a circuit that hold its labels; tags are separate rows."""
    text = folded("\n".join([labels.title or "", *labels.notes]))
    return row_from_record(table, labels, search_text=text)


def folded(text: str) -> str:
    """Text in the form for searches: case-folded, with any composition of accents."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def circuit_entry(
    row: RowMapping,
    tags: Iterable[str],
    runs: Iterable[str],
    files: Iterable[SourceFile],
    faithfulness: float | None,
) -> CircuitEntry:
    """Assemble a stored circuit from its row, labels and provenance."""
    labels = {name: row[name] for name in CircuitLabels.model_fields if name != "tags"}
    plain = {
        name: row[name]
        for name in CircuitEntry.__dataclass_fields__
        if name in row and name not in {"ablation", "sign", "level"}
    }
    return CircuitEntry(
        **plain,
        ablation=None if row["ablation"] is None else Ablation(row["ablation"]),
        sign=Sign(row["sign"]),
        level=Level(row["level"]),
        labels=CircuitLabels.model_validate({"tags": tuple(tags), **labels}, context=STORED),
        runs=tuple(runs),
        source_files=tuple(files),
        faithfulness=faithfulness,
    )


def _storable(name: str, value: Any, *, is_json: bool) -> Any:
    if is_json:
        return list(value) if isinstance(value, tuple) else value
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str):
        if "\x00" in value:
            raise BadInput(
                f"{name} contains a NUL character, which a database cannot hold: {value!r}"
            )
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise BadInput(f"{name} is {value}; only finite numbers are recorded")
    elif isinstance(value, int) and value not in _INTEGERS:
        raise BadInput(f"{name} is {value}; integers of up to 64 bits are recorded")
    return value
