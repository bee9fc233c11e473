"""Graphs of networkx and similar tools: node-link JSON, and what GraphML shares with it.

A node's name, in any spelling, is its attribute ``component``, ``name`` or ``label``, or its id;
``--column name=ATTRIBUTE`` decides if they disagree. An edge may have ``port``, ``effect`` and
``rank``; if no edge has an ``effect``, ``weight`` is used. If edges (or the nodes of a graph
without edges) have marks ``in_circuit`` or ``in_graph``, only marked ones are selected. A graph
must be directed, because a circuit has directed edges. Facts that a graph gives about itself, under
the names of :mod:`ingest.formats.facts`, hold unless the user gives others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeGuard

from ingest.formats.base import Context, Imported, Said
from ingest.formats.building import with_sign
from ingest.formats.choosing import Choice, choose, is_asked
from ingest.formats.facts import is_ours, only_ours, said_or_told
from ingest.formats.reading import OddScores, check_count, finite, outer_keys, read_json
from ingest.formats.spelling import Read, read_exactly, read_name
from ingest.formats.tables.cells import (
    odd_number,
    read_density,
    read_effect,
    read_mark,
    read_position,
    read_rank,
)
from ingest.formats.tables.table import EdgesRead, read_edges, table_circuit
from registry.errors import BadIdentifier, BadInput
from registry.identifiers import Port, node_key
from registry.records import Edge, Level, Node
from registry.texts.words import listed

__all__ = ["FORMAT", "Graph", "NodeLinkJson", "check_directed", "graph_records"]

_NAMES = ("component", "name", "label")
_EDGE = ("source", "target", "port", "effect", "rank")
_NODE = ("name",)
_MARKED = ("in_circuit", "in_graph")
_LONGEST_SHOWN = 40
_Id = str | int


@dataclass(slots=True)
class Graph:
    """A directed graph as a file has it.

    Attributes:
        about: Attributes of the graph itself.
        nodes: Attributes of each node, by its id.
        edges: Source, target and attributes of each edge.
    """

    about: MutableMapping[str, Any] = field(default_factory=dict)
    nodes: dict[_Id, Mapping[str, Any]] = field(default_factory=dict)
    edges: list[tuple[_Id, _Id, Mapping[str, Any]]] = field(default_factory=list)


class NodeLinkJson:
    """Node-link JSON."""

    name = "node-link"
    summary = "networkx node-link JSON, with edges under 'links' or 'edges'"
    companions = ()

    def sniff(self, path: Path, head: bytes) -> float:
        """Sure if a JSON object states whether it is directed and a multigraph."""
        if path.suffix.lower() != ".json":
            return 0.0
        return 0.95 if {"directed", "multigraph"} <= outer_keys(head) else 0.0

    def read(self, path: Path, context: Context) -> Imported:
        """Read a graph; all its edges are the circuit."""
        ends = [f'"{context.said.columns.get(end, end)}"' for end in ("source", "target")]
        data = read_json(path, context.limits, each_edge=ends, odd=True)
        graph = _node_link(data, path.name, context.said)
        del data  # as large as the graph
        return graph_records(graph, path.name, context)


FORMAT = NodeLinkJson()


def graph_records(graph: Graph, name: str, context: Context) -> Imported:
    """Return the circuit of a graph.

    Args:
        graph: Directed. Its edges are removed while they are read, as the circuit is as large.
        name: Name of its file.
        context: The user's statements about it.

    Raises:
        BadInput: A node's name, or an edge's port, effect or rank, is malformed.
        ValidationError: The graph gives an impossible fact about itself.
    """
    about = finite(dict(graph.about))
    said = said_or_told(context.said, about)
    ours = is_ours(about)
    if not graph.nodes and not ours:
        raise BadInput(f"{name} holds no node")
    check_count(len(graph.nodes), "nodes", name, context.limits)
    names, notes = _attributes(graph, said)
    read = read_exactly if ours else read_name
    called = (names["name"],) if "name" in names else ("component",) if ours else _NAMES
    parts = {id_: _part(id_, node, called, read, name) for id_, node in graph.nodes.items()}
    found = EdgesRead([], [])
    had_edges = bool(graph.edges)
    if had_edges:
        rows = _rows(graph, parts, names, name)
        found = read_edges(rows, name, Context(said, context.limits), read)
        graph.edges.clear()
    nodes, odd = _nodes(parts, found.edges, said, name)
    selection = found.selection
    notes += [*found.notes, *odd.notes()]
    if had_edges:
        kept = nodes if selection is None else _joined(nodes, found.edges)
    else:
        choice = _chosen_nodes(nodes, parts, said, name)
        kept = [nodes[at] for at in choice.places]
        selection = choice.selection
        notes += choice.notes
    fields = {
        "level": Level.EDGE if had_edges else Level.NODE,
        "nodes": tuple(kept),
        **only_ours(about),
    }
    if selection is not None:  # a fact of our file about another circuit
        fields |= {"selection": selection, "universe_size": None}
    return Imported([table_circuit(found.edges, said, ranked=ours, **fields)], notes=notes)


def _joined(nodes: Sequence[Node], edges: Sequence[Edge]) -> list[Node]:
    """Return the nodes that edges join."""
    ends = {end for edge in edges for end in (edge.source, edge.target)}
    return [node for node in nodes if node.key in ends]


def _chosen_nodes(
    nodes: Sequence[Node], parts: Mapping[_Id, _Part], said: Said, file: str
) -> Choice:
    """Return the nodes of a graph without edges that form the circuit."""
    given = {part.key: _mark(part.attributes, file) for part in parts.values() if not part.port}
    marked = {key: mark for key, mark in given.items() if mark is not None}
    if not marked and not is_asked(said):
        return Choice(range(len(nodes)))
    if marked and len(marked) < len(nodes):
        raise BadInput(f"{file}: some nodes say whether they are in the circuit, and some do not")
    marks = [marked[node.key] for node in nodes] if marked else None
    return choose([node.effect for node in nodes], marks, said, file, "node")


def _mark(attributes: Mapping[str, Any], file: str) -> bool | None:
    """Return whether a node or an edge is marked as in the circuit; None without a mark."""
    given = next((attributes[name] for name in _MARKED if attributes.get(name) is not None), None)
    try:
        return None if given is None else read_mark(given)
    except BadInput as error:
        raise BadInput(f"{file}: {error}") from error


@dataclass(frozen=True, slots=True)
class _Part:
    """A node of a graph, with a name; ``port`` if it is an input of a head, which is no node."""

    text: str
    local: str
    port: Port | None
    position: str | None
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return node_key(self.local, self.position)


def _attributes(graph: Graph, said: Said) -> tuple[dict[str, str], list[str]]:
    """Map our names of attributes to the graph's names."""
    unknown = set(said.columns) - set(_EDGE) - set(_NODE)
    if unknown:
        known = ", ".join((*_EDGE, *_NODE))
        raise BadInput(f"unknown attribute {min(unknown)!r}; the attributes are {known}")
    names = {ours: said.columns.get(ours, ours) for ours in _EDGE}
    if "name" in said.columns:
        names["name"] = said.columns["name"]
    if "effect" not in said.columns and _only_weighted(graph):
        return names | {"effect": "weight"}, ["weight read as effect"]
    unsaid = sum("weight" in values and "effect" not in values for _, _, values in graph.edges)
    if unsaid and "effect" not in said.columns:
        edges = "1 edge has" if unsaid == 1 else f"{unsaid:,} edges have"
        return names, [
            f"{edges} a weight and no effect, as others have: effect unknown; --column"
            " effect=weight reads the weights"
        ]
    return names, []


