"""Immutable files named by their SHA-256, in a folder or anywhere fsspec reaches.

``ab/cdef...`` holds the bytes whose hash is ``abcdef...``. A file is written under a temporary
name and renamed when it is whole, so whatever bears a hash for a name has that hash; reading
checks it all the same, as disks and people change files.

A store belongs to one registry: ``registry.json`` names it, and the ledgers (a registry and its
restored copies) that keep files here. It is written before the first file is.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, Any

from registry.credentials import scrubbed, shown_place
from registry.errors import (
    ArtifactCorrupt,
    ArtifactNotFound,
    BadInput,
    StorageError,
    StoreRefused,
)
from registry.file_systems import PATIENCE_SECONDS, first_line, open_file_system

__all__ = ["ArtifactStore", "StoreOwner"]

_ADDRESS = re.compile(r"[0-9a-f]{64}")
_STORED = re.compile(r"(?:^|/)([0-9a-f]{2})/([0-9a-f]{62})\Z")
_UNFINISHED = ".unfinished"
"""Where files are while they are written; what a killed process leaves there, ``gc`` removes."""
_MARK = "registry.json"
_UNKNOWN_COPIES = "copies-from-before-there-were-marks"
_MOST_OF_A_MARK = 1 << 20
_PIECE_BYTES = 1 << 20
_FILES_AT_ONCE = 8
"""A disk that is waited for by several at once writes what all of them wait for."""


@dataclass(frozen=True, slots=True)
class StoreOwner:
    """Whose a store is.

    Attributes:
        registry: The registry's id.
        instances: Of the ledgers that keep files in it: the registry's and its restored copies'.
        ledgers: Their addresses: a copied file has the same instance at another address.
    """

    registry: str
    instances: tuple[str, ...]
    ledgers: tuple[str, ...] = ()

    def joined(self, other: StoreOwner) -> StoreOwner:
        """This owner with what the other one has besides."""
        return StoreOwner(
            self.registry,
            tuple(dict.fromkeys([*self.instances, *other.instances])),
            tuple(dict.fromkeys([*self.ledgers, *other.ledgers])),
        )


class ArtifactStore:
    """The artifacts of one registry; any number of processes may read and write.

    Args:
        url: A folder's path or an fsspec URL (``file:///data``, ``s3://bucket/prefix``); the
            folder is made when the first artifact is put.
        patience_seconds: How long a remote place may show no sign of life.

    Raises:
        BadInput: fsspec has no such protocol, or lacks the package for it.
        StorageError: The place is asked at once, as FTP is, and does not answer.
    """

    def __init__(self, url: str, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._url = url
        self._files, self._root, self._local = open_file_system(
            url, patience_seconds=patience_seconds
        )
        self._claimed: StoreOwner | None = None
        self._verified = self._marked = False

    def __repr__(self) -> str:
        return f"ArtifactStore({shown_place(self._url)!r})"

    # -- whose it is ---------------------------------------------------------------------------

    def claim(self, registry: str, instance: str, ledger: str = "") -> None:
        """Say for which ledger the store is used; the first use refuses a store of another's.

        Args:
            registry: Id of the registry.
            instance: The ledger's own; see :attr:`registry.ledger.base.Ledger.instance`.
            ledger: Its address, without secrets.
        """
        self._claimed = StoreOwner(registry, (instance,), (ledger,) if ledger else ())
        self._verified = self._marked = False

    def owner(self) -> StoreOwner | None:
        """Whose the store is by its mark, None without one.

        Raises:
            StoreRefused: There is a file of the mark's name that is no mark.
            StorageError: It cannot be read.
        """
        try:
            with self._errors("read", _MARK), self._open(self._mark_path) as file:
                content = file.read(_MOST_OF_A_MARK)
        except ArtifactNotFound:
            return None
        try:
            said = json.loads(content)
            return StoreOwner(
                str(said["registry"]),
                tuple(map(str, said["instances"])),
                tuple(map(str, said.get("ledgers", ()))),
            )
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise StoreRefused(
                f"{shown_place(self._url)} has a {_MARK} that is no mark; delete that file, then"
                " 'circuits migrate' marks the artifacts anew"
            ) from error

    def holds_anything(self) -> bool:
        """Whether there is any file beside the mark, of whoever.

        Raises:
            StorageError: The place cannot be listed.
        """
        inside = (path[len(self._root) :].lstrip("/") for path in self._listed(self._root))
        return any(path != _MARK and not path.startswith(f"{_UNFINISHED}/") for path in inside)

    def verify(self, known: Callable[[], frozenset[str]] = frozenset) -> None:
        """Make sure that the store is the claiming registry's, or empty; changes nothing.

        Args:
            known: Addresses by which a store without a mark can be told to be the registry's.

        Raises:
            StoreRefused: It is another registry's, or holds files without a mark.
            StorageError: It cannot be read.
        """
        if self._claimed is None or self._verified:
            return
        found = self.owner()
        if found is None and self.holds_anything() and not any(map(self._has, known())):
            raise StoreRefused(
                f"{shown_place(self._url)} holds files and no registry's mark ({_MARK}); give the"
                " artifacts a place of their own. Of a registry made before there were marks,"
                " 'circuits migrate' marks the artifacts"
            )
        if found is not None and found.registry != self._claimed.registry:
            if self.holds_anything():
                raise StoreRefused(
                    f"the artifacts in {shown_place(self._url)} belong to registry"
                    f" {found.registry[:12]}, not to {self._claimed.registry[:12]}; name this"
                    " registry's own by --artifacts"
                )
            found = None  # whoever marked it has left nothing there
        self._marked = found is not None and found == found.joined(self._claimed)
        self._verified = True

    def verify_again(self) -> None:
        """As :meth:`verify`, also of a store that was found right: it may be another's by now."""
        self._verified = False
        self.verify()

    def mark(self) -> None:
        """Write the mark where this ledger is not in it; storing does so by itself.

        Raises:
            StoreRefused, StorageError: As :meth:`verify`.
        """
        if self._claimed is None:
            return
        self.verify_again()
        if not self._marked:
            found, mine = self.owner(), self._claimed
            known = found if found and found.registry == mine.registry else mine
            self._write_mark(known.joined(mine))

    def adopt(self, known: Callable[[], frozenset[str]]) -> None:
        """Mark a store of a registry that was made before there were marks.

        Whether other copies keep files there cannot be told; the mark says so.

        Args:
            known: Gives the addresses that the registry refers to; one of them has to be here.
        """
        if self._claimed is None:
            return
        if self.owner() is not None:
            self.mark()
        elif self.holds_anything() and any(map(self._has, known())):
            self._write_mark(self._claimed.joined(StoreOwner("", (_UNKNOWN_COPIES,))))

    def has_other_copies(self) -> bool:
        """Whether other ledgers may keep files here: restored or copied ones, or moved ones."""
        self.verify()
        found = self.owner()
        return found is not None and self._claimed is not None and found != self._claimed

    def forget_other_copies(self) -> None:
        """Make the claiming ledger the only one in the mark."""
        self.verify()
        if self._claimed is not None:
            self._write_mark(self._claimed)

    @property
    def _mark_path(self) -> str:
        return f"{self._root}/{_MARK}"

    def _write_mark(self, owner: StoreOwner) -> None:
        content = {
            "registry": owner.registry,
            "instances": list(owner.instances),
            "ledgers": list(owner.ledgers),
        }
        with self._errors("write", _MARK):
            self._write_whole(self._mark_path, lambda file: _write_all(file, _encoded(content)))
        self._verified = self._marked = True

    def _has(self, address: str) -> bool:
        with self._errors("look for", address):
            return bool(self._files.isfile(self._place_of(address)))

    # -- files ---------------------------------------------------------------------------------

    def put(self, data: bytes) -> str:
        """Store bytes, unless they are there already, and return their address.

        Raises:
            StorageError: The disk is full, permission is lacking, the place does not answer;
                nothing bears the address then.
        """
        address = hashlib.sha256(data).hexdigest()
        self._store(address, len(data), lambda target: _write_all(target, data))
        return address

    def put_file(self, path: Path) -> str:
        """Store a file's content, piece by piece, and return its address.

        Raises:
            StorageError: It cannot be read, or as in :meth:`put`.
        """
        address, size = self._hash_and_size(path)
        self._store(address, size, lambda target: _copy(path, target, address))
        return address

    def put_files(self, paths: Sequence[Path]) -> list[str]:
        """Store many files, several at a time, and return their addresses in order.

        A disk that is waited for once for each file takes minutes for tens of thousands of them.

        Raises:
            StorageError: As :meth:`put_file`; some of the files may be stored then.
        """

        def put(path: Path) -> str:
            address, size = self._hash_and_size(path)
            copy = partial(_copy, path, address=address)
            self._store_here(address, size, copy, sync_folders=False)
            return address

        self.mark()
        # Not every file system of others can be used by several threads.
        n_threads = _FILES_AT_ONCE if self._local else 1
        with ThreadPoolExecutor(n_threads, thread_name_prefix="artifacts") as pool:
            addresses = list(pool.map(put, paths))
            if self._local and addresses:
                folders = {os.path.dirname(self._place_of(one)) for one in addresses}
                with self._errors("write", addresses[0]):
                    list(pool.map(_sync_folder, [*folders, self._root]))
        return addresses

    def put_pieces(self, address: str, pieces: Iterable[bytes]) -> None:
        """Store what comes in pieces under the address that it must have.

        Raises:
            ArtifactCorrupt: It has another hash; nothing was stored.
            StorageError: As :meth:`put`.
        """
        self._store(address, None, lambda target: _write_checked(pieces, target, address))

    def get(self, address: str) -> bytes:
        """Return an artifact's bytes.

        Raises:
            ArtifactNotFound: There is none of that address.
            ArtifactCorrupt: The file's content has another hash.
            StorageError: It cannot be read.
        """
        with self._errors("read", address), self._open(self._path(address)) as file:
            data = file.read()
        self._check(address, hashlib.sha256(data).hexdigest())
        return data

    @contextlib.contextmanager
    def open(self, address: str) -> Iterator[IO[bytes]]:
        """Open an artifact for reading after checking it piece by piece; for large ones.

        Raises:
            ArtifactNotFound, ArtifactCorrupt, StorageError: As :meth:`get`.
        """
        with contextlib.ExitStack() as stack:
            with self._errors("read", address):
                file = stack.enter_context(self._open(self._path(address)))
                found = hashlib.sha256()
                while piece := file.read(_PIECE_BYTES):
                    found.update(piece)
                file.seek(0)
            self._check(address, found.hexdigest())
            yield file

    def exists(self, address: str) -> bool:
        """Whether an artifact of that address is stored."""
        with self._errors("look for", address):
            return bool(self._files.isfile(self._path(address)))

    def addresses(self) -> Iterator[str]:
        """Addresses of all artifacts, in order."""
        self.verify()
        found = (_STORED.search(path) for path in self._listed(self._root))
        yield from sorted(match[1] + match[2] for match in found if match)

    def age_seconds(self, address: str) -> float:
        """How long ago the artifact was written, or put again.

        Raises:
            ArtifactNotFound, StorageError: As :meth:`get`.
        """
        with self._errors("look for", address):
            return self._age(self._path(address))

    def size_bytes(self, address: str) -> int:
        """Size of an artifact.

        Raises:
            ArtifactNotFound, StorageError: As :meth:`get`.
        """
        with self._errors("look for", address):
            return int(self._files.size(self._path(address)))

    def remove(self, address: str, *, grace_seconds: float = 0.0) -> bool:
        """Delete an artifact and say whether it was; one that is not there is no error.

        Args:
            address: Which one.
            grace_seconds: It stays if it was written or put again more recently than that, as a
                record may be about to refer to it.

        Raises:
            StorageError: It cannot be deleted.
        """
        path = self._path(address)
        try:
            with self._errors("remove", address):
                if self._age(path) < grace_seconds:
                    return False
                self._files.rm_file(path)
        except ArtifactNotFound:
            return False
        return True

    def remove_leftovers(self, *, grace_seconds: float) -> tuple[str, ...]:
        """Delete what killed processes left half-written, and return the names.

        Args:
            grace_seconds: Files that were written to more recently stay: somebody is at it.

        Raises:
            StorageError: One cannot be deleted.
        """
        self.verify()
        removed = []
        for path in sorted(self._listed(f"{self._root}/{_UNFINISHED}")):
            name = path.rsplit("/", 1)[1]
            # Not found: it was finished in this moment.
            with contextlib.suppress(ArtifactNotFound), self._errors("remove", name):
                if self._age(path) >= grace_seconds:
                    self._files.rm_file(path)
                    removed.append(name)
        return tuple(removed)

    def _path(self, address: str) -> str:
        if not _ADDRESS.fullmatch(address):
            raise BadInput(f"{address!r} is no artifact's address: 64 hexadecimal digits")
        self.verify()
        return self._place_of(address)

    def _place_of(self, address: str) -> str:
        return f"{self._root}/{address[:2]}/{address[2:]}"

    def _open(self, path: str) -> IO[bytes]:
        # Opening a pipe waits for somebody to write into it.
        if self._local and os.path.lexists(path):
            if os.path.exists(path) and not os.path.isfile(path):
                raise ArtifactCorrupt(f"{path} is no regular file; move it away")
            # Whoever made the folder may have laid it, to have files of others read.
            inside = os.path.join(os.path.realpath(self._root), "")
            if not os.path.realpath(path).startswith(inside):
                raise ArtifactCorrupt(f"{path} is a link out of the artifacts; move it away")
        opened: IO[bytes] = self._files.open(path, "rb")
        return opened

    def _store(self, address: str, size: int | None, write: Callable[[IO[bytes]], None]) -> None:
        self._path(address)
        self.mark()
        self._store_here(address, size, write)

    def _store_here(
        self,
        address: str,
        size: int | None,
        write: Callable[[IO[bytes]], None],
        *,
        sync_folders: bool = True,
    ) -> None:
        """Store in a place that was just found to be this registry's."""
        target = self._place_of(address)
        with self._errors("write", address):
            # Putting a damaged file's content again is the way to put it right.
            if self._files.isfile(target) and self._holds(target, address, size):
                self._renew(target)
            else:
                self._write_whole(target, write, sync_folders=sync_folders)

    def _write_whole(
        self, target: str, write: Callable[[IO[bytes]], None], *, sync_folders: bool = True
    ) -> None:
        """Write a file under a temporary name and give it its own when it is whole."""
        folder, name = target.rsplit("/", 1)
        unfinished = f"{self._root}/{_UNFINISHED}/{name[:12]}-{uuid.uuid4().hex}"
        try:
            self._files.makedirs(f"{self._root}/{_UNFINISHED}", exist_ok=True)
            self._files.makedirs(folder, exist_ok=True)
            with self._files.open(unfinished, "wb") as file:
                write(file)
                if self._local:
                    file.flush()
                    os.fsync(file.fileno())
            self._rename(unfinished, target, sync_folders=sync_folders)
        except BaseException:
            with contextlib.suppress(OSError):
                self._files.rm_file(unfinished)
            raise

    def _holds(self, path: str, address: str, size: int | None) -> bool:
        if size is not None and self._files.size(path) != size:
            return False
        found = hashlib.sha256()
        with self._files.open(path, "rb") as file:
            while piece := file.read(_PIECE_BYTES):
                found.update(piece)
        return found.hexdigest() == address

    def _rename(self, unfinished: str, target: str, *, sync_folders: bool) -> None:
        if not self._local:
            self._files.mv(unfinished, target)
            return
        os.replace(unfinished, target)
        if sync_folders:
            _sync_folder(os.path.dirname(target))
            _sync_folder(self._root)

    def _renew(self, path: str) -> None:
        """Make a file young again: ``gc`` leaves alone what a record may be about to refer to."""
        if self._local:
            os.utime(path)

    def _age(self, path: str) -> float:
        modified: datetime = self._files.modified(path)
        if modified.tzinfo is None:
            modified = modified.replace(tzinfo=UTC)
        return (datetime.now(UTC) - modified).total_seconds()

    def _listed(self, folder: str) -> list[str]:
        with self._errors("list", folder):
            try:
                return [str(path) for path in self._files.find(folder)]
            except FileNotFoundError:
                return []

    def _hash_and_size(self, path: Path) -> tuple[str, int]:
        try:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror or error}") from error

    def _check(self, address: str, found: str) -> None:
        if found != address:
            raise ArtifactCorrupt(
                f"artifact {address[:12]} in {shown_place(self._url)} has been changed (its content"
                f" hashes to {found[:12]}); put the original back or restore a backup"
            )

    @contextlib.contextmanager
    def _errors(self, doing: str, what: str) -> Iterator[None]:
        """Turn what file systems raise into our errors, one line each."""
        place = shown_place(self._url)
        try:
            yield
        except (StorageError, BadInput):
            raise
        except FileNotFoundError as error:
            raise ArtifactNotFound(f"no artifact {what[:12]} in {place}") from error
        except OSError as error:
            if error.errno in _IN_THE_WAY:
                reason = f"{_said(error)}; move away what is there"
                raise ArtifactCorrupt(f"cannot {doing} {what[:12]} in {place}: {reason}") from error
            reason = _FULL.get(error.errno or 0) or _said(error)
            raise StorageError(f"cannot {doing} {what[:12]} in {place}: {reason}") from error
        except Exception as error:  # every fsspec backend has errors of its own
            reason = first_line(error)
            raise StorageError(f"cannot {doing} {what[:12]} in {place}: {reason}") from error


