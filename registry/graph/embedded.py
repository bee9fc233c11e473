"""The embedded graph: kglite in a process of its own, spoken to over its pipes.

The engine runs elsewhere because ``import kglite`` fails in a process that has imported
TransformerLens, because a fault in a native engine must not take a job down, and because a query
that does not stop can be stopped for good by ending its process.

One process writes at a time and works in memory until :meth:`EmbeddedGraph.checkpoint`; readers see
the last checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from registry.errors import (
    GraphBusy,
    GraphError,
    GraphOutdated,
    GraphUnavailable,
    QueryFailed,
    QueryTimeout,
)
from registry.graph.base import GraphStore, Statement
from registry.graph.guard import guarded
from registry.graph.values import checked_parameters
from registry.rows import Rows

__all__ = ["EmbeddedGraph"]

_HEADER = struct.Struct(">I")
_GRACE_SECONDS = 1.0
"""How long the engine may take to notice its own time limit before its process is ended."""
_EXIT_SECONDS = 5.0


class EmbeddedGraph(GraphStore):
    """A kglite file.

    Args:
        path: The graph file; it and its folder need not exist.
        writing: Hold the writer's lease. Readers take no lock.

    Raises:
        GraphBusy: Another process writes to the file.
        GraphOutdated: The file is of another version of the engine, or damaged.
        GraphUnavailable: The engine's process does not start.
    """

    engine = "kglite"
    reads_one_moment = True  # the last checkpoint
    # The engine copies what it holds of a label when a transaction first writes to it, so few large
    # transactions are quicker: measured with 400 circuits, by half from 5,000 rows to 40,000.
    rows_per_transaction = 50_000

    def __init__(self, path: Path, *, writing: bool) -> None:
        self._path = path
        self._writing = writing
        self._unsaved = False
        self._lost = ""
        self._worker: _Worker | None = None
        self._ask("version")

    def __repr__(self) -> str:
        return f"EmbeddedGraph({str(self._path)!r}, writing={self._writing})"

    def read(
        self,
        text: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        timeout_seconds: float | None = None,
        max_rows: int | None = None,
    ) -> Rows:
        """Answer a statement from the graph in memory (writer) or the last checkpoint (reader)."""
        reply = self._ask(
            "read",
            timeout_seconds=timeout_seconds,
            text=guarded(text),
            parameters=checked_parameters(parameters or {}),
            timeout_ms=0 if timeout_seconds is None else max(1, round(timeout_seconds * 1000)),
            max_rows=max_rows,
        )
        values = tuple(tuple(row) for row in reply["values"])
        return Rows(tuple(reply["columns"]), values, reply["truncated"])

    def write(self, statements: Iterable[Statement]) -> None:
        """Run statements in one transaction of the graph in memory."""
        self._refuse_reader()
        self._ask("begin")
        try:
            for one in statements:
                self._ask("run", text=one.text, parameters=dict(one.parameters))
            self._ask("commit")
        except BaseException:
            if self._worker is not None:
                with contextlib.suppress(GraphError):
                    self._ask("rollback")
            raise
        self._unsaved = True

    def clear(self) -> None:
        """Start over with an empty graph."""
        self._refuse_reader()
        self._ask("clear")
        self._unsaved = True

    def checkpoint(self) -> None:
        """Replace the file by the graph in memory, atomically, if anything was written."""
        if self._unsaved:
            self._ask("checkpoint")
            self._unsaved = False

    def version(self) -> str:
        """Name and version of the engine."""
        version: str = self._ask("version")["version"]
        return version

    def close(self) -> None:
        """End the engine's process, which releases the lease."""
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    def _refuse_reader(self) -> None:
        if not self._writing:
            raise GraphError(f"the graph {self._path} is open for reading only")

    def _ask(self, do: str, *, timeout_seconds: float | None = None, **request: Any) -> Any:
        if self._lost:
            raise GraphUnavailable(self._lost)
        try:
            if self._worker is None:
                worker = _Worker()
                # Kept only once it has opened the file; a refused one is ended.
                with _stopped_on_error(worker):
                    opening = {"do": "open", "path": str(self._path), "writing": self._writing}
                    self._answer(worker.ask(opening))
                self._worker = worker
            return self._answer(self._worker.ask({"do": do, **request}, timeout_seconds))
        except (GraphUnavailable, QueryTimeout) as error:
            self._drop_dead_worker(error)
            raise

    def _drop_dead_worker(self, error: GraphError) -> None:
        if self._worker is not None and not self._worker.alive():
            self._worker.stop()
            self._worker = None
            if self._unsaved:
                # A new process would start from the checkpoint, silently without these writes.
                self._lost = f"{error}; what was written since the last checkpoint is lost"

    def _answer(self, reply: dict[str, Any]) -> dict[str, Any]:
        if "error" not in reply:
            return reply
        text = reply["text"]
        match reply["error"]:
            case "busy":
                raise GraphBusy(f"the graph {self._path} is in use: {text}")
            case "timeout":
                raise QueryTimeout(text)
            case "outdated":
                raise GraphOutdated(
                    f"the graph {self._path} is not readable by this version of the embedded"
                    f" engine ({text}); it is made again by 'circuits rebuild'"
                )
            case "file":
                raise GraphError(f"the graph {self._path} could not be read or written: {text}")
            case _:
                raise QueryFailed(text)


