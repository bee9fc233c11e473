"""The file system that artifacts are on: a local folder, or whatever fsspec reaches.

A remote one is asked in a thread of its own, and given up when it shows no sign of life: a server
that takes a connection and then says nothing would otherwise hold a command for ever. What it said
until then counts; a large file is read and written in pieces, each of which has that long.
"""

from __future__ import annotations

import queue
import re
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem
from typing_extensions import override

from registry.closing import Closing
from registry.credentials import has_stray_password, remember_secrets, scrubbed, shown_place
from registry.errors import BadInput, StorageError
from registry.file_urls import read_path

__all__ = ["PATIENCE_SECONDS", "FileSystem", "first_line", "open_file_system"]

PATIENCE_SECONDS = 60.0
"""How long a remote place may take for one request, or one piece of a file."""

_LISTING = 10
"""A listing may take so many times as long: it is one call, however many pages it fetches."""
_SLOWEST_BYTES_PER_SECOND = 100_000
_PIECE_BYTES = 1 << 20
_FOLDER_URL = re.compile(r"(?:file|local)://")


class FileSystem(NamedTuple):
    """Where files are.

    Attributes:
        files: fsspec's, or something that answers to the same calls.
        root: The folder, as ``files`` names it; without a slash at its end.
        is_local: Whether it is this machine's.
    """

    files: Any
    root: str
    is_local: bool


def open_file_system(url: str, *, patience_seconds: float = PATIENCE_SECONDS) -> FileSystem:
    """Find the file system of a folder's path or an fsspec URL.

    Args:
        url: Text without ``://`` is a path, whatever characters it has.
        patience_seconds: How long a remote place may show no sign of life.

    Raises:
        BadInput: fsspec has no such protocol, or lacks the package for it.
        StorageError: The place is asked at once, as FTP is, and does not answer.
    """
    if match := _FOLDER_URL.match(url):
        return _local(read_path(url[match.end() :], Path()))
    if "://" not in url:
        return _local(Path(url))
    remember_secrets(url)
    if has_stray_password(url):
        raise BadInput(
            f"artifacts cannot be kept at {shown_place(url)}: its port is no number; in a password,"
            " / is written %2F, ? is %3F, # is %23 and : is %3A"
        )
    caller = _Caller(shown_place(url), patience_seconds)
    try:
        # Not one that another store of this process was given, and perhaps gave up.
        files, root = caller.ask(fsspec.core.url_to_fs, url, skip_instance_cache=True)
    except StorageError:
        raise
    except (ImportError, ValueError) as error:
        raise BadInput(
            f"artifacts cannot be kept at {shown_place(url)}: {first_line(error)}"
        ) from error
    except Exception as error:  # a backend that connects at once, with errors of its own
        raise StorageError(f"no answer from {shown_place(url)}: {first_line(error)}") from error
    return FileSystem(_PatientFileSystem(files, caller), str(root).rstrip("/"), is_local=False)


def first_line(error: BaseException) -> str:
    """The first line that a library's error says, without secrets."""
    return (scrubbed(str(error)).splitlines() or [type(error).__name__])[0]


def _local(path: Path) -> FileSystem:
    return FileSystem(LocalFileSystem(), path.absolute().as_posix().rstrip("/"), is_local=True)


class _PatientFileSystem:
    """A file system whose every call ends: with its answer, or as a StorageError."""

    def __init__(self, files: AbstractFileSystem, caller: _Caller) -> None:
        self._files = files
        self._caller = caller

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._files, name)

        def ask(*arguments: Any, **named: Any) -> Any:
            return self._caller.ask(method, *arguments, **named)

        return ask

    def find(self, folder: str) -> Any:
        """List all files below a folder; first see whether anybody is there."""
        try:
            self._caller.ask(self._files.info, folder)
        except StorageError:
            raise
        except Exception:  # noqa: BLE001 - an answer, whatever it is; the listing says the same
            pass
        return self._caller.ask(self._files.find, folder, _times=_LISTING)

    def open(self, path: str, mode: str) -> _PatientFile:
        """Open a file, for reading or writing in pieces."""
        return _PatientFile(self._caller.ask(self._files.open, path, mode), self._caller)

    def mv(self, source: str, target: str) -> None:
        """Give a file another name."""
        if type(self._files).mv is not AbstractFileSystem.mv:
            self._caller.ask(self._files.mv, source, target)
            return
        # fsspec's own way takes "*" and "[" in a name for a pattern.
        n_bytes = self._caller.ask(self._files.size, source)
        self._caller.ask(self._files.cp_file, source, target, _n_bytes=n_bytes)
        self._caller.ask(self._files.rm_file, source)


