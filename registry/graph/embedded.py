"""The embedded graph: kglite in a separate process, connected by pipes.

The engine runs in another process for three reasons: ``import kglite`` fails in a process that has
imported TransformerLens; a fault in a native engine must not end a job; and a query that does not
stop can be stopped reliably by ending its process.

Only one process can write at a time. It works in memory until :meth:`EmbeddedGraph.checkpoint`;
readers see the last checkpoint.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from registry.errors import (
    GraphBusy,
    GraphError,
    GraphOutdated,
    GraphRefused,
    GraphUnavailable,
    QueryFailed,
    QueryTimeout,
    QueryTooLarge,
)
from registry.graph.base import GraphStore, Statement
from registry.graph.guard import guarded
from registry.graph.process import EngineProcess, deadline, seconds_left
from registry.graph.values import checked_parameters
from registry.rows import Rows

__all__ = ["EmbeddedGraph"]

_GRACE_SECONDS = 1.0
"""Time for the engine to stop at its own time limit before its process is ended."""


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
    # The engine copies its data of a label when a transaction first writes to the label, so a few
    # large transactions are faster: measured with 400 circuits, twice as fast with 40,000 rows as
    # with 5,000.
    rows_per_transaction = 50_000

    def __init__(self, path: Path, *, writing: bool) -> None:
        self._path = path
        self._writing = writing
        self._unsaved = False
        self._lost = ""
        self._loaded_bytes = 0
        self._worker: EngineProcess | None = None
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
        memory_bytes: int | None = None,
    ) -> Rows:
        """Answer a statement from the graph in memory (writer) or the last checkpoint (reader)."""
        ends_at = deadline(timeout_seconds)
        request = {"text": guarded(text), "parameters": checked_parameters(parameters or {})}
        most_bytes = self._most_bytes(memory_bytes, ends_at)
        reply = self._ask(
            "read", ends_at=ends_at, most_bytes=most_bytes,
            timeout_ms=_milliseconds(seconds_left(ends_at)), max_rows=max_rows, **request,
        )  # fmt: skip
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

    def _most_bytes(self, memory_bytes: int | None, ends_at: float | None) -> int | None:
        """Memory limit of the process while it answers: the graph, and ``memory_bytes`` more."""
        if self._ask("refresh", ends_at=ends_at)["loaded"] and self._worker is not None:
            # Only then: memory that a query has freed may stay with the process for the next one.
            self._loaded_bytes = self._worker.resident_bytes()
        return None if memory_bytes is None else self._loaded_bytes + memory_bytes

    def _ask(
        self,
        do: str,
        *,
        ends_at: float | None = None,
        most_bytes: int | None = None,
        **request: Any,
    ) -> dict[str, Any]:
        if self._lost:
            raise GraphUnavailable(self._lost)
        if self._worker is None:
            self._worker = self._opened()
        late = None if ends_at is None else ends_at + _GRACE_SECONDS
        try:
            reply = self._worker.ask({"do": do, **request}, ends_at=late, most_bytes=most_bytes)
        except BaseException as error:  # an interrupted wait also ends the process
            self._drop_dead_worker(str(error) or type(error).__name__)
            raise
        return self._answer(reply)

    def _opened(self) -> EngineProcess:
        worker = EngineProcess("registry.graph.worker", "the embedded graph engine")
        try:
            opening = {"do": "open", "path": str(self._path), "writing": self._writing}
            self._answer(worker.ask(opening))
        except BaseException:
            # Kept only after it has opened the file; after a refusal it is ended.
            worker.stop()
            raise
        return worker

    def _drop_dead_worker(self, why: str) -> None:
        if self._worker is not None and not self._worker.alive():
            self._worker.stop()
            self._worker = None
            if self._unsaved:
                # A new process would start from the checkpoint and silently lose these writes.
                self._lost = f"{why}; changes since the last checkpoint are lost"

    def _answer(self, reply: dict[str, Any]) -> dict[str, Any]:
        if "error" not in reply:
            return reply
        text = reply["text"]
        match reply["error"]:
            case "busy":
                raise GraphBusy(f"the graph {self._path} is in use: {text}")
            case "timeout":
                raise QueryTimeout(text)
            case "large":
                raise QueryTooLarge(text)
            case "outdated":
                raise GraphOutdated(
                    f"the graph {self._path} is not readable by this version of the embedded"
                    f" engine ({text}); 'circuits rebuild' makes it again"
                )
            case "foreign":
                raise GraphRefused(
                    f"{self._path} is not changed, because {text}; move it away, then 'circuits"
                    " sync' makes the graph again"
                )
            case "file":
                raise GraphError(f"the graph {self._path} could not be read or written: {text}")
            case _:
                raise QueryFailed(text)


def _milliseconds(left: float | None) -> int:
    """A time limit in the engine's form; 0 means no limit."""
    return 0 if left is None else max(1, round(left * 1000))
