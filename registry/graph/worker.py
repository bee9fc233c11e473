"""The embedded engine's own process: ``python -m registry.graph.worker``.

Answers the requests of :class:`registry.graph.embedded.EmbeddedGraph`, in the form of
:mod:`registry.graph.frames`. It holds one kglite graph and ends when its input ends. It imports
only the standard library and kglite, so it starts in a tenth of a second and cannot conflict with
the imports of a notebook.

Opened for writing, it holds the writer's lease of the file and works in memory; the file changes
only at a checkpoint, by an atomic rename. Opened for reading, it holds the last checkpoint and
loads a newer one if there is one.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kglite

from registry.graph.frames import Failure, Reply, serve

_ACTIONS = (
    "refresh", "read", "begin", "run", "commit", "rollback", "clear", "checkpoint", "version",
)  # fmt: skip
_MAGIC = b"RGF"
# The engine of a killed writer ends only after its present work; we wait for that.
_LEASE_PATIENCE_SECONDS = 5.0
_LEASE_POLL_SECONDS = 0.05


class Engine:
    """One graph file, opened for reading or writing."""

    def __init__(self, path: str, *, writing: bool) -> None:
        self._path = Path(path)
        self._writing = writing
        self._seen: tuple[int, int, int] | None = None
        self._graph = self._open_for_writing() if writing else kglite.KnowledgeGraph()
        # Holds the lease even if clear() replaces the graph.
        self._lease = self._graph
        self._transaction: Any = None

    def refresh(self, request: Reply) -> Reply:
        """Load the last checkpoint, if it is newer than the present one."""
        del request
        return {"loaded": not self._writing and self._take_newer_checkpoint()}

    def read(self, request: Reply) -> Reply:
        """Answer a statement in a read transaction."""
        transaction = self._graph.begin_read()
        try:
            # The engine's own parser decides whether a statement reads a file.
            if "csv" in request["text"].lower():
                _refuse_file_reading(transaction, request)
            answer = transaction.cypher(
                request["text"],
                params=request["parameters"],
                timeout_ms=request["timeout_ms"],
                row_limit=request["max_rows"],
            )
            return _rows(answer)
        finally:
            transaction.rollback()

    def begin(self, request: Reply) -> Reply:
        """Begin a transaction that writes; only one exists at a time."""
        self.rollback(request)
        self._transaction = self._graph.begin()
        return {}

    def run(self, request: Reply) -> Reply:
        """Run a statement in the transaction."""
        self._transaction.cypher(request["text"], params=request["parameters"], timeout_ms=0)
        return {}

    def commit(self, request: Reply) -> Reply:
        """Commit the transaction."""
        del request
        self._transaction.commit()
        self._transaction = None
        return {}

    def rollback(self, request: Reply) -> Reply:
        """Roll the transaction back, if there is one."""
        del request
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            transaction.rollback()
        return {}

    def clear(self, request: Reply) -> Reply:
        """Start over with an empty graph; the file keeps the last checkpoint until the next."""
        del request
        self._graph = kglite.KnowledgeGraph()
        return {}

    def checkpoint(self, request: Reply) -> Reply:
        """Write the file, whole or not at all."""
        del request
        self._graph.save(str(self._path))
        return {}

    def version(self, request: Reply) -> Reply:
        """Name the engine."""
        del request
        return {"version": f"kglite {kglite.__version__}"}

    def _open_for_writing(self) -> Any:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            _require_graph(self._path, self._path.stat())
        for ending in (".lock", ".lock-owner"):
            beside = Path(f"{self._path}{ending}")
            if beside.exists() and not beside.is_file():
                raise Failure("foreign", f"{beside.name} next to it is not a regular file")
        patience_ends = time.monotonic() + _LEASE_PATIENCE_SECONDS
        while True:
            try:
                return kglite.open(str(self._path), durable="off", lock=True)
            except kglite.WriterLeaseHeldError:
                if time.monotonic() > patience_ends:
                    raise
                time.sleep(_LEASE_POLL_SECONDS)

    def _take_newer_checkpoint(self) -> bool:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            self._graph, self._seen = kglite.KnowledgeGraph(), None
            return True
        _require_graph(self._path, status)
        # A checkpoint is renamed to the file's name, so a newer one has another inode.
        seen = (status.st_ino, status.st_mtime_ns, status.st_size)
        if seen == self._seen:
            return False
        self._graph = kglite.load(str(self._path))
        self._seen = seen
        return True


class Served:
    """The engine, after a request has opened it."""

    def __init__(self) -> None:
        self._engine: Engine | None = None

    def answer(self, request: Reply) -> Reply:
        """Carry out a request."""
        if self._engine is None:
            self._engine = Engine(request["path"], writing=request["writing"])
            return {}
        actions: dict[str, Callable[[Reply], Reply]] = {
            name: getattr(self._engine, name) for name in _ACTIONS
        }
        return actions[request["do"]](request)


def _require_graph(path: Path, status: os.stat_result) -> None:
    # Opening a pipe would wait for a writer; the engine opens its locks too.
    if not stat.S_ISREG(status.st_mode):
        raise Failure("foreign", "it is not a regular file")
    with path.open("rb") as file:
        start = file.read(len(_MAGIC))
    if start and start != _MAGIC:
        raise Failure("foreign", "it is not a graph file, or it is damaged")


def _refuse_file_reading(transaction: Any, request: Reply) -> None:
    if request["text"].lstrip()[:7].upper() in {"EXPLAIN", "PROFILE"}:
        return
    plan = transaction.cypher("EXPLAIN " + request["text"], params=request["parameters"])
    if any("csv" in str(step.get("operation")).lower() for step in plan.to_list()):
        raise Failure("query", "LOAD CSV is not allowed: a query must not load files or addresses")


def _rows(answer: Any) -> Reply:
    if isinstance(answer, str):
        raise Failure("query", "FORMAT CSV is not accepted in a statement; use --format csv")
    columns = list(answer.columns)
    values = [[row[column] for column in columns] for row in answer.to_list()]
    total = (answer.diagnostics or {}).get("total_rows")
    return {"columns": columns, "values": values, "truncated": total is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    return str(value)


_KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("busy", ("WriterLeaseHeldError",)),
    ("timeout", ("CypherTimeoutError",)),
    ("outdated", ("FileFormatError",)),
    ("file", ("FileIoError", "FileError", "LoadMemoryLimitError")),
)


def _explain(error: BaseException) -> Failure:
    return Failure(_kind(error), _text(error))


def _kind(error: BaseException) -> str:
    for kind, names in _KINDS:
        if isinstance(error, tuple(getattr(kglite, name) for name in names)):
            return kind
    if isinstance(error, OSError):
        return "file"
    return "query"


def _text(error: BaseException) -> str:
    if isinstance(error, kglite.WriterLeaseHeldError):
        holder = error.holder.get("pid")
        return f"process {holder} is writing to it" if holder else "another process writes to it"
    if isinstance(error, kglite.CypherTimeoutError):
        return "the query was stopped at its time limit; request less, or allow more time"
    if isinstance(error, kglite.ReadOnlyError):
        return "a query may only read; only the registry writes to the graph"
    # The engine's message continues with the statement and a caret; the first line is enough.
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def main() -> None:
    """Serve on the process's own standard input and output."""
    kglite.set_query_warning_policy("silent")
    serve(Served().answer, _explain, _plain)


if __name__ == "__main__":
    main()
