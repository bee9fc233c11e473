"""The embedded engine's own process: ``python -m registry.graph.worker``.

Reads requests from standard input and answers on standard output, each a frame of four bytes
(length, big-endian) and that much JSON. It holds one kglite graph, ends when its input ends, and
imports nothing but the standard library and kglite, so that it starts in a tenth of a second and
cannot clash with what a notebook has imported.

Opened for writing it holds the writer's lease of the file and works in memory; the file changes
only at a checkpoint, by an atomic rename. Opened for reading it holds the last checkpoint and takes
a newer one when there is one.

A failure is answered as ``{"error": KIND, "text": ...}`` with one of the kinds that
``registry.graph.embedded`` turns into errors.
"""

from __future__ import annotations

import datetime
import json
import os
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import kglite

_HEADER = struct.Struct(">I")
_ACTIONS = (
    "read", "begin", "run", "commit", "rollback", "clear", "checkpoint", "version",
)  # fmt: skip
# A killed writer's engine ends only when it has done what it was doing; that is waited for.
_LEASE_PATIENCE_SECONDS = 5.0
_LEASE_POLL_SECONDS = 0.05
Reply = dict[str, Any]


class Failure(Exception):
    """An expected failure, with its kind."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(kind, text)
        self.kind, self.text = kind, text


class Engine:
    """One graph file, opened for reading or writing."""

    def __init__(self, path: str, *, writing: bool) -> None:
        self._path = Path(path)
        self._writing = writing
        self._seen: tuple[int, int, int] | None = None
        self._graph = self._open_for_writing() if writing else kglite.KnowledgeGraph()
        # Holds the lease even when clear() puts another graph in its place.
        self._lease = self._graph
        self._transaction: Any = None

    def read(self, request: Reply) -> Reply:
        """Answer a statement in a read transaction."""
        if not self._writing:
            self._take_newer_checkpoint()
        transaction = self._graph.begin_read()
        try:
            # The engine's own parser has the last word on what reads a file.
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
        """Begin a transaction that writes; there is one at a time."""
        self.rollback(request)
        self._transaction = self._graph.begin()
        return {}

    def run(self, request: Reply) -> Reply:
        """Run a statement in the transaction."""
        self._transaction.cypher(request["text"], params=request["parameters"], timeout_ms=0)
        return {}

    def commit(self, request: Reply) -> Reply:
        """Let the transaction take effect."""
        del request
        self._transaction.commit()
        self._transaction = None
        return {}

    def rollback(self, request: Reply) -> Reply:
        """Drop the transaction, if there is one."""
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
        patience_ends = time.monotonic() + _LEASE_PATIENCE_SECONDS
        while True:
            try:
                return kglite.open(str(self._path), durable="off", lock=True)
            except kglite.WriterLeaseHeldError:
                if time.monotonic() > patience_ends:
                    raise
                time.sleep(_LEASE_POLL_SECONDS)

    def _take_newer_checkpoint(self) -> None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            self._graph, self._seen = kglite.KnowledgeGraph(), None
            return
        # A checkpoint is renamed into place, so a newer one has another inode.
        seen = (status.st_ino, status.st_mtime_ns, status.st_size)
        if seen != self._seen:
            self._graph = kglite.load(str(self._path))
            self._seen = seen


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer requests until there are no more."""
    engine: Engine | None = None
    while (request := _receive(requests)) is not None:
        try:
            if request["do"] == "open":
                engine = Engine(request["path"], writing=request["writing"])
                reply: Reply = {}
            else:
                actions: dict[str, Callable[[Reply], Reply]] = {
                    name: getattr(engine, name) for name in _ACTIONS
                }
                reply = actions[request["do"]](request)
        except Exception as error:  # noqa: BLE001 - whatever happened is the answer
            reply = {"error": _kind(error), "text": _text(error)}
        _send(replies, reply)


def _receive(stream: BinaryIO) -> Reply | None:
    header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    (length,) = _HEADER.unpack(header)
    body = stream.read(length)
    if len(body) < length:
        return None
    request: Reply = json.loads(body)
    return request


def _send(stream: BinaryIO, reply: Reply) -> None:
    body = json.dumps(reply, default=_plain).encode()
    stream.write(_HEADER.pack(len(body)))
    stream.write(body)
    stream.flush()


def _refuse_file_reading(transaction: Any, request: Reply) -> None:
    if request["text"].lstrip()[:7].upper() in {"EXPLAIN", "PROFILE"}:
        return
    plan = transaction.cypher("EXPLAIN " + request["text"], params=request["parameters"])
    if any("csv" in str(step.get("operation")).lower() for step in plan.to_list()):
        raise Failure("query", "LOAD CSV is not allowed: a query may not load files or addresses")


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


def _kind(error: Exception) -> str:
    if isinstance(error, Failure):
        return error.kind
    for kind, names in _KINDS:
        if isinstance(error, tuple(getattr(kglite, name) for name in names)):
            return kind
    if isinstance(error, OSError):
        return "file"
    return "query"


def _text(error: Exception) -> str:
    if isinstance(error, kglite.WriterLeaseHeldError):
        return f"process {error.holder.get('pid')} is writing to it"
    if isinstance(error, Failure):
        return error.text
    if isinstance(error, kglite.CypherTimeoutError):
        return "the query was stopped at its time limit; ask for less, or allow more time"
    if isinstance(error, kglite.ReadOnlyError):
        return "a query may only read; the graph is written by the registry alone"
    # The engine's message goes on with the statement and a caret; the first line says it all.
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def main() -> None:
    """Serve on the process's own standard input and output."""
    kglite.set_query_warning_policy("silent")
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # Whatever else prints must not break a frame.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(sys.stdin.buffer, replies)


if __name__ == "__main__":
    main()
