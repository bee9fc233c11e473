"""Bundles of another registry, as ``circuits export --bundle`` writes them.

A bundle gives all facts itself: ids, labels, runs and source files are recorded unchanged, and the
user's statements about files do not apply. Labels of circuits that are already stored, and known
runs, stay unchanged. A bundle is imported only if everything in it is correct: its version, the
hash of every member, every record, and the existence of all records that others refer to.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any

from pydantic import TypeAdapter, ValidationError

from ingest.formats.base import Context, Imported, Limits, Said
from ingest.formats.bundle.writing import ARTIFACTS, MANIFEST, RECORDS, VERSIONS, referred_to
from ingest.formats.reading import check_count
from registry.circuits.annotations import check_nodes
from registry.errors import BadInput, NotFound
from registry.files.attachments import Attachment
from registry.files.documents import read_circuit
from registry.ledger.base import Batch, NewCircuit
from registry.records import (
    Annotation,
    Circuit,
    CircuitLabels,
    Edit,
    Evaluation,
    Model,
    Outcome,
    PromptSet,
    Record,
    Run,
    SourceFile,
    Task,
)
from registry.texts.problems import first_problem

__all__ = ["FORMAT", "Bundle"]

_MEMBER = re.compile(rf"{re.escape(MANIFEST)}|{re.escape(RECORDS)}|{ARTIFACTS}[0-9a-f]{{64}}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_END = struct.Struct("<4s4H2LH")
"""The end of a zip: signature, four counts, size and offset of its directory, a comment's size."""
_LARGE_END_BYTES = 20
"""The structure before that end in large zips, which give the size of the directory elsewhere."""
_MAX_DIRECTORY_BYTES = 2**24
_MAX_MANIFEST_BYTES = 2**24
_PIECE_BYTES = 2**20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_FILES, _RUNS = TypeAdapter(list[SourceFile]), TypeAdapter(list[str])
_KINDS: dict[str, tuple[str, type[Record]]] = {
    "model": ("models", Model),
    "task": ("tasks", Task),
    "prompt_set": ("prompt_sets", PromptSet),
    "run": ("runs", Run),
    "evaluation": ("evaluations", Evaluation),
    "annotation": ("annotations", Annotation),
    "edit": ("edits", Edit),
    "outcome": ("outcomes", Outcome),
    "imported": ("imported", SourceFile),
    "attachment": ("attachments", Attachment),
}


class Bundle:
    """The format."""

    name = "bundle"
    summary = "circuits of another registry with all that is recorded of them, as a zip"
    companions = ()

    def sniff(self, path: Path, head: bytes) -> float:
        """Sure if a zip begins with our manifest; others may be repacked bundles."""
        if not head.startswith(b"PK\x03\x04"):
            return 0.0
        named = head[30:].startswith((MANIFEST.encode(), b"ledger.jsonl"))
        return 0.9 if named else 0.1 if path.suffix.lower() == ".zip" else 0.0

    def read(self, path: Path, context: Context) -> Imported:
        """Check a bundle and read its records; artifacts are read when they are stored."""
        with _opened(path, context.limits) as archive:
            members = _checked_members(archive, path.name)
            batch = _records(archive, members, path.name, context.limits)
            _check_attachments(archive, batch, path.name)
        _check_artifacts(batch, members, path.name)
        _check_whole(batch, path.name)
        unused = context.said != Said()
        notes = ["a bundle gives all facts itself; the user's statements are not used"]
        return Imported(
            batch=batch,
            addressed=_Artifacts(path, [name for name in members if name.startswith(ARTIFACTS)]),
            notes=notes if unused else [],
        )


FORMAT = Bundle()


