"""Records from a graph of EAP-IG: the edges, nodes or coordinates that form the circuit."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ingest.formats.base import Imported, Said
from ingest.formats.building import edge_circuit, negative_size, stored_sign, with_sign
from ingest.formats.choosing import is_asked, marks_replaced, notes_on_count
from ingest.formats.eap_ig.columns import GraphColumns, Part
from ingest.formats.reading import OddScores
from registry.errors import BadInput
from registry.files.score_files import score_file
from registry.records import Circuit, Edge, Level, Node

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["as_records"]

_MARKED = {"rule": "in_graph"}


def as_records(graph: GraphColumns, said: Said) -> Imported:
    """Return the circuit that a graph marks, or the circuit that the user requests by size.

    Raises:
        BadInput: Nothing is marked and nothing requested; there are no scores to select by; or a
            score of an unsigned file is negative.
    """
    graph, odd = _finite(graph)
    _check_sizes(graph, said)
    level = _level(graph, said)
    parts: Sequence[Part] = ()
    if level is Level.EDGE:
        edges, selection = _chosen_edges(graph, said)
    else:
        parts, selection = _chosen_parts(graph, said, level)
        edges = graph.marked if selection == _MARKED else graph.marked & False
    records = _edges(graph, edges, said)
    matrix = None if graph.unscored else _matrix(graph, said)
    circuit = edge_circuit(
        said,
        records,
        nodes=_nodes(graph, records, parts, selection == _MARKED, said),
        level=level,
        parameters={"cfg": dict(graph.shape.more)} if graph.shape.more else {},
        kv_heads=said.kv_heads or "per-query-head",
        selection=selection,
        universe_size=_universe(graph, level),
        scores=None if matrix is None else hashlib.sha256(matrix).hexdigest(),
    )
    return Imported(
        [circuit],
        models=[graph.shape.model(said)],
        artifacts=[] if matrix is None else [matrix],
        notes=[
            *graph.notes,
            *odd,
            *_notes(graph, edges, circuit),
            *_replaced(graph, said, circuit),
        ],
    )


def _finite(graph: GraphColumns) -> tuple[GraphColumns, list[str]]:
    """Return the graph with infinite scores set to NaN, and a note that lists them."""
    import numpy

    odd = OddScores()
    infinite = numpy.isinf(graph.scores)
    for at in numpy.flatnonzero(infinite).tolist():
        odd.add(float(graph.scores[at]), _edge_name(graph, at))
    parts = [
        tuple(replace(part, score=odd.taken(part.score, part.name)) for part in some)
        if any(part.score is not None and math.isinf(part.score) for part in some)
        else some
        for some in (graph.nodes, graph.coordinates)
    ]
    if not odd.notes():
        return graph, []
    scores = numpy.where(infinite, numpy.nan, graph.scores)
    return replace(graph, scores=scores, nodes=parts[0], coordinates=parts[1]), odd.notes()


def _check_sizes(graph: GraphColumns, said: Said) -> None:
    """Refuse negative scores if the user gives them as unsigned; all of them are kept.

    Raises:
        BadInput: There is a negative score.
    """
    import numpy

    if said.sign != "unsigned":
        return
    for at in numpy.flatnonzero(graph.scores < 0)[:1].tolist():
        raise negative_size(float(graph.scores[at]), f"{graph.file}: {_edge_name(graph, at)}")
    for part in (*graph.nodes, *graph.coordinates):
        with_sign(part.score, said, f"{graph.file}: {part.name}")


def _edge_name(graph: GraphColumns, at: int) -> str:
    source, target, port = graph.ends(at)
    return f"{source}->{target}" + (f"<{port}>" if port else "")


def _replaced(graph: GraphColumns, said: Said, circuit: Circuit) -> list[str]:
    """Return the note if a selection by size replaces the file's marks."""
    if not is_asked(said):
        return []
    if circuit.level is Level.EDGE:
        marked = {graph.ends(at) for at in graph.marked.nonzero()[0].tolist()}
        chosen = {(edge.source, edge.target, edge.port) for edge in circuit.edges}
        what = "edge"
    else:
        coordinates = circuit.level is Level.SUBSPACE
        parts = graph.coordinates if coordinates else graph.nodes
        marked = {(part.name, "", None) for part in parts if part.marked}
        chosen = {(node.component, "", None) for node in circuit.nodes}
        what = "coordinate" if coordinates else "node"
    if not marked:
        return []
    return [marks_replaced(len(marked), len(marked & chosen), len(chosen), said, what)]


def _level(graph: GraphColumns, said: Said) -> Level:
    """Return the level of the selection: the finest that is marked, or that can be ranked."""
    asked = said.top is not None or said.threshold is not None
    if asked and graph.ranks_edges:
        return Level.EDGE
    if any(part.marked or (asked and part.score is not None) for part in graph.coordinates):
        return Level.SUBSPACE
    if graph.ranks_edges:
        return Level.EDGE
    scored = any(part.score is not None for part in graph.nodes)
    return Level.NODE if scored or _marks_nodes_alone(graph) else Level.EDGE


