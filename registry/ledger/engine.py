"""Connecting to the ledger's database: URLs, transactions, and errors in our own words."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Dialect, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from registry.canonical import canonical_json
from registry.credentials import remember_secrets, scrubbed
from registry.errors import BadInput, LedgerError, MissingExtra
from registry.ledger.causes import cannot_be_written, cause_of_sqlite
from registry.settings.file_urls import read_path, url_path

__all__ = [
    "BUSY_SECONDS",
    "CONNECT_SECONDS",
    "connect",
    "database_path",
    "foreign_errors",
    "lock_path",
    "parse_url",
    "reading",
    "require_sound",
    "shown",
    "writing",
]

BUSY_SECONDS = 30
"""Maximum time that a writer waits for the writer before it."""

CONNECT_SECONDS = 10
"""Maximum time for a server to accept a connection."""

_NETWORK = {
    "keepalives_idle": 30,  # seconds of silence before the first probe of the other machine
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,  # milliseconds that sent data may stay unconfirmed
}
"""Limits of PostgreSQL's client for a connection whose other end no longer exists."""

_WRITERS_LOCK = 0x6369726375697473
"""PostgreSQL's advisory lock for which writers wait: "circuits" in ASCII."""

_IMMEDIATE = "ledger_begin_immediate"


def parse_url(text: str) -> URL:
    """Read a ledger's address: ``sqlite:///PATH`` or ``postgresql://USER@HOST/DATABASE``.

    Raises:
        BadInput: It is neither, or the end of its password is ambiguous. The message repeats no
            part of the address, so it shows no password.
    """
    remember_secrets(text)
    scheme, separator, rest = text.partition("://")
    if separator and scheme.partition("+")[0] == "sqlite":
        return URL.create("sqlite", database=_path_in(rest))
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise BadInput(
            "the ledger's URL cannot be read; write sqlite:///PATH or"
            " postgresql://USER:PASSWORD@HOST/DATABASE"
        ) from None
    backend = url.get_backend_name()
    if backend not in {"postgresql", "postgres"}:
        raise BadInput(f"a ledger is in sqlite:///PATH or postgresql://..., not in {backend}")
    _refuse_password_without_end(url, rest)
    return url.set(drivername="postgresql+psycopg")


def _path_in(rest: str) -> str:
    """The path after ``sqlite://``; SQLAlchemy would read options, and would not decode it all."""
    written = rest.removeprefix("/")
    if not rest.startswith("/") or written in {"", ":memory:"}:
        raise BadInput("a ledger in SQLite needs a file: sqlite:///PATH")
    if "?" in written:
        raise BadInput("SQLite takes no options; write a question mark in a file name as %3F")
    return str(read_path(written, Path()))


def _refuse_password_without_end(url: URL, rest: str) -> None:
    # A second "@", or one that SQLAlchemy reads as part of the database's name.
    before_options = rest.partition("?")[0]
    unclear = "@" in before_options if url.username is None else rest.count("@") > 1
    if unclear and (url.username is None or url.password is not None):
        raise BadInput(
            "the ledger's URL has a character in its user or password that must be"
            " percent-encoded: @ is %40, : is %3A, / is %2F, ? is %3F, # is %23, % is %25"
        )


def database_path(url: URL) -> Path:
    """The file of a SQLite ledger."""
    return Path(url.database or "")


def lock_path(url: URL) -> Path:
    """The file next to a SQLite ledger that a process locks to project or migrate exclusively."""
    path = database_path(url)
    return path.with_name(path.name + ".lock")


def shown(url: URL) -> str:
    """The URL for errors and reprs: without password and options."""
    if url.get_backend_name() == "sqlite":
        return f"sqlite:///{url_path(database_path(url))}"
    kept = {name: value for name, value in url.query.items() if name in {"host", "port"}}
    return url.set(query=kept).render_as_string(hide_password=True)


def connect(url: URL) -> Engine:
    """Make an engine for ``url`` without opening a connection.

    Raises:
        MissingExtra: The database's driver is not installed.
        LedgerError: A folder, pipe or device is at the path of SQLite's file.
    """
    if url.get_backend_name() == "sqlite":
        path = database_path(url)
        if path.exists() and not path.is_file():
            raise LedgerError(f"{shown(url)} is not a regular file; name another place")
    try:
        engine = create_engine(
            url,
            json_serializer=canonical_json,
            hide_parameters=True,  # records must not appear in errors and logs
            pool_pre_ping=url.get_backend_name() == "postgresql",
            connect_args=_patience(url),
        )
    except ImportError as error:
        raise MissingExtra("a ledger in PostgreSQL", "postgres") from error
    if url.get_backend_name() == "sqlite":
        event.listen(engine, "do_connect", _open_sqlite)
        event.listen(engine, "checkin", _drop_snapshot)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _patience(url: URL) -> dict[str, Any]:
    """Time limits of PostgreSQL's client for a silent server; options of the URL override them."""
    if url.get_backend_name() != "postgresql":
        return {}
    said = {*url.query, *(["connect_timeout"] if os.environ.get("PGCONNECT_TIMEOUT") else [])}
    limits = {"connect_timeout": CONNECT_SECONDS, **_NETWORK}
    return {name: limit for name, limit in limits.items() if name not in said}


