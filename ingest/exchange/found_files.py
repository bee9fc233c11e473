"""The files that a path to import refers to: the file itself, or the files in a folder.

A path that the user names is always read, hidden or not. Below a folder, three kinds are skipped
and reported as skipped: hidden files (their name begins with a dot), links, and anything that is
neither a file nor a folder, such as a pipe.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ingest.exchange.sidecars import SIDECAR
from registry.errors import BadInput

__all__ = ["FoundFile", "find_files"]


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file to import, or a skipped path in a folder.

    Attributes:
        path: Its path; a skipped path may be a folder.
        folder: The named folder in which it was found; None if the user named the path itself.
        passed_over: Why it is skipped; None if it is not.
    """

    path: Path
    folder: Path | None = None
    passed_over: str | None = None


def find_files(paths: Sequence[Path]) -> Iterator[FoundFile]:
    """Yield every file once, in order, and every skipped path; sidecars are not included.

    Raises:
        BadInput: A path is neither a file nor a folder.
    """
    seen: set[str] = set()
    for one in _named(paths):
        if one.passed_over is None:
            whole = os.path.realpath(one.path)
            if whole in seen:
                one = replace(one, passed_over="it is named twice")
            seen.add(whole)
        yield one


def _named(paths: Sequence[Path]) -> Iterator[FoundFile]:
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
            yield FoundFile(one, folder, "it is a link; name it to import its target")
        elif one.is_dir():
            yield from _below(one, folder)
        elif one.is_file():
            yield FoundFile(one, folder)
        else:
            yield FoundFile(one, folder, "it is neither a file nor a folder")
