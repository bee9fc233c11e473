"""JSON in the canonical form that is hashed, and the hash that serves as an id."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

__all__ = ["canonical_json", "content_hash", "record_json"]

_CANONICAL = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)
_MAX_NESTING = 200
"""Maximum nesting of JSON in a record; pydantic writes at most about 250 levels."""


def canonical_json(value: Any) -> str:
    """Write JSON in the canonical form that is hashed: sorted keys, no spaces, no NaN.

    Raises:
        ValueError: A number is NaN or infinite.
    """
    return _CANONICAL.encode(value)


def content_hash(value: Any) -> str:
    """SHA-256 of :func:`canonical_json`, 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def record_json(value: Mapping[str, Any]) -> str:
    """The canonical JSON of an object that a record can hold.

    Raises:
        ValueError: It is not JSON, has surrogates, or is nested too deep.
    """
    try:
        text = canonical_json(value)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        # Pydantic turns a ValueError into a validation error, and no other exception.
        raise ValueError(f"is not JSON: {error}") from error
    if _deeper(value, _MAX_NESTING):
        raise ValueError(f"is nested deeper than {_MAX_NESTING} levels")
    return text


def _deeper(value: Any, levels: int) -> bool:
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return False
    return levels == 0 or any(_deeper(one, levels - 1) for one in value)
