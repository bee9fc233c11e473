"""A process that holds an engine or a driver, from the caller's side.

A separate process can be stopped reliably: at a deadline, or if it takes too much memory. A fault
in native code, or a malicious answer, ends only that process and not the calling job.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.errors import GraphError, GraphUnavailable, QueryFailed, QueryTimeout, QueryTooLarge
from registry.graph.frames import HEADER

__all__ = ["EngineProcess", "deadline", "seconds_left"]

_EXIT_SECONDS = 5.0
_PIECE_BYTES = 1 << 20
_MOST_REQUEST_BYTES = 2**32 - 1  # maximum of a frame's header
_PROC = Path("/proc")
_HAS_PROC = (_PROC / "self" / "statm").exists()
# Engines can take 0.6 GB a second; without /proc, ps costs one process for each check.
_LOOK_SECONDS = 0.05 if _HAS_PROC else 0.5
_ASK_ELSEWHERE_SECONDS = 10.0


def deadline(timeout_seconds: float | None) -> float | None:
    """The moment by the monotonic clock at which a call that starts now must end."""
    return None if timeout_seconds is None else time.monotonic() + timeout_seconds


def seconds_left(ends_at: float | None) -> float | None:
    """The remaining time of a time limit; None if there is none.

    Raises:
        QueryTimeout: No time remains.
    """
    if ends_at is None:
        return None
    left = ends_at - time.monotonic()
    if left <= 0:
        raise QueryTimeout("the time limit was over before the query began; allow more time")
    return left


class EngineProcess:
    """A child process and its pipes.

    Args:
        module: Module that it runs, which uses :func:`registry.graph.frames.serve`.
        name: Name for error messages.

    Raises:
        GraphUnavailable: It does not start.
    """

    def __init__(self, module: str, name: str) -> None:
        self.name = name
        self._owner = os.getpid()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in stop()
        root = Path(__file__).resolve().parents[2]
        path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
        try:
            self._process = subprocess.Popen(
                # -P: a file kglite.py or json.py in the current folder is not the library.
                [sys.executable, "-P", "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                # Of a panic, only the line with its reason is needed.
                env={**os.environ, "PYTHONPATH": path, "RUST_BACKTRACE": "0"},
                # Ctrl-C is handled by the parent; the child ends with its input.
                start_new_session=True,
            )
        except OSError as error:
            self._errors.close()
            raise GraphUnavailable(f"{name} does not start: {error}") from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        os.set_blocking(self._stdin.fileno(), False)

    def ask(
        self,
        request: Mapping[str, Any],
        *,
        ends_at: float | None = None,
        most_bytes: int | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> dict[str, Any]:
        """Send a request and wait for its answer; if the wait is interrupted, the process ends.

        Args:
            request: Values that JSON can hold.
            ends_at: Deadline by the monotonic clock; None for no limit.
            most_bytes: Memory limit of the process meanwhile; None for no limit.
            meanwhile: Called every ten seconds without an answer; an exception ends the wait.

        Raises:
            QueryFailed: The request holds values that JSON cannot hold.
            QueryTimeout: No answer until ``ends_at``.
            QueryTooLarge: The process used more memory than ``most_bytes``.
            GraphUnavailable: The process ended by itself.
        """
        body = _encoded(request)
        watch = _Watch(self._process.pid, ends_at, most_bytes, meanwhile)
        try:
            self._send(HEADER.pack(len(body)) + body, watch)
            (length,) = HEADER.unpack(self._receive(HEADER.size, watch))
            reply: dict[str, Any] = json.loads(self._receive(length, watch))
        except GraphError:  # QueryTimeout is one, and also an OSError
            self.kill()
            raise
        except (OSError, EOFError):
            raise GraphUnavailable(self._obituary()) from None
        except BaseException:
            # After an interruption in the middle of an answer, the pipe cannot be used again.
            self.kill()
            raise
        return reply

    def alive(self) -> bool:
        """Whether the process is running and belongs to this process; a fork has none."""
        return self._owner == os.getpid() and self._process.poll() is None

    def resident_bytes(self) -> int:
        """Memory that it holds now; 0 if that is unknown."""
        return _resident_bytes(self._process.pid)

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End the process: by closing its input, else by force; safe to repeat."""
        with contextlib.suppress(OSError):
            self._stdin.close()
        try:
            self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self._stdout.close()
        self._errors.close()

    def _send(self, data: bytes, watch: _Watch) -> None:
        # Not a blocking write: a process that does not read would block beyond any limit.
        descriptor, rest = self._stdin.fileno(), memoryview(data)
        while rest:
            watch.wait(descriptor, selectors.EVENT_WRITE)
            with contextlib.suppress(BlockingIOError):
                rest = rest[os.write(descriptor, rest[:_PIECE_BYTES]) :]

    def _receive(self, size: int, watch: _Watch) -> bytes:
        descriptor, parts = self._stdout.fileno(), []
        while size:
            watch.wait(descriptor, selectors.EVENT_READ)
            part = os.read(descriptor, min(size, _PIECE_BYTES))
            if not part:
                raise EOFError
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _obituary(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_EXIT_SECONDS)  # its exit status gives more information
        self.kill()
        code = self._process.returncode
        self._errors.seek(0)
        last = self._errors.read().decode(errors="replace").strip().splitlines()[-1:]
        how = f"signal {-code}" if code < 0 else f"exit status {code}"
        return ": ".join([f"{self.name} ended unexpectedly ({how})", *last])


@dataclass(slots=True)
class _Watch:
    """The limits of a wait for a process."""

    pid: int
    ends_at: float | None
    most_bytes: int | None
    meanwhile: Callable[[], None] | None

    def wait(self, descriptor: int, event: int) -> None:
        """Wait until a pipe is ready, within all limits."""
        began = time.monotonic()
        # select.select() does not support descriptors above 1023.
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, event)
            while not selector.select(self._patience()):
                self._check_time()
                self._check_memory()
                if self.meanwhile and time.monotonic() - began > _ASK_ELSEWHERE_SECONDS:
                    self.meanwhile()
                    began = time.monotonic()

    def _patience(self) -> float:
        longest = _ASK_ELSEWHERE_SECONDS if self.most_bytes is None else _LOOK_SECONDS
        if self.ends_at is None:
            return longest
        return min(longest, max(0.0, self.ends_at - time.monotonic()))

    def _check_time(self) -> None:
        if self.ends_at is not None and time.monotonic() >= self.ends_at:
            raise QueryTimeout("the query did not stop at its time limit and was ended")

    def _check_memory(self) -> None:
        if self.most_bytes is not None and _resident_bytes(self.pid) > self.most_bytes:
            raise QueryTooLarge(
                f"the query used more memory than allowed ({self.most_bytes / 1e9:.1f} GB with all"
                f" loaded data) and was ended; request less, or allow more"
            )


def _resident_bytes(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError):
        if _HAS_PROC:
            pages = (_PROC / str(pid) / "statm").read_bytes().split()[1]
            return int(pages) * os.sysconf("SC_PAGE_SIZE")
        answer = subprocess.run(
            ["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, check=False
        ).stdout
        return int(answer) * 1024
    return 0


def _encoded(request: Mapping[str, Any]) -> bytes:
    try:
        body = json.dumps(request, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise QueryFailed(f"a parameter is not a value of the graph: {error}") from None
    if len(body) > _MOST_REQUEST_BYTES:
        raise QueryTooLarge(f"the parameters have {len(body) / 1e9:.1f} GB; 4 GB are allowed")
    return body
