"""Bundles: circuits of a registry in one zip, with everything that is recorded about them.

``manifest.json`` gives the version and the SHA-256 of every other member. ``records.jsonl`` has one
record per line. ``artifacts/ADDRESS`` are files under their hashes: the circuits themselves, their
scores, their prompts, the files from which they were imported, and all attachments of its records.
A bundle is complete: everything that its records refer to is in it, including circuits that were
not requested. It gives no information on the registry's location or users. The same records give
the same bytes. Files are copied in pieces. The limit is the size of a plain zip, 2 GB.

Version 2 adds runs of evaluations and edits, and attachments. A bundle that has neither is of
version 1, which older programs read.

:mod:`ingest.formats.bundle.reading` reads them.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import IO, TYPE_CHECKING, Any

from registry.canonical import canonical_json
from registry.errors import BadInput
from registry.files.attachments import Attachment, AttachmentOwner
from registry.ledger.base import Batch, CircuitEntry, NewCircuit
from registry.records import Circuit, Edit, Record, Run, RunStatus, SourceFile
from registry.upkeep.damage import Damage

if TYPE_CHECKING:
    from registry.registry import Registry

__all__ = [
    "ARTIFACTS",
    "MANIFEST",
    "RECORDS",
    "VERSIONS",
    "Contents",
    "edit_files",
    "gather",
    "new_circuits",
    "referred_to",
    "write",
]

VERSIONS = ("circuit-registry-bundle/1", "circuit-registry-bundle/2")
MANIFEST, RECORDS, ARTIFACTS = "manifest.json", "records.jsonl", "artifacts/"

_SHA256 = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_PIECE_BYTES = 1 << 20
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can represent
_READABLE = 0o644 << 16
_UNIX = 3


@dataclass(frozen=True, slots=True)
class Contents:
    """The content of a bundle.

    Attributes:
        batch: The records; a circuit appears once for each of its runs and files.
        brought: Ids of circuits that others refer to but that were not requested.
        artifacts: Addresses, in order.
        lost: Hashes of original files that are missing in the registry, and thus in the bundle.
        left_out: Other damaged content; circuits that need it are not in the bundle, and circuits
            that refer to these are not either.
    """

    batch: Batch
    brought: tuple[str, ...]
    artifacts: tuple[str, ...]
    lost: tuple[str, ...]
    left_out: tuple[Damage, ...] = ()

    @property
    def circuits(self) -> tuple[str, ...]:
        """The ids of all its circuits."""
        return tuple(dict.fromkeys(new.circuit.id for new in self.batch.circuits))


def gather(
    registry: Registry,
    chosen: Sequence[str],
    *,
    everything: bool = False,
    skip_damaged: bool = False,
) -> Contents:
    """Collect circuits with everything recorded about them, and everything that this refers to.

    This includes edits that were aimed at a chosen circuit or modified a part of it, and imported
    files that a record names by their hash.

    Args:
        registry: The registry to read.
        chosen: Full ids of circuits.
        everything: Whether to include all other records too: edits, imported files, models, ... of
            no chosen circuit; but no run that is still running.
        skip_damaged: Omit circuits whose content, scores or prompts are damaged, circuits and edits
            that refer to them, and damaged attachments and originals.

    Raises:
        NotFound: A circuit does not exist.
        StorageError: A circuit's content cannot be read.
    """
    ledger = registry.ledger
    left_out = tuple(registry.damage()) if skip_damaged else ()
    bad = _bad_circuits(registry, {damage.address for damage in left_out})
    chosen = [key for key in chosen if key not in bad]
    documents = {key: registry.document(key) for key in chosen}
    edits = [e for e in ledger.edits() if everything or _touches(e, documents.values(), chosen)]
    edits = [edit for edit in edits if bad.isdisjoint(edit.circuits)]
    entries = _with_referred(registry, [*chosen, *(key for e in edits for key in e.circuits)])
    documents |= {key: registry.document(key) for key in entries if key not in documents}
    evaluations = [e for e in ledger.evaluations() if e.circuit in entries]
    measured = ledger.outcomes_of(edit.id for edit in edits)
    outcomes = [outcome for edit in edits for outcome in measured.get(edit.id, ())]
    describe = _all_described if everything else _described
    batch = describe(
        registry,
        Batch(
            circuits=[
                new for key in sorted(entries) for new in new_circuits(documents[key], entries[key])
            ],
            evaluations=evaluations,
            annotations=[one for one in ledger.annotations() if one.circuit in entries],
            edits=edits,
            outcomes=outcomes,
            edit_files={edit.id: ledger.edit_files(edit.id) for edit in edits},
        ),
    )
    damaged = {damage.address for damage in left_out}
    batch = replace(batch, attachments=_attached(registry, batch, damaged))
    named = _hashes_named(batch)
    files = [f for f in ledger.imported_files() if everything or f.sha256 in named]
    batch = replace(batch, imported=files)
    needed, originals = referred_to(batch)
    needed -= damaged  # prompts that only omitted circuits need
    originals -= damaged
    lost = {a for a in originals - needed if not registry.has_artifact(a)}
    return Contents(
        batch,
        tuple(sorted(entries.keys() - set(chosen))),
        tuple(sorted((needed | originals) - lost)),
        tuple(sorted(lost)),
        left_out,
    )


def _bad_circuits(registry: Registry, damaged: Collection[str]) -> set[str]:
    """Return circuits that need a damaged artifact, and circuits superseded by such a circuit."""
    if not damaged:
        return set()
    prompts = {p.id for p in registry.ledger.prompt_sets() if p.artifact in damaged}
    entries = registry.ledger.circuits()
    bad = {e.id for e in entries if {e.id, e.scores} & set(damaged) or e.prompt_set in prompts}
    while more := {e.id for e in entries if e.labels.superseded_by in bad} - bad:
        bad |= more
    return bad


def new_circuits(circuit: Circuit, entry: CircuitEntry) -> list[NewCircuit]:
    """Return a stored circuit as new records with its labels, one for each run and file."""
    pairs = list(zip_longest(entry.runs, entry.source_files)) or [(None, None)]
    return [NewCircuit(circuit, run, file, entry.labels) for run, file in pairs]


def edit_files(batch: Batch, edit: str) -> Sequence[SourceFile]:
    """Return the files from which an edit of a batch was imported."""
    files = batch.edit_files.get(edit, ())
    return [files] if isinstance(files, SourceFile) else files


def referred_to(batch: Batch) -> tuple[set[str], set[str]]:
    """Return addresses of the artifacts that records name, and hashes of their source files."""
    needed: set[str] = {prompts.artifact for prompts in batch.prompt_sets if prompts.artifact}
    needed |= {one.sha256 for one in batch.attachments}
    originals = {file.sha256 for file in batch.imported}
    originals |= {file.sha256 for edit in batch.edit_files for file in edit_files(batch, edit)}
    for new in batch.circuits:
        needed.add(new.circuit.id)
        if new.circuit.scores:
            needed.add(new.circuit.scores)
        if new.source_file:
            originals.add(new.source_file.sha256)
    return needed, originals


def write(file: IO[bytes], registry: Registry, contents: Contents) -> None:
    """Write a bundle.

    Raises:
        BadInput: It would be larger than a plain zip can be (2 GB, 65,535 files).
        StorageError: An artifact is missing or damaged.
    """
    records = "".join(f"{canonical_json(line)}\n" for line in _lines(contents.batch)).encode()
    members = {f"{ARTIFACTS}{address}": address for address in contents.artifacts}
    members[RECORDS] = hashlib.sha256(records).hexdigest()
    manifest = {"format": _version(contents.batch), "members": members}
    try:
        with zipfile.ZipFile(file, "w", allowZip64=False) as archive:
            _add(archive, MANIFEST, json.dumps(manifest, indent=1, sort_keys=True).encode())
            _add(archive, RECORDS, records)
            for address in contents.artifacts:
                with registry.open_artifact(address) as artifact:
                    _add_file(archive, f"{ARTIFACTS}{address}", artifact)
    except zipfile.LargeZipFile as error:
        raise BadInput(
            "these circuits do not fit one bundle (2 GB, 65,535 files); choose fewer, or copy the"
            " whole registry with 'circuits backup'"
        ) from error


def _version(batch: Batch) -> str:
    newer = _runs_named(batch) or batch.attachments or batch.annotations
    return VERSIONS[1 if newer else 0]


def _runs_named(batch: Batch) -> set[str]:
    """Return ids of the runs that evaluations, edits and annotations name."""
    named = {one.run for one in batch.evaluations} | {edit.run for edit in batch.edits}
    named |= {said.run for said in batch.annotations}
    return {run for run in named if run is not None}


def _attached(registry: Registry, batch: Batch, damaged: Collection[str]) -> list[Attachment]:
    """Return the attachments of a batch's records that can be read."""
    owners: dict[AttachmentOwner, set[str]] = {
        AttachmentOwner.CIRCUIT: {new.circuit.id for new in batch.circuits},
        AttachmentOwner.RUN: {run.id for run in batch.runs},
        AttachmentOwner.EDIT: {edit.id for edit in batch.edits},
        AttachmentOwner.PROMPT_SET: {prompts.id for prompts in batch.prompt_sets},
    }
    return [
        one
        for one in registry.ledger.attachments()
        if one.owner in owners[one.owner_kind] and one.sha256 not in damaged
    ]


