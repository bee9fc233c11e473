"""Read a small file that somebody named, without waiting and with a size limit."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple

from registry.errors import BadInput

__all__ = ["SmallFile", "read_small"]

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
# Does not wait for a writer of a pipe, and does not become the process of a terminal.
_WITHOUT_WAITING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)


class SmallFile(NamedTuple):
    """The content of a file, and its permissions (all zero if the system has none)."""

    text: str
    mode: int


def read_small(path: Path, what: str, *, limit_bytes: int) -> SmallFile:
    """Read a regular file of text.

    Args:
        path: The file; links are followed.
        what: What it is, for errors: ``the password file``.
        limit_bytes: Maximum size.

    Raises:
        FileNotFoundError: It does not exist.
        BadInput: It is a folder, pipe, socket or device, too long, not text, or cannot be read.
    """
    try:
        _require_regular(path.stat(), path, what)  # opening a device may already have effects
        with open(path, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            _require_regular(status, path, what)
            data = file.read(limit_bytes + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise BadInput(f"{what} {path} cannot be read: {error.strerror or error}") from error
    if len(data) > limit_bytes:
        raise BadInput(f"{what} {path} is longer than {limit_bytes:,} bytes; name another file")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise BadInput(f"{what} {path} is not text in UTF-8") from error
    # Windows has no such modes: the value of os.fstat has no meaning there.
    return SmallFile(text, stat.S_IMODE(status.st_mode) if os.name == "posix" else 0)


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | _WITHOUT_WAITING)


def _require_regular(status: os.stat_result, path: Path, what: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(status.st_mode)), "no file")
        raise BadInput(f"{what} {path} is {kind}; name a regular file")
