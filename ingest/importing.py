"""Files of other tools into the registry: find their formats, read, record, and say what happened.

A folder is read file by file; what its files do not say may stand in a ``circuits-import.yaml``
beside them (:mod:`ingest.sidecars`). One file that is refused does not keep the others out, and
what no format knows is passed over where it only lies in a folder.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ingest.formats.base import (
    FORMATS_GROUP,
    Context,
    Format,
    Imported,
    Limits,
    NoRecords,
    UnknownFormat,
    recognised,
)
from ingest.recording import FileReport, Outcome, ReadFile, Recorder, reason
from ingest.sidecars import SIDECAR, said_of, sidecar_reader, with_slug
from registry import plugins
from registry.errors import BadInput, CircuitsError
from registry.records import CircuitLabels

if TYPE_CHECKING:
    from registry.registry import Registry

__all__ = ["FileReport", "Outcome", "import_files"]


def import_files(
    registry: Registry,
    paths: Sequence[Path],
    said: Mapping[str, Any],
    *,
    limits: Limits | None = None,
    format: Format | None = None,
    dry_run: bool = False,
    labels: CircuitLabels | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[FileReport]:
    """Import files and folders, one report each as they are done.

    Args:
        registry: Where to.
        paths: Files and folders.
        said: Fields of :class:`Said` that hold for all of them.
        limits: What is refused as too large.
        format: The files' format; by default each is recognised by its content.
        dry_run: Read, and store nothing.
        labels: Of circuits that are new.
        progress: Told how many files are done, and of how many.

    Raises:
        BadInput: A path does not exist, or a ``circuits-import.yaml`` is malformed.
    """
    files = list(_files(paths))
    chosen = {path: format or _recognised(path, named=folder is None) for path, folder in files}
    owners = _owners(chosen)
    reader = _Reader(said, limits or Limits(), chosen, owners, guessed=format is None)
    recorder = Recorder(registry, labels, dry_run=dry_run)
    for done, (path, folder) in enumerate(files):
        if progress is not None:
            progress(done, len(files))
        # What was read is let go before it is projected: it may be half of the memory.
        with registry.projecting_later():
            read = reader.read(path, folder)
            reports = recorder.take(read)
            del read
        yield from reports
    yield from recorder.finish()


class _Reader:
    """Reads one file after the other, or says why it is not read."""

    def __init__(
        self,
        said: Mapping[str, Any],
        limits: Limits,
        chosen: Mapping[Path, Format | CircuitsError | None],
        owners: Mapping[Path, Path],
        *,
        guessed: bool,
    ) -> None:
        self._said, self._limits, self._guessed = said, limits, guessed
        self._chosen, self._owners, self._owning = chosen, owners, frozenset(owners.values())
        self._entries = sidecar_reader()

    def read(self, path: Path, folder: Path | None) -> ReadFile | FileReport:
        one = self._chosen[path]
        if isinstance(one, CircuitsError):
            return FileReport(path, Outcome.REFUSED, notes=(str(one),))
        if path in self._owners and path not in self._owning:
            return FileReport(
                path, Outcome.SKIPPED, notes=(f"read with {self._owners[path].name}",)
            )
        if one is None:
            return FileReport(path, Outcome.SKIPPED, notes=("no format knows it",))
        try:
            told, notes = with_slug(said_of(path, folder, self._said, self._entries))
            found = _read(one, path, Context(told, self._limits))
        except (CircuitsError, ValidationError) as error:
            # Of a table whose kind only its columns tell, reading alone finds that it is none.
            if isinstance(error, UnknownFormat) and folder is not None and self._guessed:
                return FileReport(path, Outcome.SKIPPED, notes=(reason(error),))
            if isinstance(error, NoRecords) and folder is not None and self._guessed:
                return FileReport(path, Outcome.SKIPPED, one.name, notes=(reason(error),))
            return FileReport(path, Outcome.REFUSED, one.name, notes=(reason(error),))
        return ReadFile(path, one, replace(found, notes=[*notes, *found.notes]))


def _files(paths: Sequence[Path]) -> Iterator[tuple[Path, Path | None]]:
    """Every file with the folder it was found under; links are not followed out of a folder."""
    for path in paths:
        if path.is_dir():
            for one in sorted(path.rglob("*")):
                hidden = any(part.startswith(".") for part in one.relative_to(path).parts)
                if one.is_file() and not one.is_symlink() and not hidden and one.name != SIDECAR:
                    yield one, path
        elif path.is_file():
            yield path, None
        else:
            what = "is neither a file nor a folder" if path.exists() else "does not exist"
            raise BadInput(f"{path} {what}")


def _recognised(path: Path, *, named: bool) -> Format | CircuitsError | None:
    """A file's format, or why it cannot be read; None where it merely lies in a folder."""
    try:
        return recognised(path)
    except UnknownFormat as error:
        return error if named else None
    except CircuitsError as error:
        return error


def _read(format: Format, path: Path, context: Context) -> Imported:
    """What a file holds.

    Raises:
        BadInput: As :meth:`Format.read`.
        PluginBroken: The format is another package's, and fails.
    """
    with plugins.blamed(FORMATS_GROUP, format):
        found = format.read(path, context)
        if not isinstance(found, Imported):
            raise TypeError(f"read gives a {type(found).__name__}, no Imported")
    return found


def _owners(chosen: Mapping[Path, Format | CircuitsError | None]) -> dict[Path, Path]:
    """Of every file that another one is read with, that other one."""
    owners: dict[Path, Path] = {}
    by_folder: dict[Path, list[Path]] = {}
    for path in chosen:
        by_folder.setdefault(path.parent, []).append(path)
    # The names in a folder are matched once, however many files of a format lie there.
    matching: dict[tuple[Path, str], list[Path]] = {}
    for path, format in chosen.items():
        for pattern in getattr(format, "companions", ()):
            place = path.parent, pattern
            if place not in matching:
                names = by_folder[path.parent]
                matching[place] = [o for o in names if fnmatch.fnmatchcase(o.name, pattern)]
            owners |= {other: path for other in matching[place] if other != path}
    return owners
