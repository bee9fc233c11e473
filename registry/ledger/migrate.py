"""Upgrade a database to the schema of this program, and determine its present schema."""

from __future__ import annotations

import contextlib
import sqlite3
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout
from sqlalchemy import URL, Connection, Engine, insert, inspect, text

from registry.errors import LedgerError, LedgerOutdated
from registry.ledger import tables
from registry.ledger.causes import cause_of_sqlite, cause_of_system
from registry.ledger.engine import (
    BUSY_SECONDS,
    connect,
    database_path,
    foreign_errors,
    lock_path,
    parse_url,
    reading,
    shown,
    writing,
)
from registry.resources import migrations_folder
from registry.texts.words import listed

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

__all__ = ["is_set_up", "migrate_ledger", "require_current"]


def migrate_ledger(url: str, *, check: bool = False) -> tuple[str, ...]:
    """Apply the revisions that a database lacks, all or none; an empty or missing one gets all.

    Args:
        url: Where the ledger is. A SQLite file that does not exist is made, with its folder.
        check: Only list the pending revisions; nothing is made or changed.

    Returns:
        The revisions applied (pending, with ``check``) in order, as ``0001 What it does``.

    Raises:
        LedgerError: The database holds tables of another application, which are not changed, or
            it cannot be reached.
        LedgerOutdated: The database is newer than this program.
    """
    where = parse_url(url)
    if where.get_backend_name() == "sqlite" and not database_path(where).exists():
        if check:
            return _names(None)
        _make_file(where)
    engine = connect(where)
    try:
        return _pending(engine) if check else _upgrade(engine)
    finally:
        engine.dispose()


def is_set_up(url: str) -> bool:
    """Whether there is a ledger, of any revision; the check makes no file.

    Raises:
        LedgerError: The database holds tables of another application, or cannot be reached.
    """
    where = parse_url(url)
    if where.get_backend_name() == "sqlite" and not database_path(where).exists():
        return False
    engine = connect(where)
    try:
        with reading(engine) as connection:
            return revision_of(connection) is not None
    finally:
        engine.dispose()


def require_current(connection: Connection) -> None:
    """Check that the database has exactly the schema of this program.

    Raises:
        LedgerOutdated: It is older, newer or empty; the message gives the command to run.
        LedgerError: It is not a ledger.
    """
    url, found = shown(connection.engine.url), revision_of(connection)
    if found is None:
        raise LedgerOutdated(f"{url} is not set up yet: run 'circuits migrate'")
    if found > tables.REVISION:
        raise LedgerOutdated(
            f"{url} was written by a newer version (revision {found}, this program knows"
            f" {tables.REVISION}): upgrade circuit-registry"
        )
    if found < tables.REVISION:
        raise LedgerOutdated(
            f"{url} is at revision {found}, this program needs {tables.REVISION}:"
            " run 'circuits migrate'"
        )


def revision_of(connection: Connection) -> str | None:
    """The revision of a ledger's database; None if it has no tables.

    Raises:
        LedgerError: There are tables, but not those of a ledger.
    """
    names = set(inspect(connection).get_table_names())
    if not names:
        return None
    if not {tables.REVISION_TABLE, tables.registry.name} <= names:
        raise LedgerError(
            f"{shown(connection.engine.url)} belongs to another application (tables"
            f" {listed(sorted(names), 3)}); give the ledger a separate database"
        )
    found = connection.execute(text(f"SELECT version_num FROM {tables.REVISION_TABLE}"))
    return str(found.scalar_one())


def _pending(engine: Engine) -> tuple[str, ...]:
    with reading(engine) as connection:
        found = revision_of(connection)
        _refuse_newer(connection, found)
        return _names(found)


def _upgrade(engine: Engine) -> tuple[str, ...]:
    from alembic import command

    with _alone(engine.url), writing(engine) as connection:
        found = revision_of(connection)
        _refuse_newer(connection, found)
        pending = _names(found)
        if pending:
            command.upgrade(_config(connection), "head")
        if found is None:
            connection.execute(
                insert(tables.registry).values(
                    id=uuid.uuid4().hex, created_at=datetime.now(UTC), instance=uuid.uuid4().hex
                )
            )
    return pending


def _refuse_newer(connection: Connection, found: str | None) -> None:
    if found is not None and found > tables.REVISION:
        require_current(connection)


def _names(found: str | None) -> tuple[str, ...]:
    newest_first = _scripts().iterate_revisions("head", found or "base")
    return tuple(f"{s.revision} {s.doc.rstrip('.')}" for s in reversed(list(newest_first)))


def _scripts() -> ScriptDirectory:
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(_config(None))


def _config(connection: Connection | None) -> Config:
    from alembic.config import Config

    config = Config()
    # Alembic reads options like configparser, where a percent sign is special.
    config.set_main_option("script_location", str(migrations_folder("ledger")).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _make_file(url: URL) -> None:
    path = database_path(url)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LedgerError(f"{shown(url)}: {cause_of_system(path, error)}") from error


@contextlib.contextmanager
def _alone(url: URL) -> Iterator[None]:
    """Prevent other processes from changing SQLite's journal and schema at the same time.

    The journal mode is stored in the file. It cannot be changed within a transaction, or while
    another process has a transaction open. PostgreSQL needs only the writers' lock.
    """
    if url.get_backend_name() != "sqlite":
        yield
        return
    try:
        with FileLock(lock_path(url), timeout=BUSY_SECONDS):
            with foreign_errors(url):
                _journal_ahead(url)
            yield
    except Timeout as error:
        raise LedgerError(f"{shown(url)} is in use by another process; try again") from error
    except OSError as error:
        raise LedgerError(f"{shown(url)}: {cause_of_system(lock_path(url), error)}") from error
    except sqlite3.Error as error:
        cause = cause_of_sqlite(database_path(url), error) or error
        raise LedgerError(f"{shown(url)}: {cause}") from error


def _journal_ahead(url: URL) -> None:
    """Set write-ahead logging, with which readers and the writer do not wait for each other."""
    connection = sqlite3.connect(database_path(url), timeout=BUSY_SECONDS)
    try:
        # Checked before anything is made: a database of another application must not change.
        holds = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not holds:
            connection.execute("PRAGMA journal_mode = WAL")
    finally:
        connection.close()
