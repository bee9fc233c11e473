"""Paths in URLs: ``sqlite:///PATH``, ``kglite:///PATH``, ``file:///PATH``.

URLs that are made here percent-encode ``%``, ``?``, ``#`` and control characters of a path; all
other characters, such as letters of any script, stay readable. Reading decodes every ``%`` that two
hexadecimal digits follow. Thus a path does not change on its way through a URL, and a path without
these characters may be written into a URL unchanged.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from registry.errors import BadInput

__all__ = ["expanded", "read_path", "require_text", "url_path"]

_SPECIAL = re.compile(r"[%?#\x00-\x1f\x7f-\x9f]")


def url_path(path: Path) -> str:
    """A path in the syntax of URLs."""
    return _SPECIAL.sub(lambda found: quote(found[0], safe=""), path.as_posix())


def read_path(text: str, base: Path) -> Path:
    """The path in a URL after ``://`` and one more slash.

    Args:
        text: The text of the path. A ``~`` in front is the user's folder; a file of that name is
            written ``%7E``.
        base: Where a relative path starts.

    Raises:
        BadInput: It is not a path, or not text after decoding.
    """
    if text.startswith("~"):
        first, _, rest = text.partition("/")
        return base / expanded(_decoded(first)) / _decoded(rest)
    return base / _decoded(re.sub("^/+", "/", text))


def expanded(path: Path | str) -> Path:
    """A path whose leading ``~`` or ``~user`` is expanded to that folder, if the user exists."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # no such user: as in shells, it is an ordinary name
        return Path(path)


def require_text(path: Path, what: str) -> None:
    """Refuse a path that URLs, settings files or engines cannot hold.

    Raises:
        BadInput: Its bytes are not UTF-8, or one of them is zero.
    """
    try:
        is_text = "\0" not in str(path).encode().decode()
    except UnicodeEncodeError:
        is_text = False
    if not is_text:
        raise BadInput(
            f"{what} is {str(path)!r}, which is not text in UTF-8; a registry and its stores"
            " need folders and files with names in UTF-8: rename it"
        )


def _decoded(text: str) -> str:
    try:
        decoded = unquote_to_bytes(text).decode()
    except UnicodeError:
        decoded = "\0"
    if "\0" in decoded:
        raise BadInput(f"{text!r} in a URL is not a path in UTF-8 once its %XX are decoded")
    return decoded
