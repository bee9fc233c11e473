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

from registry.credentials import remember_secrets, scrubbed
from registry.errors import BadInput, LedgerError, MissingExtra
from registry.file_urls import read_path, url_path
from registry.ledger.causes import cannot_be_written, cause_of_sqlite
from registry.records import canonical_json

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
"""How long a writer waits for the one before it."""

CONNECT_SECONDS = 10
"""How long a server may take to let us in."""

_NETWORK = {
    "keepalives_idle": 30,  # seconds of silence, then the other machine is asked
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,  # milliseconds that what we sent may stay unconfirmed
}
"""Limits of PostgreSQL's client for a connection whose other end is gone."""

_WRITERS_LOCK = 0x6369726375697473
"""PostgreSQL's advisory lock that makes writers take turns: "circuits" in ASCII."""

_IMMEDIATE = "ledger_begin_immediate"


def parse_url(text: str) -> URL:
    """Read where a ledger is: ``sqlite:///PATH`` or ``postgresql://USER@HOST/DATABASE``.

    Raises:
        BadInput: Neither of the two, or a password whose end nobody can tell. The text shows no
            password, as it repeats nothing.
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
        raise BadInput(f"a ledger lives in sqlite:///PATH or postgresql://..., not in {backend}")
    _refuse_password_without_end(url, rest)
    return url.set(drivername="postgresql+psycopg")


def _path_in(rest: str) -> str:
    """The path after ``sqlite://``; SQLAlchemy would read options and not decode everywhere."""
    written = rest.removeprefix("/")
    if not rest.startswith("/") or written in {"", ":memory:"}:
        raise BadInput("a ledger in SQLite needs a file: sqlite:///PATH")
    if "?" in written:
        raise BadInput("SQLite takes no options; a question mark in a file's name is written %3F")
    return str(read_path(written, Path()))


def _refuse_password_without_end(url: URL, rest: str) -> None:
    # A second "@", or one that SQLAlchemy takes for a part of the database's name.
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
    """The file beside a SQLite ledger that processes lock to project or migrate alone."""
    path = database_path(url)
    return path.with_name(path.name + ".lock")


def shown(url: URL) -> str:
    """The URL as errors and reprs may show it: without password and options."""
    if url.get_backend_name() == "sqlite":
        return f"sqlite:///{url_path(database_path(url))}"
    kept = {name: value for name, value in url.query.items() if name in {"host", "port"}}
    return url.set(query=kept).render_as_string(hide_password=True)


def connect(url: URL) -> Engine:
    """Make an engine for ``url``; nothing is opened yet.

    Raises:
        MissingExtra: The database's driver is not installed.
        LedgerError: A folder, pipe or device is where SQLite's file would be.
    """
    if url.get_backend_name() == "sqlite":
        path = database_path(url)
        if path.exists() and not path.is_file():
            raise LedgerError(f"{shown(url)} is no regular file; name another place")
    try:
        engine = create_engine(
            url,
            json_serializer=canonical_json,
            hide_parameters=True,  # records have no place in errors and logs
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
    """What makes PostgreSQL's client give up on a server that says nothing; the URL goes before."""
    if url.get_backend_name() != "postgresql":
        return {}
    said = {*url.query, *(["connect_timeout"] if os.environ.get("PGCONNECT_TIMEOUT") else [])}
    limits = {"connect_timeout": CONNECT_SECONDS, **_NETWORK}
    return {name: limit for name, limit in limits.items() if name not in said}


@contextlib.contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A connection that sees one moment of the database, whatever others write meanwhile."""
    with foreign_errors(engine.url), engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection = connection.execution_options(isolation_level="REPEATABLE READ")
        with connection.begin():
            yield connection


@contextlib.contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A connection in the one writing transaction there is at a time; others wait for its end.

    SQLite has one writer anyway, but must be told at the start: a reader that turns writer fails
    at once if another wrote in between. PostgreSQL is made to work the same way, so that
    what one transaction looks up still holds when it writes.
    """
    with foreign_errors(engine.url), engine.connect() as connection:
        connection = connection.execution_options(**{_IMMEDIATE: True})
        if engine.dialect.name == "postgresql":
            # Whatever the server's default: each statement must see what the writer before left.
            connection = connection.execution_options(isolation_level="READ COMMITTED")
        with connection.begin():
            if engine.dialect.name == "postgresql":
                connection.execute(text(f"SET LOCAL lock_timeout = '{BUSY_SECONDS}s'"))
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_WRITERS_LOCK})"))
            yield connection


def require_sound(connection: Connection) -> None:
    """Let SQLite check its pages; PostgreSQL has tools of its own for that.

    Raises:
        LedgerError: They are damaged.
    """
    if connection.dialect.name != "sqlite":
        return
    found = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one())
    if found != "ok":
        raise LedgerError(
            f"{shown(connection.engine.url)} is damaged ({found.splitlines()[0]}): restore a"
            " backup into a new folder; what can still be read, 'sqlite3 FILE .recover' saves"
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
    """Open the file; where nothing can be written beside it, as a snapshot that can only be read.

    SQLite keeps an index of its write-ahead log beside the file even for readers. Where that cannot
    be made, nobody writes either, and what is in the file is all there is.
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
    """Open the file anew next time: by then it may be written again."""
    if entry.info.pop("snapshot", False):
        entry.invalidate()


def _prepare_sqlite(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
    # Transactions are begun by _begin_sqlite, not by the driver, which would begin them late.
    connection.isolation_level = None
    for pragma in (
        f"busy_timeout = {BUSY_SECONDS * 1000}",
        "foreign_keys = ON",
        "synchronous = FULL",  # what was acknowledged survives a power cut
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    options: dict[str, Any] = dict(connection.get_execution_options())
    connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get(_IMMEDIATE) else "BEGIN")
