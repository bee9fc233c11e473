"""Tables of edges, or of heads and other nodes: how results of a tool we do not know get in.

CSV or TSV with a header line, or JSON Lines. A table of edges has the columns ``source``,
``target`` and, where known, ``port`` and ``effect``; usual names (``from``, ``dst``, ``weight``,
``score``, :mod:`ingest.formats.columns`) are read as these and a note says so, and any other names
are given as a map from ours to the file's. Parts may be spelled as any tool does
(:mod:`ingest.formats.spelling`); a port may stand in its own column or behind the target. Where
circuits are bound to token positions, ``source_position`` and ``target_position`` name them;
without a column ``rank``, edges are ranked by the size of their effects. Rows of ACDC's hook points
are read as well, with the head in brackets (``blocks.9.attn.hook_result[6]``); those inside one
head or MLP are left out.

A table of heads has ``layer`` and ``head``, or one column ``head`` or ``node`` with names
(``L9H6``, ``a9.h6``, ``9.6``, ``(9, 6)``, also ``MLP 3``), and ``effect`` or ``score``; it makes a
circuit of nodes (:mod:`ingest.formats.node_table`). All rows are the circuit, or those that a
column ``in_circuit`` or ``in_graph`` marks, or those of most size (``--top``, ``--threshold``).
Other formats that hold edges one by one use :func:`read_edges` and :func:`table_circuit`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ingest.formats.base import Context, Imported, Said, UnknownFormat
from ingest.formats.building import edge_circuit, with_sign
from ingest.formats.cells import (
    LONGEST_VALUE,
    is_empty,
    odd_number,
    read_effect,
    read_mark,
    read_position,
    read_rank,
)
from ingest.formats.choosing import choose, is_asked
from ingest.formats.columns import EDGE_COLUMNS, Columns
from ingest.formats.contraction import (
    fold_embeddings,
    is_inside,
    notes_on_inside,
    notes_on_ports,
)
from ingest.formats.node_table import names_a_node, read_nodes
from ingest.formats.reading import OddScores
from ingest.formats.spelling import Read, notes_on_names, read_name
from ingest.formats.table_rows import Row, read_table
from registry.errors import BadIdentifier, BadInput
from registry.identifiers import Port, node_key
from registry.records import Circuit, Edge, Node

__all__ = [
    "COLUMNS",
    "FORMAT",
    "EdgeTable",
    "EdgesRead",
    "imported_rows",
    "plausible",
    "read_edges",
    "table_circuit",
]

COLUMNS = EDGE_COLUMNS[:-1]
"""Columns of a table of edges as our exporters write it."""


@dataclass(frozen=True, slots=True)
class EdgesRead:
    """Edges of a file's rows.

    Attributes:
        edges: Those of the circuit.
        notes: What was read as what and what was left out.
        selection: How they were chosen; None where every row is in the circuit.
    """

    edges: Sequence[Edge]
    notes: list[str]
    selection: dict[str, Any] | None = None


class EdgeTable:
    """The format."""

    name = "table"
    summary = "edges or heads as CSV or JSON Lines: source, target, effect; layer, head, effect"
    companions = ()

    def sniff(self, path: Path, head: bytes) -> float:
        """Likely where the first line names both ends."""
        first = head.split(b"\n", 1)[0].lower()
        if path.suffix.lower() in {".jsonl", ".ndjson"}:
            return 0.5 if first.lstrip().startswith(b"{") else 0.0
        if path.suffix.lower() in {".csv", ".tsv"}:
            return 0.6 if b"source" in first and b"target" in first else 0.2
        return 0.0

    def read(self, path: Path, context: Context) -> Imported:
        """Read a table; every row is an edge or a node of the circuit, or those it marks."""
        table = read_table(path, context)
        if table.columns is None:
            raise BadInput(f"{path.name} holds no edge")
        columns = table.columns
        rows = plausible(table, columns, path.name, context.said)
        found = imported_rows(rows, columns, path.name, context)
        # Of JSON Lines, a later line may have columns that the first has not.
        return replace(found, notes=[*(table.columns or columns).notes(), *found.notes])


FORMAT = EdgeTable()


def imported_rows(rows: Iterable[Row], columns: Columns, name: str, context: Context) -> Imported:
    """The circuit of a table's rows, of edges or of nodes.

    Raises:
        BadInput: A row is no edge or node, there are too many, or there is none.
    """
    if not columns.of_edges:
        return read_nodes(rows, name, context)
    found = read_edges(rows, name, context)
    circuit = table_circuit(found.edges, context.said, selection=found.selection)
    return Imported([circuit], notes=found.notes)


def plausible(rows: Iterable[Row], columns: Columns, name: str, said: Said) -> Iterator[Row]:
    """The rows of a table whose columns were guessed, if the first of them names a part at all.

    Raises:
        UnknownFormat: It does not: other tables have columns of these names too.
    """
    rows = iter(rows)
    first = list(itertools.islice(rows, 1))
    needed = ("source", "target") if columns.of_edges else ("node", "layer", "head")
    if not said.columns and any(one in columns.guessed for one in needed):
        for where, row in first:
            if not _names_a_part(row, columns):
                listed = ", ".join(repr(columns.names[one]) for one in needed if one in row)
                raise UnknownFormat(
                    f"{name}, {where}: columns {listed} name no part of a model; say which do with"
                    f" --column {needed[0]}=NAME"
                )
    return itertools.chain(first, rows)


def read_edges(
    rows: Iterable[Row],
    name: str,
    context: Context,
    read: Read = read_name,
    *,
    may_be_empty: bool = False,
) -> EdgesRead:
    """Edges of rows, chosen as the file marks them or the user asks.

    Rows of hook points that stay inside one head or MLP (:mod:`ingest.formats.contraction`) are
    no edges.

    Args:
        rows: Where each stands in the file (``line 3``), and its values by our names of columns.
        name: The file's.
        context: With the sign of the file's effects, and how many edges are allowed.
        read: What reads the names of parts.
        may_be_empty: A file of this format without an edge is one of an empty circuit.

    Raises:
        BadInput: A row is no edge, there are too many, there is none, or none can be chosen.
    """
    read_as, odd = dict[str, str](), OddScores()
    edges: list[Edge] = []
    marks: dict[_Place, bool] = {}
    inside: list[str] = []
    for where, row in rows:
        if len(edges) + len(inside) == context.limits.max_edges:
            raise BadInput(
                f"{name} has more than {context.limits.max_edges:,} edges; --max-edges allows more"
            )
        try:
            edge = _edge(row, context.said, read_as, read)
            if edge is None:
                inside.append(f"{row['source']} -> {row['target']}")
                continue
            if "in_circuit" in row:
                place = _place(edge)
                marks[place] = read_mark(row["in_circuit"]) or marks.get(place, False)
        except (BadIdentifier, BadInput) as error:
            raise BadInput(f"{name}, {where}: {error}") from error
        edges.append(edge)
        if edge.effect is None and (number := odd_number(row.get("effect"))) is not None:
            odd.add(number, f"{where}, {edge.connection}")
    if not edges and not may_be_empty:
        raise BadInput(f"{name} holds no edge" + (" between parts" if inside else ""))
    spelled = [theirs for theirs, ours in read_as.items() if ours == "input"]
    folded, notes = fold_embeddings(edges, spelled)
    found = _chosen(folded, marks, name, context.said)
    notes += [*odd.notes(), *found.notes]
    notes += notes_on_inside(inside) + notes_on_ports(found.edges) + notes_on_names(read_as)
    return EdgesRead(list(found.edges), notes, found.selection)


_Place = tuple[str, str, Port | None]


def _place(edge: Edge) -> _Place:
    return edge.source, edge.target, edge.port


def _chosen(
    edges: Sequence[Edge], marks: Mapping[_Place, bool], name: str, said: Said
) -> EdgesRead:
    """Those that are asked for or marked; all of them where nothing is."""
    if not marks and not is_asked(said):
        return EdgesRead(edges, [])
    places = [_place(edge) for edge in edges]
    if len(set(places)) < len(places):
        twice = next(edge for edge in edges if places.count(_place(edge)) > 1)
        raise BadInput(f"{name}: {twice.connection} stands there twice, and an edge appears once")
    if marks and any(place not in marks for place in places):
        raise BadInput(f"{name}: some edges say whether they are in the circuit, and some do not")
    marked = [marks[place] for place in places] if marks else None
    choice = choose([edge.effect for edge in edges], marked, said, name)
    chosen = [edges[at] for at in choice.places]
    return EdgesRead(chosen, list(choice.notes), choice.selection)


def _names_a_part(row: Mapping[str, Any], columns: Columns) -> bool:
    if not columns.of_edges:
        return names_a_node(row)
    for end in ("source", "target"):
        try:
            _name(row.get(end), {}, read_name)
        except (BadIdentifier, BadInput):
            continue
        return True
    return False


def _edge(row: Mapping[str, Any], said: Said, read_as: dict[str, str], read: Read) -> Edge | None:
    """The edge of a row; None for one that stays inside a head or an MLP."""
    source, of_source = _name(row["source"], read_as, read)
    target, port = _name(row["target"], read_as, read)
    if is_inside(source, target):
        return None
    if of_source is not None:
        raise BadInput(f"{row['source']!r} is an input of a head, which sends nothing")
    given = row.get("port")
    if not is_empty(given):
        stated = str(given)[:LONGEST_VALUE].strip().lower()
        if stated not in ("q", "k", "v") or port not in (None, stated):
            raise BadInput(f"port {given!r:.80} is none of q, k, v, or not the target's")
        port = stated
    of = f"{source}->{target}" + (f"<{port}>" if port else "")
    return Edge(
        source=node_key(source, read_position(row.get("source_position"))),
        target=node_key(target, read_position(row.get("target_position"))),
        port=port,
        effect=with_sign(read_effect(row.get("effect")), said, of),
        rank=read_rank(row.get("rank")),
    )


def _name(text: Any, read_as: dict[str, str], read: Read) -> tuple[str, Any]:
    if not isinstance(text, str):
        raise BadInput(f"{text!r:.80} is no name of a part")
    local, port = read(text)
    read_as.setdefault(text, local + (f"<{port}>" if port else ""))
    return local, port


def table_circuit(
    edges: Sequence[Edge], said: Said, *, ranked: bool = False, **more: Any
) -> Circuit:
    """A circuit of such edges; where none has a rank, they are ranked by the size of their effects.

    Args:
        edges: As :func:`read_edges` gives them.
        said: What the user says of the file.
        ranked: The file tells all ranks there are, even if there is none.
        more: Fields of the circuit that the file says.

    Raises:
        BadInput: Neither file nor user says model or task.
    """
    if not ranked and all(edge.rank is None for edge in edges):
        edges = _ranked(edges)
    return edge_circuit(said, edges, **{"nodes": tuple(map(_node, _ends(edges))), **more})


def _ranked(edges: Sequence[Edge]) -> list[Edge]:
    scored = [edge for edge in edges if edge.effect is not None]
    by_size = sorted(scored, key=lambda edge: -abs(edge.effect or 0.0))
    ranks = {id(edge): rank for rank, edge in enumerate(by_size, 1)}
    return [Edge(**dict(edge) | {"rank": ranks.get(id(edge))}) for edge in edges]


def _ends(edges: Sequence[Edge]) -> set[str]:
    return {end for edge in edges for end in (edge.source, edge.target)}


def _node(key: str) -> Node:
    component, at, position = key.partition("@")
    return Node(component=component, position=position if at else None)
