"""What was read of files into the registry, and what became of each file.

A file is recorded by itself, all of it or nothing. Files that hold edits alone, of which a tool
writes tens of thousands with one edit each, are recorded many at a time; where one of them is
refused, each is recorded by itself after all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from ingest.formats.base import Format, Imported, ModelDoubt, first_problem
from ingest.known_models import known_model
from ingest.told_apart import KnownOutcomes, other_edits, tell_apart
from registry.errors import BadInput, CircuitsError
from registry.ledger.base import Batch, NewCircuit, Recorded
from registry.ledger.merging import merge_models
from registry.records import Circuit, CircuitLabels, Model, SourceFile
from registry.shapes import check_components

if TYPE_CHECKING:
    from registry.registry import Registry

__all__ = ["FileReport", "Outcome", "ReadFile", "Recorder", "reason"]

_MOST_FILES = 2_000
_MOST_RECORDS = 50_000
"""Of edits and outcomes: so many are recorded at once, and held until then."""


class Outcome(StrEnum):
    """What became of a file."""

    STORED = "stored"
    KNOWN = "already there"
    REFUSED = "refused"
    READABLE = "would be stored"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class FileReport:
    """What became of a file, and why.

    Attributes:
        circuits: Ids of what it holds.
        nodes: Of all its circuits.
        edges: Of all its circuits.
        evaluations: How many it holds.
        edits: How many it holds.
        notes: What was read as what, or why it was refused or skipped.
    """

    path: Path
    outcome: Outcome
    format: str | None = None
    circuits: tuple[str, ...] = ()
    nodes: int = 0
    edges: int = 0
    evaluations: int = 0
    edits: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReadFile:
    """A file that was read and is to be recorded."""

    path: Path
    format: Format
    found: Imported

    @property
    def holds_edits_alone(self) -> bool:
        """Whether it can be recorded together with others of its kind."""
        found = self.found
        described = (found.models, found.tasks, found.prompt_sets)
        others = (*described, found.circuits, found.evaluations, found.artifacts, found.batch)
        return bool(found.edits) and not any(others)

    @property
    def n_records(self) -> int:
        """Of edits and outcomes."""
        return len(self.found.edits) + len(self.found.outcomes)


class Recorder:
    """Records files in the order in which they come, and reports on them in that order.

    Args:
        registry: Where to.
        labels: Of circuits that are new.
        dry_run: Record nothing, and say what would be.
    """

    def __init__(self, registry: Registry, labels: CircuitLabels | None, *, dry_run: bool) -> None:
        self._registry = registry
        self._labels = labels or CircuitLabels()
        self._dry_run = dry_run
        self._waiting: list[ReadFile | FileReport] = []
        self._n_files = self._n_records = 0

    def take(self, item: ReadFile | FileReport) -> list[FileReport]:
        """Record a file, now or together with later ones; reports on those that are done."""
        alone = isinstance(item, ReadFile) and not item.holds_edits_alone
        done = self.finish() if alone else []
        self._waiting.append(item)
        if isinstance(item, ReadFile):
            self._n_files += 1
            self._n_records += item.n_records
        full = self._n_files >= _MOST_FILES or self._n_records >= _MOST_RECORDS
        return [*done, *self.finish()] if alone or full or not self._n_files else done

    def finish(self) -> list[FileReport]:
        """Record what waits; reports on it."""
        waiting, self._waiting = self._waiting, []
        self._n_files = self._n_records = 0
        files = [item for item in waiting if isinstance(item, ReadFile)]
        reports = iter(self._together(files) if len(files) > 1 else map(self._alone, files))
        return [next(reports) if isinstance(item, ReadFile) else item for item in waiting]

    def _together(self, files: Sequence[ReadFile]) -> Iterable[FileReport]:
        try:
            digests = [_digest(file.path) for file in files]
            apart = self._told_apart(files, digests)
            models = self._registry.ledger.models()
            for file in apart:
                _check_shapes(models, file.found)
            if self._dry_run:
                return [_report(file, Outcome.READABLE) for file in apart]
            recorded = self._registry.record(self._batch_of_all(apart))
        except (CircuitsError, ValidationError):
            return map(self._alone, files)
        return _reports(apart, recorded)

    def _batch_of_all(self, files: Sequence[ReadFile]) -> Batch:
        beside = dict.fromkeys(path for file in files for path in file.found.beside)
        paths = [*(file.path for file in files), *beside]
        stored = dict(zip(paths, self._registry.store_files(paths), strict=True))
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

    def _alone(self, file: ReadFile) -> FileReport:
        try:
            return self._recorded(file)
        except (CircuitsError, ValidationError) as error:
            doubts = [note for note in file.found.notes if isinstance(note, ModelDoubt)]
            why = "; ".join([reason(error), *doubts])
            return FileReport(file.path, Outcome.REFUSED, file.format.name, notes=(why,))

    def _recorded(self, file: ReadFile) -> FileReport:
        if file.found.edits:
            (file,) = self._told_apart([file], [_digest(file.path)])
        found, whole = file.found, file.found.batch
        circuits = _circuits(found)
        if whole is None and not _holds_records(found):
            why = tuple(found.notes) or ("it holds no record",)
            return FileReport(file.path, Outcome.SKIPPED, file.format.name, notes=why)
        _check_shapes(self._registry.ledger.models(), found)
        if self._dry_run:
            return _report(file, Outcome.READABLE)
        batch = self._batch(file)
        # What recording says it added does not count prompts.
        known_prompts = {one.id for one in self._registry.ledger.prompt_sets()}
        new_prompts = {one.id for one in batch.prompt_sets} - known_prompts
        recorded = self._registry.record(batch)
        outcome = Outcome.STORED if recorded.anything or new_prompts else Outcome.KNOWN
        notes = []
        if 0 < len(recorded.circuits) < len(circuits):
            known = len(circuits) - len(recorded.circuits)
            notes.append(f"{known} of {len(circuits)} circuits were there already")
        return _report(file, outcome, notes)

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
        """What is recorded of a file; its artifacts are stored, as must be done before."""
        registry, found = self._registry, file.found
        if found.batch is not None:
            for artifact in found.artifacts:
                registry.store_artifact(artifact)
            known = {run.id for run in registry.ledger.runs()}
            # A run of this registry is not for others to rewrite.
            return replace(
                found.batch, runs=[run for run in found.batch.runs if run.id not in known]
            )
        name = file.format.name
        read = [
            SourceFile(name=one.name, sha256=registry.store_file(one), format=name)
            for one in (file.path, *found.beside)
        ]
        # What was computed from a file goes by its name.
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


def _report(file: ReadFile, outcome: Outcome, notes: Sequence[str] = ()) -> FileReport:
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
        (*file.found.notes, *notes),
    )


def _reports(files: Sequence[ReadFile], recorded: Recorded) -> Iterator[FileReport]:
    """Reports on files that were recorded together; what is new is the first one's that has it."""
    new = {*recorded.edits, *recorded.outcomes}
    for file in files:
        found = file.found
        ids = {edit.id for edit in found.edits} | {outcome.id for outcome in found.outcomes}
        yield _report(file, Outcome.STORED if ids & new else Outcome.KNOWN)
        new -= ids


