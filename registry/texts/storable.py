"""Texts that every store can hold."""

from __future__ import annotations

import re

__all__ = ["as_storable"]

# PostgreSQL holds no NUL character, and UTF-8 has no form for half a character (a surrogate).
_IN_NO_STORE = re.compile("[\x00\ud800-\udfff]")


def as_storable(text: str) -> str:
    """Text with U+FFFD, the sign for an unknown character, in place of what no store can hold."""
    return _IN_NO_STORE.sub("\ufffd", text)
