"""What a page holds, whatever it is written as: text, lists, tables and pictures, in sections.

All of it is plain text. Whoever writes it escapes what their format takes for markup.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

__all__ = ["Block", "Code", "Items", "Page", "Picture", "Section", "Table", "Text", "as_text"]

_ID = re.compile(r"\b[0-9a-f]{64}\b|\b[0-9a-f]{32}\b")
_SHOWN_DIGITS = 12
_SHORT = 30  # letters that are never broken into lines
_NOTHING = "–"  # noqa: RUF001, as tables are set: a dash where there is no value


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph, which may begin with a word or two on what it is about."""

    text: str
    lead: str = ""
    kind: ClassVar[str] = "text"


@dataclass(frozen=True, slots=True)
class Items:
    """A list without order."""

    items: tuple[str, ...]
    kind: ClassVar[str] = "items"


@dataclass(frozen=True, slots=True)
class Code:
    """Lines that are set as they are, such as commands."""

    lines: tuple[str, ...]
    kind: ClassVar[str] = "code"


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawing.

    Attributes:
        name: Letters, unique on the page; its file is called so where it has one.
        svg: The drawing, an element of its own.
        caption: Below it.
    """

    name: str
    svg: str
    caption: str
    kind: ClassVar[str] = "picture"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a caption.

    Attributes:
        caption: Above it.
        columns: Headings.
        rows: Values; see :func:`as_text`.
        n_left_out: Rows that are not shown.
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
        """What its cells say."""
        return [[as_text(value, whole_ids=self.whole_ids) for value in row] for row in self.rows]

    @property
    def kinds(self) -> list[str]:
        """For each column: ``number``, which stand by their last digit, ``short`` or ``long``."""
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
        """A table of the first ``most`` rows, without columns that hold nothing at all."""
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


Block = Text | Items | Code | Picture | Table


@dataclass(frozen=True, slots=True)
class Section:
    """Part of a page.

    Attributes:
        name: Letters, to link to.
        title: Heading.
        blocks: What it holds, in order.
    """

    name: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """A page.

    Attributes:
        title: Heading.
        about: Below it: what it is made of, and when that was recorded.
        sections: In order.
    """

    title: str
    about: str
    sections: tuple[Section, ...]

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """All pictures, in order."""
        blocks = (block for section in self.sections for block in section.blocks)
        return tuple(block for block in blocks if isinstance(block, Picture))


def as_text(value: Any, *, whole_ids: bool = False) -> str:
    """A value as a table shows it: floats with three digits, lists with commas, ids shortened."""
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
