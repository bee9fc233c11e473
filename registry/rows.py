"""Answers to questions: columns, rows, and whether a row limit cut them off."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import TYPE_CHECKING, Any

from registry.errors import GraphUnavailable

if TYPE_CHECKING:
    import pandas

__all__ = ["COLUMN_TYPES", "Rows"]

_TYPES: Mapping[str, frozenset[type]] = {
    "string": frozenset({str}),
    "integer": frozenset({int}),
    "number": frozenset({int, float}),
    "boolean": frozenset({bool}),
    "map": frozenset({dict}),
}
COLUMN_TYPES = tuple(_TYPES)
"""What a column may hold, also as ``list[...]`` of one, and with ``?`` where null is possible."""


@dataclass(frozen=True, slots=True, repr=False)
class Rows:
    """The result of a query.

    Attributes:
        columns: Names, in the order of the values.
        values: One tuple a row; scalars, lists and maps.
        truncated: A row limit left rows out.
    """

    columns: tuple[str, ...]
    values: tuple[tuple[Any, ...], ...] = ()
    truncated: bool = False

    def __repr__(self) -> str:
        cut = ", cut off" if self.truncated else ""
        return f"<Rows: {len(self.values)} of {', '.join(self.columns)}{cut}>"

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return (dict(zip(self.columns, row, strict=True)) for row in self.values)

    def expecting(self, **columns: str) -> Rows:
        """These rows, if they have just these columns, and values of these types in them.

        A graph's server may be anybody's, and need not answer what it was asked.

        Args:
            columns: Types of :data:`COLUMN_TYPES` by name, in any order.

        Raises:
            GraphUnavailable: They are others.
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
            # Null in a list is a question of what was collected, not of who answers.
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
        """The rows as a pandas frame with the same columns, also where there are no rows."""
        import pandas as pd

        return pd.DataFrame(list(self.values), columns=list(self.columns))


def _shown(columns: Iterable[str]) -> str:
    return (", ".join(columns) or "none")[:200]