@contextlib.contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A connection that sees one moment of the database, even if others write."""
    with foreign_errors(engine.url), engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection = connection.execution_options(isolation_level="REPEATABLE READ")
        with connection.begin():
            yield connection


@contextlib.contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A connection in a writing transaction, of which only one exists at a time; others wait.

    SQLite has only one writer, but the transaction must be declared as writing at its start: a
    reader that becomes a writer fails at once if another process wrote in between. PostgreSQL is
    made to work in the same way, so the results of a transaction's look-ups still hold when it
    writes.
    """
    with foreign_errors(engine.url), engine.connect() as connection:
        connection = connection.execution_options(**{_IMMEDIATE: True})
        if engine.dialect.name == "postgresql":
            # For any default of the server: each statement must see the changes of earlier writers.
            connection = connection.execution_options(isolation_level="READ COMMITTED")
        with connection.begin():
            if engine.dialect.name == "postgresql":
                connection.execute(text(f"SET LOCAL lock_timeout = '{BUSY_SECONDS}s'"))
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_WRITERS_LOCK})"))
            yield connection


def require_sound(connection: Connection) -> None:
    """Let SQLite check its pages; PostgreSQL has other tools for this.

    Raises:
        LedgerError: They are damaged.
    """
    if connection.dialect.name != "sqlite":
        return
    found = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one())
    if found != "ok":
        raise LedgerError(
            f"{shown(connection.engine.url)} is damaged ({found.splitlines()[0]}): restore a"
            " backup into a new folder; 'sqlite3 FILE .recover' saves what can still be read"
        )


@contextlib.contextmanager
def foreign_errors(url: URL) -> Iterator[None]:
    """Turn the database's and SQLAlchemy's errors into :class:`LedgerError`."""
    try:
        yield
    except DBAPIError as error:
        raise LedgerError(f"{shown(url)}: {_reason(url, error.orig)}") from error
    except SQLAlchemyError as error:
        raise LedgerError(f"{shown(url)}: {_first_line(error)}") from error


def _reason(url: URL, error: BaseException | None) -> str:
    cause = cause_of_sqlite(database_path(url), error) if isinstance(error, sqlite3.Error) else None
    return cause or _first_line(error)


def _first_line(error: BaseException | None) -> str:
    text = scrubbed(str(error).strip())
    if "database is locked" in text:
        return f"another process has been writing for {BUSY_SECONDS} s; try again"
    return text.splitlines()[0] if text else type(error).__name__


def _open_sqlite(
    dialect: Dialect, entry: ConnectionPoolEntry, arguments: list[Any], named: dict[str, Any]
) -> sqlite3.Connection:
    """Open the file, as a read-only snapshot if nothing can be written next to it.

    SQLite keeps an index of its write-ahead log next to the file, even for readers. If the index
    cannot be made, nobody can write either, and the file is complete.
    """
    connection: sqlite3.Connection = dialect.connect(*arguments, **named)  # type: ignore[assignment]
    try:
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1")
    except sqlite3.OperationalError:
        path = Path(arguments[0])
        log = path.with_name(path.name + "-wal")
        unwritten = cannot_be_written(path.parent) and path.is_file()
        if not unwritten or (log.exists() and log.stat().st_size):
            raise
        connection.close()
        uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
        connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
        entry.info["snapshot"] = True
    return connection


def _drop_snapshot(_connection: Any, entry: ConnectionPoolEntry) -> None:
    """Open the file again next time: it may be writable by then."""
    if entry.info.pop("snapshot", False):
        entry.invalidate()


def _prepare_sqlite(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
    # Transactions are begun by _begin_sqlite, not by the driver, which would begin them too late.
    connection.isolation_level = None
    for pragma in (
        f"busy_timeout = {BUSY_SECONDS * 1000}",
        "foreign_keys = ON",
        "synchronous = FULL",  # committed data survives a power cut
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    options: dict[str, Any] = dict(connection.get_execution_options())
    connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get(_IMMEDIATE) else "BEGIN")
