"""Values that may be parameters of a statement."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from registry.errors import QueryFailed

__all__ = ["checked_parameters"]

_LARGEST = 2**63 - 1
_MOST_LEVELS = 64


def checked_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters as JSON types that both engines read as the same values.

    Raises:
        QueryFailed: A value is NaN or infinite, a whole number beyond 64 bits, text with a lone
            surrogate, lists nested deeper than engines can handle, or of a type other than text,
            number, boolean, list, map.
    """
    return {str(name): _checked(name, value, 0) for name, value in parameters.items()}


def _checked(name: str, value: Any, level: int) -> Any:
    if level > _MOST_LEVELS:
        raise QueryFailed(f"parameter {name}: lists and maps are nested over {_MOST_LEVELS} deep")
    match value:
        case None | bool():
            return value
        case str():
            if not value.isascii():
                _refuse_half_characters(name, value)
            return value
        case int():
            if not -_LARGEST - 1 <= value <= _LARGEST:
                raise QueryFailed(f"parameter {name}: {value} does not fit 64 bits")
            return value
        case float():
            if not math.isfinite(value):
                raise QueryFailed(f"parameter {name}: {value} is not a finite number")
            return value
        case Mapping():
            return {str(key): _checked(name, item, level + 1) for key, item in value.items()}
        case Sequence() if not isinstance(value, (bytes, bytearray, memoryview)):
            return [_checked(name, item, level + 1) for item in value]
        case _:
            raise QueryFailed(
                f"parameter {name}: a {type(value).__name__} is not text, a number, a boolean, a"
                f" list or a map"
            )


def _refuse_half_characters(name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise QueryFailed(f"parameter {name}: {text!r} contains half a character") from None
