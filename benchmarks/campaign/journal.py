"""What a process saw and what was acknowledged, on disk before its next action."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["Entry", "Journal", "read_journals"]

Entry = dict[str, Any]
"""``at`` (seconds since 1970), ``what``, and its details."""

_SUFFIX = ".journal"


class Journal:
    """The journal of one process; each process begins a new one.

    Args:
        folder: The folder of a round's journals.
        name: Name of the process.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._file = (folder / f"{name}{_SUFFIX}").open("ab")

    def note(self, what: str, **details: Any) -> None:
        """Add an entry; after this returns, no kill can remove it."""
        entry = {"at": time.time(), "what": what, **details}
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def read_journals(folder: Path) -> Iterator[Entry]:
    """All entries of a round, by process; incomplete entries are skipped."""
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                yield json.loads(line)
