"""Tables of edges, or of heads and other nodes: the way to import results of unknown tools.

CSV or TSV with a header line, or JSON Lines. A table of edges has the columns ``source``,
``target`` and, if known, ``port`` and ``effect``. Usual names (``from``, ``dst``, ``weight``,
``score``, :mod:`ingest.formats.tables.columns`) are read as these, with a note; for other names,
the user gives a map from our names to the file's. Parts may have the spelling of any tool
(:mod:`ingest.formats.spelling`); a port may be in its own column or follow the target. If circuits
are bound to token positions, ``source_position`` and ``target_position`` name them. Without a
column ``rank``, edges are ranked by absolute effect. Rows of ACDC's hook points are read as well,
with the head in brackets (``blocks.9.attn.hook_result[6]``); rows inside one head or MLP are
omitted.

A table of heads has ``layer`` and ``head``, or one column ``head`` or ``node`` with names
(``L9H6``, ``a9.h6``, ``9.6``, ``(9, 6)``, also ``MLP 3``), and ``effect`` or ``score``; it gives a
circuit of nodes (:mod:`ingest.formats.tables.node_table`). The circuit consists of all rows, of the
rows that a column ``in_circuit`` or ``in_graph`` marks, or of the largest rows (``--top``,
``--threshold``). Other formats with one edge per record use :func:`read_edges` and
:func:`table_circuit`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ingest.formats.base import Context, Imported, Said, UnknownFormat
from ingest.formats.building import edge_circuit, with_sign
from ingest.formats.choosing import choose, is_asked
from ingest.formats.contraction import (
    check_order,
    fold_embeddings,
    is_inside,
    notes_on_inside,
    notes_on_ports,
    notes_on_positions,
)
from ingest.formats.reading import OddScores
from ingest.formats.spelling import Read, notes_on_names, read_name
from ingest.formats.tables.cells import (
    LONGEST_VALUE,
    is_empty,
    odd_number,
    read_effect,
    read_mark,
    read_position,
    read_rank,
)
from ingest.formats.tables.columns import EDGE_COLUMNS, Columns
from ingest.formats.tables.node_table import names_a_node, read_nodes, why_no_number
from ingest.formats.tables.rows import Row, read_table
from registry.errors import BadIdentifier, BadInput
from registry.identifiers import Port, node_key, parse_local, ports_of
from registry.records import Circuit, Edge, Node
from registry.texts.problems import first_problem

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
"""Columns of a table of edges, as our exporters write it."""


@dataclass(frozen=True, slots=True)
class EdgesRead:
    """The edges of a file's rows.

    Attributes:
        edges: The edges of the circuit.
        notes: Reinterpreted and omitted content.
        selection: The rule of selection; None if every row is in the circuit.
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
        """Likely if the first line names both ends."""
        first = head.split(b"\n", 1)[0].lower()
        if path.suffix.lower() in {".jsonl", ".ndjson"}:
            return 0.5 if first.lstrip().startswith(b"{") else 0.0
        if path.suffix.lower() in {".csv", ".tsv"}:
            return 0.6 if b"source" in first and b"target" in first else 0.2
        return 0.0

    def read(self, path: Path, context: Context) -> Imported:
        """Read a table; every row, or every marked row, is an edge or a node of the circuit."""
        table = read_table(path, context)
        if table.columns is None:
            raise BadInput(f"{path.name} holds no edge")
        columns = table.columns
        rows = plausible(table, columns, path.name, context.said)
        found = imported_rows(rows, columns, path.name, context)
        # In JSON Lines, a later line may have columns that the first does not have.
        return replace(found, notes=[*(table.columns or columns).notes(), *found.notes])


FORMAT = EdgeTable()


def imported_rows(rows: Iterable[Row], columns: Columns, name: str, context: Context) -> Imported:
    """Return the circuit of a table's rows, of edges or of nodes.

    Raises:
        BadInput: A row is not an edge or node, there are too many, or there is none.
    """
    if not columns.of_edges:
        return read_nodes(rows, name, context)
    found = read_edges(rows, name, context)
    circuit = table_circuit(found.edges, context.said, selection=found.selection)
    return Imported([circuit], notes=found.notes)


