"""Open the graph that a URL names."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr

from registry.credentials import has_stray_password, shown_url
from registry.errors import BadInput, GraphUnavailable
from registry.graph.base import GraphStore
from registry.settings.file_urls import read_path

__all__ = ["open_graph", "set_embedded_aside"]

_NEO4J_SCHEMES = frozenset({"bolt", "bolt+s", "bolt+ssc", "neo4j", "neo4j+s", "neo4j+ssc"})
_DRIVE = re.compile(r"/[A-Za-z]:/")


def open_graph(
    url: str,
    *,
    user: str | None = None,
    password: SecretStr | None = None,
    database: str | None = None,
    writing: bool,
) -> GraphStore:
    """Open a graph; engines are imported only here.

    Args:
        url: ``kglite:///ABSOLUTE/PATH``, ``bolt://HOST:PORT``, ``neo4j://``, ``neo4j+s://``, ...
        user: Only for a server.
        password: Only for a server. Never part of the URL.
        database: Only for a server with several databases.
        writing: Open for projecting; the embedded engine allows one writer at a time.

    Raises:
        BadInput: The URL is of another form or contains credentials.
        GraphError: The graph cannot be opened; see the stores.
    """
    scheme, separator, rest = url.partition("://")
    if separator and scheme == "kglite":
        from registry.graph.embedded import EmbeddedGraph

        return EmbeddedGraph(_embedded_path(rest), writing=writing)
    if separator and scheme in _NEO4J_SCHEMES:
        _refuse_credentials(url, scheme)
        from registry.graph.neo4j import Neo4jGraph

        return Neo4jGraph(url, user=user, password=password, database=database, writing=writing)
    raise BadInput(
        f"{shown_url(url)!r} is not a graph; give kglite:///ABSOLUTE/PATH, or the"
        f" address of a Neo4j server such as bolt://localhost:7687 or neo4j+s://HOST"
    )


def set_embedded_aside(url: str) -> None:
    """Rename an embedded graph's file to ``NAME.old``, because it is rebuilt from the ledger.

    For a file that this version of the engine cannot read. It is not deleted, because its owner is
    unknown. A readable file is emptied by :func:`registry.graph.schema.begin_filling`.

    Raises:
        GraphUnavailable: It cannot be renamed.
    """
    path = _embedded_path(url.partition("://")[2])
    try:
        path.replace(path.with_name(path.name + ".old"))
    except FileNotFoundError:
        return
    except OSError as error:
        raise GraphUnavailable(f"{path} cannot be set aside: {error.strerror or error}") from error


def _embedded_path(rest: str) -> Path:
    if _DRIVE.match(rest):
        rest = rest[1:]
    # Four slashes, as in SQLAlchemy's URLs, mean the same as three.
    path = read_path(rest, Path())
    if path.is_dir():
        raise BadInput(f"{path} is a folder; give kglite:///ABSOLUTE/PATH of a file in it")
    if not path.is_absolute():
        raise BadInput(f"kglite://{rest} is not an absolute path; give kglite:///ABSOLUTE/PATH")
    return path


def _refuse_credentials(url: str, scheme: str) -> None:
    try:
        has_host = bool(urlsplit(url).hostname)
    except ValueError:
        has_host = False
    if "@" in url or has_stray_password(url):
        raise BadInput(
            f"a graph's address must not have a user or password; give {scheme}://HOST:PORT and set"
            f" CIRCUITS_GRAPH_USER and CIRCUITS_GRAPH_PASSWORD"
        )
    if not has_host:
        raise BadInput(f"{shown_url(url)!r} names no host; give {scheme}://HOST:PORT")
