"""A graph's marker and schema: its owner, its revision of the ledger, and whether it is complete.

One node ``(:Registry {id, instance, schema_version, state, revision, token, n_put_aside})`` marks a
graph as made from one ledger and gives the revision that the graph holds. Numbered files
``migrations/graph/NNNN_what.cypher`` make and change constraints and indexes, the same text on
every engine; each may be repeated without harm. ``schema_version`` is the number of the last one
applied.

Records that the graph could not accept are named by ``(:PutAside {id, kind, key, reason})``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache
from typing import Any

from registry.canonical import content_hash
from registry.errors import GraphOutdated, GraphRefused
from registry.graph.base import GraphStore, Statement
from registry.ledger.base import Change, ChangeKind, Revision
from registry.resources import migrations_folder

__all__ = [
    "GraphState",
    "Marker",
    "Owner",
    "PutAside",
    "begin_filling",
    "holds_nothing",
    "holds_only_the_marker",
    "identify",
    "mark",
    "migrate",
    "put_aside",
    "require_whole",
    "schema_version",
]

_MARKER = """
MATCH (r:Registry)
RETURN r.id AS id, r.instance AS instance, r.schema_version AS schema_version, r.state AS state,
  r.revision AS revision, r.token AS token, r.n_put_aside AS n_put_aside
ORDER BY id
"""
_ANYTHING = "MATCH (n) RETURN 1 AS something LIMIT 1"
_MARK = "MERGE (r:Registry {id: $id}) SET r += $properties"
_PUT_ASIDE = """
MATCH (p:PutAside)
RETURN p.kind AS kind, p.key AS key, p.reason AS reason
ORDER BY kind, key
"""
_FORGET_PUT_ASIDE = "MATCH (p:PutAside) DETACH DELETE p"
_ADD_PUT_ASIDE = "UNWIND $rows AS row MERGE (p:PutAside {id: row.id}) SET p += row.properties"
_LONGEST_REASON = 500


class GraphState(StrEnum):
    """The state that a marked graph records."""

    READY = "ready"
    """It holds the revision that it names, complete."""
    WRITING = "writing"
    """Changes after that revision are being written, or the writing process died."""
    FILLING = "filling"
    """It was emptied and is being rebuilt: much is missing."""
    EMPTYING = "rebuilding"
    """It is being emptied: its content must not be used."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The ledger that a graph is made from: the registry's id and the ledger's instance."""

    registry: str
    instance: str


@dataclass(frozen=True, slots=True)
class Marker:
    """The marker of a graph.

    Attributes:
        registry: Id of the registry.
        instance: The ledger that it is made from; None in graphs of schema version 1.
        schema_version: Number of the last migration applied.
        state: Whether it is complete.
        revision: The revision of the ledger that it holds.
        n_put_aside: Number of records that it could not accept.
    """

    registry: str
    instance: str | None
    schema_version: int
    state: GraphState
    revision: Revision = field(default_factory=Revision)
    n_put_aside: int = 0


@dataclass(frozen=True, slots=True)
class PutAside:
    """A record that the graph could not accept, and the reason."""

    change: Change
    reason: str

    def __str__(self) -> str:
        kind = self.change.kind.value.replace("_", " ")
        return f"{kind} {self.change.key[:12]}: {self.reason}"


@dataclass(frozen=True, slots=True)
class _Migration:
    number: int
    statements: tuple[str, ...]


def schema_version() -> int:
    """Version of the schema that this program writes."""
    return _migrations()[-1].number


def identify(
    store: GraphStore,
    owner: Owner,
    *,
    of_any_instance: bool = False,
    timeout_seconds: float | None = None,
) -> Marker | None:
    """Return the graph's marker, None for an empty graph; changes nothing.

    Args:
        store: Open for reading or writing.
        owner: The required owner of the graph.
        of_any_instance: Accept a graph that was made from another copy of the registry.
        timeout_seconds: Maximum time for the graph to answer.

    Raises:
        GraphRefused: It holds data of another registry, of another copy of this registry, or of
            no registry.
        GraphOutdated: It was written by a newer version of the schema.
    """
    rows = store.read(_MARKER, timeout_seconds=timeout_seconds).to_dicts()
    if not rows:
        if holds_nothing(store):
            return None
        # A rebuild may have begun to fill the graph between the two queries.
        rows = store.read(_MARKER, timeout_seconds=timeout_seconds).to_dicts()
    if not rows:
        raise GraphRefused(
            "the graph holds data that no registry wrote; use an empty database, or empty this one"
            " yourself"
        )
    ids = [str(row.get("id")) for row in rows]
    if ids != [owner.registry]:
        raise GraphRefused(
            f"the graph belongs to registry {', '.join(ids)}, not to {owner.registry}; each"
            f" registry needs a separate database"
        )
    marker = _read_marker(rows[0])
    if marker.instance not in (None, owner.instance) and not of_any_instance:
        raise GraphRefused(
            "the graph was made from another copy of this registry (one of the two was restored"
            " from a backup); give this copy a separate graph by --graph, or take over this graph"
            " by 'circuits rebuild --overwrite-graph'"
        )
    if marker.schema_version > schema_version():
        raise GraphOutdated(
            f"the graph has schema version {marker.schema_version}, newer than this program's"
            f" {schema_version()}; upgrade circuit-registry"
        )
    return marker


