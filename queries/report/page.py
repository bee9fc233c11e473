"""The content of a page, for any format: text, lists, tables and pictures, in sections.

All of it is plain text. Writers escape what their format treats as markup.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

__all__ = ["Block", "Code", "Drawing", "Items", "Page", "Section", "Table", "Text", "as_text"]

_ID = re.compile(r"\b[0-9a-f]{64}\b|\b[0-9a-f]{32}\b")
_SHOWN_DIGITS = 12
_SHORT = 30  # letters; shorter texts are never wrapped
_NOTHING = "–"  # noqa: RUF001, as tables are set: a dash where there is no value


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph, optionally with a short lead in front."""

    text: str
    lead: str = ""
    kind: ClassVar[str] = "text"


@dataclass(frozen=True, slots=True)
class Items:
    """An unordered list."""

    items: tuple[str, ...]
    kind: ClassVar[str] = "items"


@dataclass(frozen=True, slots=True)
class Code:
    """Literal lines, such as commands."""

    lines: tuple[str, ...]
    kind: ClassVar[str] = "code"


@dataclass(frozen=True, slots=True)
class Drawing:
    """A drawing.

    Attributes:
        name: Letters, unique on the page; the name of its file, if it has one.
        svg: The drawing as one SVG element.
        caption: Caption below it.
    """

    name: str
    svg: str
    caption: str
    kind: ClassVar[str] = "picture"


@dataclass(frozen=True, slots=True)
class Table:
    """A table with a caption.

    Attributes:
        caption: Caption above it.
        columns: Headings.
        rows: Values; see :func:`as_text`.
        n_left_out: Number of rows that are not shown.
        whole_ids: Show ids with all their digits.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    n_left_out: int = 0
    whole_ids: bool = False
    kind: ClassVar[str] = "table"

    @property
    def texts(self) -> list[list[str]]:
        """Texts of its cells."""
        return [[as_text(value, whole_ids=self.whole_ids) for value in row] for row in self.rows]

    @property
    def kinds(self) -> list[str]:
        """Kind of each column: ``number``, which is aligned to the right, ``short`` or ``long``."""
        texts = self.texts
        return [
            "number"
            if _are_numbers([row[place] for row in self.rows])
            else "short"
            if all(len(row[place]) <= _SHORT for row in texts)
            else "long"
            for place in range(len(self.columns))
        ]

    @classmethod
    def of(
        cls,
        caption: str,
        columns: Sequence[str],
        rows: Sequence[Sequence[Any]],
        *,
        most: int | None = None,
        whole_ids: bool = False,
    ) -> Table:
        """Make a table of the first ``most`` rows, without columns that are empty in all rows."""
        kept = [
            place
            for place in range(len(columns))
            if not rows or any(row[place] not in (None, "", ()) for row in rows)
        ]
        shown = rows if most is None else rows[:most]
        return cls(
            caption=caption,
            columns=tuple(columns[place] for place in kept),
            rows=tuple(tuple(row[place] for place in kept) for row in shown),
            n_left_out=len(rows) - len(shown),
            whole_ids=whole_ids,
        )


Block = Text | Items | Code | Drawing | Table


@dataclass(frozen=True, slots=True)
class Section:
    """Part of a page.

    Attributes:
        name: Letters, the target of links.
        title: Heading.
        blocks: Its content, in order.
    """

    name: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """A page.

    Attributes:
        title: Heading.
        about: Text below the title: the content, and the date of the records.
        sections: In order.
    """

    title: str
    about: str
    sections: tuple[Section, ...]

    @property
    def pictures(self) -> tuple[Drawing, ...]:
        """All pictures, in order."""
        blocks = (block for section in self.sections for block in section.blocks)
        return tuple(block for block in blocks if isinstance(block, Drawing))


def as_text(value: Any, *, whole_ids: bool = False) -> str:
    """Text of a value in a table: floats with three digits, lists with commas, ids shortened."""
    if value is None or value == "":
        return _NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, list | tuple):
        return ", ".join(as_text(one, whole_ids=whole_ids) for one in value) or _NOTHING
    text = str(value)
    return text if whole_ids else _ID.sub(lambda found: found[0][:_SHOWN_DIGITS], text)


def _number(value: float) -> str:
    if value and abs(value) < 0.001:
        return f"{value:.1e}"
    digits = 3 if abs(value) < 1 else 2 if abs(value) < 100 else 0
    return f"{value:.{digits}f}"


def _are_numbers(values: Sequence[Any]) -> bool:
    known = [value for value in values if value is not None]
    return bool(known) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in known
    )
