"""One file that holds a whole registry, and the search for artifacts nobody refers to.

A backup is a zip: ``manifest.json``, ``ledger.jsonl`` (one ``[table, row]`` a line) and
``artifacts/ADDRESS``. The ledger is read first, as of one moment, the artifacts it refers to
afterwards; artifacts are immutable and written before the record that names them, so other
processes may record meanwhile.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from registry.artifacts import ArtifactStore
from registry.errors import BadInput, StorageError
from registry.ledger.base import Ledger

__all__ = ["BackupReport", "Garbage", "collect_garbage", "load", "opened", "write"]

FORMAT = "circuit-registry-backup/1"
_MANIFEST, _LEDGER, _ARTIFACTS = "manifest.json", "ledger.jsonl", "artifacts/"


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What a backup holds."""

    path: Path
    n_rows: int
    n_artifacts: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Garbage:
    """Artifacts no record refers to, and whether they were deleted."""

    addresses: tuple[str, ...]
    size_bytes: int
    deleted: bool


def write(path: Path, ledger: Ledger, artifacts: ArtifactStore) -> BackupReport:
    """Write a backup to ``path``, by way of a temporary name beside it.

    Raises:
        BadInput: ``path`` exists already.
        StorageError: It cannot be written, or an artifact is missing or damaged.
    """
    if path.exists():
        raise BadInput(f"{path} exists already; name a new file")
    temporary = path.with_name(f".circuits-backup.{os.getpid()}.part")
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            n_rows = _write_ledger(archive, ledger)
            # Records are never deleted, so what is referred to now includes what the dump names.
            kept = {sha256 for sha256 in ledger.source_files() if artifacts.exists(sha256)}
            addresses = sorted(ledger.artifacts() | kept)
            for address in addresses:
                archive.writestr(_ARTIFACTS + address, artifacts.get(address))
            archive.writestr(_MANIFEST, json.dumps(_manifest(ledger, n_rows, len(addresses))))
        temporary.rename(path)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return BackupReport(path, n_rows, len(addresses), path.stat().st_size)


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a backup whose manifest and checksums are right.

    Raises:
        BadInput: The file does not exist, is no backup, or is damaged.
    """
    try:
        archive = zipfile.ZipFile(path)
    except FileNotFoundError as error:
        raise BadInput(f"{path} does not exist") from error
    except (OSError, zipfile.BadZipFile) as error:
        raise BadInput(f"{path} is no backup of a registry: {error}") from error
    with archive:
        try:
            _check_archive(archive, path)
        except BadInput:
            raise
        except Exception as error:  # whatever zip, compression and JSON make of broken bytes
            raise BadInput(f"{path} is damaged: {error}") from error
        yield archive


def _check_archive(archive: zipfile.ZipFile, path: Path) -> None:
    if _MANIFEST not in archive.namelist():
        raise BadInput(f"{path} is no backup of a registry: it has no {_MANIFEST}")
    manifest = json.loads(archive.read(_MANIFEST))
    if manifest.get("format") != FORMAT:
        raise BadInput(f"{path} is a backup of another version; expected {FORMAT}")
    held = sum(name.startswith(_ARTIFACTS) for name in archive.namelist())
    if held != manifest["artifacts"]:
        raise BadInput(
            f"{path} is not whole: it holds {held} of the {manifest['artifacts']} artifacts it had"
        )
    if damaged := archive.testzip():
        raise BadInput(f"{path} is damaged at {damaged}")


def load(archive: zipfile.ZipFile, ledger: Ledger, artifacts: ArtifactStore) -> None:
    """Fill an empty registry: artifacts first, then the ledger in one transaction.

    Raises:
        BadInput: An artifact's content does not have the hash that names it.
        LedgerError: The ledger holds records already, or the rows are of another version.
    """
    for name in archive.namelist():
        if name.startswith(_ARTIFACTS):
            address = artifacts.put(archive.read(name))
            if address != name.removeprefix(_ARTIFACTS):
                raise BadInput(f"the backup's file {name} does not have the content it names")
    ledger.load(_rows(archive))


def collect_garbage(
    ledger: Ledger, artifacts: ArtifactStore, *, apply: bool, grace_seconds: float
) -> Garbage:
    """Find, and with ``apply`` delete, artifacts that nothing refers to and that are not new."""
    # Addresses are listed before the ledger is read: what is written in between is not listed.
    old = [a for a in artifacts.addresses() if artifacts.age_seconds(a) >= grace_seconds]
    referred = ledger.artifacts() | ledger.source_files()
    unused = tuple(sorted(address for address in old if address not in referred))
    size = sum(artifacts.size_bytes(address) for address in unused)
    if apply:
        for address in unused:
            artifacts.remove(address, grace_seconds=grace_seconds)
        artifacts.remove_leftovers(grace_seconds=grace_seconds)
    return Garbage(unused, size, apply)


def _write_ledger(archive: zipfile.ZipFile, ledger: Ledger) -> int:
    n_rows = 0
    with archive.open(_LEDGER, "w", force_zip64=True) as lines:
        for table, row in ledger.dump():
            lines.write(json.dumps([table, dict(row)], ensure_ascii=False).encode() + b"\n")
            n_rows += 1
    return n_rows


def _rows(archive: zipfile.ZipFile) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with archive.open(_LEDGER) as lines:
        for line in lines:
            table, row = json.loads(line)
            yield table, row


def _manifest(ledger: Ledger, n_rows: int, n_artifacts: int) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "registry": ledger.registry_id,
        "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "rows": n_rows,
        "artifacts": n_artifacts,
    }