_IN_THE_WAY = (
    errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP, errno.EIO,
)  # fmt: skip
"""What one bad file or folder among the artifacts brings; the others are to be had all the same."""
_FULL = {
    errno.ENOSPC: "the disk is full; free some space, or set CIRCUITS_ARTIFACTS to another place",
    errno.EDQUOT: "the disk quota is used up; free some space, or set CIRCUITS_ARTIFACTS to"
    " another place",
    errno.EFBIG: "the file would be larger than the system allows",
}


def _said(error: OSError) -> str:
    return scrubbed(error.strerror) if error.strerror else first_line(error)


def _encoded(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=1).encode() + b"\n"


def _write_all(target: IO[bytes], data: bytes) -> None:
    target.write(data)


def _copy(path: Path, target: IO[bytes], address: str) -> None:
    found: Any = hashlib.sha256()
    with path.open("rb") as source:
        while piece := source.read(_PIECE_BYTES):
            found.update(piece)
            target.write(piece)
    if found.hexdigest() != address:
        raise StorageError(f"{path} was changed while it was being stored; try again")


def _write_checked(pieces: Iterable[bytes], target: IO[bytes], address: str) -> None:
    found: Any = hashlib.sha256()
    for piece in pieces:
        found.update(piece)
        target.write(piece)
    if found.hexdigest() != address:
        raise ArtifactCorrupt(f"what was to be stored as {address[:12]} has another hash")


def _sync_folder(folder: str) -> None:
    """Make a rename durable; a record that refers to the file may be committed right after."""
    if os.name == "nt":  # Windows opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
