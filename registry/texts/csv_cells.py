"""Text in CSV that a spreadsheet must not treat as a formula.

A spreadsheet evaluates a cell that begins with ``=``, ``+``, ``-`` or ``@``, even in quotes, and
such a formula can request addresses. An apostrophe in front makes it text, and is not displayed.
Text that begins with apostrophes before one of these characters gets another apostrophe, so nothing
is lost: :func:`unguarded_cell` is the inverse of :func:`guarded_cell`.
"""

from __future__ import annotations

import re

__all__ = ["guarded_cell", "unguarded_cell"]

# Spreadsheets skip a tab or line end in front, and some treat the wide forms like the others.
_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff0b\uff0d\uff1d\uff20]")


def guarded_cell(text: str) -> str:
    """Text as a cell of CSV; other values need no guard."""
    return f"'{text}" if _FORMULA.match(text) else text


def unguarded_cell(cell: str) -> str:
    """The text that :func:`guarded_cell` turned into the cell."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
