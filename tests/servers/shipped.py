"""A Neo4j with the settings that docker-compose.yml ships, without Docker.

The image turns ``NEO4J_db_memory_transaction_max`` into ``db.memory.transaction.max``, and two
underscores into one; heap and options go to Java.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

from tests.servers.neo4j import Neo4jServer, running_server

_COMPOSE = Path(__file__).resolve().parents[2] / "docker-compose.yml"
_NOT_OF_THE_KERNEL = ("server.memory.heap.", "server.memory.pagecache.")
_JAVA = "server.jvm.additional"


@contextlib.contextmanager
def shipped_server() -> Iterator[Neo4jServer]:
    """Start it on a free loopback port; stop it afterwards."""
    settings = shipped_settings()
    heap = settings["server.memory.heap.max_size"]
    kept = {k: v for k, v in settings.items() if not k.startswith(_NOT_OF_THE_KERNEL)}
    with running_server(kept, [f"-Xmx{heap}", settings[_JAVA]]) as server:
        yield server


def shipped_settings() -> Mapping[str, str]:
    """The settings of the server, by the names of ``neo4j.conf``, with their defaults."""
    services = yaml.safe_load(_COMPOSE.read_text(encoding="utf-8"))["services"]
    return {
        _setting(name): re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)
        for name, value in services["neo4j"]["environment"].items()
        if name != "NEO4J_AUTH"
    }


def _setting(variable: str) -> str:
    words = variable.removeprefix("NEO4J_").replace("__", "\0")
    return words.replace("_", ".").replace("\0", "_")
