"""What every graph store must do.

A store is a connection to one graph database that holds a projection of the ledger. It runs Cypher
and does not know records. ``registry.graph.projection`` decides what is written, and
``registry.graph.open`` which database is opened.

Errors: every error of the engine or driver is raised as a :class:`registry.errors.GraphError`:
``GraphUnavailable`` (no answer), ``GraphRefused`` (credentials, another registry's data),
``GraphBusy`` (another writer holds the embedded file), ``QueryFailed`` (statement not accepted),
``QueryTimeout`` and ``QueryTooLarge`` (stopped at a limit). None of them contains a password.

Threads: a store may be used by one thread at a time.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from registry.closing import Closing
from registry.rows import Rows

__all__ = ["GraphStore", "Statement"]


@dataclass(frozen=True, slots=True)
class Statement:
    """Cypher text and its parameters; values are never part of the text."""

    text: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


class GraphStore(Closing):
    """One graph database, opened for reading or for writing."""

    engine: str
    """``kglite`` or ``neo4j``."""

    reads_one_moment: bool = False
    """Whether a statement sees the graph at one moment, even if others write at the same time."""

    before_writing: Callable[[], None] | None = None
    """Called before each transaction that writes; an exception stops it. An engine with only one
    writer does not need it."""

    rows_per_transaction: int = 5_000
    """Best number of nodes and edges of circuits for one transaction."""

    largest_transaction: int | None = None
    """Maximum number for one transaction, if it does not depend on this process's memory."""

    @abc.abstractmethod
    def read(
        self,
        text: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        timeout_seconds: float | None = None,
        max_rows: int | None = None,
        memory_bytes: int | None = None,
    ) -> Rows:
        """Answer a statement; never changes anything, for any text.

        Args:
            text: One Cypher statement.
            parameters: Values for its ``$names``.
            timeout_seconds: Limit of the whole call, including one second of grace in which the
                engine may stop by itself; there is no second attempt. None means no limit.
            max_rows: Further rows are omitted and ``Rows.truncated`` is set.
            memory_bytes: Memory limit of a process on this machine for the statement and its
                answer, in addition to the graph. A server's memory is limited by its settings.

        Raises:
            QueryFailed: The engine does not accept it: syntax, types, an attempt to write, or
                ``LOAD CSV`` and other access to files and addresses.
            QueryTimeout: Stopped at its limit. The store stays usable.
            QueryTooLarge: It used too much memory, or its answer is too large. The store stays
                usable.
            GraphUnavailable: A server does not answer, or its answer is not valid.
        """

    @abc.abstractmethod
    def write(self, statements: Iterable[Statement]) -> None:
        """Run statements in one transaction: all of them take effect, or none.

        Neo4j retries transient failures, so statements must be idempotent, and it must be possible
        to iterate over them again. They are run one by one; a caller with millions of rows makes
        the rows in chunks.

        Raises:
            GraphError: Nothing was written.
        """

    @abc.abstractmethod
    def clear(self) -> None:
        """Delete every node, relationship, index and constraint, in batches if necessary."""

    @abc.abstractmethod
    def checkpoint(self) -> None:
        """Make all writes visible to other readers and durable."""

    @abc.abstractmethod
    def version(self) -> str:
        """Engine and version, for people: ``Neo4j 5.26.28 community``."""

    def limits(self) -> Mapping[str, str]:
        """Settings of a server that limit the memory of a statement, with the server's names.

        Empty if there is no server, or if the server does not show them.
        """
        return {}

    @abc.abstractmethod
    def close(self) -> None:
        """Release the database. Writes since the last checkpoint may be lost; safe to repeat."""
