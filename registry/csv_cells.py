"""Text in CSV that a spreadsheet must not take for a formula.

A spreadsheet calculates a cell that begins with ``=``, ``+``, ``-`` or ``@``, even one in quotes,
and such a formula can fetch addresses. An apostrophe in front makes it text, and shows nowhere.
Text that begins with apostrophes before one of these gets another, so that nothing is lost:
:func:`unguarded_cell` takes back what :func:`guarded_cell` put there.
"""

from __future__ import annotations

import re

__all__ = ["guarded_cell", "unguarded_cell"]

# Spreadsheets pass over a tab or line end in front, and some take the wide forms for the others.
_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff0b\uff0d\uff1d\uff20]")


def guarded_cell(text: str) -> str:
    """Text as a cell of CSV; anything but text needs none of this."""
    return f"'{text}" if _FORMULA.match(text) else text


def unguarded_cell(cell: str) -> str:
    """The text that :func:`guarded_cell` made the cell of."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
