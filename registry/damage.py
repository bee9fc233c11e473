"""Artifacts that are missing or damaged: what used them, and putting them back.

An artifact is named by the hash of its content, so any file with that content mends it, whatever
the file's name: a member of a backup or a bundle, an original that was imported, a file of another
copy of the artifact store.
"""

from __future__ import annotations

import hashlib
import random
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from registry.artifacts import ArtifactStore
from registry.errors import ArtifactCorrupt, ArtifactNotFound, BadInput, StorageError
from registry.ledger.base import Ledger

__all__ = ["Damage", "damage_of", "damaged", "mend"]

_SHOWN_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Damage:
    """An artifact that a record refers to and that cannot be had.

    Attributes:
        address: Its address.
        fault: ``missing`` or ``damaged``.
        use: What it is, such as ``the document of circuit 3f2a...``.
        cure: Where it can be had from.
    """

    address: str
    fault: str
    use: str
    cure: str

    def __str__(self) -> str:
        return f"artifact {self.address[:_SHOWN_DIGITS]} is {self.fault}: {self.use}; {self.cure}"


def damage_of(ledger: Ledger, artifacts: ArtifactStore, address: str) -> Damage | None:
    """What is wrong with an artifact, None if it is whole.

    Raises:
        StorageError: It can be neither read nor found missing: no permission, no answer.
    """
    try:
        with artifacts.open(address):
            return None
    except ArtifactNotFound:
        fault = "missing"
    except ArtifactCorrupt:
        fault = "damaged"
    return Damage(address, fault, *_use_and_cure(ledger, address))


def damaged(
    ledger: Ledger, artifacts: ArtifactStore, *, sample: int | None = None
) -> Iterator[Damage]:
    """Check the artifacts that records refer to, and yield what is wrong.

    Args:
        ledger: Whose records refer to them.
        artifacts: Where they are.
        sample: Read so many, chosen at random; of the others only whether they are there.
    """
    known = sorted(ledger.artifacts())
    there = frozenset(artifacts.addresses())
    read = known if sample is None else random.Random().sample(known, min(sample, len(known)))
    suspects = {address for address in known if address not in there} | set(read)
    for address in sorted(suspects):
        if found := damage_of(ledger, artifacts, address):
            yield found


def mend(
    ledger: Ledger, artifacts: ArtifactStore, sources: Sequence[Path]
) -> tuple[tuple[Damage, ...], tuple[Damage, ...]]:
    """Put back what is missing or damaged, as far as the sources hold it.

    Args:
        ledger: Whose records refer to artifacts.
        artifacts: The store to mend.
        sources: Backups, bundles, original files, or folders of them (an artifact store too).

    Returns:
        What was mended, and what still is damaged.

    Raises:
        BadInput: A source does not exist or cannot be read.
    """
    wanted = {one.address: one for one in damaged(ledger, artifacts)}
    mended: dict[str, Damage] = {}
    for path in sources:
        for address, content in _contents(path, wanted.keys() - mended.keys()):
            artifacts.put(content)
            mended[address] = wanted[address]
    left = tuple(one for address, one in wanted.items() if address not in mended)
    return tuple(mended.values()), left


def _use_and_cure(ledger: Ledger, address: str) -> tuple[str, str]:
    short = address[:_SHOWN_DIGITS]
    backup = f"'circuits mend FILE' takes it from a backup or bundle that holds {short}"
    for entry in ledger.circuits():
        if entry.id == address:
            names = ", ".join(file.name for file in entry.source_files[:3])
            again = f"; or import {names} again, which it came from" if names else ""
            return f"the document of circuit {short}", backup + again
        if entry.scores == address:
            return f"the scores of circuit {entry.id[:_SHOWN_DIGITS]}", backup
        for file in entry.source_files:
            if file.sha256 == address:
                return _original(file.name)
    for prompts in ledger.prompt_sets():
        if prompts.artifact == address:
            return f"the prompts {prompts.id[:_SHOWN_DIGITS]} of {prompts.task}", backup
    for file in ledger.imported_files():
        if file.sha256 == address:
            return _original(file.name)
    return "a file that a record names", backup


def _original(name: str) -> tuple[str, str]:
    return f"the original of {name}", f"'circuits mend {name}' takes it from that file"


def _contents(path: Path, wanted: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """What a source holds of the wanted addresses."""
    missing = set(wanted)
    try:
        if path.is_dir():
            for file in sorted(path.rglob("*")):
                if file.is_file() and missing:
                    yield from _contents(file, missing)
        elif path.exists() and not path.is_file():
            raise BadInput(f"{path} is neither a file nor a folder")
        elif zipfile.is_zipfile(path):
            yield from _members(path, missing)
        elif (address := _hash_of(path)) in missing:
            yield address, path.read_bytes()
    except FileNotFoundError as error:
        raise BadInput(f"{path} does not exist") from error
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        if isinstance(error, StorageError):
            raise
        raise BadInput(f"{path} cannot be read: {error}") from error


def _members(path: Path, missing: set[str]) -> Iterator[tuple[str, bytes]]:
    if (address := _hash_of(path)) in missing:  # the zip itself may be an original
        yield address, path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            address = member.filename.rsplit("/", 1)[-1]
            if address in missing:
                try:
                    content = archive.read(member)
                except (zipfile.BadZipFile, zlib.error, EOFError):  # another source may have it
                    continue
                if hashlib.sha256(content).hexdigest() == address:
                    yield address, content


def _hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
