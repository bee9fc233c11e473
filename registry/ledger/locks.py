"""The right to project: one process at a time, freed when its holder dies."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator

from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from registry.errors import GraphBusy, LedgerError
from registry.ledger.engine import foreign_errors, lock_path, shown

__all__ = ["holding_projection"]

_POLL_SECONDS = 0.05


@contextlib.contextmanager
def holding_projection(engine: Engine, registry_id: str, timeout_seconds: float) -> Iterator[None]:
    """Hold the lock for projecting this registry; see ``Ledger.projecting``."""
    if engine.dialect.name == "sqlite":
        with _holding_file(engine, timeout_seconds):
            yield
    else:
        with _holding_advisory(engine, registry_id, timeout_seconds):
            yield


@contextlib.contextmanager
def _holding_file(engine: Engine, timeout_seconds: float) -> Iterator[None]:
    """Lock a file beside the database; the system frees it with the process."""
    lock = FileLock(lock_path(engine.url))
    try:
        lock.acquire(timeout=timeout_seconds, poll_interval=_POLL_SECONDS)
    except Timeout:
        raise _busy(timeout_seconds) from None
    except OSError as error:
        raise LedgerError(f"{shown(engine.url)}: {error}") from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _holding_advisory(engine: Engine, registry_id: str, timeout_seconds: float) -> Iterator[None]:
    """Lock a number on a connection of its own; the server frees it with the connection."""
    key = int.from_bytes(hashlib.sha256(registry_id.encode()).digest()[:8], signed=True)
    with foreign_errors(engine.url):
        connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        # Not given back to the pool, where the lock would live on if releasing it failed.
        connection.detach()
    try:
        with foreign_errors(engine.url):
            _acquire_advisory(connection, key, timeout_seconds)
        yield
    finally:
        with contextlib.suppress(SQLAlchemyError):  # the server may be gone, and the lock with it
            # Said aloud, as a server notices only some time later that a connection was closed.
            connection.execute(text("SELECT pg_advisory_unlock_all()"))
        with contextlib.suppress(SQLAlchemyError):
            connection.close()


def _acquire_advisory(connection: Connection, key: int, timeout_seconds: float) -> None:
    deadline = time.monotonic() + timeout_seconds
    attempt = text("SELECT pg_try_advisory_lock(:key)")
    while not connection.execute(attempt, {"key": key}).scalar_one():
        if time.monotonic() >= deadline:
            raise _busy(timeout_seconds)
        time.sleep(_POLL_SECONDS)


def _busy(timeout_seconds: float) -> GraphBusy:
    return GraphBusy(
        f"another process has been writing to the graph for {timeout_seconds:g} s;"
        " what is recorded is kept, 'circuits sync' finishes later"
    )