def _marks_nodes_alone(graph: GraphColumns) -> bool:
    """Whether nodes are marked and edges neither marked nor scored.

    A file that scores edges and marks none is one of edges that chose none yet, which it is by any
    scores, equal ones too.
    """
    marked = any(part.marked for part in graph.nodes if part.name != "logits")
    return marked and graph.unscored and not graph.marked.any()


def _universe(graph: GraphColumns, level: Level) -> int | None:
    match level:
        case Level.EDGE:
            return graph.universe_size
        case Level.SUBSPACE:
            return graph.n_coordinates
        case _:
            return graph.n_parts


def _chosen_edges(graph: GraphColumns, said: Said) -> tuple[NDArray[Any], dict[str, Any]]:
    """Return the edges that form the circuit, and the rule."""
    import numpy

    if said.top is None and said.threshold is None:
        if not graph.marked.any():
            raise _nothing_marked(graph, "edge")
        return graph.marked, _MARKED
    if graph.unscored or (graph.n_edges > 1 and not graph.ranks_edges):
        raise _nothing_to_choose_by(graph, "edge")
    sizes, stay = numpy.abs(graph.scores), ~graph.scored
    if said.top is None:
        return stay | (sizes >= said.threshold), {"threshold": said.threshold, "by": "absolute"}
    places = numpy.flatnonzero(graph.known)
    strongest = numpy.argsort(-sizes[places], kind="stable")[: said.top]
    stay[places[strongest]] = True
    return stay, {"top": said.top, "by": "absolute"}


def _chosen_parts(
    graph: GraphColumns, said: Said, level: Level
) -> tuple[list[Part], dict[str, Any]]:
    """Return the nodes or coordinates that form the circuit, and the rule."""
    parts = list(graph.coordinates if level is Level.SUBSPACE else graph.nodes)
    what = "coordinate" if level is Level.SUBSPACE else "node"
    if said.top is None and said.threshold is None:
        marked = [part for part in parts if part.marked]
        if not any(part.name != "logits" for part in marked):
            raise _nothing_marked(graph, what)
        return marked, _MARKED
    scored = [part for part in parts if part.score is not None]
    if not any(part.score for part in scored):
        raise _nothing_to_choose_by(graph, what)
    stay = [part for part in parts if part.score is None]
    ranked = sorted(scored, key=lambda part: -abs(part.score or 0.0))
    if said.top is not None:
        return [*stay, *ranked[: said.top]], {"top": said.top, "by": "absolute"}
    least = said.threshold or 0.0
    large = [part for part in ranked if abs(part.score or 0.0) >= least]
    return [*stay, *large], {"threshold": least, "by": "absolute"}


def _nothing_marked(graph: GraphColumns, what: str) -> BadInput:
    return BadInput(
        f"{graph.file} marks no {what} as in the circuit; give a number with --top N or"
        " a smallest size with --threshold X"
    )


def _nothing_to_choose_by(graph: GraphColumns, what: str) -> BadInput:
    return BadInput(
        f"{graph.file}: every {what} has the same score, or none, so selection by size is"
        " impossible; without --top and --threshold the file's marks are used"
    )


def _edges(graph: GraphColumns, chosen: NDArray[Any], said: Said) -> list[Edge]:
    import numpy

    ranked = numpy.flatnonzero(chosen & graph.known & graph.ranks_edges)
    strongest = numpy.argsort(-numpy.abs(graph.scores[ranked]), kind="stable")
    ranks = {int(ranked[place]): rank for rank, place in enumerate(strongest, 1)}
    edges = []
    for at in numpy.flatnonzero(chosen).tolist():
        source, target, port = graph.ends(at)
        effect = with_sign(float(graph.scores[at]), said) if graph.known[at] else None
        rank = ranks.get(at)
        edges.append(Edge(source=source, target=target, port=port, effect=effect, rank=rank))
    return edges


def _nodes(
    graph: GraphColumns, edges: Sequence[Edge], parts: Sequence[Part], marked: bool, said: Said
) -> tuple[Node, ...]:
    """Return the nodes of the edges, the selected nodes, and other nodes that the file marks."""
    found: dict[str, float | None] = {part.name: part.score for part in parts}
    scores = {node.name: node.score for node in graph.nodes}
    joined = {end for edge in edges for end in (edge.source, edge.target)}
    if marked:
        joined |= {node.name for node in graph.nodes if node.marked}
    found |= {name: scores.get(name) for name in joined}
    if not any(found.values()):
        return tuple(Node(component=name) for name in found)
    sizes = [name for name, score in found.items() if score is not None]
    ranks = {
        name: rank for rank, name in enumerate(sorted(sizes, key=lambda n: -abs(found[n] or 0)), 1)
    }
    return tuple(
        Node(component=name, effect=with_sign(score, said), rank=ranks.get(name))
        for name, score in found.items()
    )


