"""Recording of the read files in the registry, and the outcome of each file.

A file is recorded separately, completely or not at all. Files that contain only edits are recorded
many at a time, because tools write tens of thousands of files with one edit each. If one of them is
refused, each is recorded separately after all.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import ValidationError

from ingest.exchange.stored_copies import StoredCopies
from ingest.exchange.told_apart import KnownOutcomes, other_edits, tell_apart
from ingest.formats.base import Format, Imported, ModelDoubt
from registry.errors import (
    BadInput,
    CircuitsError,
    IncompatibleModel,
    LedgerError,
    StorageError,
)
from registry.files.attachments import named_apart
from registry.known_measures import Find, find_measure, notes_on_values
from registry.ledger.base import Batch, NewCircuit, Recorded
from registry.ledger.merging import merge_models
from registry.models.known_models import common_model, unlike_common
from registry.models.shapes import check_components
from registry.records import Circuit, CircuitLabels, Model, SourceFile
from registry.texts.problems import first_problem

if TYPE_CHECKING:
    from registry.registry import Registry

__all__ = ["FileOutcome", "FileReport", "ReadFile", "Recorder", "reason"]

_MOST_FILES = 2_000
_MOST_RECORDS = 50_000
"""The number of edits and outcomes that are held and then recorded together."""
_NO_SPACE = ("the disk is full", "disk quota", "No space left")


class FileOutcome(StrEnum):
    """The outcome of importing a file."""

    STORED = "stored"
    KNOWN = "already there"
    REFUSED = "refused"
    READABLE = "would be stored"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class FileReport:
    """The outcome of importing a file, and the reason.

    Attributes:
        circuits: Ids of the circuits in the file.
        nodes: Number of nodes of all its circuits.
        edges: Number of edges of all its circuits.
        evaluations: Number of evaluations in the file.
        edits: Number of edits in the file.
        notes: How the content was interpreted, or why the file was refused or skipped.
        refused_with: Another refused file, if it is the reason why this file is refused.
    """

    path: Path
    outcome: FileOutcome
    format: str | None = None
    circuits: tuple[str, ...] = ()
    nodes: int = 0
    edges: int = 0
    evaluations: int = 0
    edits: int = 0
    notes: tuple[str, ...] = ()
    refused_with: Path | None = None


@dataclass(frozen=True, slots=True)
class ReadFile:
    """A file that was read and has to be recorded."""

    path: Path
    format: Format
    found: Imported

    @property
    def holds_edits_alone(self) -> bool:
        """Whether it can be recorded together with other files of edits."""
        found = self.found
        described = (found.models, found.tasks, found.prompt_sets)
        others = (*described, found.circuits, found.evaluations, found.artifacts, found.batch)
        return bool(found.edits) and not any(others)

    @property
    def n_records(self) -> int:
        """The number of edits and outcomes."""
        return len(self.found.edits) + len(self.found.outcomes)


class _Originals:
    """Files that wait to be recorded, and files read with them, which are stored meanwhile."""

    def __init__(self, registry: Registry) -> None:
        self._being_stored = registry.storing_files()
        self._paths: list[Path] = []
        self._begun: set[Path] = set()

    def store(self, file: ReadFile) -> None:
        """Start to store a file and those read with it, unless this was started before."""
        for path in (file.path, *file.found.beside):
            if path not in self._begun:
                self._begun.add(path)
                self._paths.append(path)
                self._being_stored.put(path)

    def addresses(self) -> dict[Path, str]:
        """Wait until all files are stored, and return their addresses.

        Raises:
            StorageError: A file cannot be read or stored.
        """
        return dict(zip(self._paths, self._being_stored.addresses(), strict=True))

    def close(self) -> None:
        """Stop storing."""
        self._being_stored.close()


class Recorder:
    """Records files in the order of arrival, and reports on them in that order.

    Use it with ``with``: files that wait are stored in the background meanwhile.

    Args:
        registry: The registry to record in.
        labels: Labels of new circuits.
        dry_run: Record nothing, and report what would be recorded.
    """

    def __init__(self, registry: Registry, labels: CircuitLabels | None, *, dry_run: bool) -> None:
        self._registry = registry
        self._labels = labels or CircuitLabels()
        # Thousands of files have results of the same few names.
        self._find: Find = lru_cache(maxsize=1024)(find_measure)
        self._dry_run = dry_run
        self._copies = StoredCopies(registry)
        self._waiting: list[ReadFile | FileReport] = []
        self._n_files = self._n_records = 0
        self._originals: _Originals | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._originals is not None:
            self._originals.close()

    def take(self, item: ReadFile | FileReport) -> list[FileReport]:
        """Record a file, now or together with later files; return reports on finished files."""
        alone = isinstance(item, ReadFile) and not item.holds_edits_alone
        done = self.finish() if alone else []
        self._waiting.append(item)
        if isinstance(item, ReadFile):
            self._n_files += 1
            self._n_records += item.n_records
            # A file that is recorded separately is stored when it is recorded.
            if self._n_files > 1 and not alone and not self._dry_run:
                # Errors of storing are reported when the files are recorded.
                with contextlib.suppress(CircuitsError):
                    self._begin_to_store()
        full = self._n_files >= _MOST_FILES or self._n_records >= _MOST_RECORDS
        return [*done, *self.finish()] if alone or full or not self._n_files else done

    def finish(self) -> list[FileReport]:
        """Record the waiting files; return reports on them."""
        files = [item for item in self._waiting if isinstance(item, ReadFile)]
        done = iter(self._together(files) if len(files) > 1 else map(self._alone, files))
        reports = [next(done) if isinstance(item, ReadFile) else item for item in self._waiting]
        if self._originals is not None:
            self._originals.close()
        self._waiting, self._originals = [], None
        self._n_files = self._n_records = 0
        return reports

    def _begin_to_store(self) -> _Originals:
        """Start to store in the background the waiting files that were not started before."""
        if self._originals is None:
            self._originals = _Originals(self._registry)
            new = self._waiting
        else:
            new = self._waiting[-1:]  # each file is started when it arrives
        for item in new:
            if isinstance(item, ReadFile):
                self._originals.store(item)
        return self._originals

    def _together(self, files: Sequence[ReadFile]) -> Iterable[FileReport]:
        try:
            if self._dry_run:
                digests = [_digest(file.path) for file in files]
                return [
                    _report(file, FileOutcome.READABLE, self._find)
                    for file in self._checked(files, digests)
                ]
            stored = self._begin_to_store().addresses()
            digests = [stored[file.path] for file in files]
            while True:
                revision = self._registry.ledger.revision()
                apart = self._checked(files, digests)
                batch = _batch_of_all(apart, stored)
                recorded = self._registry.record_at(revision, batch)
                if recorded is not None:
                    return _reports(apart, recorded, self._find)
        except (CircuitsError, ValidationError) as error:
            _stop_without_space(error)
            return map(self._alone, files)

    def _checked(self, files: Sequence[ReadFile], digests: Sequence[str]) -> Sequence[ReadFile]:
        """Return files whose parts exist, with their edits kept separate from contradicting ones.

        Args:
            files: The read files.
            digests: Their SHA-256; none if they hold no edits.
        """
        apart = self._told_apart(files, digests) if digests else files
        models = self._registry.ledger.models()
        for file in apart:
            _check_names(file)
            _check_shapes(models, file.found)
        return apart

    def _alone(self, file: ReadFile) -> FileReport:
        try:
            return self._recorded(file)
        except (CircuitsError, ValidationError) as error:
            _stop_without_space(error)
            doubts = [note for note in file.found.notes if isinstance(note, ModelDoubt)]
            why = "; ".join([reason(error), *doubts])
            return FileReport(file.path, FileOutcome.REFUSED, file.format.name, notes=(why,))

    def _recorded(self, file: ReadFile) -> FileReport:
        found, registry = file.found, self._registry
        if found.batch is None and not _holds_records(found):
            why = tuple(found.notes) or ("it contains no record",)
            return FileReport(file.path, FileOutcome.SKIPPED, file.format.name, notes=why)
        circuits = _circuits(found)
        notes = [*_without_parts(circuits), *self._copies.notes(found.circuits)]
        digests = [_digest(file.path)] if found.edits else []
        while True:
            revision = registry.ledger.revision()
            (checked,) = self._checked([file], digests)
            if self._dry_run:
                return _report(checked, FileOutcome.READABLE, self._find, notes)
            batch = self._batch(checked)
            recorded = registry.record_at(revision, batch) if digests else registry.record(batch)
            if recorded is not None:
                break
        self._copies.recorded(found.circuits)
        outcome = FileOutcome.STORED if recorded.anything else FileOutcome.KNOWN
        if 0 < len(recorded.circuits) < len(circuits):
            known = len(circuits) - len(recorded.circuits)
            notes.append(f"{known} of {len(circuits)} circuits were already stored")
        return _report(checked, outcome, self._find, notes)

    def _told_apart(self, files: Sequence[ReadFile], digests: Sequence[str]) -> list[ReadFile]:
        others = [
            other_edits(file.found.edits, digest)
            for file, digest in zip(files, digests, strict=True)
        ]
        ids = [id for some in others for key, edit in some.items() for id in (key, edit.id)]
        known = KnownOutcomes(self._registry.ledger, ids)
        return [
            replace(file, found=tell_apart(file.found, some, known))
            for file, some in zip(files, others, strict=True)
        ]

    def _batch(self, file: ReadFile) -> Batch:
        """Return the records of a file; its artifacts are stored, which must be done before."""
        registry, found = self._registry, file.found
        if found.batch is not None:
            for artifact in found.artifacts:
                registry.store_artifact(artifact)
            for address, pieces in found.addressed:
                registry.store_pieces(address, pieces)
            known = {run.id for run in registry.ledger.runs(one.id for one in found.batch.runs)}
            said = {one.place for one in registry.ledger.annotations()}
            # Other files cannot change a run of this registry or its circuits.
            return replace(
                found.batch,
                runs=[run for run in found.batch.runs if run.id not in known],
                annotations=[one for one in found.batch.annotations if one.place not in said],
                attachments=named_apart(registry.ledger, found.batch.attachments),
            )
        name = file.format.name
        read = [
            SourceFile(name=one.name, sha256=registry.store_file(one), format=name)
            for one in (file.path, *found.beside)
        ]
        # Records that were computed from a file get its name.
        computed = [
            SourceFile(name=file.path.name, sha256=registry.store_artifact(data), format=name)
            for data in found.artifacts
        ]
        source, labels = read[0], self._labels
        return Batch(
            models=found.models,
            tasks=found.tasks,
            prompt_sets=found.prompt_sets,
            circuits=[NewCircuit(c, source_file=source, labels=labels) for c in found.circuits],
            evaluations=found.evaluations,
            edits=found.edits,
            edit_files={edit.id: read for edit in found.edits},
            outcomes=found.outcomes,
            imported=[*read, *computed],
        )


def _batch_of_all(files: Sequence[ReadFile], stored: Mapping[Path, str]) -> Batch:
    """Return the records of several files of edits in one batch.

    Args:
        files: All files.
        stored: Addresses of their contents, and of the files read with them.
    """
    read = [
        [
            SourceFile(name=one.name, sha256=stored[one], format=file.format.name)
            for one in (file.path, *file.found.beside)
        ]
        for file in files
    ]
    edit_files: dict[str, list[SourceFile]] = {}
    for file, sources in zip(files, read, strict=True):
        for edit in file.found.edits:
            edit_files.setdefault(edit.id, []).extend(sources)
    return Batch(
        edits=[edit for file in files for edit in file.found.edits],
        outcomes=[outcome for file in files for outcome in file.found.outcomes],
        edit_files=edit_files,
        imported=[source for sources in read for source in sources],
    )


def _stop_without_space(error: Exception) -> None:
    """Raise the error if the disk is full: every further file would fail too."""
    full = isinstance(error, LedgerError | StorageError)
    if full and any(text in str(error) for text in _NO_SPACE):
        raise error


def _report(
    file: ReadFile, outcome: FileOutcome, find: Find, notes: Sequence[str] = ()
) -> FileReport:
    circuits, whole = _circuits(file.found), file.found.batch or file.found
    return FileReport(
        file.path,
        outcome,
        file.format.name,
        tuple(circuit.id for circuit in circuits),
        sum(len(circuit.nodes) for circuit in circuits),
        sum(len(circuit.edges) for circuit in circuits),
        len(whole.evaluations),
        len(whole.edits),
        (*file.found.notes, *notes_on_values(whole.evaluations, whole.outcomes, find), *notes),
    )


def _reports(files: Sequence[ReadFile], recorded: Recorded, find: Find) -> Iterator[FileReport]:
    """Report on files that were recorded together; a new record counts for its first file."""
    new = {*recorded.edits, *recorded.outcomes}
    for file in files:
        found = file.found
        ids = {edit.id for edit in found.edits} | {outcome.id for outcome in found.outcomes}
        yield _report(file, FileOutcome.STORED if ids & new else FileOutcome.KNOWN, find)
        new -= ids


def _circuits(found: Imported) -> Sequence[Circuit]:
    if found.batch is None:
        return found.circuits
    return list({new.circuit.id: new.circuit for new in found.batch.circuits}.values())


def _without_parts(circuits: Iterable[Circuit]) -> Iterator[str]:
    for circuit in circuits:
        if not circuit.nodes:
            yield f"circuit {circuit.id[:12]} is empty: it has neither nodes nor edges"


def _holds_records(found: Imported) -> bool:
    described = (found.models, found.tasks, found.prompt_sets)
    return any([found.circuits, found.evaluations, found.edits, *described])


def _check_shapes(recorded: Sequence[Model], found: Imported) -> None:
    """Refuse parts that a model does not have: by the shape of the registry, the file or a table.

    A shape from our table of known models is not recorded, because a toy model may have the name of
    a well-known one, if the registry has that shape already or a bundle records it. A file does not
    decide which model a name means.

    Args:
        recorded: The registry's models.
        found: What a file holds.

    Raises:
        BadIdentifier: An index, such as a layer or a head, is too high.
        IncompatibleModel: The registry has a model with that name and a different shape, or, if it
            has none of a known shape, a common model has a different shape.
    """
    whole = found.batch or found
    stored = {model.slug: model for model in recorded}
    for model in whole.models:
        before = stored.get(model.slug, model)
        merge_models(before, model)
        if found.batch is None and (before is model or before.n_layers is None):
            _require_known_shape(model)
    named = [(c.model, tuple(node.component for node in c.nodes)) for c in _circuits(found)]
    named += [(edit.model, edit.components) for edit in whole.edits]
    shapes = {m.slug: m for m in (*recorded, *whole.models) if m.n_layers is not None}
    for slug, components in named:
        shape = shapes.get(slug) or common_model(slug)
        if shape is not None:
            check_components(shape, components)


def _require_known_shape(model: Model) -> None:
    """Refuse a shape in a file that is not that of the common model it is said to be.

    Raises:
        IncompatibleModel: It differs.
    """
    unlike = unlike_common(model)
    if unlike is not None:
        raise IncompatibleModel(
            f"the file's model has {unlike}; give the model that the file is about with --model or"
            f" in circuits-import.yaml, or a separate name such as {model.slug}@mine for a variant"
        )


def _digest(path: Path) -> str:
    """Return a file's SHA-256.

    Raises:
        BadInput: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}") from error


def _check_names(file: ReadFile) -> None:
    """Refuse a file whose name no record can hold; of a bundle no name is recorded.

    Raises:
        BadInput: Its name, or that of a file read with it, is not UTF-8.
    """
    for path in () if file.found.batch is not None else (file.path, *file.found.beside):
        try:
            path.name.encode()
        except UnicodeEncodeError as error:
            name = os.fsencode(path.name)
            raise BadInput(
                f"the file's name is not UTF-8 text: {name!r:.120}; rename the file"
            ) from error


def reason(error: Exception) -> str:
    """Return why a file was refused, in one line."""
    return first_problem(error) if isinstance(error, ValidationError) else str(error)
