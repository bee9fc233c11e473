"""Parameters of named queries: their types, and how values given as text are read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from registry.errors import BadInput
from registry.identifiers import parse_component, parse_connection, parse_model

__all__ = ["TYPES", "Parameter", "Resolver"]

Resolver = Callable[[str], str]
"""Turns a name that a user types into the stored name."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a query.

    Attributes:
        type: One of :data:`TYPES`, or ``list[...]`` of one.
        required: It has no default.
        default: Value if it is not given.
    """

    name: str
    type: str
    help: str
    required: bool = True
    default: Any = None

    def __str__(self) -> str:
        return self.name

    @property
    def is_list(self) -> bool:
        """Whether several values may be given."""
        return self.type.startswith("list[")

    @property
    def item_type(self) -> str:
        """Type of one value."""
        return self.type[len("list[") : -1] if self.is_list else self.type

    def read(self, value: Any, resolve: Resolver = str) -> Any:
        """Turn a user's input into a value of this type; a list names each value once.

        Args:
            value: Text as the command line gives it, or a value of Python.
            resolve: Turns a name into the stored name, if the type is one of names.

        Raises:
            BadInput: It is of another type.
            NotFound: The resolver finds no such name.
        """
        if not self.is_list:
            return _read_item(self.item_type, value, resolve)
        items = _split_list(value) if isinstance(value, str) else value
        if isinstance(items, Mapping) or not isinstance(items, Iterable):
            raise BadInput(f"expected {self.type}, got {value!r}")
        return list(dict.fromkeys(_read_item(self.item_type, item, resolve) for item in items))


def _split_list(text: str) -> list[str]:
    items = [item.strip() for item in text.split(",")]
    if not all(items):
        raise BadInput(f"expected values separated by commas, got {text!r}")
    return items


def _read_item(type_: str, value: Any, resolve: Resolver) -> Any:
    read = TYPES[type_](value)
    return resolve(read) if type_ in _NAMING else read


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise BadInput(f"expected text, got {value!r}")
    return value


def _integer(value: Any) -> int:
    if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,18}", value.strip()):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadInput(f"expected a whole number, got {value!r}")
    return value


def _count(value: Any) -> int:
    number = _integer(value)
    if number < 1:
        raise BadInput(f"expected a whole number from 1, got {value!r}")
    return number


def _number(value: Any) -> float:
    try:
        number = float(value) if not isinstance(value, bool) else None
    except (TypeError, ValueError):
        number = None
    if number is None or number - number != 0:  # NaN and infinity differ from themselves
        raise BadInput(f"expected a number, got {value!r}")
    return number


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {"true": True, "yes": True, "false": False, "no": False}
    if not isinstance(value, str) or value.strip().lower() not in words:
        raise BadInput(f"expected true or false, got {value!r}")
    return words[value.strip().lower()]


TYPES: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "string": _text,
        "integer": _integer,
        "count": _count,
        "number": _number,
        "boolean": _boolean,
        "model": lambda value: parse_model(_text(value)),
        "task": _text,
        "circuit": _text,
        "edit": _text,
        "component": lambda value: str(parse_component(_text(value))),
        "connection": lambda value: str(parse_connection(_text(value))),
    }
)
"""The reader of each type's values. ``count`` is a whole number from 1."""

_NAMING = frozenset({"model", "task", "circuit", "edit", "component", "connection"})
