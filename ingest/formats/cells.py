"""Values of tables and graphs: effects, ranks, positions and marks, from text or from numbers."""

from __future__ import annotations

import math
from typing import Any

from registry.errors import BadInput
from registry.limits import check_length

__all__ = [
    "LONGEST_VALUE",
    "is_empty",
    "odd_number",
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
    """Whether a value says nothing. A long text is no such word, and may stand in every row."""
    if isinstance(value, str):
        return len(value) <= LONGEST_VALUE and value.strip().lower() in _NONE
    return value is None or (isinstance(value, float) and math.isnan(value))


def read_position(value: Any) -> str | None:
    """A token position, or None for what is empty.

    Raises:
        BadInput: It is neither text nor a whole number.
    """
    if value == "" or (is_empty(value) and not isinstance(value, str)):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadInput(f"{value!r:.80} is no position, such as END or 7")
    text = str(value)
    check_length("position", text)  # before every row of a table makes a node's name of it
    return text


def read_rank(value: Any) -> int | None:
    """A rank, or None for what is empty.

    Raises:
        BadInput: It is no whole number from 1.
    """
    if is_empty(value):
        return None
    try:
        rank = 0 if isinstance(value, bool) else int(value)
    except (TypeError, ValueError, OverflowError):
        rank = 0
    if rank < 1 or (isinstance(value, float) and rank != value):
        raise BadInput(f"rank {value!r:.80} is no whole number from 1")
    return rank


def read_effect(value: Any) -> float | None:
    """A number, or None for what is empty or no finite number, which :func:`odd_number` tells.

    Raises:
        BadInput: It is no number.
    """
    if is_empty(value):
        return None
    number = _number(value)
    if number is None:
        raise BadInput(f"effect {value!r:.80} is no number; leave it empty where unknown")
    return number if math.isfinite(number) else None


def odd_number(value: Any) -> float | None:
    """NaN or an infinity, if that is what a value is; None for everything else."""
    number = _number(value)
    return None if number is None or math.isfinite(number) else number


def read_mark(value: Any) -> bool:
    """Whether an edge or a node is said to be in the circuit.

    Raises:
        BadInput: It is none of true, false, yes, no, 1 and 0.
    """
    if isinstance(value, str) and len(value) <= LONGEST_VALUE:
        found = _MARKS.get(value.strip().lower())
        if found is not None:
            return found
    elif isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    raise BadInput(f"in_circuit is {value!r:.80}, neither true nor false")


def _number(value: Any) -> float | None:
    """A number, also NaN; None for what is none. Whole numbers beyond all floats are infinite."""
    # A long text may be a number, and stand in every row.
    if isinstance(value, bool) or (isinstance(value, str) and len(value) > _LONGEST_NUMBER):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except (TypeError, ValueError):
        return None