def plausible(rows: Iterable[Row], columns: Columns, name: str, said: Said) -> Iterator[Row]:
    """Yield the rows of a table with guessed columns, if the first row names a part.

    Raises:
        UnknownFormat: It does not: other tables have columns with these names too.
    """
    rows = iter(rows)
    first = list(itertools.islice(rows, 1))
    needed = ("source", "target") if columns.of_edges else ("node", "layer", "head")
    if not said.columns and any(one in columns.guessed for one in needed):
        for where, row in first:
            number = row.get("node")
            if isinstance(number, float):  # may be a head: say how it can be told which
                raise UnknownFormat(f"{name}, {where}: {why_no_number(number)}")
            if not _names_a_part(row, columns):
                listed = ", ".join(repr(columns.names[one]) for one in needed if one in row)
                raise UnknownFormat(
                    f"{name}, {where}: columns {listed} name no part of a model; choose them with"
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
    """Read edges from rows, selected by the file's marks or the user's request.

    Rows of hook points that stay inside one head or MLP (:mod:`ingest.formats.contraction`) are not
    edges.

    Args:
        rows: The place of each row in the file (``line 3``), and its values by our names of
            columns.
        name: The file's name.
        context: With the sign of the file's effects, and the allowed number of edges.
        read: Reads the names of parts.
        may_be_empty: Whether a file of this format without an edge is an empty circuit.

    Raises:
        BadInput: A row is not an edge, there are too many or none, or none can be selected.
    """
    read_as, odd = dict[str, str](), OddScores()
    edges: list[Edge] = []
    marks: dict[_Place, bool] = {}
    once = _Once()
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
            once.add(edge, row["source"], edges)
            if "in_circuit" in row:
                marks[_place(edge)] = read_mark(row["in_circuit"]) or marks.get(_place(edge), False)
        except (BadIdentifier, BadInput) as error:
            raise BadInput(f"{name}, {where}: {error}") from error
        except ValidationError as error:
            raise BadInput(f"{name}, {where}: {first_problem(error)}") from error
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
    notes += notes_on_positions(found.edges)
    return EdgesRead(list(found.edges), notes, found.selection)


_Place = tuple[str, str, Port | None]


def _place(edge: Edge) -> _Place:
    return edge.source, edge.target, edge.port


class _Once:
    """Refuses a repeated edge when it is read: sorting a million edges takes long.

    Edges are stored as hashes, because their names would take as much memory again.
    """

    def __init__(self) -> None:
        self._hashes: set[int] = set()

    def add(self, edge: Edge, spelled: str, edges: Sequence[Edge]) -> None:
        """Add an edge.

        Args:
            edge: The edge.
            spelled: The row's name of its source: an edge of the input may appear once for the
                token and once for the position embedding.
            edges: The earlier edges.

        Raises:
            BadInput: It is among the earlier edges.
        """
        place = _place(edge)
        of_input = edge.source.partition("@")[0] == "input"
        key = hash((place, spelled if of_input else ""))
        if key in self._hashes and any(_place(one) == place for one in edges):
            port = f"<{edge.port}>" if edge.port else ""
            raise BadInput(f"the edge {edge.source} -> {edge.target}{port} appears twice")
        self._hashes.add(key)


def _chosen(
    edges: Sequence[Edge], marks: Mapping[_Place, bool], name: str, said: Said
) -> EdgesRead:
    """Return requested or marked edges; all edges if there is neither."""
    if not marks and not is_asked(said):
        return EdgesRead(edges, [])
    places = [_place(edge) for edge in edges]
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
    """Return the edge of a row; None if it stays inside a head or an MLP."""
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
    if port is not None and port not in ports_of(parse_local(target)):
        raise BadInput(f"{target} has no input {port!r}; heads have q, k and v")
    check_order(source, target)
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
    """Return a circuit of such edges; without ranks, they are ranked by absolute effect.

    Args:
        edges: As :func:`read_edges` returns them.
        said: The user's statements about the file.
        ranked: Whether the file gives all existing ranks, even if there is none.
        more: Fields of the circuit that the file gives.

    Raises:
        BadInput: Neither file nor user gives model or task.
    """
    if not ranked and all(edge.rank is None for edge in edges):
        edges = _ranked(edges)
    return edge_circuit(said, edges, **{"nodes": tuple(map(_node, _ends(edges))), **more})


def _ranked(edges: Sequence[Edge]) -> list[Edge]:
    scored = [edge for edge in edges if edge.effect is not None]
    by_size = sorted(scored, key=lambda edge: -abs(edge.effect or 0.0))
    ranks = {id(edge): rank for rank, edge in enumerate(by_size, 1)}
    return [edge.model_copy(update={"rank": ranks.get(id(edge))}) for edge in edges]


def _ends(edges: Sequence[Edge]) -> set[str]:
    return {end for edge in edges for end in (edge.source, edge.target)}


def _node(key: str) -> Node:
    component, at, position = key.partition("@")
    return Node(component=component, position=position if at else None)
