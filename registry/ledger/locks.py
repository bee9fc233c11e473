"""The right to project: only one process at a time; it is released when its holder dies."""

from __future__ import annotations

import contextlib
import hashlib
import random
import time
from collections.abc import Callable, Iterator

from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from registry.errors import GraphBusy, LedgerError
from registry.ledger.causes import cause_of_system
from registry.ledger.engine import foreign_errors, lock_path, shown

__all__ = ["holding_projection"]

_FIRST_PAUSE_SECONDS = 0.01
_LONGEST_PAUSE_SECONDS = 0.1
"""Checks cost processor time that the holder needs, so they become rarer with time."""


@contextlib.contextmanager
def holding_projection(
    engine: Engine,
    registry_id: str,
    timeout_seconds: float,
    unless: Callable[[], bool] | None = None,
) -> Iterator[Callable[[], None] | None]:
    """Hold the lock for projecting this registry; see ``Ledger.projecting``."""
    if engine.dialect.name == "sqlite":
        holding = _holding_file(engine)
    else:
        holding = _holding_advisory(engine, registry_id)
    with holding as (attempt, require_held):
        yield require_held if _acquired(attempt, timeout_seconds, unless) else None


def _acquired(
    attempt: Callable[[], bool], timeout_seconds: float, unless: Callable[[], bool] | None
) -> bool:
    """Try until the lock is held, or until waiting is no longer needed.

    Raises:
        GraphBusy: Another process held it for the whole time.
    """
    deadline = time.monotonic() + timeout_seconds
    pause = _FIRST_PAUSE_SECONDS
    while not attempt():
        if unless is not None and unless():
            return False
        if time.monotonic() >= deadline:
            raise GraphBusy(
                f"another process has been writing to the graph for {timeout_seconds:g} s;"
                " recorded results are kept, 'circuits sync' projects them later"
            )
        # Randomised, so that waiting processes do not all try at the same moments.
        time.sleep(pause * random.uniform(0.7, 1.3))
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
    return True


_Lock = tuple[Callable[[], bool], Callable[[], None]]
"""One function tries once to take a lock; the other checks that it is still held."""


@contextlib.contextmanager
def _holding_file(engine: Engine) -> Iterator[_Lock]:
    """Lock a file next to the database; the system releases it when the process ends."""
    lock = FileLock(lock_path(engine.url))

    def attempt() -> bool:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return False
        except OSError as error:
            cause = cause_of_system(lock_path(engine.url), error)
            raise LedgerError(f"{shown(engine.url)}: {cause}") from error
        return True

    try:
        yield attempt, lambda: None  # the system never takes it from a process that is alive
    finally:
        lock.release()


@contextlib.contextmanager
def _holding_advisory(engine: Engine, registry_id: str) -> Iterator[_Lock]:
    """Lock a number on a separate connection; the server releases it with the connection."""
    key = int.from_bytes(hashlib.sha256(registry_id.encode()).digest()[:8], signed=True)
    with foreign_errors(engine.url):
        connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        # Not returned to the pool, where the lock would remain if releasing it failed.
        connection.detach()

    def attempt() -> bool:
        with foreign_errors(engine.url):
            return _try_advisory(connection, key)

    def require_held() -> None:
        with foreign_errors(engine.url):
            connection.execute(text("SELECT 1"))

    try:
        yield attempt, require_held
    finally:
        with contextlib.suppress(SQLAlchemyError):  # the server may have ended, and the lock too
            # Explicit, because a server notices a closed connection only after some time.
            connection.execute(text("SELECT pg_advisory_unlock_all()"))
        with contextlib.suppress(SQLAlchemyError):
            connection.close()


def _try_advisory(connection: Connection, key: int) -> bool:
    attempt = text("SELECT pg_try_advisory_lock(:key)")
    return bool(connection.execute(attempt, {"key": key}).scalar_one())