def _touches(edit: Edit, circuits: Iterable[Circuit], ids: Collection[str]) -> bool:
    """Return whether it was aimed at one of the circuits or modified a part of one."""
    if not set(edit.circuits).isdisjoint(ids):
        return True
    modified = set(edit.components)
    return any(
        circuit.model == edit.model and any(node.component in modified for node in circuit.nodes)
        for circuit in circuits
    )


def _with_referred(registry: Registry, ids: Iterable[str]) -> dict[str, CircuitEntry]:
    """Return circuits by id, with the circuits that superseded them or were superseded by them."""
    entries: dict[str, CircuitEntry] = {}
    waiting = list(ids)
    while waiting:
        key = waiting.pop()
        if key not in entries:
            entries[key] = registry.ledger.circuit(key)
            newer = entries[key].labels.superseded_by
            waiting += [newer] if newer else []
    return entries


def _described(registry: Registry, batch: Batch) -> Batch:
    """Return the batch with the models, tasks, prompts and runs that its records name."""
    ledger = registry.ledger
    circuits = [new.circuit for new in batch.circuits]
    runs = {new.run for new in batch.circuits} | _runs_named(batch)
    prompts = {c.prompt_set for c in circuits} | {e.prompt_set for e in batch.evaluations}
    prompt_sets = [one for one in ledger.prompt_sets() if one.id in prompts]
    tasks = {c.task for c in circuits} | {e.task for e in batch.evaluations}
    tasks |= {p.task for p in prompt_sets} | {o.task for o in batch.outcomes if o.task}
    models = {c.model for c in circuits} | {e.model for e in batch.edits}
    models |= {p.model for p in prompt_sets if p.model}
    return replace(
        batch,
        models=[model for model in ledger.models() if model.slug in models],
        tasks=[task for task in ledger.tasks() if task.slug in tasks],
        prompt_sets=prompt_sets,
        runs=[run for run in _runs(registry) if run.id in runs],
    )