def _circuits(found: Imported) -> Sequence[Circuit]:
    if found.batch is None:
        return found.circuits
    return list({new.circuit.id: new.circuit for new in found.batch.circuits}.values())


def _holds_records(found: Imported) -> bool:
    described = (found.models, found.tasks, found.prompt_sets)
    return any([found.circuits, found.evaluations, found.edits, *described])


def _check_shapes(recorded: Sequence[Model], found: Imported) -> None:
    """Refuse parts that a model has not: by the registry's shape, the file's, or a known one.

    A shape that only we know is not recorded: a toy may go by a famous name.

    Args:
        recorded: The registry's models.
        found: What a file holds.

    Raises:
        BadIdentifier: A layer, head or the like is too high.
        IncompatibleModel: The registry has a model of that name and another shape.
    """
    whole = found.batch or found
    stored = {model.slug: model for model in recorded}
    for model in whole.models:
        merge_models(stored.get(model.slug, model), model)
    named = [(c.model, tuple(node.component for node in c.nodes)) for c in _circuits(found)]
    named += [(edit.model, edit.components) for edit in whole.edits]
    told = {m.slug: m for m in (*recorded, *whole.models) if m.n_layers is not None}
    for slug, components in named:
        shape = told.get(slug) or known_model(slug)
        if shape is not None:
            check_components(shape, components)


def _digest(path: Path) -> str:
    """A file's SHA-256.

    Raises:
        BadInput: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}") from error


def reason(error: Exception) -> str:
    """Why a file was refused, in a line."""
    return first_problem(error) if isinstance(error, ValidationError) else str(error)
