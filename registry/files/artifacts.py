"""Immutable files named by their SHA-256, in a folder or any place that fsspec can use.

``ab/cdef...`` has the bytes whose hash is ``abcdef...``. A file is written under a temporary name
and renamed when it is complete, so every file named by a hash has that hash. Reading checks it
again, because disks and people change files.

A store belongs to one registry: ``registry.json`` names the registry, and the ledgers (the
registry's and its restored copies') that store files here. It is written before the first file.
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
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

from registry.credentials import scrubbed, shown_place
from registry.errors import (
    ArtifactCorrupt,
    ArtifactNotFound,
    BadInput,
    StorageError,
    StoreRefused,
)
from registry.files.durability import CAN_SYNC_FILE_SYSTEM, sync_file_system, sync_folder
from registry.files.file_systems import PATIENCE_SECONDS, first_line, open_file_system

__all__ = ["UNFINISHED", "ArtifactStore", "FilesBeingPut", "StoreOwner"]

_T = TypeVar("_T")

_ADDRESS = re.compile(r"[0-9a-f]{64}")
_STORED = re.compile(r"(?:^|/)([0-9a-f]{2})/([0-9a-f]{62})\Z")
UNFINISHED = ".unfinished"
"""Folder for files while they are written; ``gc`` removes the files of killed processes."""
_MARK = "registry.json"
_UNKNOWN_COPIES = "copies-from-before-there-were-marks"
_MOST_OF_A_MARK = 1 << 20
_PIECE_BYTES = 1 << 20
_FILES_AT_ONCE = 8
"""Number of files written at the same time. If several threads wait for a disk, it writes their
files together."""


@dataclass(frozen=True, slots=True)
class StoreOwner:
    """The owner of a store.

    Attributes:
        registry: The registry's id.
        instances: Instances of the ledgers that store files in it: the registry's and its copies'.
        ledgers: Their addresses: a copied file has the same instance at another address.
    """

    registry: str
    instances: tuple[str, ...]
    ledgers: tuple[str, ...] = ()

    def joined(self, other: StoreOwner) -> StoreOwner:
        """This owner together with the facts of the other one."""
        return StoreOwner(
            self.registry,
            tuple(dict.fromkeys([*self.instances, *other.instances])),
            tuple(dict.fromkeys([*self.ledgers, *other.ledgers])),
        )


class FilesBeingPut:
    """Files that an :class:`ArtifactStore` stores in the background.

    Args:
        put: Writes one file.
        settle: Renames files to their names and makes them durable.
        discard: Deletes a file that still has its temporary name.
        n_threads: Number of files that are written at the same time.
    """

    def __init__(
        self,
        put: Callable[[Path], _PutFile],
        settle: Callable[[Sequence[_PutFile]], None],
        discard: Callable[[_PutFile], None],
        n_threads: int,
    ) -> None:
        self._put, self._settle, self._discard = put, settle, discard
        self._pool = ThreadPoolExecutor(n_threads, thread_name_prefix="artifacts")
        self._futures: list[Future[_PutFile]] = []

    def put(self, path: Path) -> None:
        """Begin to store a file."""
        self._futures.append(self._pool.submit(self._put, path))

    def addresses(self) -> list[str]:
        """Wait until all are stored and durable, and return their addresses in order.

        Raises:
            StorageError: As for :meth:`ArtifactStore.put_file`; then none or only some are stored.
        """
        files = [one.result() for one in self._futures]
        self._settle(files)
        self._futures = []
        return [one.address for one in files]

    def close(self) -> None:
        """Stop storing, and delete files with temporary names; nothing can be put afterwards."""
        self._pool.shutdown(cancel_futures=True)
        for one in self._futures:
            if not one.cancelled() and one.exception() is None:
                self._discard(one.result())


class _PutFile(NamedTuple):
    """A written file; ``unfinished`` is its temporary path, until it has its own name."""

    address: str
    unfinished: str | None = None


class ArtifactStore:
    """The artifacts of one registry; any number of processes may read and write.

    Args:
        url: A folder's path or an fsspec URL (``file:///data``, ``s3://bucket/prefix``); the
            folder is made when the first artifact is put.
        patience_seconds: Maximum time for a remote place to answer.

    Raises:
        BadInput: fsspec has no such protocol, or lacks the package for it.
        StorageError: The backend connects at once, as FTP does, and the place does not answer.
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

    # -- owner ---------------------------------------------------------------------------------

    def claim(self, registry: str, instance: str, ledger: str = "") -> None:
        """Set the ledger that uses the store; the first use refuses a store of another registry.

        Args:
            registry: Id of the registry.
            instance: The ledger's instance; see :attr:`registry.ledger.base.Ledger.instance`.
            ledger: Its address, without secrets.
        """
        self._claimed = StoreOwner(registry, (instance,), (ledger,) if ledger else ())
        self._verified = self._marked = False

    def owner(self) -> StoreOwner | None:
        """The owner of the store by its mark; None without a mark.

        Raises:
            StoreRefused: The file with the name of the mark is not a mark.
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
                f"{shown_place(self._url)} has a {_MARK} that is not a mark; delete that file, then"
                " 'circuits migrate' marks the artifacts again"
            ) from error

    def holds_anything(self) -> bool:
        """Whether there is any file except the mark.

        Raises:
            StorageError: The place cannot be listed.
        """
        inside = (path[len(self._root) :].lstrip("/") for path in self._listed(self._root))
        return any(path != _MARK and not path.startswith(f"{UNFINISHED}/") for path in inside)

    def verify(self, known: Callable[[], frozenset[str]] = frozenset) -> None:
        """Check that the store belongs to the claiming registry, or is empty; changes nothing.

        Args:
            known: Returns addresses of the registry's artifacts. A store without a mark belongs to
                the registry if it has one of them.

        Raises:
            StoreRefused: It belongs to another registry, or has files without a mark.
            StorageError: It cannot be read.
        """
        if self._claimed is None or self._verified:
            return
        found = self.owner()
        if found is None and self.holds_anything() and not any(map(self._has, known())):
            raise StoreRefused(
                f"{shown_place(self._url)} holds files without the mark of a registry ({_MARK});"
                " give the artifacts a separate place. If the registry is older than marks,"
                " 'circuits migrate' marks the artifacts"
            )
        if found is not None and found.registry != self._claimed.registry:
            if self.holds_anything():
                raise StoreRefused(
                    f"the artifacts in {shown_place(self._url)} belong to registry"
                    f" {found.registry[:12]}, not to {self._claimed.registry[:12]}; name this"
                    " registry's own place by --artifacts"
                )
            found = None  # the registry that marked it has left nothing there
        self._marked = found is not None and found == found.joined(self._claimed)
        self._verified = True

    def verify_again(self) -> None:
        """Like :meth:`verify`, even for a verified store: its owner may have changed."""
        self._verified = False
        self.verify()

    def mark(self) -> None:
        """Write the mark if this ledger is not in it; storing a file does this automatically.

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
        """Mark a store of a registry that was made before stores had marks.

        It is unknown whether other copies store files there; the mark records this.

        Args:
            known: Returns the addresses that the registry refers to; one of them must be here.
        """
        if self._claimed is None:
            return
        if self.owner() is not None:
            self.mark()
        elif self.holds_anything() and any(map(self._has, known())):
            self._write_mark(self._claimed.joined(StoreOwner("", (_UNKNOWN_COPIES,))))

    def has_other_copies(self) -> bool:
        """Whether other ledgers may store files here: restored, copied or moved ones."""
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
        """Store bytes, unless they exist already, and return their address.

        Raises:
            StorageError: The disk is full, permission is missing, or the place does not answer;
                then no file with the address exists.
        """
        address = hashlib.sha256(data).hexdigest()
        self._store(address, len(data), lambda target: _write_all(target, data))
        return address

    def put_file(self, path: Path) -> str:
        """Store a file's content in pieces, and return its address.

        Raises:
            StorageError: It cannot be read, or as in :meth:`put`.
        """
        address, size = self._hash_and_size(path)
        self._store(address, size, lambda target: _copy(path, target, address))
        return address

    def putting_files(self) -> FilesBeingPut:
        """Store many files in the background, several at a time.

        Waiting for the disk after each file takes minutes for tens of thousands of files.

        Raises:
            StorageError: As for :meth:`put_file`.
        """
        self.mark()
        # Some remote file systems cannot be used by several threads.
        n_threads = _FILES_AT_ONCE if self._local else 1
        return FilesBeingPut(self._put_unsettled, self._settle, self._discard, n_threads)

    def _put_unsettled(self, path: Path) -> _PutFile:
        """Write a file into a store that :meth:`mark` has marked."""
        write: Callable[[IO[bytes]], None]
        if (data := _read_small(path)) is not None:
            address, size = hashlib.sha256(data).hexdigest(), len(data)
            write = partial(_write_all, data=data)
        else:
            address, size = self._hash_and_size(path)
            write = partial(_copy, path, address=address)
        target = self._place_of(address)
        with self._errors("write", address):
            if self._is_kept(target, address, size):
                return _PutFile(address)
            if self._local and CAN_SYNC_FILE_SYSTEM:
                return _PutFile(address, self._write_unfinished(target, write, sync=False))
            self._write_whole(target, write)
            return _PutFile(address)

    def _settle(self, files: Sequence[_PutFile]) -> None:
        """Rename files once they are on the disk; after a power cut, every name has its content."""
        written = [one for one in files if one.unfinished is not None]
        if not written:
            return
        with self._errors("write", written[0].address):
            sync_file_system(self._root)
            for one in written:
                target = self._place_of(one.address)
                _in_a_folder(target, partial(os.replace, str(one.unfinished), target))
            sync_file_system(self._root)

    def _discard(self, file: _PutFile) -> None:
        if file.unfinished is not None:
            with contextlib.suppress(OSError):
                os.unlink(file.unfinished)

    def put_pieces(self, address: str, pieces: Iterable[bytes]) -> None:
        """Store a content that arrives in pieces, under the address that it must have.

        Raises:
            ArtifactCorrupt: It has another hash; nothing was stored.
            StorageError: As :meth:`put`.
        """
        self._store(address, None, lambda target: _write_checked(pieces, target, address))

    def get(self, address: str) -> bytes:
        """Return an artifact's bytes.

        Raises:
            ArtifactNotFound: No artifact has that address.
            ArtifactCorrupt: The file's content has another hash.
            StorageError: It cannot be read.
        """
        with self._errors("read", address), self._open(self._path(address)) as file:
            data = file.read()
        self._check(address, hashlib.sha256(data).hexdigest())
        return data

    @contextlib.contextmanager
    def open(self, address: str) -> Iterator[IO[bytes]]:
        """Check an artifact in pieces and open it for reading; for large artifacts.

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
        """Time since the artifact was last written or put.

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
        """Delete an artifact; return whether it was deleted. A missing one is not an error.

        Args:
            address: Address of the artifact.
            grace_seconds: It is kept if it was written or put more recently than this, because a
                record that refers to it may be about to be written.

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

    def leftovers(self, *, grace_seconds: float) -> dict[str, int]:
        """Sizes in bytes of incomplete files of killed processes, by their names, in order.

        Args:
            grace_seconds: Files written more recently are omitted: a process may be writing them.

        Raises:
            StorageError: They cannot be listed.
        """
        self.verify()
        found = {}
        for path in sorted(self._listed(f"{self._root}/{UNFINISHED}")):
            name = path.rsplit("/", 1)[1]
            # Not found: its writer has just finished it.
            with contextlib.suppress(ArtifactNotFound), self._errors("look for", name):
                if self._age(path) >= grace_seconds:
                    found[name] = int(self._files.size(path))
        return found

    def remove_leftovers(self, *, grace_seconds: float) -> tuple[str, ...]:
        """Delete incomplete files of killed processes, and return their names.

        Args:
            grace_seconds: Files written more recently are kept: a process may be writing them.

        Raises:
            StorageError: One cannot be deleted.
        """
        removed = []
        for name in self.leftovers(grace_seconds=grace_seconds):
            # Not found: its writer has just finished it, or another process has deleted it.
            with contextlib.suppress(ArtifactNotFound), self._errors("remove", name):
                self._files.rm_file(f"{self._root}/{UNFINISHED}/{name}")
                removed.append(name)
        return tuple(removed)

    def _path(self, address: str) -> str:
        if not _ADDRESS.fullmatch(address):
            raise BadInput(f"{address!r} is not an artifact's address: 64 hexadecimal digits")
        self.verify()
        return self._place_of(address)

    def _place_of(self, address: str) -> str:
        return f"{self._root}/{address[:2]}/{address[2:]}"

    def _open(self, path: str) -> IO[bytes]:
        # Opening a pipe would wait for a writer.
        if self._local and os.path.lexists(path):
            if os.path.exists(path) and not os.path.isfile(path):
                raise ArtifactCorrupt(f"{path} is not a regular file; move it away")
            # The person who made the folder may have put the link there, so that a secret file is
            # read.
            inside = os.path.join(os.path.realpath(self._root), "")
            if not os.path.realpath(path).startswith(inside):
                raise ArtifactCorrupt(f"{path} is a link out of the artifacts; move it away")
        opened: IO[bytes] = self._files.open(path, "rb")
        return opened

    def _store(self, address: str, size: int | None, write: Callable[[IO[bytes]], None]) -> None:
        target = self._path(address)
        self.mark()
        with self._errors("write", address):
            if not self._is_kept(target, address, size):
                self._write_whole(target, write)

    def _is_kept(self, target: str, address: str, size: int | None) -> bool:
        """Return whether the file exists and is undamaged; if so, its age is reset.

        A damaged file is repaired by storing its content again.
        """
        is_file = os.path.isfile if self._local else self._files.isfile
        if not (is_file(target) and self._holds(target, address, size)):
            return False
        self._renew(target)
        return True

    def _write_whole(self, target: str, write: Callable[[IO[bytes]], None]) -> None:
        """Write a file under a temporary name, and rename it when it is complete."""
        unfinished = self._write_unfinished(target, write, sync=True)
        try:
            self._rename(unfinished, target)
        except BaseException:
            with contextlib.suppress(OSError):
                self._files.rm_file(unfinished)
            raise

    def _write_unfinished(
        self, target: str, write: Callable[[IO[bytes]], None], *, sync: bool
    ) -> str:
        """Write a file under a temporary name."""
        folder, name = target.rsplit("/", 1)
        unfinished = f"{self._root}/{UNFINISHED}/{name[:12]}-{uuid.uuid4().hex}"
        try:
            if not self._local:
                self._files.makedirs(f"{self._root}/{UNFINISHED}", exist_ok=True)
                self._files.makedirs(folder, exist_ok=True)
            with self._created(unfinished) as file:
                write(file)
                if self._local and sync:
                    file.flush()
                    os.fsync(file.fileno())
        except BaseException:
            with contextlib.suppress(OSError):
                self._files.rm_file(unfinished)
            raise
        return unfinished

    def _created(self, path: str) -> IO[bytes]:
        """Open a new file."""
        if self._local:  # fsspec takes four times as long, which matters for many small files
            return _in_a_folder(path, lambda: open(path, "xb"))
        opened: IO[bytes] = self._files.open(path, "wb")
        return opened

    def _holds(self, path: str, address: str, size: int | None) -> bool:
        if size is not None and self._files.size(path) != size:
            return False
        found = hashlib.sha256()
        with self._files.open(path, "rb") as file:
            while piece := file.read(_PIECE_BYTES):
                found.update(piece)
        return found.hexdigest() == address

    def _rename(self, unfinished: str, target: str) -> None:
        if not self._local:
            self._files.mv(unfinished, target)
            return
        _in_a_folder(target, partial(os.replace, unfinished, target))
        sync_folder(os.path.dirname(target))
        sync_folder(self._root)

    def _renew(self, path: str) -> None:
        """Reset a file's age: ``gc`` keeps recent files, which a record may soon refer to."""
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
                f" hashes to {found[:12]}); restore the original or a backup"
            )

    @contextlib.contextmanager
    def _errors(self, doing: str, what: str) -> Iterator[None]:
        """Turn errors of file systems into our errors, one line each."""
        place = shown_place(self._url)
        try:
            yield
        except (StorageError, BadInput):
            raise
        except FileNotFoundError as error:
            raise ArtifactNotFound(f"no artifact {what[:12]} in {place}") from error
        except OSError as error:
            if error.errno in _IN_THE_WAY:
                reason = f"{_said(error)}; move the file or folder away"
                raise ArtifactCorrupt(f"cannot {doing} {what[:12]} in {place}: {reason}") from error
            reason = _FULL.get(error.errno or 0) or _said(error)
            raise StorageError(f"cannot {doing} {what[:12]} in {place}: {reason}") from error
        except Exception as error:  # every fsspec backend has its own errors
            reason = first_line(error)
            raise StorageError(f"cannot {doing} {what[:12]} in {place}: {reason}") from error


_IN_THE_WAY = (
    errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP, errno.EIO,
)  # fmt: skip
"""Errors of one bad file or folder among the artifacts; the others can still be read."""
_FULL = {
    errno.ENOSPC: "the disk is full; free some space, or set CIRCUITS_ARTIFACTS to another place",
    errno.EDQUOT: "the disk quota is exhausted; free some space, or set CIRCUITS_ARTIFACTS to"
    " another place",
    errno.EFBIG: "the file would be larger than the system allows",
}


def _said(error: OSError) -> str:
    return scrubbed(error.strerror) if error.strerror else first_line(error)


def _in_a_folder(path: str, make: Callable[[], _T]) -> _T:
    """Make a local file; its folder first if it does not exist."""
    try:
        return make()
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return make()


def _encoded(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=1).encode() + b"\n"


def _read_small(path: Path) -> bytes | None:
    """A file's content, read at once; None for a large file, which could fill the memory.

    Raises:
        StorageError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_PIECE_BYTES + 1)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    return data if len(data) <= _PIECE_BYTES else None


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
        raise ArtifactCorrupt(f"the content to be stored as {address[:12]} has another hash")
