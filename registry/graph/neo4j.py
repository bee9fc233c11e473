"""The production graph: Neo4j 5.26 or later through the official driver, in a separate process.

A server cannot be trusted: it may be frozen, answer slowly or without end, or send something that
Neo4j never sends. Therefore the driver runs in a process that is ended if a call takes too long or
too much memory (:mod:`registry.graph.neo4j_worker`). Its connections are closed with it, and the
server stops their queries. A call without a time limit, such as the projection's, continues as long
as the server answers on another connection.
"""

from __future__ import annotations

import atexit
import contextlib
import time
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import SecretStr

from registry.errors import (
    BadInput,
    CircuitsError,
    GraphError,
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

__all__ = ["Neo4jGraph"]

_OPEN_SECONDS = 20.0
_CLOSE_SECONDS = 2.0
_GRACE_SECONDS = 1.0
"""Time for the server to stop at a time limit before the connection to it is ended."""
_LONGEST_SECONDS = 900.0
"""Limit of a call without its own limit; the server ends such a transaction earlier."""
_DRIVER_BYTES = 100_000_000
_ANSWER_BYTES = 2_000_000_000
"""Memory for an answer if the caller sets no limit, in addition to the driver's own."""
_CLEAR_BATCH = 10_000
_RETRY_SECONDS = 10.0
_RETRY_PAUSE_SECONDS = 0.2
_SCHEMA = {
    "CONSTRAINT": "SHOW CONSTRAINTS YIELD name RETURN name",
    # A constraint's index is removed with it, and token lookup indexes belong to the server.
    "INDEX": "SHOW INDEXES YIELD name, type, owningConstraint"
    " WHERE type <> 'LOOKUP' AND owningConstraint IS NULL RETURN name",
}
_COMPONENTS = (
    "CALL dbms.components() YIELD name, versions, edition"
    " RETURN versions[0] AS version, edition ORDER BY name"
)
_LIMITS = (
    "SHOW SETTINGS 'dbms.memory.transaction.total.max', 'db.memory.transaction.max',"
    " 'server.jvm.additional' YIELD name, value RETURN name, value"
)


class Neo4jGraph(GraphStore):
    """A database of a Neo4j server.

    Args:
        url: ``bolt://``, ``neo4j://`` or their ``+s``, ``+ssc`` forms; without credentials.
        user: Name to sign in with; None if the server requires none.
        password: Kept secret: it appears in no text of this class.
        database: Name of the database; None for the user's home database.
        writing: Whether :meth:`write` and :meth:`clear` may be used.

    Raises:
        GraphUnavailable: The server does not answer, or not like a Neo4j server.
        GraphRefused: It does not accept the credentials, or has no such database.
    """

    engine = "neo4j"
    # An edge takes about 7 kB of the transaction's memory, of which a server may have 512 MB.
    largest_transaction = 20_000

    def __init__(
        self,
        url: str,
        *,
        user: str | None = None,
        password: SecretStr | None = None,
        database: str | None = None,
        writing: bool,
    ) -> None:
        self._url = url
        self._writing = writing
        self._database = database
        self._user = user
        self._password = password
        # Kept only after it has connected.
        self._driver: EngineProcess | None = self._opened(None)

    def __repr__(self) -> str:
        return f"Neo4jGraph({self._url!r}, database={self._database!r}, writing={self._writing})"

    def read(
        self,
        text: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        timeout_seconds: float | None = None,
        max_rows: int | None = None,
        memory_bytes: int | None = None,
    ) -> Rows:
        """Answer a statement in a transaction of read access mode."""
        ends_at = deadline(timeout_seconds)
        return self._read(
            guarded(text), checked_parameters(parameters or {}),
            ends_at=ends_at, max_rows=max_rows, memory_bytes=memory_bytes,
        )  # fmt: skip

    def write(self, statements: Iterable[Statement]) -> None:
        """Run statements in one transaction, and again if the server reports a transient error."""
        self._refuse_reader()
        self._write(statements)

    def clear(self) -> None:
        """Delete everything in batches, the marker last, so an interrupted clear is recognised."""
        self._refuse_reader()
        self._delete_in_batches("MATCH ()-[r]->() WITH r LIMIT $batch DELETE r")
        self._delete_in_batches("MATCH (n) WHERE NOT n:Registry WITH n LIMIT $batch DELETE n")
        for kind in _SCHEMA:
            self._drop_all(kind)
        self._delete_in_batches("MATCH (n) WITH n LIMIT $batch DETACH DELETE n")

    def checkpoint(self) -> None:
        """Nothing to do: a committed transaction is durable and visible."""

    def version(self) -> str:
        """Product, version and edition of the server."""
        rows = self._read(_COMPONENTS).expecting(version="string", edition="string")
        return " ".join(["Neo4j", *(part for row in rows.values[:1] for part in row)])

    def limits(self) -> Mapping[str, str]:
        """Memory limits of transactions, and options of the server's Java machine."""
        rows = self._read(_LIMITS).expecting(name="string", value="string?")
        return {name: value or "" for name, value in rows.values}

    def close(self) -> None:
        """Close the connections."""
        driver, self._driver = self._driver, None
        if driver is not None:
            _let_go(driver)

    def _refuse_reader(self) -> None:
        if not self._writing:
            raise GraphError(f"the graph {self._url} is open for reading only")

    def _delete_in_batches(self, text: str) -> None:
        while self._write([Statement(text, {"batch": _CLEAR_BATCH})]):
            pass

    def _drop_all(self, kind: str) -> None:
        rows = self._read(_SCHEMA[kind]).expecting(name="string")
        names = [row["name"].replace("`", "``") for row in rows]
        if names:
            self._write([Statement(f"DROP {kind} `{name}` IF EXISTS") for name in names])

    # -- the driver's process ------------------------------------------------------------------

    def _read(
        self,
        text: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        ends_at: float | None = None,
        max_rows: int | None = None,
        memory_bytes: int | None = None,
    ) -> Rows:
        request = {"text": text, "parameters": parameters or {}, "max_rows": max_rows}
        reply = self._ask("read", ends_at=ends_at, memory_bytes=memory_bytes, **request)
        return Rows(tuple(reply["columns"]), tuple(map(tuple, reply["values"])), reply["truncated"])

    def _write(self, statements: Iterable[Statement]) -> bool:
        """Run statements in one transaction; return whether they changed anything."""
        ends_at = time.monotonic() + _RETRY_SECONDS
        while True:
            try:
                return self._write_once(statements)
            except _Transient as error:
                if time.monotonic() > ends_at:
                    raise GraphUnavailable(str(error)) from None
                time.sleep(_RETRY_PAUSE_SECONDS)

    def _write_once(self, statements: Iterable[Statement]) -> bool:
        if self.before_writing is not None:
            self.before_writing()
        self._ask("begin")
        try:
            for one in statements:
                self._ask("run", text=one.text, parameters=dict(one.parameters))
            return bool(self._ask("commit")["changed"])
        except BaseException:
            if self._driver is not None:
                with contextlib.suppress(GraphError):
                    self._ask("rollback")
            raise

    def _ask(
        self,
        do: str,
        *,
        ends_at: float | None = None,
        memory_bytes: int | None = None,
        **request: Any,
    ) -> dict[str, Any]:
        driver = self._driver = self._driver or self._opened(ends_at)
        limits: dict[str, Any] = {"ends_at": deadline(_LONGEST_SECONDS)}
        if ends_at is None:
            limits["meanwhile"] = self._see_that_it_lives
        else:
            request["timeout_seconds"] = seconds_left(ends_at)
            limits["ends_at"] = ends_at + _GRACE_SECONDS
        if do == "read":
            limits["most_bytes"] = _DRIVER_BYTES + (memory_bytes or _ANSWER_BYTES)
        try:
            return self._checked(driver.ask({"do": do, **request}, **limits), driver)
        except QueryTimeout:
            if ends_at is None and not driver.alive():
                raise self._silent(_LONGEST_SECONDS) from None
            raise
        finally:
            if not driver.alive():
                driver.stop()
                self._driver = None

    def _opened(self, ends_at: float | None) -> EngineProcess:
        driver = _take_idle() or EngineProcess("registry.graph.neo4j_worker", "the Neo4j driver")
        opening = {
            "do": "open", "url": self._url, "user": self._user, "database": self._database,
            "password": "" if self._password is None else self._password.get_secret_value(),
        }  # fmt: skip
        soon = time.monotonic() + _OPEN_SECONDS
        try:
            limit = soon if ends_at is None else min(soon, ends_at)
            self._checked(driver.ask(opening, ends_at=limit), driver)
        except QueryTimeout:
            driver.stop()
            if ends_at is not None and ends_at <= soon:
                raise
            raise self._silent(_OPEN_SECONDS) from None
        except BaseException:
            driver.stop()
            raise
        return driver

    def _silent(self, seconds: float) -> GraphUnavailable:
        return GraphUnavailable(f"the graph {self._url} has not answered for {seconds:g} s")

    def _see_that_it_lives(self) -> None:
        """Check on another connection that the server answers; a frozen server does not."""
        with contextlib.suppress(GraphRefused):  # also an answer
            _let_go(self._opened(None))

    def _checked(self, reply: dict[str, Any], driver: EngineProcess) -> dict[str, Any]:
        if "error" not in reply:
            return reply
        if reply["error"] == "odd":
            # The state of the driver is unknown after that.
            driver.kill()
        raise self._translated(reply["error"], reply["text"])

    def _translated(self, kind: str, text: str) -> CircuitsError:
        where = f"the graph {self._url}"
        match kind:
            case "query":
                return QueryFailed(text)
            case "timeout":
                return QueryTimeout(text)
            case "transient":
                return _Transient(f"{where} asks to try again: {text}")
            case "large":
                return QueryTooLarge(text)
            case "memory":
                return QueryTooLarge(f"the query took more memory than the server has: {text}")
            case "credentials":
                return GraphRefused(
                    f"{where} refuses the user ({text}); check CIRCUITS_GRAPH_USER and"
                    f" CIRCUITS_GRAPH_PASSWORD"
                )
            case "database":
                return GraphRefused(f"{where}: {text}")
            case "address":
                return BadInput(f"{where} is not an address of a server: {text}")
            case "odd":
                return GraphUnavailable(f"{where} does not answer like a Neo4j server: {text}")
            case _:
                return GraphUnavailable(f"{where} does not answer: {text}")


class _Transient(GraphError):
    """The server reports that the same transaction may succeed if it is repeated."""


# -- processes without a graph ---------------------------------------------------------------------

_idle: list[EngineProcess] = []
"""At most one: starting a process and its driver takes as long as writing a small circuit."""


def _take_idle() -> EngineProcess | None:
    with contextlib.suppress(IndexError):
        driver = _idle.pop()
        if driver.alive():
            return driver
    return None


def _let_go(driver: EngineProcess) -> None:
    """Close a process's connections and keep it for the next graph, or end it."""
    try:
        closing = deadline(_CLOSE_SECONDS)
        kept = not _idle and driver.alive() and "error" not in driver.ask(
            {"do": "close"}, ends_at=closing
        )  # fmt: skip
    except GraphError:
        kept = False
    if kept:
        _idle.append(driver)
    else:
        driver.stop()


@atexit.register
def _stop_idle() -> None:
    while _idle:
        _idle.pop().stop()