def holds_nothing(store: GraphStore) -> bool:
    """Whether the graph has no node at all."""
    return not len(store.read(_ANYTHING))


def holds_only_the_marker(store: GraphStore) -> bool:
    """Whether the graph has no node except its marker."""
    return not len(store.read("MATCH (n) WHERE NOT n:Registry RETURN 1 AS one LIMIT 1"))


def require_whole(marker: Marker | None) -> Marker:
    """Return the marker of a graph that readers may query.

    Raises:
        GraphOutdated: The graph is empty, is being rebuilt, or is of an older version.
    """
    if marker is None:
        raise GraphOutdated("the graph is empty; 'circuits sync' fills it")
    if marker.schema_version < schema_version():
        raise GraphOutdated(
            f"the graph has schema version {marker.schema_version}, this program needs"
            f" {schema_version()}; run 'circuits sync'"
        )
    if marker.state in (GraphState.EMPTYING, GraphState.FILLING):
        raise GraphOutdated(
            "the graph is being rebuilt and is not complete yet; try again when that is done, or"
            " run 'circuits sync' if it was interrupted"
        )
    return marker


def migrate(store: GraphStore, marker: Marker, owner: Owner) -> Marker:
    """Apply the migrations that a graph lacks and make it this ledger's; returns its marker."""
    _apply_migrations(store, after=marker.schema_version)
    current = replace(marker, schema_version=schema_version(), instance=owner.instance)
    if current != marker:
        mark(store, current)
    return current


def begin_filling(store: GraphStore, owner: Owner, marker: Marker | None) -> Marker:
    """Empty the graph and make its schema; everything must be projected afterwards.

    If this is killed, the graph is empty or marked ``EMPTYING``, never incomplete without a mark.
    An embedded graph keeps its last checkpoint meanwhile, which readers still see.

    Args:
        store: Open for writing.
        owner: The new owner of the graph.
        marker: Result of :func:`identify`.

    Returns:
        Its present marker, with the state ``FILLING``.
    """
    if marker is not None:
        mark(store, replace(marker, state=GraphState.EMPTYING))
    # Even a graph without nodes: a server that was killed may have left an index.
    store.clear()
    _apply_migrations(store, after=0)
    made = Marker(owner.registry, owner.instance, schema_version(), GraphState.FILLING)
    mark(store, made)
    return made


def mark(store: GraphStore, marker: Marker, aside: Sequence[PutAside] | None = None) -> None:
    """Write the marker, and the list of records put aside unless that is None."""
    written = []
    if aside is not None:
        written = [Statement(_FORGET_PUT_ASIDE)]
        if aside:
            written.append(Statement(_ADD_PUT_ASIDE, {"rows": [_put_aside_row(a) for a in aside]}))
    properties = {
        "instance": marker.instance,
        "schema_version": marker.schema_version,
        "state": marker.state.value,
        "revision": marker.revision.number,
        "token": marker.revision.token,
        "n_put_aside": marker.n_put_aside,
    }
    written.append(Statement(_MARK, {"id": marker.registry, "properties": properties}))
    store.write(written)


def put_aside(store: GraphStore) -> list[PutAside]:
    """The records that the graph could not accept."""
    rows = store.read(_PUT_ASIDE).expecting(kind="string", key="string", reason="string")
    known = {kind.value for kind in ChangeKind}
    return [
        PutAside(Change(ChangeKind(row["kind"]), row["key"]), row["reason"])
        for row in rows
        if row["kind"] in known
    ]


def _put_aside_row(one: PutAside) -> dict[str, Any]:
    change = one.change
    # A separate id, because the key may be the value that the graph could not accept.
    return {
        "id": content_hash([change.kind.value, change.key]),
        "properties": {
            "kind": change.kind.value,
            "key": change.key,
            "reason": one.reason[:_LONGEST_REASON],
        },
    }


def _read_marker(row: Mapping[str, Any]) -> Marker:
    try:
        return Marker(
            registry=str(row["id"]),
            instance=None if row["instance"] is None else str(row["instance"]),
            schema_version=int(row["schema_version"]),
            state=GraphState(row["state"]),
            revision=Revision(int(row["revision"] or 0), str(row["token"] or "")),
            n_put_aside=int(row["n_put_aside"] or 0),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise GraphRefused(
            "the graph's marker cannot be read: another application wrote to it; empty the database"
            " yourself, then run 'circuits sync'"
        ) from error


def _apply_migrations(store: GraphStore, *, after: int) -> None:
    for migration in _migrations():
        if migration.number > after:
            # Separate from the marker: a Neo4j transaction cannot change both schema and data.
            store.write([Statement(text) for text in migration.statements])


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
