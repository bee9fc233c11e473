"""Reasons why a ledger's file cannot be used, behind the messages of SQLite and the system.

SQLite reports "disk I/O error" on a full disk, "database is locked" if a file system has no locks,
and "unable to open database file" on a mount that cannot be written. The cause is determined
if possible.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["cannot_be_written", "cause_of_sqlite", "cause_of_system"]

_PRIMARY = 0xFF
"""The part of an extended result code of SQLite that names the kind of error."""
_FULL_BELOW_BYTES = 64 * 1024
"""SQLite needs one or two pages for its index of the write-ahead log, even to read."""
_WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}

_IS_FULL = "the disk is full; free some space (reading still works)"
_IS_READ_ONLY = "the folder cannot be written: reading works, recording does not"
_HAS_NO_LOCKS = (
    "the file system has no locks, so processes cannot wait for each other: move the"
    " registry to a local disk, or keep the ledger in PostgreSQL"
)
_IS_DAMAGED = (
    "the file is damaged or not a database: restore a backup into a new folder;"
    " 'sqlite3 FILE .recover' saves the rows that can still be read"
)


def cause_of_sqlite(path: Path, error: sqlite3.Error) -> str | None:
    """The cause of an error of SQLite; None if SQLite's own message gives it."""
    code = getattr(error, "sqlite_errorcode", 0) & _PRIMARY
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return _IS_DAMAGED
    if code == sqlite3.SQLITE_FULL:
        return _IS_FULL
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
        return _cause_of_folder(path.parent)
    if code == sqlite3.SQLITE_BUSY and _has_no_locks(path.parent):
        return _HAS_NO_LOCKS
    return None


def cause_of_system(path: Path, error: OSError) -> str:
    """The cause of an error of the system at a file next to the ledger."""
    if error.errno in _WITHOUT_LOCKS:
        return _HAS_NO_LOCKS
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _IS_FULL
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return _IS_READ_ONLY
    return f"{error.strerror or error} ({path.name})"


def cannot_be_written(folder: Path) -> bool:
    """Whether nothing can be added to a folder: read-only, without permission, or full."""
    return _cause_of_folder(folder) is not None


def _cause_of_folder(folder: Path) -> str | None:
    if not os.access(folder, os.W_OK):
        return _IS_READ_ONLY
    with contextlib.suppress(OSError, AttributeError):  # Windows has no statvfs
        found = os.statvfs(folder)
        if found.f_bavail * found.f_frsize < _FULL_BELOW_BYTES:
            return _IS_FULL
    return None


def _has_no_locks(folder: Path) -> bool:
    with contextlib.suppress(OSError), _lockable(folder) as descriptor:
        try:
            import fcntl

            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # Windows, which always has locks
            return False
        except OSError as error:
            return error.errno in _WITHOUT_LOCKS
    return False


@contextlib.contextmanager
def _lockable(folder: Path) -> Iterator[int]:
    with tempfile.TemporaryFile(dir=folder) as file:
        yield file.fileno()
