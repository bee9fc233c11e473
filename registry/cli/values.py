"""Values given as text on the command line: read as JSON if they are JSON, otherwise as text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NoReturn

from registry.errors import BadInput

__all__ = ["assignments", "read_json", "split_assignment", "value_of"]


def assignments(texts: Sequence[str] | None, what: str) -> dict[str, Any]:
    """Read ``key=value`` texts.

    Raises:
        BadInput: A text has no ``=``, or a key is repeated; ``what`` names the option.
    """
    values: dict[str, Any] = {}
    for text in texts or ():
        key, value = split_assignment(text, what)
        if key in values:
            raise BadInput(f"{what} {key} is given twice")
        values[key] = value_of(value)
    return values


def split_assignment(text: str, what: str) -> tuple[str, str]:
    """Split ``key=value`` at its first ``=``."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise BadInput(f"{what} {text!r} is not KEY=VALUE")
    return key.strip(), value


def value_of(text: str) -> Any:
    """The value of a text: ``3``, ``[1, 2]`` and ``"3"`` are read as JSON, ``ioi`` as text.

    Raises:
        BadInput: NaN or an infinite number.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError:
        return text


def read_json(text: str, where: str) -> Any:
    """Read a JSON document.

    Raises:
        BadInput: It is not JSON, or contains NaN; the message gives ``where`` and the position.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        raise BadInput(f"{where} is not JSON: {error}") from error


def _refuse(constant: str) -> NoReturn:
    raise BadInput(f"{constant} is not a valid value: numbers are finite")
