"""A graph's marker and schema: whose it is, which version, and whether it is being rebuilt.

One node ``(:Registry {id, schema_version, state})`` marks a graph as belonging to one registry.
Numbered files ``migrations/graph/NNNN_what.cypher`` make and change constraints and indexes, the
same text on every engine; each may be repeated without harm. ``schema_version`` is the number of
the last one applied.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from registry.errors import GraphOutdated, GraphRefused
from registry.graph.base import GraphStore, Statement
from registry.resources import migrations_folder

__all__ = ["GraphState", "begin_rebuild", "check", "prepare", "schema_version"]

_READY, _REBUILDING = "ready", "rebuilding"
_MARKER = """
MATCH (r:Registry)
RETURN r.id AS id, r.schema_version AS schema_version, r.state AS state
ORDER BY id
"""
_ANYTHING = "MATCH (n) RETURN 1 AS something LIMIT 1"
_MARK = "MERGE (r:Registry {id: $id}) SET r += $properties"


class GraphState(StrEnum):
    """What a graph was found to be."""

    READY = "ready"
    """Belongs to this registry and is of this program's version."""
    EMPTY = "empty"
    """Holds nothing: a new database, or one that was dropped."""
    REBUILDING = "rebuilding"
    """A rebuild was begun and never ended: what it holds is not to be trusted."""


@dataclass(frozen=True, slots=True)
class _Migration:
    number: int
    statements: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Marker:
    schema_version: int
    state: str


def schema_version() -> int:
    """Version of the schema that this program writes."""
    return _migrations()[-1].number


def check(store: GraphStore, registry_id: str) -> GraphState:
    """Tell a reader whether the graph can be used, without changing it.

    Raises:
        GraphRefused: It holds another registry's data, or data of no registry.
        GraphOutdated: It was written by an older or newer version of the schema.
    """
    marker = _marker(store, registry_id)
    if marker is not None and marker.schema_version < schema_version():
        raise GraphOutdated(
            f"the graph has schema version {marker.schema_version}, this program needs"
            f" {schema_version()}; run 'circuits sync'"
        )
    return _state(marker)


def look(store: GraphStore, registry_id: str) -> GraphState:
    """Tell a writer what the graph is, without changing it; errors as in :func:`prepare`."""
    return _state(_marker(store, registry_id))


def prepare(store: GraphStore, registry_id: str) -> GraphState:
    """Make the graph ready to be written, and tell what it was found to be.

    An empty graph gets the schema and the marker, an older one the missing migrations. Where the
    answer is ``EMPTY``, everything recorded has to be projected; where it is ``REBUILDING``,
    nothing was changed and :func:`begin_rebuild` has to be called again first.

    Raises:
        GraphRefused: It holds another registry's data, or data of no registry.
        GraphOutdated: It was written by a newer version of the schema.
    """
    marker = _marker(store, registry_id)
    found = _state(marker)
    if found is not GraphState.REBUILDING:
        _migrate(store, registry_id, after=0 if marker is None else marker.schema_version)
    return found


def begin_rebuild(store: GraphStore, registry_id: str) -> None:
    """Empty the graph and make its schema again; everything has to be projected afterwards.

    Killed in between, the graph is found ``REBUILDING`` or ``EMPTY``, never half there.

    Raises:
        GraphRefused: It holds another registry's data, or data of no registry.
        GraphOutdated: It was written by a newer version of the schema.
    """
    marker = _marker(store, registry_id)
    if marker is not None:
        _mark(store, registry_id, _Marker(marker.schema_version, _REBUILDING))
        store.checkpoint()
    store.clear()
    _migrate(store, registry_id, after=0)
    store.checkpoint()


def _marker(store: GraphStore, registry_id: str) -> _Marker | None:
    rows = store.read(_MARKER).to_dicts()
    if not rows:
        if len(store.read(_ANYTHING)):
            raise GraphRefused(
                "the graph holds data that no registry wrote; give an empty database, or empty"
                " this one yourself"
            )
        return None
    ids = [str(row["id"]) for row in rows]
    if ids != [registry_id]:
        raise GraphRefused(
            f"the graph belongs to registry {', '.join(ids)}, not to {registry_id}; each registry"
            f" needs a database of its own"
        )
    marker = _Marker(int(rows[0]["schema_version"]), str(rows[0]["state"]))
    if marker.schema_version > schema_version():
        raise GraphOutdated(
            f"the graph has schema version {marker.schema_version}, newer than this program's"
            f" {schema_version()}; upgrade circuit-registry"
        )
    return marker


def _state(marker: _Marker | None) -> GraphState:
    if marker is None:
        return GraphState.EMPTY
    return GraphState.REBUILDING if marker.state == _REBUILDING else GraphState.READY


def _migrate(store: GraphStore, registry_id: str, *, after: int) -> None:
    pending = [migration for migration in _migrations() if migration.number > after]
    for migration in pending:
        # Apart from the marker: Neo4j does not mix changes of schema and data in a transaction.
        store.write([Statement(text) for text in migration.statements])
    if pending:
        _mark(store, registry_id, _Marker(pending[-1].number, _READY))


def _mark(store: GraphStore, registry_id: str, marker: _Marker) -> None:
    properties = {"schema_version": marker.schema_version, "state": marker.state}
    store.write([Statement(_MARK, {"id": registry_id, "properties": properties})])


@cache
def _migrations() -> tuple[_Migration, ...]:
    files = sorted(migrations_folder("graph").glob("[0-9][0-9][0-9][0-9]_*.cypher"))
    return tuple(
        _Migration(int(path.name[:4]), _statements(path.read_text(encoding="utf-8")))
        for path in files
    )


def _statements(text: str) -> tuple[str, ...]:
    without_comments = re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE)
    parts = re.split(r";\s*$", without_comments, flags=re.MULTILINE)
    return tuple(part.strip() for part in parts if part.strip())