def _matrix(graph: GraphColumns, said: Said) -> bytes:
    """Return all scores as safetensors, ``[sender, receiver]``; NaN if there is none."""
    import numpy

    space = graph.shape.space
    receivers = [receiver.name for receiver in space.receivers]
    matrix = numpy.full((len(space.senders), len(receivers)), numpy.nan)
    matrix[graph.rows, graph.columns] = graph.scores
    if said.sign == "hurts-positive":
        # No negative zeros and no negative NaN: equal scores give equal files.
        matrix = numpy.where(numpy.isnan(matrix), numpy.nan, -matrix + 0.0)
    with numpy.errstate(over="ignore"):
        narrow = matrix.astype(numpy.float32)
    if numpy.array_equal(narrow, matrix, equal_nan=True):
        matrix = narrow
    return score_file(matrix, space.senders, receivers, said.metric, stored_sign(said))


def _notes(graph: GraphColumns, chosen: NDArray[Any], circuit: Circuit) -> Iterator[str]:
    zeros, missing = int((graph.scores == 0).sum()), int((~graph.scored).sum())
    if graph.unscored and graph.n_edges:
        all_are = "0" if zeros else "missing"
        yield f"no edge is scored (all are {all_are}): effects are unknown"
        if circuit.level is Level.NODE and _marks_nodes_alone(graph):
            yield "no edge is marked as in the circuit: it is the nodes that the file marks"
    elif graph.doubts_zeros:
        yield (
            f"{zeros:,} of {graph.n_edges:,} scores are exactly 0, like those of edges that were"
            " never scored: their effects are unknown"
        )
    elif not graph.ranks_edges and graph.n_edges > 1:
        yield f"all {graph.n_edges:,} edges have the same score"
    if missing and not graph.unscored:
        inside = int((~graph.scored & chosen).sum())
        yield f"{missing:,} of {graph.n_edges:,} edges have no score, {inside:,} of them selected"
    if circuit.selection != _MARKED:
        yield from _notes_on_count(circuit)
    else:
        yield from _contradictions(graph, circuit)
    if circuit.level is Level.EDGE:
        yield from _edge_notes(graph, circuit)
    width, heads = graph.shape.d_model, graph.shape.space.n_heads
    if width is not None and width % heads:
        yield f"cfg.d_model is {width}, which {heads} heads do not divide: omitted"
    if circuit.universe_size is None:
        yield _of_how_many(graph, circuit.level)


def _contradictions(graph: GraphColumns, circuit: Circuit) -> Iterator[str]:
    """What to say of edges and neurons that are marked while their nodes are marked as outside.

    The tool writes such files where it does not prune, and prunes before it runs a circuit.
    """
    outside = {part.name for part in graph.nodes if part.marked is False}
    edges = [edge for edge in circuit.edges if {edge.source, edge.target} & outside]
    if edges:
        yield (
            f"{len(edges):,} of the edges that the file marks as in the circuit join nodes that it"
            f" marks as not in it, such as {edges[0].connection}: kept, where EAP-IG's prune takes"
            " them out"
        )
    sites = outside | {f"{name}.z" for name in outside}
    inside = [part.name for part in graph.coordinates if part.marked]
    odd = [name for name in inside if name.partition("#")[0] in sites]
    if odd:
        yield (
            f"{len(odd):,} of the neurons that the file marks as in the circuit are of nodes that"
            f" it marks as not in it, such as {odd[0]}: kept, where EAP-IG's prune takes them out"
        )


def _notes_on_count(circuit: Circuit) -> list[str]:
    top = (circuit.selection or {}).get("top")
    if circuit.level is Level.EDGE:
        return notes_on_count(len(circuit.edges), top, "edge")
    what = "coordinate" if circuit.level is Level.SUBSPACE else "node"
    return notes_on_count(len(circuit.nodes), top, what)


def _of_how_many(graph: GraphColumns, level: Level) -> str:
    """Return a note if a file does not list all parts of its model."""
    match level:
        case Level.EDGE:
            listed = f"{graph.n_edges:,} of the {graph.shape.space.n_edges:,} edges"
        case Level.SUBSPACE:
            listed = f"{len(graph.coordinates):,} coordinates, not all those"
        case _:
            listed = f"{len(graph.nodes):,} of the {len(graph.shape.space.senders):,} nodes"
    return f"the file lists {listed} of its model: the number to select from is unknown"


def _edge_notes(graph: GraphColumns, circuit: Circuit) -> Iterator[str]:
    if circuit.selection == _MARKED and graph.n_edges > 1 and graph.marked.all():
        yield "every edge is marked as in the circuit; select with --top or --threshold"
    if graph.coordinates:
        yield f"{len(graph.coordinates):,} neurons omitted: none of them is in the circuit"
    joined = {end for edge in circuit.edges for end in (edge.source, edge.target)}
    alone = [node.component for node in circuit.nodes if node.component not in joined]
    if alone:
        yield f"{len(alone):,} nodes of the circuit have no edge in it, such as {alone[0]}"
