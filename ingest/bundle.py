"""Bundles: some of a registry's circuits in one zip, with all that is recorded of them.

``manifest.json`` names the version and the SHA-256 of every other member; ``records.jsonl`` has one
record a line; ``artifacts/ADDRESS`` are files under their hashes: the circuits themselves, their
scores, their prompts, and the files they were imported from. A bundle is whole: whatever a record
in it refers to is in it too, also circuits that were not asked for. It says nothing of where the
registry lies or who reads it. The same records give the same bytes.

:mod:`ingest.formats.bundle` reads them.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import IO, TYPE_CHECKING, Any

from registry.damage import Damage
from registry.errors import BadInput
from registry.ledger.base import Batch, CircuitEntry, NewCircuit
from registry.records import Circuit, Edit, Record, Run, RunStatus, SourceFile, canonical_json

if TYPE_CHECKING:
    from registry.registry import Registry

__all__ = [
    "ARTIFACTS",
    "MANIFEST",
    "RECORDS",
    "VERSION",
    "Contents",
    "edit_files",
    "gather",
    "new_circuits",
    "referred_to",
    "write",
]

VERSION = "circuit-registry-bundle/1"
MANIFEST, RECORDS, ARTIFACTS = "manifest.json", "records.jsonl", "artifacts/"

_SHA256 = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment a zip can hold
_READABLE = 0o644 << 16
_UNIX = 3


@dataclass(frozen=True, slots=True)
class Contents:
    """What goes into a bundle.

    Attributes:
        batch: The records; a circuit stands in it once for each run and file it came from.
        brought: Ids of circuits that others refer to, which were not asked for themselves.
        artifacts: Addresses, in order.
        lost: Hashes of original files that the registry does not have, and so neither the bundle.
        left_out: What else is damaged; circuits that need it are not in the bundle, nor what
            refers to these.
    """

    batch: Batch
    brought: tuple[str, ...]
    artifacts: tuple[str, ...]
    lost: tuple[str, ...]
    left_out: tuple[Damage, ...] = ()

    @property
    def circuits(self) -> tuple[str, ...]:
        """Ids of all its circuits."""
        return tuple(dict.fromkeys(new.circuit.id for new in self.batch.circuits))


def gather(
    registry: Registry,
    chosen: Sequence[str],
    *,
    everything: bool = False,
    skip_damaged: bool = False,
) -> Contents:
    """Collect circuits with everything that is recorded of them, and what that refers to.

    Edits come along that were aimed at a chosen circuit or modified a part of one, and imported
    files that a record names by their hash.

    Args:
        registry: Where from.
        chosen: Full ids of circuits.
        everything: Whether to take the rest too: edits, imported files, models, ... that concern
            none of them; but no run that still goes on.
        skip_damaged: Leave out circuits whose content, scores or prompts are damaged, and the
            circuits and edits that refer to them.

    Raises:
        NotFound: There is no such circuit.
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
            edits=edits,
            outcomes=outcomes,
            edit_files={edit.id: ledger.edit_files(edit.id) for edit in edits},
        ),
    )
    named = _hashes_named(batch)
    files = [f for f in ledger.imported_files() if everything or f.sha256 in named]
    batch = replace(batch, imported=files)
    needed, originals = referred_to(batch)
    damaged = {damage.address for damage in left_out}
    needed -= damaged  # prompts that only other circuits need
    lost = {a for a in originals - needed if a in damaged or not registry.has_artifact(a)}
    return Contents(
        batch,
        tuple(sorted(entries.keys() - set(chosen))),
        tuple(sorted((needed | originals) - lost)),
        tuple(sorted(lost)),
        left_out,
    )


def _bad_circuits(registry: Registry, damaged: Collection[str]) -> set[str]:
    """Circuits that need a damaged artifact, and those that name such a one as the newer."""
    if not damaged:
        return set()
    prompts = {p.id for p in registry.ledger.prompt_sets() if p.artifact in damaged}
    entries = registry.ledger.circuits()
    bad = {e.id for e in entries if {e.id, e.scores} & set(damaged) or e.prompt_set in prompts}
    while more := {e.id for e in entries if e.labels.superseded_by in bad} - bad:
        bad |= more
    return bad