class _Artifacts(Iterable[tuple[str, Iterator[bytes]]]):
    """The files in a bundle by their addresses, one at a time and each in pieces.

    They are checked again while they are read; a file must be read completely before the next.
    """

    def __init__(self, path: Path, names: list[str]) -> None:
        self._path, self._names = path, names

    def __iter__(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        with _reading(self._path.name), zipfile.ZipFile(self._path) as archive:
            for name in self._names:
                address = name.removeprefix(ARTIFACTS)
                with archive.open(name) as file:
                    yield address, self._pieces(file, address)

    def _pieces(self, file: IO[bytes], address: str) -> Iterator[bytes]:
        found = hashlib.sha256()
        with _reading(self._path.name):
            while piece := file.read(_PIECE_BYTES):
                found.update(piece)
                yield piece
            if found.hexdigest() != address:
                raise BadInput(f"{self._path.name} changed while it was read")


# -- the zip ---------------------------------------------------------------------------------------


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turn any error about broken bytes of a zip, compression or JSON into one error."""
    try:
        yield
    except (BadInput, ValidationError):
        raise
    except Exception as error:  # the errors of the zip reader are not documented
        raise BadInput(f"{name} is damaged: {error}") from error


@contextmanager
def _opened(path: Path, limits: Limits) -> Iterator[zipfile.ZipFile]:
    """Open the zip if it has only the members of a bundle and is within the limits."""
    with _reading(path.name):
        _check_size(path, limits)
        with zipfile.ZipFile(path) as archive:
            _check_members(archive.infolist(), path.name, limits)
            yield archive


def _check_size(path: Path, limits: Limits) -> None:
    """Refuse a large file before its directory is read, which alone could fill the memory."""
    size = path.stat().st_size
    if size > limits.max_bytes:
        raise _too_large(path.name, size, limits)
    with path.open("rb") as file:
        file.seek(max(0, size - _LARGE_END_BYTES - _END.size))
        end = file.read()
    if len(end) < _END.size or not end[-_END.size :].startswith(b"PK\x05\x06"):
        raise BadInput(f"{path.name} is no bundle, or incomplete: it does not end as a zip does")
    directory_bytes = _END.unpack(end[-_END.size :])[5]
    if directory_bytes > _MAX_DIRECTORY_BYTES or end.startswith(b"PK\x06\x07"):
        raise BadInput(f"{path.name} is no bundle: it lists more files than a bundle can hold")


def _check_members(members: list[zipfile.ZipInfo], name: str, limits: Limits) -> None:
    seen: set[str] = set()
    for member in members:
        if not _MEMBER.fullmatch(member.filename):
            raise BadInput(f"{name} holds {member.filename!r}, which is no part of a bundle")
        if member.filename in seen:
            raise BadInput(f"{name} holds {member.filename} twice")
        if member.flag_bits & 1 or member.compress_type not in _METHODS:
            raise BadInput(f"{name}: {member.filename} is encrypted or packed in an unusual way")
        seen.add(member.filename)
    unpacked = sum(member.file_size for member in members)
    if unpacked > limits.max_bytes:
        raise _too_large(name, unpacked, limits)
    if MANIFEST not in seen:
        raise BadInput(f"{name} is no bundle: it has no {MANIFEST}")


def _too_large(name: str, size: int, limits: Limits) -> BadInput:
    return BadInput(
        f"{name} holds {size:,} bytes and {limits.max_bytes:,} are allowed; --max-bytes raises that"
    )


def _checked_members(archive: zipfile.ZipFile, name: str) -> frozenset[str]:
    """Return the names of all members except the manifest; their contents match its hashes."""
    stated = _manifest(archive, name)
    held = {one for one in archive.namelist() if one != MANIFEST}
    if missing := stated.keys() - held:
        raise BadInput(f"{name} is incomplete: {min(missing)} is missing")
    if extra := held - stated.keys():
        raise BadInput(f"{name} holds {min(extra)}, which its manifest does not name")
    if RECORDS not in held:
        raise BadInput(f"{name} is incomplete: it has no {RECORDS}")
    for member in sorted(held):
        found = hashlib.sha256()
        with archive.open(member) as file:
            while piece := file.read(_PIECE_BYTES):
                found.update(piece)
        named = member.removeprefix(ARTIFACTS)
        if found.hexdigest() != stated[member] or named not in (member, stated[member]):
            raise BadInput(f"{name} is damaged: {member} does not have the content it should")
    return frozenset(held)


def _manifest(archive: zipfile.ZipFile, name: str) -> Mapping[str, str]:
    if archive.getinfo(MANIFEST).file_size > _MAX_MANIFEST_BYTES:
        raise BadInput(f"{name} is no bundle: its {MANIFEST} is too large")
    manifest = _json(archive.read(MANIFEST), f"{name}, {MANIFEST}")
    version = manifest.get("format")
    if isinstance(version, str) and version.startswith("circuit-registry-backup/"):
        raise BadInput(f"{name} is a backup of a whole registry; 'circuits restore' reads it")
    if version not in VERSIONS:
        raise BadInput(
            f"{name} is no bundle of a version that this program reads: its {MANIFEST} has"
            f" {version!r}, not {' or '.join(map(repr, VERSIONS))}"
        )
    members = manifest.get("members")
    if not isinstance(members, dict) or not all(
        isinstance(hash_, str) and _SHA256.fullmatch(hash_) for hash_ in members.values()
    ):
        raise BadInput(f"{name}: its {MANIFEST} does not state the members' hashes")
    return members


def _json(data: bytes, where: str) -> dict[str, Any]:
    try:
        found = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where}: no JSON: {error}") from error
    if not isinstance(found, dict):
        raise BadInput(f"{where}: no object")
    return found


# -- records ---------------------------------------------------------------------------------------


def _records(archive: zipfile.ZipFile, members: frozenset[str], name: str, limits: Limits) -> Batch:
    fields: dict[str, Any] = {field: [] for field, _ in _KINDS.values()}
    fields |= {"circuits": [], "edit_files": {}}
    seen: set[str] = set()
    with archive.open(RECORDS) as lines:
        for number, line in enumerate(lines, 1):
            where = f"{name}, {RECORDS}, line {number}"
            said = _json(line, where)
            kind = said.get("kind")
            if kind == "circuit":
                document = f"{ARTIFACTS}{said.get('id')}"
                if document not in members:
                    raise BadInput(f"{where}: the circuit {said.get('id')!r} is not in the bundle")
                if document in seen:  # it would be read again for each record
                    raise BadInput(f"{where}: the circuit {said.get('id')!r} is there already")
                seen.add(document)
                fields["circuits"] += _circuits(archive.read(document), said, where, limits)
            elif isinstance(kind, str) and kind in _KINDS:
                field, type_ = _KINDS[kind]
                fields[field].append(_record(type_.model_validate, said.get("record"), where))
                if kind == "edit":
                    files = _record(_FILES.validate_python, said.get("files"), where)
                    fields["edit_files"][fields[field][-1].id] = files
            else:
                raise BadInput(f"{where}: unknown kind of record: {kind!r}")
    return Batch(**fields)


def _circuits(
    document: bytes, said: Mapping[str, Any], where: str, limits: Limits
) -> list[NewCircuit]:
    # Counted before each of them becomes a record.
    check_count(document.count(b'"target":'), "edges", where, limits)
    circuit: Circuit = _record(read_circuit, document, where)
    if circuit.id != said["id"]:
        raise BadInput(f"{where}: the circuit's content is not written as its id says")
    check_count(len(circuit.edges), "edges", where, limits)
    labels = _record(CircuitLabels.model_validate, said.get("labels"), where)
    runs = _record(_RUNS.validate_python, said.get("runs"), where)
    files = _record(_FILES.validate_python, said.get("files"), where)
    pairs = list(zip_longest(runs, files)) or [(None, None)]
    return [NewCircuit(circuit, run, file, labels) for run, file in pairs]


def _record(validate: Callable[[Any], Any], said: Any, where: str) -> Any:
    """Read a record; an error gives its place.

    Raises:
        BadInput: It is malformed.
    """
    try:
        return validate(said)
    except ValidationError as error:
        raise BadInput(f"{where}: {first_problem(error)}") from error


# -- whether it is whole ---------------------------------------------------------------------------


def _check_artifacts(batch: Batch, members: frozenset[str], name: str) -> None:
    held = {one.removeprefix(ARTIFACTS) for one in members if one.startswith(ARTIFACTS)}
    needed, originals = referred_to(batch)
    if missing := needed - held:
        raise BadInput(f"{name} is incomplete: a record refers to {ARTIFACTS}{min(missing)}")
    if unused := held - needed - originals:
        raise BadInput(f"{name} holds {ARTIFACTS}{min(unused)}, to which no record refers")


def _check_attachments(archive: zipfile.ZipFile, batch: Batch, name: str) -> None:
    """Check that attachments have their stated sizes, and that names of one owner are unique."""
    sizes = {member.filename: member.file_size for member in archive.infolist()}
    keys = set()
    for one in batch.attachments:
        whose = f"{one.owner_kind.words} {one.owner[:12]}"
        if sizes.get(f"{ARTIFACTS}{one.sha256}", one.size_bytes) != one.size_bytes:
            raise BadInput(f"{name}: the attachment {one.name!r} of {whose} is of another size")
        if one.key in keys:
            raise BadInput(f"{name} holds two attachments {one.name!r} of {whose}")
        keys.add(one.key)


def _check_whole(batch: Batch, name: str) -> None:
    """Check that all records that others refer to are in the bundle, before anything is stored."""
    circuits = [new.circuit for new in batch.circuits]
    held: dict[str, set[str]] = {
        "model": {model.slug for model in batch.models},
        "task": {task.slug for task in batch.tasks},
        "prompt set": {prompts.id for prompts in batch.prompt_sets},
        "run": {run.id for run in batch.runs},
        "circuit": {circuit.id for circuit in circuits},
        "edit": {edit.id for edit in batch.edits},
    }
    for kind, key in _references(batch, circuits):
        if key is not None and key not in held[kind]:
            raise BadInput(
                f"{name} is incomplete: a record refers to the {kind} {key!r}, which is not in it"
            )
    try:
        check_nodes(batch.annotations, {circuit.id: circuit for circuit in circuits})
    except NotFound as error:
        raise BadInput(f"{name}: an annotation is about a missing part: {error}") from error


def _references(batch: Batch, circuits: Iterable[Circuit]) -> Iterator[tuple[str, str | None]]:
    """Yield kind and key of every record that another record names."""
    for prompts in batch.prompt_sets:
        yield from (("task", prompts.task), ("model", prompts.model))
    for circuit in circuits:
        yield from (("model", circuit.model), ("task", circuit.task))
        yield "prompt set", circuit.prompt_set
    for new in batch.circuits:
        yield from (("run", new.run), ("circuit", new.labels.superseded_by))
    for measured in batch.evaluations:
        yield from (("circuit", measured.circuit), ("task", measured.task))
        yield from (("prompt set", measured.prompt_set), ("run", measured.run))
    for said in batch.annotations:
        yield from (("circuit", said.circuit), ("run", said.run))
    for edit in batch.edits:
        yield from (("model", edit.model), ("run", edit.run))
        yield from (("circuit", key) for key in edit.circuits)
    for outcome in batch.outcomes:
        yield from (("edit", outcome.edit), ("task", outcome.task))
    for one in batch.attachments:
        yield one.owner_kind.words, one.owner