def _only_weighted(graph: Graph) -> bool:
    return any("weight" in values for _, _, values in graph.edges) and not any(
        "effect" in values for _, _, values in graph.edges
    )


def _part(
    id_: _Id, attributes: Mapping[str, Any], called: Sequence[str], read: Read, file: str
) -> _Part:
    texts = [attributes.get(name) for name in called]
    if called is _NAMES:
        texts.append(id_)
    found = [one for text in texts if isinstance(text, str) and (one := _read(text, read))]
    if not found:
        shown = listed([_shown(text) for text in texts if text is not None])
        raise BadInput(
            f"{file}: node {_shown(id_)} names no part of a model in a known spelling"
            f" ({shown or 'it has no name'}); give the attribute with --column name=ATTRIBUTE"
        )
    first, last = found[0], found[-1]
    if any((one.local, one.port) != (first.local, first.port) for one in found):
        raise BadInput(
            f"{file}: node {_shown(id_)} is called {first.text!r} and {last.text!r}; choose the"
            " attribute that names nodes with --column name=ATTRIBUTE"
        )
    stated = attributes.get("position")
    if isinstance(stated, str | int) and not isinstance(stated, bool):
        # Anything else is a coordinate in a drawing.
        return replace(first, position=read_position(stated), attributes=attributes)
    return replace(first, attributes=attributes)


