"""Problems of a record in plain words: pydantic's own messages are for programmers.

Nothing here imports pydantic: if it was never loaded, it raised no error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["first_problem", "in_plain_words"]

_WORDS: Mapping[str, str] = {
    "missing": "missing",
    "extra_forbidden": "there is no such field",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "string_unicode": "must be text that can be written as UTF-8",
    "string_too_short": "must have {min_length} or more characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match {pattern}",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must have fields of its own",
    "model_type": "must have fields of its own",
    "model_attributes_type": "must have fields of its own",
    "too_short": "must have {min_length} or more entries",
    "too_long": "must have at most {max_length} entries",
}
"""By pydantic's type of error, with its own values; other types keep pydantic's message."""
_LIMITS: Mapping[str, str] = {
    "Input should be greater than or equal to": "must be at least",
    "Input should be less than or equal to": "must be at most",
    "Input should be greater than": "must be more than",
    "Input should be less than": "must be less than",
    "Input should be a valid integer, unable to parse string as an integer": (
        "must be a whole number"
    ),
    "Input should be a valid number, unable to parse string as a number": "must be a number",
}
"""Pydantic's words as typer quotes them of an option, the longer ones first."""
_WITHOUT_VALUE = frozenset({"missing", "extra_forbidden", "value_error", "string_too_long"})
_LONGEST = 80


def first_problem(error: Any) -> str:
    """Field and problem of the first error of a pydantic error, and the number of further ones.

    Args:
        error: A ``pydantic.ValidationError``.
    """
    problems = error.errors(include_url=False)
    first, more = problems[0], len(problems) - 1
    field = ".".join(map(str, first["loc"]))
    text = _in_words(first) + (f" (and {more} more)" if more else "")
    return f"{field}: {text}" if field else text


def in_plain_words(text: str) -> str:
    """A message of the command line without pydantic's words in it."""
    for theirs, ours in _LIMITS.items():
        text = text.replace(theirs, ours)
    return text.replace("Value error, ", "")


def _in_words(problem: Mapping[str, Any]) -> str:
    kind = problem["type"]
    values = {name: _plain(value) for name, value in problem.get("ctx", {}).items()}
    text = (
        _WORDS[kind].format_map(values)
        if kind in _WORDS
        else str(problem["msg"]).removeprefix("Value error, ")
    )
    return text if kind in _WITHOUT_VALUE else f"{text}, is {_shown(problem['input'])}"


def _plain(value: Any) -> Any:
    """A limit as people write it: 0 instead of 0.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
