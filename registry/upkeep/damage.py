"""Artifacts that are missing or damaged: the records that use them, and their repair.

An artifact is named by the hash of its content, so any file with that content repairs it, under any
name: a member of a backup or a bundle, an original that was imported, a file of another copy of the
artifact store.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import lzma
import random
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

from registry.errors import ArtifactCorrupt, ArtifactNotFound, BadInput, StorageError
from registry.files.artifacts import ArtifactStore
from registry.ledger.base import Ledger
from registry.texts.words import listed

__all__ = ["Damage", "Examiner", "damaged", "mend"]

log = logging.getLogger(__name__)

_SHOWN_DIGITS = 12
_NOT_STORED = "not stored"
_PIECE_BYTES = 1 << 20
_UNREADABLE_MEMBER = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, NotImplementedError,
)  # fmt: skip
"""Errors of reading a member of a damaged, encrypted or malformed zip."""


@dataclass(frozen=True, slots=True)
class Damage:
    """An artifact that a record refers to and that cannot be read.

    Attributes:
        address: Its address.
        fault: ``missing``, ``damaged``, or ``not stored``: an original that was deleted, or that
            this registry never had, because a bundle came without it.
        use: Its use, such as ``the document of circuit 3f2a...``.
        cure: How to restore it.
    """

    address: str
    fault: str
    use: str
    cure: str

    @property
    def is_certain(self) -> bool:
        """Whether the registry lost something; this is unknown of an original not stored."""
        return self.fault != _NOT_STORED

    def __str__(self) -> str:
        return f"artifact {self.address[:_SHOWN_DIGITS]} is {self.fault}: {self.use}; {self.cure}"


class Examiner:
    """Finds the damage of artifacts, and names the records that use them.

    The records are read when the first damage is found, and only once.
    """

    def __init__(self, ledger: Ledger, artifacts: ArtifactStore) -> None:
        """Examine a store; the ledger has the records that refer to its artifacts."""
        self._ledger = ledger
        self._artifacts = artifacts

    def damage_of(self, address: str) -> Damage | None:
        """The damage of an artifact; None if it is correct.

        Raises:
            StorageError: It cannot be read, but is not missing: no permission, no answer.
        """
        try:
            with self._artifacts.open(address):
                return None
        except ArtifactNotFound:
            fault = "missing" if address in self._needed else _NOT_STORED
        except ArtifactCorrupt:
            fault = "damaged"
        use, cure = self._uses.get(address, ("a file that a record names", _backup(address)))
        return Damage(address, fault, use, cure)

    @cached_property
    def _needed(self) -> frozenset[str]:
        return self._ledger.artifacts()

    @cached_property
    def _uses(self) -> Mapping[str, tuple[str, str]]:
        """The first use of each artifact, and how to restore it."""
        found: dict[str, tuple[str, str]] = {}
        for address, use, cure in _uses(self._ledger):
            found.setdefault(address, (use, cure))
        return found


def damaged(
    ledger: Ledger,
    artifacts: ArtifactStore,
    *,
    sample: int | None = None,
    not_stored: bool = False,
) -> Iterator[Damage]:
    """Check the artifacts that records refer to, with originals of imports; yield their damage.

    Args:
        ledger: The ledger with the records.
        artifacts: The store to check.
        sample: Number of artifacts to read, chosen at random; others are only checked for
            existence.
        not_stored: Also yield originals that are not stored; this registry may never have had them.
    """
    needed, originals = ledger.artifacts(), ledger.source_files()
    there = frozenset(artifacts.addresses())
    known = sorted(needed | (originals & there))
    read = known if sample is None else random.Random().sample(known, min(sample, len(known)))
    lacking = (needed | originals if not_stored else needed) - there
    examiner = Examiner(ledger, artifacts)
    for address in sorted(lacking.union(read)):
        if found := examiner.damage_of(address):
            yield found


def mend(
    ledger: Ledger, artifacts: ArtifactStore, sources: Sequence[Path]
) -> tuple[tuple[Damage, ...], tuple[Damage, ...]]:
    """Replace missing or damaged artifacts from the sources, as far as possible.

    Args:
        ledger: The ledger whose records refer to artifacts.
        artifacts: The store to repair.
        sources: Backups, bundles, original files, or folders of them (also an artifact store).

    Returns:
        The repaired artifacts, and those that are still damaged, missing or not stored.

    Raises:
        BadInput: A source does not exist; a source that cannot be read is logged.
    """
    for path in sources:
        _require_readable_kind(path)
    wanted = {one.address: one for one in damaged(ledger, artifacts, not_stored=True)}
    mended: dict[str, Damage] = {}
    for path in sources:
        for address, pieces in _contents(path, wanted.keys() - mended.keys()):
            try:
                artifacts.put_pieces(address, pieces)
            except (ArtifactCorrupt, BadInput) as error:  # another source may have a correct copy
                log.warning("%s: %s", path, error)
                continue
            mended[address] = wanted[address]
    left = tuple(one for address, one in wanted.items() if address not in mended)
    return tuple(mended.values()), left


def _require_readable_kind(path: Path) -> None:
    if not path.exists():
        raise BadInput(f"{path} does not exist")
    if not (path.is_dir() or path.is_file()):
        raise BadInput(f"{path} is neither a file nor a folder")


def _uses(ledger: Ledger) -> Iterator[tuple[str, str, str]]:
    """Addresses of artifacts, each with a use and a cure; originals come last."""
    entries = ledger.circuits()
    for entry in entries:
        short = entry.id[:_SHOWN_DIGITS]
        names = listed([file.name for file in entry.source_files], 3)
        again = f"; or import {names} again, which it came from" if names else ""
        yield entry.id, f"the document of circuit {short}", _backup(entry.id) + again
        if entry.scores:
            yield entry.scores, f"the scores of circuit {short}", _backup(entry.scores)
    for prompts in ledger.prompt_sets():
        if prompts.artifact:
            use = f"the prompts {prompts.id[:_SHOWN_DIGITS]} of {prompts.task}"
            yield prompts.artifact, use, _backup(prompts.artifact)
    for one in ledger.attachments():
        whose = f"{one.owner_kind.words} {one.owner[:_SHOWN_DIGITS]}"
        yield one.sha256, f"the attachment {one.name!r} of {whose}", _backup(one.sha256)
    of_circuits = (file for entry in entries for file in entry.source_files)
    for file in itertools.chain(of_circuits, ledger.imported_files()):
        cure = f"'circuits mend {file.name}' restores it from that file"
        yield file.sha256, f"the original of {file.name}", cure


def _backup(address: str) -> str:
    short = address[:_SHOWN_DIGITS]
    return f"'circuits mend FILE' restores it from a backup or bundle that contains {short}"


def _contents(path: Path, wanted: Iterable[str]) -> Iterator[tuple[str, Iterator[bytes]]]:
    """The wanted contents in a source; a source that cannot be read is logged and skipped."""
    missing = set(wanted)
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file() and missing:
                yield from _contents(file, missing)
        return
    try:
        with path.open("rb") as source:
            address = hashlib.file_digest(source, "sha256").hexdigest()
            if address in missing:
                source.seek(0)
                yield address, _pieces(source)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                yield from _members(archive, missing)
    except (OSError, zipfile.BadZipFile) as error:
        if isinstance(error, StorageError):
            raise
        log.warning("%s cannot be read: %s", path, error)


def _members(archive: zipfile.ZipFile, missing: set[str]) -> Iterator[tuple[str, Iterator[bytes]]]:
    for member in archive.infolist():
        address = member.filename.rsplit("/", 1)[-1]
        if address not in missing:
            continue
        try:
            with archive.open(member) as file:
                # Before anything is written: a member that unpacks to terabytes fills the disk.
                found = hashlib.sha256()
                for piece in _pieces(file):
                    found.update(piece)
            if found.hexdigest() == address:
                with archive.open(member) as file:
                    yield address, _pieces(file)
        except _UNREADABLE_MEMBER as error:  # another source may have it
            log.warning("%s in %s: %s", member.filename, archive.filename, error)


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(_PIECE_BYTES):
        yield piece
