"""What every graph store owes.

A store is a connection to one graph database that holds a projection of the ledger. It runs Cypher
and knows nothing of records; what is written is decided in ``registry.graph.projection``, which
database is opened in ``registry.graph.open``.

Errors: whatever the engine or driver raises comes out as a :class:`registry.errors.GraphError`:
``GraphUnavailable`` (no answer), ``GraphRefused`` (credentials, another registry's data),
``GraphBusy`` (another writer holds the embedded file), ``QueryFailed`` (statement not accepted),
``QueryTimeout`` and ``QueryTooLarge`` (stopped at a limit). Passwords appear in none of them.

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
    """Cypher text and its parameters; never text glued from values."""

    text: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


class GraphStore(Closing):
    """One graph database, opened for reading or for writing."""

    engine: str
    """``kglite`` or ``neo4j``."""

    reads_one_moment: bool = False
    """Whether a statement sees the graph as it was at one moment, whatever is written meanwhile."""

    before_writing: Callable[[], None] | None = None
    """Called before each transaction that writes; what it raises stops that. An engine that has one
    writer by itself need not."""

    rows_per_transaction: int = 5_000
    """How many nodes and edges of circuits one transaction had best write."""

    largest_transaction: int | None = None
    """How many it can write at most, where it is not for this process's memory to say."""

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
        """Answer a statement without changing anything, whatever its text says.

        Args:
            text: One Cypher statement.
            parameters: Values for its ``$names``.
            timeout_seconds: The whole call ends after that, a second of grace included in which the
                engine may stop by itself; it is not repeated. None means no limit.
            max_rows: Further rows are left out and ``Rows.truncated`` is set.
            memory_bytes: What a process on this machine may take for the statement and its answer,
                beside the graph. A server's own memory is limited by its settings.

        Raises:
            QueryFailed: Not accepted: syntax, types, an attempt to write, or ``LOAD CSV`` and
                other ways to files and addresses.
            QueryTimeout: Stopped at its limit. The store stays usable.
            QueryTooLarge: It took too much memory, or its answer is too large. So it does then.
            GraphUnavailable: A server does not answer, or not as one does.
        """

    @abc.abstractmethod
    def write(self, statements: Iterable[Statement]) -> None:
        """Run statements in one transaction: all of them take effect, or none.

        Neo4j retries transient failures, so statements must be idempotent, and can be gone through
        again. They are run as they come: whoever has millions of rows makes them some at a time.

        Raises:
            GraphError: Nothing was written.
        """

    @abc.abstractmethod
    def clear(self) -> None:
        """Delete every node, relationship, index and constraint, in batches where needed."""

    @abc.abstractmethod
    def checkpoint(self) -> None:
        """Make what was written visible to other readers and durable."""

    @abc.abstractmethod
    def version(self) -> str:
        """Engine and version, for people: ``Neo4j 5.26.28 community``."""

    def limits(self) -> Mapping[str, str]:
        """Settings by which a server limits what a statement may take of its memory, by its names.

        Empty where there is no server, and where it does not let us see them.
        """
        return {}

    @abc.abstractmethod
    def close(self) -> None:
        """Release the database. Writes since the last checkpoint may be lost; safe to repeat."""