def _all_described(registry: Registry, batch: Batch) -> Batch:
    """Return the batch with all models, tasks and prompts, and all runs that have ended."""
    ledger = registry.ledger
    named = {new.run for new in batch.circuits} | _runs_named(batch)
    ended = [r for r in _runs(registry) if r.status is not RunStatus.RUNNING or r.id in named]
    return replace(
        batch,
        models=ledger.models(),
        tasks=ledger.tasks(),
        prompt_sets=ledger.prompt_sets(),
        runs=ended,
    )


def _runs(registry: Registry) -> list[Run]:
    return sorted(registry.ledger.runs(), key=lambda run: (run.started_at, run.id))


def _hashes_named(batch: Batch) -> set[str]:
    """Return everything in the records that may be the hash of a file."""
    texts = [
        *(new.circuit.document.decode() for new in batch.circuits),
        *(canonical_json(line) for line in _lines(batch)),
    ]
    return {found for text in texts for found in _SHA256.findall(text)}


def _lines(batch: Batch) -> Iterator[Mapping[str, Any]]:
    """Yield every record as an object with its kind, after the records that it refers to."""
    for model in batch.models:
        yield {"kind": "model", "record": _plain(model)}
    for task in batch.tasks:
        yield {"kind": "task", "record": _plain(task)}
    for prompts in batch.prompt_sets:
        yield {"kind": "prompt_set", "record": _plain(prompts)}
    for run in batch.runs:
        yield {"kind": "run", "record": _plain(run)}
    yield from _circuit_lines(batch.circuits)
    for one in batch.evaluations:
        yield {"kind": "evaluation", "record": _plain(one)}
    for said in batch.annotations:
        yield {"kind": "annotation", "record": _plain(said)}
    for edit in batch.edits:
        files = [_plain(file) for file in edit_files(batch, edit.id)]
        yield {"kind": "edit", "record": _plain(edit), "files": files}
    for outcome in batch.outcomes:
        yield {"kind": "outcome", "record": _plain(outcome)}
    for file in batch.imported:
        yield {"kind": "imported", "record": _plain(file)}
    for attached in batch.attachments:
        yield {"kind": "attachment", "record": _plain(attached)}


def _circuit_lines(given: Sequence[NewCircuit]) -> Iterator[Mapping[str, Any]]:
    by_id: dict[str, list[NewCircuit]] = {}
    for new in given:
        by_id.setdefault(new.circuit.id, []).append(new)
    for key, several in by_id.items():
        files: list[SourceFile] = [new.source_file for new in several if new.source_file]
        yield {
            "kind": "circuit",
            "id": key,
            "labels": _plain(several[0].labels),
            "runs": [new.run for new in several if new.run],
            "files": [_plain(file) for file in files],
        }


def _plain(record: Record) -> dict[str, Any]:
    fields: dict[str, Any] = record.model_dump(mode="json", exclude_none=True)
    return fields


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    """Add a member without information on the time and place of writing."""
    _add_file(archive, name, io.BytesIO(data))


def _add_file(archive: zipfile.ZipFile, name: str, source: IO[bytes]) -> None:
    """Add a member with the content of an open file, in pieces; see :func:`_add`."""
    info = zipfile.ZipInfo(name, _EPOCH)
    info.create_system, info.external_attr = _UNIX, _READABLE
    info.compress_type = zipfile.ZIP_DEFLATED
    info.file_size = source.seek(0, io.SEEK_END)  # the zip checks by this that it can hold it
    source.seek(0)
    with archive.open(info, "w") as target:
        shutil.copyfileobj(source, target, _PIECE_BYTES)
