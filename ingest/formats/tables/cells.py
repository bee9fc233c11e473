"""Values of tables and graphs: effects, ranks, positions and marks, from text or from numbers."""

from __future__ import annotations

import math
from typing import Any

from ingest.formats.reading import as_float
from registry.errors import BadInput
from registry.limits import check_length

__all__ = [
    "LONGEST_VALUE",
    "is_empty",
    "may_be_number",
    "number_of",
    "odd_number",
    "read_density",
    "read_effect",
    "read_mark",
    "read_position",
    "read_rank",
]

LONGEST_VALUE = 100
_LONGEST_NUMBER = 2_000
_NONE = frozenset({"", "nan", "none", "null", "na"})
_MARKS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def is_empty(value: Any) -> bool:
    """Return whether a value is empty. Long texts are skipped, as they may be in every row."""
    if isinstance(value, str):
        return len(value) <= LONGEST_VALUE and value.strip().lower() in _NONE
    return value is None or (isinstance(value, float) and math.isnan(value))


def read_position(value: Any) -> str | None:
    """Return a token position, or None for an empty value.

    Raises:
        BadInput: It is neither text nor a whole number.
    """
    if value == "" or (is_empty(value) and not isinstance(value, str)):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadInput(f"{value!r:.80} is no position, such as END or 7")
    text = str(value)
    check_length("position", text)  # before every row of a table makes a node's name from it
    return text


def read_rank(value: Any) -> int | None:
    """Return a rank, or None for an empty value.

    Raises:
        BadInput: It is not a whole number from 1.
    """
    if is_empty(value):
        return None
    try:
        odd = isinstance(value, bool) or (isinstance(value, str) and not may_be_number(value))
        rank = 0 if odd else int(value)
    except (TypeError, ValueError, OverflowError):
        rank = 0
    if rank < 1 or (isinstance(value, float) and rank != value):
        raise BadInput(f"rank {value!r:.80} is no whole number from 1")
    return rank


def read_effect(value: Any) -> float | None:
    """Return a number, or None if it is empty or not finite; see :func:`odd_number`.

    Raises:
        BadInput: It is not a number.
    """
    if is_empty(value):
        return None
    number = number_of(value)
    if number is None:
        raise BadInput(f"effect {value!r:.80} is no number; leave it empty where unknown")
    return number if math.isfinite(number) else None


def read_density(value: Any) -> float | None:
    """Return a share from 0 to 1, or None for an empty value.

    Raises:
        BadInput: It is not a share.
    """
    if is_empty(value):
        return None
    number = number_of(value)
    if number is None or not 0 <= number <= 1:
        raise BadInput(f"density {value!r:.80} is no share from 0 to 1")
    return number


def odd_number(value: Any) -> float | None:
    """Return NaN or an infinity, if the value is one; None for everything else."""
    number = number_of(value)
    return None if number is None or math.isfinite(number) else number


def read_mark(value: Any) -> bool:
    """Return whether an edge or a node is marked as in the circuit.

    Raises:
        BadInput: It is not one of true, false, yes, no, 1 and 0.
    """
    if isinstance(value, str) and len(value) <= LONGEST_VALUE:
        found = _MARKS.get(value.strip().lower())
        if found is not None:
            return found
    elif isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    raise BadInput(f"in_circuit is {value!r:.80}, neither true nor false")


def may_be_number(text: str) -> bool:
    """Return whether a text has only characters of numbers; Python also reads ``1_000``, ``١٢``.

    A long text may be a number, and may be in every row.
    """
    return len(text) <= _LONGEST_NUMBER and text.isascii() and "_" not in text


def number_of(value: Any) -> float | None:
    """Return a number or NaN, else None. Whole numbers beyond all floats are infinite."""
    if isinstance(value, bool) or (isinstance(value, str) and not may_be_number(value)):
        return None
    try:
        return as_float(value)
    except (TypeError, ValueError):
        return None
