"""Files of other tools into the registry: find their formats, read, record, and say what happened.

A folder is read file by file; what its files do not say may stand in a ``circuits-import.yaml``
beside them (:mod:`ingest.sidecars`). One file that is refused does not keep the others out, and
what no format knows is passed over where it only lies in a folder.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ingest.formats.base import (
    FORMATS_GROUP,
    Context,
    Format,
    Imported,
    Limits,
    UnknownFormat,
    recognised,
)
from ingest.formats.choosing import is_asked
from ingest.known_models import known_model
from ingest.sidecars import SIDECAR, said_of, sidecar_reader, with_slug
from registry import plugins
from registry.errors import BadInput, CircuitsError
from registry.ledger.base import Batch, NewCircuit
from registry.ledger.merging import merge_models
from registry.records import Circuit, CircuitLabels, SourceFile
from registry.shapes import check_components

if TYPE_CHECKING:
    from registry.registry import Registry

__all__ = ["FileReport", "Outcome", "import_files"]


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
    entries = sidecar_reader()
    files = list(_files(paths))
    chosen = {path: format or _recognised(path, named=folder is None) for path, folder in files}
    owners = _owners(chosen)
    for done, (path, folder) in enumerate(files):
        one = chosen[path]
        if progress is not None:
            progress(done, len(files))
        if isinstance(one, CircuitsError):
            yield FileReport(path, Outcome.REFUSED, notes=(str(one),))
        elif path in owners and path not in owners.values():
            yield FileReport(path, Outcome.SKIPPED, notes=(f"read with {owners[path].name}",))
        elif one is None:
            yield FileReport(path, Outcome.SKIPPED, notes=("no format knows it",))
        else:
            try:
                told, notes = with_slug(said_of(path, folder, said, entries))
                # What was read is let go before it is projected: it may be half of the memory.
                with registry.projecting_later():
                    found = _read(one, path, Context(told, limits or Limits()))
                    found = replace(found, notes=[*notes, *found.notes])
                    report = _recorded(registry, path, one, found, dry_run, labels)
                    del found
                yield report
            except (CircuitsError, ValidationError) as error:
                # Of a table whose kind only its columns tell, reading alone finds that it is none.
                if isinstance(error, UnknownFormat) and folder is not None and format is None:
                    yield FileReport(path, Outcome.SKIPPED, notes=(_reason(error),))
                else:
                    yield FileReport(path, Outcome.REFUSED, one.name, notes=(_reason(error),))


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


def _recorded(
    registry: Registry,
    path: Path,
    format: Format,
    found: Imported,
    dry_run: bool,
    labels: CircuitLabels | None,
) -> FileReport:
    outcome, notes = Outcome.READABLE, list(found.notes)
    whole = found.batch
    circuits = found.circuits
    if whole is not None:
        circuits = list({new.circuit.id: new.circuit for new in whole.circuits}.values())
    if whole is None and not _holds_records(found):
        reason = notes or ["it holds no record"]
        return FileReport(path, Outcome.SKIPPED, format.name, notes=tuple(reason))
    _check_shapes(registry, circuits, whole or found)
    if not dry_run:
        batch = _batch(registry, path, format, found, labels or CircuitLabels())
        # What recording says it added does not count prompts.
        known_prompts = {one.id for one in registry.ledger.prompt_sets()}
        new_prompts = {one.id for one in batch.prompt_sets} - known_prompts
        recorded = registry.record(batch)
        outcome = Outcome.STORED if recorded.anything or new_prompts else Outcome.KNOWN
        if 0 < len(recorded.circuits) < len(circuits):
            known = len(circuits) - len(recorded.circuits)
            notes.append(f"{known} of {len(circuits)} circuits were there already")
    return FileReport(
        path,
        outcome,
        format.name,
        tuple(circuit.id for circuit in circuits),
        sum(len(circuit.nodes) for circuit in circuits),
        sum(len(circuit.edges) for circuit in circuits),
        len((whole or found).evaluations),
        len((whole or found).edits),
        tuple(notes),
    )


def _holds_records(found: Imported) -> bool:
    described = (found.models, found.tasks, found.prompt_sets)
    return any([found.circuits, found.evaluations, found.edits, *described])


def _batch(
    registry: Registry, path: Path, format: Format, found: Imported, labels: CircuitLabels
) -> Batch:
    """What is recorded of a file; its artifacts are stored, as must be done before."""
    if found.batch is not None:
        for artifact in found.artifacts:
            registry.store_artifact(artifact)
        known = {run.id for run in registry.ledger.runs()}
        # A run of this registry is not for others to rewrite.
        return replace(found.batch, runs=[run for run in found.batch.runs if run.id not in known])
    read = [
        SourceFile(name=one.name, sha256=registry.store_file(one), format=format.name)
        for one in (path, *found.beside)
    ]
    # What was computed from a file goes by its name.
    computed = [
        SourceFile(name=path.name, sha256=registry.store_artifact(data), format=format.name)
        for data in found.artifacts
    ]
    source = read[0]
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


def _check_shapes(registry: Registry, circuits: Sequence[Circuit], found: Imported | Batch) -> None:
    """Refuse parts that a model has not: by the registry's shape, the file's, or a known one.

    A shape that only we know is not recorded: a toy may go by a famous name.

    Raises:
        BadIdentifier: A layer, head or the like is too high.
        IncompatibleModel: The registry has a model of that name and another shape.
    """
    stored = {model.slug: model for model in registry.ledger.models()} if found.models else {}
    for model in found.models:
        merge_models(stored.get(model.slug, model), model)
    named = [(c.model, tuple(node.component for node in c.nodes)) for c in circuits]
    named += [(edit.model, edit.components) for edit in found.edits]
    models = (*registry.ledger.models(), *found.models) if named else ()
    told = {model.slug: model for model in models if model.n_layers is not None}
    for slug, components in named:
        shape = told.get(slug) or known_model(slug)
        if shape is not None:
            check_components(shape, components)


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        what = str(first["msg"]).removeprefix("Value error, ")
        return f"{where}: {what}" if where else what
    return str(error)
