"""The file system of the artifacts: a local folder, or any place that fsspec can use.

A remote place is called in a separate thread, and the call is abandoned if it does not answer.
Otherwise a server that accepts a connection and then sends nothing would block a command forever.
The limit applies to each call; a large file is read and written in pieces, with the limit for each.
"""

from __future__ import annotations

import queue
import re
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from typing_extensions import override

from registry.closing import Closing
from registry.credentials import has_stray_password, remember_secrets, scrubbed, shown_place
from registry.errors import BadInput, StorageError
from registry.settings.file_urls import read_path

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

__all__ = ["PATIENCE_SECONDS", "FileSystem", "first_line", "open_file_system"]

PATIENCE_SECONDS = 60.0
"""Maximum time of a remote place for one request, or one piece of a file."""

_LISTING = 10
"""Factor of the time limit for a listing, which is one call for any number of pages."""
_SLOWEST_BYTES_PER_SECOND = 100_000
_PIECE_BYTES = 1 << 20
_FOLDER_URL = re.compile(r"(?:file|local)://")


class FileSystem(NamedTuple):
    """The place of files.

    Attributes:
        files: fsspec's file system, or an object with the same methods.
        root: The folder, as ``files`` names it; without a slash at its end.
        is_local: Whether it is on this machine.
    """

    files: Any
    root: str
    is_local: bool


def open_file_system(url: str, *, patience_seconds: float = PATIENCE_SECONDS) -> FileSystem:
    """Find the file system of a folder's path or an fsspec URL.

    Args:
        url: Text without ``://`` is a path, with any characters.
        patience_seconds: Maximum time for a remote place to answer.

    Raises:
        BadInput: fsspec has no such protocol, or lacks the package for it.
        StorageError: The backend connects at once, as FTP does, and the place does not answer.
    """
    if match := _FOLDER_URL.match(url):
        return _local(read_path(url[match.end() :], Path()))
    if "://" not in url:
        return _local(Path(url))
    remember_secrets(url)
    if has_stray_password(url):
        raise BadInput(
            f"artifacts cannot be stored at {shown_place(url)}: its port is not a number; in a"
            " password, / is written %2F, ? is %3F, # is %23 and : is %3A"
        )
    import fsspec

    caller = _Caller(shown_place(url), patience_seconds)
    try:
        # A new one, because another store of this process may have abandoned the cached one.
        files, root = caller.ask(fsspec.core.url_to_fs, url, skip_instance_cache=True)
    except StorageError:
        raise
    except (ImportError, ValueError) as error:
        raise BadInput(
            f"artifacts cannot be stored at {shown_place(url)}: {first_line(error)}"
        ) from error
    except Exception as error:  # some backends connect at once, and have their own errors
        raise StorageError(f"no answer from {shown_place(url)}: {first_line(error)}") from error
    return FileSystem(_PatientFileSystem(files, caller), str(root).rstrip("/"), is_local=False)


def first_line(error: BaseException) -> str:
    """The first line of a library's error, without secrets."""
    return (scrubbed(str(error)).splitlines() or [type(error).__name__])[0]


def _local(path: Path) -> FileSystem:
    return FileSystem(_LocalFileSystem(), path.absolute().as_posix().rstrip("/"), is_local=True)


class _LocalFileSystem:
    """fsspec's local file system, imported when it is first used: most queries read no file."""

    def __getattr__(self, name: str) -> Any:
        from fsspec.implementations.local import LocalFileSystem

        return getattr(LocalFileSystem(), name)  # fsspec keeps one instance


class _PatientFileSystem:
    """A file system in which every call ends, with an answer or with a StorageError."""

    def __init__(self, files: AbstractFileSystem, caller: _Caller) -> None:
        self._files = files
        self._caller = caller

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._files, name)

        def ask(*arguments: Any, **named: Any) -> Any:
            return self._caller.ask(method, *arguments, **named)

        return ask

    def find(self, folder: str) -> Any:
        """List all files below a folder; first check that the place answers."""
        try:
            self._caller.ask(self._files.info, folder)
        except StorageError:
            raise
        except Exception:  # noqa: BLE001 - any error is an answer; the listing reports it again
            pass
        return self._caller.ask(self._files.find, folder, _times=_LISTING)

    def open(self, path: str, mode: str) -> _PatientFile:
        """Open a file, for reading or writing in pieces."""
        return _PatientFile(self._caller.ask(self._files.open, path, mode), self._caller)

    def mv(self, source: str, target: str) -> None:
        """Rename a file."""
        from fsspec.spec import AbstractFileSystem

        if type(self._files).mv is not AbstractFileSystem.mv:
            self._caller.ask(self._files.mv, source, target)
            return
        # fsspec's own method treats "*" and "[" in a name as a pattern.
        n_bytes = self._caller.ask(self._files.size, source)
        self._caller.ask(self._files.cp_file, source, target, _n_bytes=n_bytes)
        self._caller.ask(self._files.rm_file, source)


class _PatientFile(Closing):
    """An open remote file."""

    def __init__(self, file: Any, caller: _Caller) -> None:
        self._file = file
        self._caller = caller
        # A backend collects this amount before it sends it, within one call.
        self._n_bytes = int(getattr(file, "blocksize", None) or 0)

    def read(self, size: int = -1) -> bytes:
        """Read up to ``size`` bytes; all by default, in pieces."""
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
        """Move to a position in the file."""
        there: int = self._caller.ask(self._file.seek, place, whence)
        return there

    def tell(self) -> int:
        """Position of the next piece in the file."""
        place: int = self._caller.ask(self._file.tell)
        return place

    @override
    def close(self) -> None:
        """Send the rest, and close the file."""
        self._caller.ask(self._file.close, _n_bytes=self._n_bytes)

    def _piece(self, size: int) -> bytes:
        piece: bytes = self._caller.ask(self._file.read, size, _n_bytes=self._n_bytes + size)
        return piece


class _Caller:
    """Calls functions one after the other in a thread, with a time limit for each.

    An abandoned call still uses the connection, so no other call is made after it. The thread does
    not prevent the program from ending.
    """

    def __init__(self, place: str, patience_seconds: float) -> None:
        self._place = place
        self._patience_seconds = patience_seconds
        self._given_up = False
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        name = f"calls to {place}"
        threading.Thread(target=_work, args=(self._calls,), name=name, daemon=True).start()
        weakref.finalize(self, self._calls.put, None)

    def ask(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        _n_bytes: int = 0,
        _times: int = 1,
        **named: Any,
    ) -> Any:
        """Call a function and return its result, or raise its exception.

        Raises:
            StorageError: It exceeded the time limit.
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
        except BaseException:  # interrupted: the call continues and still uses the connection
            self._given_up = True
            raise
        if error is not None:
            raise error
        return value

    def _silent(self) -> StorageError:
        return StorageError(
            f"no answer from {self._place} for {self._patience_seconds:g} s; check that it can be"
            " reached, then run the command again"
        )


class _Call(NamedTuple):
    """A call to make, and the place of its result or exception."""

    make: Callable[[], Any]
    answer: queue.SimpleQueue[tuple[Any, BaseException | None]]


def _work(calls: queue.SimpleQueue[_Call | None]) -> None:
    while (call := calls.get()) is not None:
        try:
            call.answer.put((call.make(), None))
        except BaseException as error:  # noqa: BLE001 - every exception goes to the caller
            call.answer.put((None, error))
