"""Import of files of other tools: find their formats, read them, record them, and report.

A folder is read file by file. A ``circuits-import.yaml`` in the folder may give facts that the
files do not contain (:mod:`ingest.exchange.sidecars`). A refused file does not stop the import of
the others. In a folder, files of unknown formats are skipped.
"""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ingest.exchange.found_files import FoundFile, find_files
from ingest.exchange.recording import FileOutcome, FileReport, ReadFile, Recorder, reason
from ingest.exchange.sidecars import SIDECAR, check_sidecar, said_of, sidecar_reader, with_slug
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
from registry import plugins
from registry.credentials import scrubbed
from registry.errors import BadInput, CircuitsError
from registry.records import CircuitLabels

if TYPE_CHECKING:
    from registry.registry import Registry

__all__ = ["FileOutcome", "FileReport", "import_files"]

log = logging.getLogger(__name__)

_SIDECARS = "circuits-import"
"""The format that a sidecar's report shows."""
_LONGEST_FAULT = 300


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
    """Import files and folders, and yield one report for each finished file.

    Args:
        registry: The registry to import into.
        paths: Files and folders.
        said: Fields of :class:`Said` that hold for all files.
        limits: Sizes above which a file is refused.
        format: The files' format; by default it is recognised from the content of each.
        dry_run: Read, and store nothing.
        labels: Labels of new circuits.
        progress: Receives the number of finished files and the total.
        stage: Begins to report on a file that takes long to read, as :attr:`Context.stage`.

    Raises:
        BadInput: A path does not exist.
    """
    files = list(find_files(paths))
    looked_at = [one for one in files if one.passed_over is None]
    among = plugins.usable(FORMATS_GROUP) if format is None else {}
    chosen = {
        one.path: format or _recognised(one.path, among, named=one.folder is None)
        for one in looked_at
    }
    context = Context(limits=limits or Limits())
    if stage is not None:
        context = replace(context, stage=stage)
    reader = _Reader(said, context, chosen, guessed=format is None)
    yield from reader.check_sidecars(looked_at)
    with Recorder(registry, labels, dry_run=dry_run) as recorder:
        for done, one in enumerate(files):
            if progress is not None:
                progress(done, len(files))
            # The read content is released before projection: it may fill half of the memory.
            with registry.projecting_later():
                read = reader.read(one)
                reports = recorder.take(read)
                del read
            yield from reports
        yield from recorder.finish()


class _Reader:
    """Reads one file after the other, or gives the reason why it is not read."""

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
        """Report sidecars that are malformed, or that match no existing files."""
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
                    yield FileReport(sidecar, FileOutcome.REFUSED, _SIDECARS, notes=(str(error),))
                else:
                    if notes:
                        yield FileReport(
                            sidecar, FileOutcome.SKIPPED, _SIDECARS, notes=tuple(notes)
                        )

    def read(self, file: FoundFile) -> ReadFile | FileReport:
        """Return the content of a file, or why it is refused or skipped."""
        path, folder = file.path, file.folder
        if file.passed_over is not None:
            return FileReport(path, FileOutcome.SKIPPED, notes=(file.passed_over,))
        one = self._chosen[path]
        if isinstance(one, CircuitsError):
            return FileReport(path, FileOutcome.REFUSED, notes=(str(one),))
        if path in self._owners and path not in self._owning:
            note = f"read with {self._owners[path].name}"
            return FileReport(path, FileOutcome.SKIPPED, notes=(note,))
        if one is None:
            return FileReport(path, FileOutcome.SKIPPED, notes=("its format is unknown",))
        place = next((p for p in path.parents if p in self._refused_sidecars), None)
        if folder is not None and place is not None:
            note = f"{SIDECAR} has an error, so its statements about this file are unknown"
            sidecar = place / SIDECAR
            return FileReport(
                path, FileOutcome.REFUSED, one.name, notes=(note,), refused_with=sidecar
            )
        try:
            told, notes = with_slug(said_of(path, folder, self._said, self._entries))
            found = _read(one, path, replace(self._context, said=told))
        except (CircuitsError, ValidationError) as error:
            return self._not_read(path, folder, one, error)
        except Exception as error:  # noqa: BLE001 - a fault at one file keeps no other out
            return FileReport(path, FileOutcome.REFUSED, one.name, notes=(_fault(path, error),))
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
            # A table's kind depends on its columns, so only reading shows that it is no table of
            # ours.
            if isinstance(error, UnknownFormat):
                return FileReport(path, FileOutcome.SKIPPED, notes=notes)
            if isinstance(error, NoRecords):
                return FileReport(path, FileOutcome.SKIPPED, format.name, notes=notes)
        return FileReport(path, FileOutcome.REFUSED, format.name, notes=notes)


def _recognised(
    path: Path, among: Mapping[plugins.Plugin, Format], *, named: bool
) -> Format | CircuitsError | None:
    """Return a file's format, or why it cannot be read; None if it can be skipped in a folder."""
    try:
        return recognised(path, among)
    except UnknownFormat as error:
        return error if named else None
    except CircuitsError as error:
        return error
    except Exception as error:  # noqa: BLE001 - as where a file is read
        return CircuitsError(_fault(path, error))


def _fault(path: Path, error: Exception) -> str:
    """Return the text for an unexpected error; the log has its origin."""
    log.debug("traceback of the failure at %s", path, exc_info=error)
    if isinstance(error, OSError):
        return f"{path} cannot be read: {scrubbed(str(error.strerror or error))}"
    if isinstance(error, MemoryError):
        return f"{path.name} needs more memory than is available"
    text = scrubbed(" ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST_FAULT])
    return f"a fault of this program: {text} ('circuits --log-level debug ...' shows where)"


def _read(format: Format, path: Path, context: Context) -> Imported:
    """Return the content of a file.

    Raises:
        BadInput: As :meth:`Format.read`.
        PluginBroken: The format is from another package, and fails.
    """
    with plugins.blamed(FORMATS_GROUP, format):
        found = format.read(path, context)
        if not isinstance(found, Imported):
            raise TypeError(f"read returns {type(found).__name__} instead of Imported")
    if is_asked(context.said):
        _check_choice(found, format)
    return found


def _check_choice(found: Imported, format: Format) -> None:
    """Refuse a circuit that was not selected by size although the user asks for it.

    Raises:
        BadInput: The file has such a circuit: its format has no sizes to select by.
    """
    for circuit in found.circuits:
        if not {"top", "threshold"} & set(circuit.selection or {}):
            raise BadInput(
                f"files of {format.name} contain a circuit and no sizes to select by; omit --top"
                " and --threshold"
            )


def _owners(chosen: Mapping[Path, Format | CircuitsError | None]) -> dict[Path, Path]:
    """Map every file that is read together with another file to that other file."""
    owners: dict[Path, Path] = {}
    by_folder: dict[Path, list[Path]] = {}
    for path in chosen:
        by_folder.setdefault(path.parent, []).append(path)
    # The names in a folder are matched once, for any number of files of one format.
    matching: dict[tuple[Path, str], list[Path]] = {}
    for path, format in chosen.items():
        for pattern in getattr(format, "companions", ()):
            place = path.parent, pattern
            if place not in matching:
                names = by_folder[path.parent]
                matching[place] = [o for o in names if fnmatch.fnmatchcase(o.name, pattern)]
            owners |= {other: path for other in matching[place] if other != path}
    return owners