def new_circuits(circuit: Circuit, entry: CircuitEntry) -> list[NewCircuit]:
    """A stored circuit as it is recorded anew: with its labels, once for each run and file."""
    pairs = list(zip_longest(entry.runs, entry.source_files)) or [(None, None)]
    return [NewCircuit(circuit, run, file, entry.labels) for run, file in pairs]


def edit_files(batch: Batch, edit: str) -> Sequence[SourceFile]:
    """The files that an edit of a batch came from."""
    files = batch.edit_files.get(edit, ())
    return [files] if isinstance(files, SourceFile) else files


def referred_to(batch: Batch) -> tuple[set[str], set[str]]:
    """Addresses of the artifacts that records name, and hashes of the files they came from."""
    needed: set[str] = {prompts.artifact for prompts in batch.prompt_sets if prompts.artifact}
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
        BadInput: It would be larger than a zip of the plain kind can be (4 GB, 65,535 files).
        StorageError: An artifact is missing or damaged.
    """
    records = "".join(f"{canonical_json(line)}\n" for line in _lines(contents.batch)).encode()
    members = {f"{ARTIFACTS}{address}": address for address in contents.artifacts}
    members[RECORDS] = hashlib.sha256(records).hexdigest()
    manifest = {"format": VERSION, "members": members}
    try:
        with zipfile.ZipFile(file, "w", allowZip64=False) as archive:
            _add(archive, MANIFEST, json.dumps(manifest, indent=1, sort_keys=True).encode())
            _add(archive, RECORDS, records)
            for address in contents.artifacts:
                _add(archive, f"{ARTIFACTS}{address}", registry.artifact(address))
    except zipfile.LargeZipFile as error:
        raise BadInput(
            "these circuits do not fit one bundle (4 GB, 65,535 files); choose fewer, or copy the"
            " whole registry with 'circuits backup'"
        ) from error


def _touches(edit: Edit, circuits: Iterable[Circuit], ids: Collection[str]) -> bool:
    """Whether it was aimed at one of the circuits or modified a part of one."""
    if not set(edit.circuits).isdisjoint(ids):
        return True
    modified = set(edit.components)
    return any(
        circuit.model == edit.model and any(node.component in modified for node in circuit.nodes)
        for circuit in circuits
    )


def _with_referred(registry: Registry, ids: Iterable[str]) -> dict[str, CircuitEntry]:
    """Circuits by id, with those that superseded them, and those that superseded these."""
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
    """The batch with the models, tasks, prompts and runs that its records name."""
    ledger = registry.ledger
    circuits = [new.circuit for new in batch.circuits]
    runs = {new.run for new in batch.circuits}
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
    """The batch with all models, tasks and prompts there are, and all runs that have ended."""
    ledger = registry.ledger
    named = {new.run for new in batch.circuits}
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
    """Everything in the records that may be the hash of a file."""
    texts = [
        *(new.circuit.document.decode() for new in batch.circuits),
        *(canonical_json(line) for line in _lines(batch)),
    ]
    return {found for text in texts for found in _SHA256.findall(text)}


def _lines(batch: Batch) -> Iterator[Mapping[str, Any]]:
    """Every record as an object with its kind; what others refer to comes first."""
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
    for edit in batch.edits:
        files = [_plain(file) for file in edit_files(batch, edit.id)]
        yield {"kind": "edit", "record": _plain(edit), "files": files}
    for outcome in batch.outcomes:
        yield {"kind": "outcome", "record": _plain(outcome)}
    for file in batch.imported:
        yield {"kind": "imported", "record": _plain(file)}


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
    """Add a member that says nothing of when and where it was written."""
    info = zipfile.ZipInfo(name, _EPOCH)
    info.create_system, info.external_attr = _UNIX, _READABLE
    archive.writestr(info, data, zipfile.ZIP_DEFLATED, compresslevel=6)
