"""The production graph: Neo4j 5.26 or later through the official driver."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import neo4j
from neo4j.exceptions import (
    AuthError,
    ClientError,
    ConfigurationError,
    DatabaseError,
    DriverError,
    Neo4jError,
    ServiceUnavailable,
    SessionExpired,
)
from neo4j.graph import Node, Path, Relationship
from neo4j.spatial import Point
from neo4j.time import Date, DateTime, Duration, Time
from pydantic import SecretStr

from registry.errors import (
    BadInput,
    GraphError,
    GraphRefused,
    GraphUnavailable,
    QueryFailed,
    QueryTimeout,
)
from registry.graph.base import GraphStore, Statement
from registry.graph.guard import guarded
from registry.graph.values import checked_parameters
from registry.rows import Rows

__all__ = ["Neo4jGraph"]

# Its errors reach us as exceptions; without a handler Python would also print them.
logging.getLogger("neo4j").addHandler(logging.NullHandler())

_CONNECT_SECONDS = 5.0
_RETRY_SECONDS = 10.0
_CLEAR_BATCH = 10_000
_SCHEMA = {
    "CONSTRAINT": "SHOW CONSTRAINTS YIELD name RETURN name",
    # A constraint's index goes with it, and token lookup indexes belong to the server.
    "INDEX": "SHOW INDEXES YIELD name, type, owningConstraint"
    " WHERE type <> 'LOOKUP' AND owningConstraint IS NULL RETURN name",
}
_TIMED_OUT = "Neo.ClientError.Transaction.TransactionTimedOut"


class Neo4jGraph(GraphStore):
    """A database of a Neo4j server.

    Args:
        url: ``bolt://``, ``neo4j://`` or their ``+s``, ``+ssc`` forms; without credentials.
        user: Name to sign in with; None where the server asks for none.
        password: Kept secret: it appears in no text this class makes.
        database: Name of the database; None for the user's home database.
        writing: Whether :meth:`write` and :meth:`clear` may be used.

    Raises:
        GraphUnavailable: The server does not answer.
        GraphRefused: It does not accept the credentials, or has no such database.
    """

    engine = "neo4j"

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
        with self._foreign_errors():
            self._driver = neo4j.GraphDatabase.driver(
                url,
                auth=None if user is None else (user, _revealed(password)),
                connection_timeout=_CONNECT_SECONDS,
                connection_acquisition_timeout=_CONNECT_SECONDS + _RETRY_SECONDS,
                max_transaction_retry_time=_RETRY_SECONDS,
                notifications_min_severity="OFF",
                telemetry_disabled=True,
                user_agent="circuit-registry",
            )
        try:
            with self._session(neo4j.READ_ACCESS) as session:
                session.run("RETURN 1").consume()
        except BaseException:
            self._driver.close()
            raise

    def __repr__(self) -> str:
        return f"Neo4jGraph({self._url!r}, database={self._database!r}, writing={self._writing})"

    def read(
        self,
        text: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        timeout_seconds: float | None = None,
        max_rows: int | None = None,
    ) -> Rows:
        """Answer a statement in a transaction of read access mode."""
        text, values = guarded(text), checked_parameters(parameters or {})

        @neo4j.unit_of_work(timeout=timeout_seconds)
        def answer(transaction: neo4j.ManagedTransaction) -> Rows:
            return _rows(transaction.run(_literal(text), values), max_rows)

        with self._session(neo4j.READ_ACCESS) as session:
            return session.execute_read(answer)

    def write(self, statements: Iterable[Statement]) -> None:
        """Run statements in one transaction, again where the server says it may help."""
        self._refuse_reader()

        def run_all(transaction: neo4j.ManagedTransaction) -> None:
            for one in statements:
                transaction.run(_literal(one.text), dict(one.parameters)).consume()

        with self._session(neo4j.WRITE_ACCESS) as session:
            session.execute_write(run_all)

    def clear(self) -> None:
        """Delete everything in batches; the marker goes last, so that a killed clear is known."""
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
        found = self.read("CALL dbms.components() YIELD name, versions, edition RETURN *")
        component = next(iter(found))
        return f"Neo4j {component['versions'][0]} {component['edition']}"

    def close(self) -> None:
        """Close the connections."""
        self._driver.close()

    def _ask_once(self) -> None:
        # Outside a managed transaction: a server that is down is not tried again for ten seconds.
        with self._session(neo4j.READ_ACCESS) as session:
            session.run("RETURN 1 AS alive").consume()

    def _refuse_reader(self) -> None:
        if not self._writing:
            raise GraphError(f"the graph {self._url} is open for reading only")

    def _delete_in_batches(self, text: str) -> None:
        def run(transaction: neo4j.ManagedTransaction) -> bool:
            summary = transaction.run(_literal(text), batch=_CLEAR_BATCH).consume()
            return bool(summary.counters.nodes_deleted or summary.counters.relationships_deleted)

        with self._session(neo4j.WRITE_ACCESS) as session:
            while session.execute_write(run):
                pass

    def _drop_all(self, kind: str) -> None:
        names = [str(row["name"]).replace("`", "``") for row in self.read(_SCHEMA[kind])]
        if names:
            self.write([Statement(f"DROP {kind} `{name}` IF EXISTS") for name in names])

    @contextlib.contextmanager
    def _session(self, access: str) -> Iterator[neo4j.Session]:
        with (
            self._foreign_errors(),
            self._driver.session(database=self._database, default_access_mode=access) as session,
        ):
            yield session

    @contextlib.contextmanager
    def _foreign_errors(self) -> Iterator[None]:
        try:
            yield
        except GraphError:  # among them QueryTimeout, which is an OSError too
            raise
        except (OverflowError, TypeError, ValueError) as error:
            raise QueryFailed(f"a parameter is no value of the graph: {_line(error)}") from None
        except Neo4jError as error:
            raise self._translated(error) from None
        except (ServiceUnavailable, SessionExpired, OSError) as error:
            raise GraphUnavailable(
                f"the graph {self._url} does not answer: {_line(error)}"
            ) from None
        except ConfigurationError as error:
            raise BadInput(
                f"the graph {self._url} is no address of a server: {_line(error)}"
            ) from None
        except DriverError as error:
            raise GraphUnavailable(
                f"the graph {self._url} cannot be used: {_line(error)}"
            ) from None

    def _translated(self, error: Neo4jError) -> GraphError:
        code, message = error.code or "", _line(error.message or error)
        if isinstance(error, AuthError) or code.startswith("Neo.ClientError.Security."):
            return GraphRefused(
                f"the graph {self._url} refuses us ({code.rpartition('.')[2]}); check"
                f" CIRCUITS_GRAPH_USER and CIRCUITS_GRAPH_PASSWORD"
            )
        if code.startswith("Neo.ClientError.Database."):
            return GraphRefused(f"the graph {self._url}: {message}")
        if code.startswith(_TIMED_OUT):
            return QueryTimeout("the query was stopped at its time limit")
        # A database error is an answer too: the server is there and refuses what it was given.
        if isinstance(error, ClientError | DatabaseError):
            return QueryFailed(message)
        return GraphUnavailable(f"the graph {self._url} does not answer: {message}")


def _line(said: object) -> str:
    return (str(said).strip() or type(said).__name__).splitlines()[0]


def _revealed(password: SecretStr | None) -> str:
    return "" if password is None else password.get_secret_value()


def _literal(text: str) -> Any:
    # The driver asks for literal text to keep values out of it; ours come from files, with
    # parameters, and users' own are guarded and read-only.
    return text


def _rows(result: neo4j.Result, max_rows: int | None) -> Rows:
    columns: tuple[str, ...] = tuple(result.keys())
    values: list[tuple[Any, ...]] = []
    for record in result:
        if max_rows is not None and len(values) == max_rows:
            return Rows(columns, tuple(values), truncated=True)
        values.append(tuple(_plain(value) for value in record.values()))
    return Rows(columns, tuple(values))


def _plain(value: Any) -> Any:
    """Turn a driver's value into scalars, lists and maps, as the embedded engine returns them."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Node():
            return {"labels": sorted(value.labels), "properties": _plain(dict(value))}
        case Relationship():
            return {"type": value.type, "properties": _plain(dict(value))}
        case Path():
            return {
                "nodes": [_plain(node) for node in value.nodes],
                "relationships": [_plain(link) for link in value.relationships],
            }
        case Duration() | Date() | Time() | DateTime():
            return value.iso_format()
        case Mapping():
            return {key: _plain(item) for key, item in value.items()}
        case bytes() | bytearray():
            return value.hex()
        case list() | tuple() | set() | Point():
            return [_plain(item) for item in value]
        case _:
            return str(value)
