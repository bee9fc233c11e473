"""What a process saw and was promised, on the disk before it does the next thing."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["Entry", "Journal", "read_journals"]

Entry = dict[str, Any]
"""``at`` (seconds since 1970), ``what``, and what belongs to it."""

_SUFFIX = ".journal"


class Journal:
    """One process's journal; each process begins a new one.

    Args:
        folder: Where the journals of a round are.
        name: Who writes it.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._file = (folder / f"{name}{_SUFFIX}").open("ab")

    def note(self, what: str, **details: Any) -> None:
        """Add an entry; when this returns, no kill undoes it."""
        entry = {"at": time.time(), "what": what, **details}
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def read_journals(folder: Path) -> Iterator[Entry]:
    """All entries of a round, by process; one that a kill cut off is none."""
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                yield json.loads(line)
