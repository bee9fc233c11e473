"""The Neo4j driver's own process: ``python -m registry.graph.neo4j_worker``.

Answers the requests of :class:`registry.graph.neo4j.Neo4jGraph`, in the form of
:mod:`registry.graph.frames`. The driver does not run in the caller's process: it waits for a silent
server as long as that server demands, holds everything that a server sends, and ends its whole
process if an answer claims a list of four billion items or nests a hundred thousand of them.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator, Mapping
from typing import Any

# If installed, the driver imports these, which takes half a second, for features we do not use.
for _unused in ("numpy", "pandas", "pyarrow"):
    sys.modules.setdefault(_unused, None)  # type: ignore[arg-type]

import neo4j  # noqa: E402
from neo4j.exceptions import (  # noqa: E402
    AuthError,
    ClientError,
    ConfigurationError,
    DatabaseError,
    DriverError,
    Neo4jError,
    ServiceUnavailable,
    SessionExpired,
)
from neo4j.graph import Node, Path, Relationship  # noqa: E402
from neo4j.spatial import Point  # noqa: E402
from neo4j.time import Date, DateTime, Duration, Time  # noqa: E402

from registry.graph.frames import Failure, Reply, serve  # noqa: E402

_CONNECT_SECONDS = 5.0
_ACQUIRE_SECONDS = 10.0
_IDLE_SECONDS = 1.0
"""A connection that was unused for this long is tested first: the server may have restarted."""
_WRITE_SECONDS = 600.0
"""The server ends our transactions after this time, so none outlives its caller."""
_MEMORY_CODES = (
    "Neo.TransientError.General.MemoryPoolOutOfMemoryError",
    "Neo.TransientError.General.TransactionOutOfMemoryError",
    "Neo.TransientError.General.OutOfMemoryError",
)


class Served:
    """One driver, from ``open`` to ``close``."""

    def __init__(self) -> None:
        self._driver: neo4j.Driver | None = None
        self._database: str | None = None
        self._writing = contextlib.ExitStack()
        self._transaction: neo4j.Transaction | None = None
        self._changed = False

    def answer(self, request: Reply) -> Reply:
        """Carry out a request."""
        actions = {
            "open": self.open, "read": self.read, "begin": self.begin, "run": self.run,
            "commit": self.commit, "rollback": self.rollback, "close": self.close,
        }  # fmt: skip
        return actions[request["do"]](request)

    def open(self, request: Reply) -> Reply:
        """Connect, and check that the server answers."""
        user, password = request["user"], request["password"]
        self._database = request["database"]
        try:
            self._driver = neo4j.GraphDatabase.driver(
                request["url"],
                auth=None if user is None else (user, password),
                connection_timeout=_CONNECT_SECONDS,
                connection_acquisition_timeout=_ACQUIRE_SECONDS,
                liveness_check_timeout=_IDLE_SECONDS,
                notifications_min_severity="OFF",
                telemetry_disabled=True,
                user_agent="circuit-registry",
            )
        except (ConfigurationError, ValueError) as error:
            raise Failure("address", _line(error)) from None
        with self._session(neo4j.READ_ACCESS) as session:
            session.run("RETURN 1").consume()
        return {}

    def read(self, request: Reply) -> Reply:
        """Answer a statement in one transaction of read access mode, without a second attempt."""
        with (
            self._session(neo4j.READ_ACCESS) as session,
            session.begin_transaction(timeout=request.get("timeout_seconds")) as transaction,
        ):
            result = transaction.run(_literal(request["text"]), request["parameters"])
            return _rows(result, request["max_rows"])

    def begin(self, request: Reply) -> Reply:
        """Begin a writing transaction, in which ``run`` and ``commit`` follow."""
        self.rollback(request)
        self._writing = contextlib.ExitStack()
        session = self._writing.enter_context(self._session(neo4j.WRITE_ACCESS))
        self._transaction = session.begin_transaction(timeout=_WRITE_SECONDS)
        # Not as a separate context, which would commit an open transaction.
        self._writing.callback(self._transaction.close)
        self._changed = False
        return {}

    def run(self, request: Reply) -> Reply:
        """Run a statement in the transaction that was begun."""
        assert self._transaction is not None
        result = self._transaction.run(_literal(request["text"]), request["parameters"])
        self._changed |= result.consume().counters.contains_updates
        return {}

    def commit(self, request: Reply) -> Reply:
        """Commit the transaction; return whether it changed anything."""
        assert self._transaction is not None
        self._transaction.commit()
        self.rollback(request)
        return {"changed": self._changed}

    def rollback(self, request: Reply) -> Reply:
        """Roll the transaction back; only committed changes take effect."""
        del request
        self._transaction = None
        writing, self._writing = self._writing, contextlib.ExitStack()
        with contextlib.suppress(Neo4jError, DriverError):  # the server has already ended it
            writing.close()
        return {}

    def close(self, request: Reply) -> Reply:
        """Close the connections; another ``open`` may follow."""
        self.rollback(request)
        if self._driver is not None:
            self._driver.close()
            self._driver = None
        return {}

    @contextlib.contextmanager
    def _session(self, access: str) -> Iterator[neo4j.Session]:
        assert self._driver is not None
        with self._driver.session(
            database=self._database, default_access_mode=access, fetch_size=1000
        ) as session:
            yield session


def _literal(text: str) -> Any:
    # The driver requires literal text to keep values out of it. Our texts come from files, with
    # parameters; those of users are guarded and read-only.
    return text


def _rows(result: neo4j.Result, max_rows: int | None) -> Reply:
    columns = [str(name) for name in result.keys()]  # noqa: SIM118 - a method of the driver's
    values: list[list[Any]] = []
    for record in result:
        if max_rows is not None and len(values) == max_rows:
            return {"columns": columns, "values": values, "truncated": True}
        values.append([_plain(value) for value in record.values()])
        if len(values[-1]) != len(columns):
            raise Failure("odd", f"a row of {len(values[-1])} values for {len(columns)} columns")
    return {"columns": columns, "values": values, "truncated": False}


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


# -- errors ----------------------------------------------------------------------------------------


def _explain(error: BaseException) -> Failure:
    match error:
        case RecursionError():
            return Failure("large", "the answer is nested too deeply; return less of it")
        case MemoryError():
            return Failure("large", "the answer does not fit in memory; request less")
        case OverflowError() | UnicodeEncodeError():
            return Failure("query", f"a parameter is not a value of the graph: {_line(error)}")
        case Neo4jError():
            return _of_server(error)
        case ConfigurationError():
            return Failure("odd", _line(error))  # not a protocol that the driver knows
        case ServiceUnavailable() | SessionExpired() | OSError() | DriverError():
            return Failure("unavailable", _line(error))
        case _:
            # Exceptions of the driver for an answer that Neo4j servers never give.
            return Failure("odd", f"{type(error).__name__}: {_line(error)}")


def _of_server(error: Neo4jError) -> Failure:
    code, message = str(error.code or ""), _line(error.message or error)
    if isinstance(error, AuthError) or code.startswith("Neo.ClientError.Security."):
        return Failure("credentials", code.rpartition(".")[2])
    if code.startswith("Neo.ClientError.Database."):
        return Failure("database", message)
    if code.startswith("Neo.ClientError.Transaction.TransactionTimedOut"):
        return Failure("timeout", "the query was stopped at its time limit")
    if code in _MEMORY_CODES:
        return Failure("memory", message)
    if error.is_retryable():
        return Failure("transient", message)
    # A database error is also an answer: the server is available and refuses the request.
    if isinstance(error, ClientError | DatabaseError):
        return Failure("query", message)
    return Failure("unavailable", message)


def _line(said: object) -> str:
    return (str(said).strip() or type(said).__name__).splitlines()[0]


def main() -> None:
    """Serve on the process's own standard input and output."""
    # Its errors reach us as exceptions; without a handler Python would also print them.
    logging.getLogger("neo4j").addHandler(logging.NullHandler())
    serve(Served().answer, _explain, str)


if __name__ == "__main__":
    main()