class _Worker:
    """The child process and its pipes."""

    def __init__(self) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in stop()
        root = Path(__file__).resolve().parents[2]
        path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
        try:
            self._process = subprocess.Popen(
                # -P: a file kglite.py or json.py in the current folder is not the library.
                [sys.executable, "-P", "-m", "registry.graph.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env={**os.environ, "PYTHONPATH": path},
                # Ctrl-C is the parent's to handle; the child ends when its input does.
                start_new_session=True,
            )
        except OSError as error:
            self._errors.close()
            raise GraphUnavailable(f"the embedded graph engine does not start: {error}") from error

    def ask(
        self, request: Mapping[str, Any], timeout_seconds: float | None = None
    ) -> dict[str, Any]:
        """Send a request and wait for its answer; past the limit, end the process for good."""
        limit = None if timeout_seconds is None else timeout_seconds + _GRACE_SECONDS
        ends_at = None if limit is None else time.monotonic() + limit
        body = _encoded(request)
        try:
            self._stdin.write(_HEADER.pack(len(body)) + body)
            self._stdin.flush()
            (length,) = _HEADER.unpack(self._receive(_HEADER.size, ends_at))
            reply: dict[str, Any] = json.loads(self._receive(length, ends_at))
        except GraphError:  # among them QueryTimeout, which is an OSError too
            raise
        except (OSError, EOFError):
            raise GraphUnavailable(self._obituary()) from None
        except BaseException:
            # Interrupted in the middle of an answer, the pipe cannot be used again.
            self._process.kill()
            raise
        return reply

    def alive(self) -> bool:
        """Whether the process still runs and its pipes are in step."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End the process: by closing its input, else by force."""
        with contextlib.suppress(OSError):
            self._stdin.close()
        try:
            self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stdout.close()
        self._errors.close()

    @property
    def _stdin(self) -> Any:
        return self._process.stdin

    @property
    def _stdout(self) -> Any:
        return self._process.stdout

    def _receive(self, size: int, ends_at: float | None) -> bytes:
        descriptor, parts = self._stdout.fileno(), []
        while size:
            wait = None if ends_at is None else max(0.0, ends_at - time.monotonic())
            if not _readable(descriptor, wait):
                self._process.kill()
                self._process.wait()
                raise QueryTimeout("the query did not stop at its time limit and was ended")
            part = os.read(descriptor, min(size, 1 << 20))
            if not part:
                raise EOFError
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _obituary(self) -> str:
        self._process.kill()
        code = self._process.wait()
        self._errors.seek(0)
        last = self._errors.read().decode(errors="replace").strip().splitlines()[-1:]
        how = f"signal {-code}" if code < 0 else f"exit status {code}"
        return ": ".join([f"the embedded graph engine ended unexpectedly ({how})", *last])


def _readable(descriptor: int, wait: float | None) -> bool:
    # select.select() itself knows no descriptors beyond 1023.
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        return bool(selector.select(wait))


def _encoded(request: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(request, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise QueryFailed(f"a parameter is no value of the graph: {error}") from None


@contextlib.contextmanager
def _stopped_on_error(worker: _Worker) -> Any:
    try:
        yield
    except BaseException:
        worker.stop()
        raise