class _PatientFile(Closing):
    """An open remote file."""

    def __init__(self, file: Any, caller: _Caller) -> None:
        self._file = file
        self._caller = caller
        # What a backend collects before it sends it, all within one call.
        self._n_bytes = int(getattr(file, "blocksize", None) or 0)

    def read(self, size: int = -1) -> bytes:
        """Read up to ``size`` bytes; all by default, piece by piece."""
        if size >= 0:
            return self._piece(size)
        pieces = []
        while piece := self._piece(_PIECE_BYTES):
            pieces.append(piece)
        return b"".join(pieces)

    def write(self, data: bytes) -> int:
        """Write bytes."""
        n_bytes = self._n_bytes + len(data)
        written: int = self._caller.ask(self._file.write, data, _n_bytes=n_bytes)
        return written

    def seek(self, place: int, whence: int = 0) -> int:
        """Go to a place in the file."""
        there: int = self._caller.ask(self._file.seek, place, whence)
        return there

    def tell(self) -> int:
        """Where in the file the next piece is read."""
        place: int = self._caller.ask(self._file.tell)
        return place

    @override
    def close(self) -> None:
        """Send what is left, and let go of the file."""
        self._caller.ask(self._file.close, _n_bytes=self._n_bytes)

    def _piece(self, size: int) -> bytes:
        piece: bytes = self._caller.ask(self._file.read, size, _n_bytes=self._n_bytes + size)
        return piece


class _Caller:
    """Calls functions one after the other in a thread, and waits only so long for each.

    A call that was given up still holds the connection, so no other is made after it. The thread
    does not keep the program from ending.
    """

    def __init__(self, place: str, patience_seconds: float) -> None:
        self._place = place
        self._patience_seconds = patience_seconds
        self._given_up = False
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        threading.Thread(target=_work, args=(self._calls,), daemon=True).start()
        weakref.finalize(self, self._calls.put, None)

    def ask(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        _n_bytes: int = 0,
        _times: int = 1,
        **named: Any,
    ) -> Any:
        """Call a function and return what it returns, or raise what it raises.

        Raises:
            StorageError: It took longer than it may.
        """
        if self._given_up:
            raise self._silent()
        call = _Call(lambda: function(*arguments, **named), queue.SimpleQueue())
        self._calls.put(call)
        limit = self._patience_seconds * _times + _n_bytes / _SLOWEST_BYTES_PER_SECOND
        try:
            value, error = call.answer.get(timeout=limit)
        except queue.Empty:
            self._given_up = True
            raise self._silent() from None
        except BaseException:  # interrupted: the call goes on, and the connection is in its middle
            self._given_up = True
            raise
        if error is not None:
            raise error
        return value

    def _silent(self) -> StorageError:
        return StorageError(
            f"no answer from {self._place} for {self._patience_seconds:g} s; look whether it can be"
            " reached, then run the command again"
        )


class _Call(NamedTuple):
    """A call to make, and where its value, or what it raised, goes."""

    make: Callable[[], Any]
    answer: queue.SimpleQueue[tuple[Any, BaseException | None]]


def _work(calls: queue.SimpleQueue[_Call | None]) -> None:
    while (call := calls.get()) is not None:
        try:
            call.answer.put((call.make(), None))
        except BaseException as error:  # noqa: BLE001 - whatever it is goes to the caller
            call.answer.put((None, error))
