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
from ingest.formats.choosing import is_asked
from ingest.found_files import FoundFile, find_files
from ingest.recording import FileReport, Outcome, ReadFile, Recorder, reason
from ingest.sidecars import SIDECAR, check_sidecar, said_of, sidecar_reader, with_slug
from registry import plugins
from registry.errors import BadInput, CircuitsError
from registry.records import CircuitLabels

if TYPE_CHECKING:
    from registry.registry import Registry

__all__ = ["FileReport", "Outcome", "import_files"]

_SIDECARS = "circuits-import"
"""What stands for a sidecar's format in its report."""


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
    stage: Callable[[str], Callable[[int, int], None]] | None = None,
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
        stage: Begins to tell of one file that takes long to read, as :attr:`Context.stage`.

    Raises:
        BadInput: A path does not exist.
    """
    files = list(find_files(paths))
    looked_at = [one for one in files if one.passed_over is None]
    chosen = {
        one.path: format or _recognised(one.path, named=one.folder is None) for one in looked_at
    }
    context = Context(limits=limits or Limits())
    if stage is not None:
        context = replace(context, stage=stage)
    reader = _Reader(said, context, chosen, guessed=format is None)
    recorder = Recorder(registry, labels, dry_run=dry_run)
    yield from reader.check_sidecars(looked_at)
    for done, one in enumerate(files):
        if progress is not None:
            progress(done, len(files))
        # What was read is let go before it is projected: it may be half of the memory.
        with registry.projecting_later():
            read = reader.read(one)
            reports = recorder.take(read)
            del read
        yield from reports
    yield from recorder.finish()


class _Reader:
    """Reads one file after the other, or says why it is not read."""

    def __init__(
        self,
        said: Mapping[str, Any],
        context: Context,
        chosen: Mapping[Path, Format | CircuitsError | None],
        *,
        guessed: bool,
    ) -> None:
        self._said, self._context, self._guessed = said, context, guessed
        self._chosen, self._owners = chosen, _owners(chosen)
        self._owning = frozenset(self._owners.values())
        self._entries = sidecar_reader()
        self._refused_sidecars: set[Path] = set()

    def check_sidecars(self, files: Sequence[FoundFile]) -> Iterator[FileReport]:
        """Reports on sidecars that are malformed, or speak of files that there are not."""
        by_folder: dict[Path, list[Path]] = {}
        for one in files:
            if one.folder is not None:
                by_folder.setdefault(one.folder, []).append(one.path)
        for folder, paths in by_folder.items():
            inner = {place for path in paths for place in path.parents}
            for place in sorted(one for one in inner if one.is_relative_to(folder)):
                sidecar = place / SIDECAR
                try:
                    notes = check_sidecar(sidecar, folder, paths, self._entries)
                except CircuitsError as error:
                    self._refused_sidecars.add(place)
                    yield FileReport(sidecar, Outcome.REFUSED, _SIDECARS, notes=(str(error),))
                else:
                    if notes:
                        yield FileReport(sidecar, Outcome.SKIPPED, _SIDECARS, notes=tuple(notes))

    def read(self, file: FoundFile) -> ReadFile | FileReport:
        """What a file holds, or why it is refused or skipped."""
        path, folder = file.path, file.folder
        if file.passed_over is not None:
            return FileReport(path, Outcome.SKIPPED, notes=(file.passed_over,))
        one = self._chosen[path]
        if isinstance(one, CircuitsError):
            return FileReport(path, Outcome.REFUSED, notes=(str(one),))
        if path in self._owners and path not in self._owning:
            note = f"read with {self._owners[path].name}"
            return FileReport(path, Outcome.SKIPPED, notes=(note,))
        if one is None:
            return FileReport(path, Outcome.SKIPPED, notes=("no format knows it",))
        if folder is not None and not self._refused_sidecars.isdisjoint(path.parents):
            note = f"what {SIDECAR} says of it is not known, as that is refused"
            return FileReport(path, Outcome.REFUSED, one.name, notes=(note,))
        try:
            told, notes = with_slug(said_of(path, folder, self._said, self._entries))
            found = _read(one, path, replace(self._context, said=told))
        except (CircuitsError, ValidationError) as error:
            return self._not_read(path, folder, one, error)
        return ReadFile(path, one, replace(found, notes=[*notes, *found.notes]))

    def _not_read(
        self,
        path: Path,
        folder: Path | None,
        format: Format,
        error: CircuitsError | ValidationError,
    ) -> FileReport:
        notes = (reason(error),)
        if folder is not None and self._guessed:
            # Of a table whose kind only its columns tell, reading alone finds that it is none.
            if isinstance(error, UnknownFormat):
                return FileReport(path, Outcome.SKIPPED, notes=notes)
            if isinstance(error, NoRecords):
                return FileReport(path, Outcome.SKIPPED, format.name, notes=notes)
        return FileReport(path, Outcome.REFUSED, format.name, notes=notes)


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
    if is_asked(context.said):
        _check_choice(found, format)
    return found


def _check_choice(found: Imported, format: Format) -> None:
    """Refuse a circuit that was not chosen by size though the user asks for it.

    Raises:
        BadInput: There is one: its format holds no sizes to choose by.
    """
    for circuit in found.circuits:
        if not {"top", "threshold"} & set(circuit.selection or {}):
            raise BadInput(
                f"files of {format.name} hold a circuit and nothing to choose from by size; leave"
                " out --top and --threshold"
            )


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
