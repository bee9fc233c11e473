"""Answers to queries: columns, rows, and whether a row limit omitted rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

from registry.errors import GraphUnavailable

if TYPE_CHECKING:
    import pandas

__all__ = ["COLUMN_TYPES", "Parts", "Rows", "plain", "plain_parts"]

_TYPES: Mapping[str, frozenset[type]] = {
    "string": frozenset({str}),
    "integer": frozenset({int}),
    "number": frozenset({int, float}),
    "boolean": frozenset({bool}),
    "map": frozenset({dict}),
}
COLUMN_TYPES = tuple(_TYPES)
"""Types of a column, also as ``list[...]`` of one, and with ``?`` if null is possible."""


@dataclass(frozen=True, slots=True, repr=False)
class Rows:
    """The result of a query.

    Attributes:
        columns: Names, in the order of the values.
        values: One tuple for each row; scalars, lists and maps.
        truncated: Whether a row limit omitted rows.
    """

    columns: tuple[str, ...]
    values: tuple[tuple[Any, ...], ...] = ()
    truncated: bool = False

    @classmethod
    def of_records(cls, records: Iterable[Any], columns: Sequence[str]) -> Rows:
        """One row for each record, with its attributes of these names."""
        return cls(
            tuple(columns), tuple(tuple(getattr(one, name) for name in columns) for one in records)
        )

    def __repr__(self) -> str:
        cut = ", cut off" if self.truncated else ""
        return f"<Rows: {len(self.values)} of {', '.join(self.columns)}{cut}>"

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return (dict(zip(self.columns, row, strict=True)) for row in self.values)

    def expecting(self, **columns: str) -> Rows:
        """Return these rows if they have exactly these columns, with values of these types.

        A graph's server may belong to anybody, and may answer anything.

        Args:
            columns: Types of :data:`COLUMN_TYPES` by name, in any order.

        Raises:
            GraphUnavailable: Columns or types differ.
        """
        if sorted(self.columns) != sorted(columns):
            raise GraphUnavailable(
                f"the graph answered with the columns {_shown(self.columns)}, and was asked for"
                f" {_shown(columns)}; see that its address is a graph of this registry"
            )
        for place, name in enumerate(self.columns):
            self._expect_type(place, columns[name])
        return self

    def _expect_type(self, place: int, kind: str) -> None:
        bare = kind.removesuffix("?")
        values: Iterable[Any] = (row[place] for row in self.values)
        if kind.endswith("?"):
            values = (value for value in values if value is not None)
        if bare.startswith("list["):
            lists = list(values)
            self._refuse_types({type(value) for value in lists} - {list}, place, kind)
            bare = bare.removeprefix("list[").removesuffix("]")
            # Null in a list depends on the collected values, not on the server.
            values = (item for one in lists for item in one if item is not None)
        self._refuse_types({type(value) for value in values} - _TYPES[bare], place, kind)

    def _refuse_types(self, others: set[type], place: int, kind: str) -> None:
        if others:
            found = sorted("null" if one is NoneType else one.__name__ for one in others)
            raise GraphUnavailable(
                f"the graph answered with {found[0]} in the column {self.columns[place][:40]!r},"
                f" which is a {kind}; see that its address is a graph of this registry"
            )

    def to_dicts(self) -> list[dict[str, Any]]:
        """The rows as dictionaries from column to value."""
        return [dict(row) for row in self]

    def to_frame(self) -> pandas.DataFrame:
        """The rows as a pandas frame with the same columns, even if there are no rows."""
        import pandas as pd

        return pd.DataFrame(list(self.values), columns=list(self.columns))


def _shown(columns: Iterable[str]) -> str:
    return (", ".join(columns) or "none")[:200]


Parts = dict[str, Rows | Mapping[str, Any]]
"""An answer of several parts by title: rows, or one record as fields and values."""


def plain_parts(parts: Parts) -> dict[str, Any]:
    """An answer in JSON's types, as a command writes it with ``--format json``."""
    return {
        title: plain(content.to_dicts() if isinstance(content, Rows) else content)
        for title, content in parts.items()
    }


def plain(value: Any) -> Any:
    """A value in JSON's types; types that JSON lacks, such as NaN and dates, become text."""
    if isinstance(value, float) and not math.isfinite(value):
        return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, StrEnum | Path):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return str(value)
