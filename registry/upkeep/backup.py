"""One file that holds a whole registry, and the search for artifacts that nothing refers to.

A backup is a zip: ``manifest.json``, ``ledger.jsonl`` (one ``[table, row]`` per line) and
``artifacts/ADDRESS``. The ledger is read first, at one moment, and then the artifacts that it
refers to. Artifacts are immutable and written before the record that names them, so other processes
may record at the same time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from registry.canonical import content_hash
from registry.errors import ArtifactCorrupt, ArtifactNotFound, BadInput, StorageError, StoreRefused
from registry.files.artifacts import UNFINISHED, ArtifactStore
from registry.files.file_systems import first_line
from registry.files.whole_files import whole_file
from registry.ledger.base import Ledger
from registry.texts.problems import first_problem
from registry.upkeep.damage import Damage, Examiner

__all__ = [
    "Backup",
    "BackupReport",
    "Garbage",
    "collect_garbage",
    "opened",
    "write",
]

FORMAT = "circuit-registry-backup/1"
_MANIFEST, _LEDGER, _ARTIFACTS = "manifest.json", "ledger.jsonl", "artifacts/"
_REGISTRY_TABLE = "registry"
_PIECE_BYTES = 1 << 20
_MOST_OF_A_ROW = 256 << 20
"""Bytes; the texts of a record may have an eighth of this."""
_MOST_OF_A_MANIFEST = 64 << 20
"""Bytes: a million artifacts that had to be skipped."""


@dataclass(frozen=True, slots=True)
class BackupReport:
    """The content of a backup, and the missing and damaged artifacts that were skipped."""

    path: Path
    n_rows: int
    n_artifacts: int
    size_bytes: int
    left_out: tuple[Damage, ...] = ()


class _Manifest(BaseModel):
    """``manifest.json``: the registry of the backup, and the number of its parts."""

    model_config = ConfigDict(frozen=True, strict=True)

    format: str
    registry: str = Field(min_length=1, max_length=64)
    written_at: str
    rows: int
    artifacts: int
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Backup:
    """An open backup with correct checksums.

    Attributes:
        registry: Id of the registry that it holds.
        digest: Distinguishes it from every other backup.
        left_out: Addresses of artifacts that were missing or damaged when it was written.
    """

    archive: zipfile.ZipFile
    registry: str
    digest: str
    left_out: tuple[str, ...]

    def artifacts(self) -> frozenset[str]:
        """Addresses of its artifacts."""
        names = self.archive.namelist()
        return frozenset(n.removeprefix(_ARTIFACTS) for n in names if n.startswith(_ARTIFACTS))

    def load_artifacts(self, artifacts: ArtifactStore) -> None:
        """Store its artifacts; existing ones stay.

        Raises:
            BadInput: A file's content does not have the hash that names it.
            StorageError: The artifacts cannot be written.
        """
        for name in self.archive.namelist():
            if name.startswith(_ARTIFACTS):
                try:
                    with self.archive.open(name) as file:
                        artifacts.put_pieces(
                            name.removeprefix(_ARTIFACTS),
                            iter(lambda: file.read(_PIECE_BYTES), b""),
                        )
                except ArtifactCorrupt as error:
                    raise BadInput(
                        f"the backup's file {name} does not have the content it names"
                    ) from error

    def load_ledger(self, ledger: Ledger) -> None:
        """Fill an empty ledger with its rows, in one transaction.

        Raises:
            LedgerError: The ledger already holds records, or cannot store the rows.
        """
        ledger.load(_rows(self.archive), digest=self.digest)


@dataclass(frozen=True, slots=True)
class Garbage:
    """Files that nothing needs, and whether they were deleted.

    Attributes:
        addresses: Addresses of artifacts that no record refers to.
        size_bytes: Size of all these files.
        deleted: Whether they were deleted.
        leftovers: Incomplete files of killed processes, by their paths in the artifact store.
    """

    addresses: tuple[str, ...]
    size_bytes: int
    deleted: bool
    leftovers: tuple[str, ...] = ()


def write(
    path: Path, ledger: Ledger, artifacts: ArtifactStore, *, skip_damaged: bool = False
) -> BackupReport:
    """Write a backup to ``path``, first under a temporary name in the same folder.

    Args:
        path: The file to write.
        ledger: The ledger to back up.
        artifacts: The store of its files.
        skip_damaged: Skip artifacts that are missing or damaged, and report them. Originals that
            are not stored are always skipped and reported.

    Raises:
        BadInput: ``path`` exists already.
        LedgerError: The ledger's database is damaged.
        StorageError: It cannot be written, or an artifact is missing or damaged.
    """
    if os.path.lexists(path):  # also a link to nothing
        raise BadInput(f"{path} exists already; name a new file")
    ledger.require_sound()
    left_out: list[Damage] = []
    examiner = Examiner(ledger, artifacts)
    try:
        with whole_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            n_rows = _write_ledger(archive, ledger)
            # Records are never deleted, so the present references include those of the dump.
            wanted = sorted(ledger.artifacts() | ledger.source_files())
            for address in wanted:
                try:
                    _write_artifact(archive, artifacts, address)
                except StorageError as error:
                    damage = examiner.damage_of(address)
                    if damage is None:  # it cannot be read, for any content
                        raise
                    if damage.is_certain and not skip_damaged:
                        raise _refused(damage) from error
                    left_out.append(damage)
            lacking = [damage.address for damage in left_out]
            archive.writestr(
                _MANIFEST, _manifest(ledger, n_rows, wanted, lacking).model_dump_json()
            )
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
    n_artifacts = len(wanted) - len(left_out)
    return BackupReport(path, n_rows, n_artifacts, path.stat().st_size, tuple(left_out))


def _write_artifact(archive: zipfile.ZipFile, artifacts: ArtifactStore, address: str) -> None:
    """Copy an artifact in pieces; damage is found before anything is written."""
    with (
        artifacts.open(address) as source,
        archive.open(_ARTIFACTS + address, "w", force_zip64=True) as target,
    ):
        shutil.copyfileobj(source, target, _PIECE_BYTES)


def _refused(damage: Damage) -> StorageError:
    return StorageError(f"{damage}. Nothing was written; 'circuits backup --skip-damaged' skips it")


@contextmanager
def opened(path: Path) -> Iterator[Backup]:
    """Open a backup with a correct manifest and checksums.

    Raises:
        BadInput: The file does not exist, is not a backup, or is damaged.
    """
    try:
        if path.exists() and not path.is_file():
            raise BadInput(f"{path} is not a regular file; name a backup")
        archive = zipfile.ZipFile(path)
    except FileNotFoundError as error:
        raise BadInput(f"{path} does not exist") from error
    except (OSError, zipfile.BadZipFile) as error:
        raise BadInput(f"{path} is not a backup of a registry: {error}") from error
    with archive:
        try:
            _require_whole(archive, path)
            manifest = _Manifest.model_validate_json(archive.read(_MANIFEST))
            _check_contents(archive, manifest, path)
        except BadInput:
            raise
        except ValidationError as error:
            raise BadInput(f"{path} is damaged: {_MANIFEST}: {first_problem(error)}") from error
        except Exception as error:  # any error of zip, compression or JSON for damaged bytes
            raise BadInput(f"{path} is damaged: {first_line(error)}") from error
        yield Backup(
            archive,
            registry=manifest.registry,
            digest=content_hash([(i.filename, i.CRC, i.file_size) for i in archive.infolist()]),
            left_out=manifest.left_out,
        )


def _require_whole(archive: zipfile.ZipFile, path: Path) -> None:
    for name in (_MANIFEST, _LEDGER):
        if name not in archive.namelist():
            raise BadInput(f"{path} is not a backup of a registry: it has no {name}")
    if archive.getinfo(_MANIFEST).file_size > _MOST_OF_A_MANIFEST:
        raise BadInput(f"{path} is not a backup of a registry: its {_MANIFEST} is too long")
    if damaged := archive.testzip():
        raise BadInput(f"{path} is damaged at {damaged}")


def _check_contents(archive: zipfile.ZipFile, manifest: _Manifest, path: Path) -> None:
    if manifest.format != FORMAT:
        raise BadInput(f"{path} is a backup of another version; expected {FORMAT}")
    held = sum(name.startswith(_ARTIFACTS) for name in archive.namelist())
    if held != manifest.artifacts:
        raise BadInput(
            f"{path} is incomplete: it holds {held} of the {manifest.artifacts} artifacts it had"
        )
    if len(set(archive.namelist())) < len(archive.namelist()):
        raise BadInput(f"{path} is damaged: it holds two files of one name")
    for name in archive.namelist():
        if name.startswith(_ARTIFACTS) and _hash_of(archive, name) != name.removeprefix(_ARTIFACTS):
            raise BadInput(f"{path} is damaged: its file {name} does not have the content it names")
    n_rows = 0
    for table, row in _rows(archive):
        n_rows += 1
        if table == _REGISTRY_TABLE and row.get("id") != manifest.registry:
            raise BadInput(
                f"{path} is damaged: its rows are not of the registry that its {_MANIFEST} names"
            )
    if n_rows != manifest.rows:
        raise BadInput(f"{path} is incomplete: it holds {n_rows} of the {manifest.rows} rows")


def _hash_of(archive: zipfile.ZipFile, name: str) -> str:
    found = hashlib.sha256()
    with archive.open(name) as file:
        while piece := file.read(_PIECE_BYTES):
            found.update(piece)
    return found.hexdigest()


def collect_garbage(
    ledger: Ledger,
    artifacts: ArtifactStore,
    *,
    apply: bool,
    grace_seconds: float,
    sole_copy: bool = False,
) -> Garbage:
    """Find, and with ``apply`` delete, unused artifacts and incomplete files that are not new.

    Raises:
        StoreRefused: With ``apply``: another copy of the registry stores files in the same place,
            unknown to this ledger; unless ``sole_copy`` states that this copy no longer exists.
    """
    if apply:
        artifacts.verify_again()
        _require_sole_copy(artifacts, sole_copy=sole_copy)
    # Addresses are listed before the ledger is read, so files written in between are not listed.
    ages = ((address, _age(artifacts, address)) for address in artifacts.addresses())
    old = [address for address, age in ages if age is not None and age >= grace_seconds]
    referred = ledger.artifacts() | ledger.source_files()
    unused = tuple(sorted(address for address in old if address not in referred))
    size = sum(_size(artifacts, address) for address in unused)
    sizes = artifacts.leftovers(grace_seconds=grace_seconds)
    names = tuple(sizes)
    if apply:
        for address in unused:
            artifacts.remove(address, grace_seconds=grace_seconds)
        names = artifacts.remove_leftovers(grace_seconds=grace_seconds)
    size += sum(sizes.get(name, 0) for name in names)
    return Garbage(unused, size, apply, tuple(f"{UNFINISHED}/{name}" for name in names))


def _require_sole_copy(artifacts: ArtifactStore, *, sole_copy: bool) -> None:
    if sole_copy:
        artifacts.forget_other_copies()
        return
    if artifacts.has_other_copies():
        raise StoreRefused(
            "another copy of this registry (restored from a backup, copied, or this registry before"
            " it was moved or upgraded) may store files among these artifacts, and it is not known"
            " which; nothing was deleted. If there is no other copy, state this with 'circuits gc"
            " --apply --sole-copy'"
        )


def _age(artifacts: ArtifactStore, address: str) -> float | None:
    """Seconds since it was written; None if another process has deleted it meanwhile."""
    with contextlib.suppress(ArtifactNotFound):
        return artifacts.age_seconds(address)
    return None


def _size(artifacts: ArtifactStore, address: str) -> int:
    with contextlib.suppress(ArtifactNotFound):
        return artifacts.size_bytes(address)
    return 0


def _write_ledger(archive: zipfile.ZipFile, ledger: Ledger) -> int:
    n_rows = 0
    with archive.open(_LEDGER, "w", force_zip64=True) as lines:
        for table, row in ledger.dump():
            lines.write(json.dumps([table, dict(row)], ensure_ascii=False).encode() + b"\n")
            n_rows += 1
    return n_rows


def _rows(archive: zipfile.ZipFile) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with archive.open(_LEDGER) as lines:
        for number, line in enumerate(iter(lambda: lines.readline(_MOST_OF_A_ROW), b""), 1):
            try:
                if len(line) == _MOST_OF_A_ROW:
                    raise ValueError("too long")
                table, row = json.loads(line)
                if not (isinstance(table, str) and isinstance(row, dict)):
                    raise TypeError("not a table's name and a row")
            except (TypeError, ValueError, RecursionError) as error:
                raise BadInput(
                    f"the backup is damaged: line {number} of {_LEDGER} is not a row"
                ) from error
            yield table, row


def _manifest(
    ledger: Ledger, n_rows: int, wanted: Sequence[str], left_out: Sequence[str]
) -> _Manifest:
    return _Manifest(
        format=FORMAT,
        registry=ledger.registry_id,
        written_at=datetime.now(UTC).isoformat(timespec="seconds"),
        rows=n_rows,
        artifacts=len(wanted) - len(left_out),
        left_out=tuple(left_out),
    )