def _read(text: str, read: Read) -> _Part | None:
    name, _, position = text.partition("@")
    try:
        local, port = read(name)
    except BadIdentifier:
        return None
    return _Part(name, local, port, position or None)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "..."


def _rows(
    graph: Graph, parts: Mapping[_Id, _Part], names: Mapping[str, str], file: str
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, (source, target, values) in enumerate(graph.edges, 1):
        for end in (source, target):
            if end not in parts:
                raise BadInput(f"{file}: edge {number} joins {_shown(end)}, which is no node")
        mark = _mark(values, f"{file}, edge {number}")
        yield (
            f"edge {number}",
            {
                **({} if mark is None else {"in_circuit": mark}),
                **{ours: values.get(names[ours]) for ours in ("port", "effect", "rank")},
                "source": parts[source].text,
                "target": parts[target].text,
                "source_position": parts[source].position,
                "target_position": parts[target].position,
            },
        )


def _nodes(
    parts: Mapping[_Id, _Part], edges: Sequence[Edge], said: Said, file: str
) -> tuple[list[Node], OddScores]:
    nodes: dict[str, Node] = {}
    odd = OddScores()
    for id_, part in parts.items():
        if part.port is not None:
            continue
        try:
            node = _node(part, said)
        except BadInput as error:
            raise BadInput(f"{file}: node {_shown(id_)}: {error}") from error
        number = odd_number(part.attributes.get("effect"))
        if number is not None:
            odd.add(number, f"node {node.key}")
        if nodes.setdefault(node.key, node) != node:
            raise BadInput(
                f"{file}: {node.key} appears twice with different facts; remove the node"
                f" {_shown(id_)} or its facts"
            )
    for end in {end for edge in edges for end in (edge.source, edge.target)} - set(nodes):
        component, at, position = end.partition("@")
        nodes[end] = Node(component=component, position=position if at else None)
    return list(nodes.values()), odd


def _node(part: _Part, said: Said) -> Node:
    role = part.attributes.get("role")
    return Node(
        component=part.local,
        position=part.position,
        effect=with_sign(read_effect(part.attributes.get("effect")), said, part.key),
        rank=read_rank(part.attributes.get("rank")),
        role=role if isinstance(role, str) else None,
        density=read_density(part.attributes.get("density")),
    )


def _node_link(data: Any, file: str, said: Said) -> Graph:
    if not isinstance(data, dict):
        raise BadInput(f"{file} is no JSON object of a graph")
    check_directed(data.get("directed"), file)
    nodes, about = data.get("nodes"), data.get("graph")
    links = _links(data, file)
    if not isinstance(nodes, list) or links is None:
        raise BadInput(f"{file} has no list 'nodes', or none of 'links' and 'edges'")
    graph = Graph(about if isinstance(about, dict) else {})
    for number, node in enumerate(nodes, 1):
        id_ = node.get("id") if isinstance(node, dict) else None
        if not _is_id(id_) or id_ in graph.nodes:
            raise BadInput(f"{file}: node {number} has no id of its own, a text or whole number")
        graph.nodes[id_] = node
    ends = [said.columns.get(name, name) for name in ("source", "target")]
    for number, link in enumerate(links, 1):
        source, target = (link.get(end) if isinstance(link, dict) else None for end in ends)
        if not _is_id(source) or not _is_id(target):
            raise BadInput(f"{file}: edge {number} has no {ends[0]!r} and {ends[1]!r} of its own")
        graph.edges.append((source, target, link))
    return graph


def _links(data: Mapping[str, Any], file: str) -> list[Any] | None:
    """Return the edges, under either name of networkx; None if there is no list.

    Raises:
        BadInput: There are two lists with edges.
    """
    lists = [data[key] for key in ("links", "edges") if isinstance(data.get(key), list)]
    filled = [one for one in lists if one]
    if len(filled) > 1:
        raise BadInput(f"{file} has edges under 'links' and under 'edges'; delete one of the lists")
    return next(iter([*filled, *lists]), None)


def _is_id(value: Any) -> TypeGuard[_Id]:
    return isinstance(value, str | int) and not isinstance(value, bool)


def check_directed(said: Any, file: str) -> None:
    """Refuse a graph that is not directed.

    Raises:
        BadInput: It is not directed, or does not state it.
    """
    if said is not True:
        what = "is undirected" if said is False else "does not state that it is directed"
        raise BadInput(
            f"{file} {what}: the direction of its edges is unknown; write a DiGraph or MultiDiGraph"
        )
