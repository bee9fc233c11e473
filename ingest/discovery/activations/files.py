"""A folder of activations: shards, and a manifest that is written last.

``KEY/`` has ``layer-3.0001.safetensors`` and similar files, and ``manifest.json`` with the hash of
each. Everything is written to a folder with another name (``KEY.abc123.unfinished``), which is
renamed when it is complete, so the remains of a killed process never look complete. The folder of
an ended process is removed by the next process that writes the same activations.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from torch import Tensor

from registry.errors import ArtifactCorrupt, StorageError

__all__ = ["Manifest", "Shard", "ShardWriter", "find_manifest", "finish", "writing"]

_FORMAT = "circuits-activations/1"
_MANIFEST = "manifest.json"
_UNFINISHED = ".unfinished"
_LOCK = "lock"


@dataclass(frozen=True, slots=True)
class Shard:
    """One file.

    Attributes:
        file: Its name.
        sites: Its sites, each ``[token, width]``.
        prompts: Indices of its prompts, one after the other, counted from 0.
        sha256: Hash of the file.
    """

    file: str
    sites: tuple[str, ...]
    prompts: tuple[int, ...]
    sha256: str

    def load(self, folder: Path) -> dict[str, Tensor]:
        """Return its tensors.

        Raises:
            ArtifactCorrupt: The file differs from the written one.
            StorageError: It cannot be read.
        """
        from safetensors.torch import load

        path = folder / self.file
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error}") from error
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise ArtifactCorrupt(
                f"{path} has changed since it was written; remove {folder} to compute it again"
            )
        found: dict[str, Tensor] = load(data)
        return found


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of a folder.

    Attributes:
        key: Hash of the inputs of the activations.
        sha256: Hash of the activations, for any division into shards.
        sites: Sites in the requested order.
        lengths: Number of tokens of each prompt.
        shards: Shards in the order of writing.
    """

    key: str
    sha256: str
    sites: tuple[str, ...]
    lengths: tuple[int, ...]
    shards: tuple[Shard, ...]


class ShardWriter:
    """Writes the shards of one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.shards: list[Shard] = []

    def write(self, layer: int, prompts: Sequence[int], tensors: Mapping[str, Tensor]) -> None:
        """Write one shard; it is on the disk when this returns.

        Raises:
            StorageError: The disk is full, or the folder does not exist any more.
        """
        from safetensors.torch import save

        name = f"layer-{layer}.{len(self.shards):04}.safetensors"
        data: bytes = save(dict(tensors))
        _write(self._folder / name, data)
        self.shards.append(
            Shard(name, tuple(tensors), tuple(prompts), hashlib.sha256(data).hexdigest())
        )


def find_manifest(folder: Path, key: str | None = None) -> Manifest | None:
    """Read the manifest of a folder, if it is complete: every shard exists and has its hash.

    Args:
        folder: The folder of the manifest.
        key: Its required key; None: any.
    """
    try:
        read = json.loads((folder / _MANIFEST).read_text("utf-8"))
        if read["format"] != _FORMAT:
            return None
        shards = tuple(
            Shard(s["file"], tuple(s["sites"]), tuple(s["prompts"]), s["sha256"])
            for s in read["shards"]
        )
        found = Manifest(
            read["key"], read["sha256"], tuple(read["sites"]), tuple(read["lengths"]), shards
        )
        whole = all(_digest(folder / shard.file) == shard.sha256 for shard in shards)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if whole and key in (None, found.key) else None


@contextmanager
def writing(folder: Path, key: str) -> Iterator[tuple[ShardWriter, Path]]:
    """Yield a writer for ``folder/key`` and its final path; a failure leaves nothing there.

    The caller ends with :func:`finish`. An incomplete folder of that name is replaced.

    Raises:
        StorageError: The folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder, key)
        unfinished = Path(tempfile.mkdtemp(_UNFINISHED, f"{key}.", folder))
    except OSError as error:
        raise StorageError(f"cannot write activations to {folder}: {error}") from error
    lock = _locked(unfinished / _LOCK)
    try:
        yield ShardWriter(unfinished), unfinished
    finally:
        if lock is not None:
            lock.close()
        shutil.rmtree(unfinished, ignore_errors=True)


def finish(unfinished: Path, target: Path, manifest: Manifest) -> None:
    """Give a folder its manifest and its final name, unless another process was first.

    Raises:
        StorageError: The disk is full, or the folder does not exist any more.
    """
    about = {"format": _FORMAT, **asdict(manifest)}
    _write(unfinished / _MANIFEST, json.dumps(about, indent=1).encode())
    try:
        if target.exists() and find_manifest(target, manifest.key) is None:
            damaged = Path(tempfile.mkdtemp(_UNFINISHED, f"{manifest.key}.", target.parent))
            os.rename(target, damaged / "damaged")
            shutil.rmtree(damaged, ignore_errors=True)
        os.rename(unfinished, target)
        (target / _LOCK).unlink(missing_ok=True)
        _sync_folder(target.parent)
    except OSError as error:
        if find_manifest(target, manifest.key) is None:  # else another process was first
            raise StorageError(f"cannot write activations to {target}: {error}") from error


def _write(path: Path, data: bytes) -> None:
    try:
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StorageError(f"cannot write activations to {path.parent}: {error}") from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        return  # folders cannot be opened there
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _locked(path: Path) -> IO[bytes] | None:
    """Lock a file while it is open; None if another process has it, or locks are unavailable."""
    try:
        import fcntl
    except ModuleNotFoundError:
        return None
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def _remove_abandoned(folder: Path, key: str) -> None:
    """Remove remains of killed processes for these activations; a running one holds its lock."""
    for unfinished in folder.glob(f"{key}.*{_UNFINISHED}"):
        if not (unfinished / _LOCK).exists():
            continue  # it was begun at this moment
        lock = _locked(unfinished / _LOCK)
        if lock is not None:
            shutil.rmtree(unfinished, ignore_errors=True)
            lock.close()
