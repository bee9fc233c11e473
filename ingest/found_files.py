"""Which files a path to import means: itself, or what lies in a folder.

What a user names is looked at, hidden or not. Below a folder, what is hidden (its name begins with
a dot) and links are passed over, and it is said that they were.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ingest.sidecars import SIDECAR
from registry.errors import BadInput

__all__ = ["FoundFile", "find_files"]


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file to import, or what is passed over in a folder.

    Attributes:
        path: Which one; of what is passed over it may be a folder.
        folder: The named folder it was found under; None if it was named itself.
        passed_over: Why it is not looked at; None if it is.
    """

    path: Path
    folder: Path | None = None
    passed_over: str | None = None


def find_files(paths: Sequence[Path]) -> Iterator[FoundFile]:
    """Every file, in order, with what is passed over; sidecars are none of them.

    Raises:
        BadInput: A path is neither a file nor a folder.
    """
    for path in paths:
        if path.is_dir():
            yield from _below(path, path)
        elif path.is_file():
            yield FoundFile(path)
        else:
            what = "is neither a file nor a folder" if path.exists() else "does not exist"
            raise BadInput(f"{path} {what}")


def _below(place: Path, folder: Path) -> Iterator[FoundFile]:
    try:
        names = sorted(place.iterdir())
    except OSError as error:
        yield FoundFile(place, folder, f"it cannot be read: {error.strerror or error}")
        return
    for one in names:
        if one.name == SIDECAR:
            continue
        if one.name.startswith("."):
            yield FoundFile(one, folder, "it is hidden; name it to import it")
        elif one.is_symlink():
            yield FoundFile(one, folder, "it is a link; name it to import what it leads to")
        elif one.is_dir():
            yield from _below(one, folder)
        elif one.is_file():
            yield FoundFile(one, folder)
