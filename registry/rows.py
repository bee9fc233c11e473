"""Answers to questions: columns, rows, and whether a row limit cut them off."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

__all__ = ["Rows"]


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

    def to_dicts(self) -> list[dict[str, Any]]:
        """The rows as dictionaries from column to value."""
        return [dict(row) for row in self]

    def to_frame(self) -> pandas.DataFrame:
        """The rows as a pandas frame with the same columns, also where there are no rows."""
        import pandas as pd

        return pd.DataFrame(list(self.values), columns=list(self.columns))
