"""A circuit as graph JSON of EAP-IG and the MIB circuit track, in the newer dialect.

The file has everything that the reference's loader (``Graph.from_json`` of hannamw/EAP-IG)
requires: a ``cfg`` with four fields, nodes and edges with the names of a model of that shape, each
with ``in_graph``, and edges with a number as ``score``. It has every edge of the model. An edge
outside the circuit has its score if the circuit's scores are kept, and 0 otherwise. An unknown
score of an edge in the circuit is NaN, as the tool itself writes it, or 0 if no score is known.
Positive scores help the metric if the circuit's sign says so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping

from ingest.formats.exporting import Exporting
from registry.errors import BadInput
from registry.files.score_files import read_score_file
from registry.identifiers import Kind, parse_local, parse_node_key
from registry.models.edge_space import EdgeSpace
from registry.records import Circuit, Edge, Model

__all__ = ["EXPORTER", "EapIgJson"]

_KINDS = {Kind.INPUT, Kind.HEAD, Kind.KV_HEAD, Kind.MLP, Kind.LOGITS}


class EapIgJson:
    """Writes graph JSON."""

    name = "eap-ig-json"
    summary = (
        "graph JSON for EAP-IG and MIB; nodes, effects and every edge of the model; no positions,"
        " neurons, or grouped key/value heads"
    )
    suffix = ".json"

    def write(self, circuit: Circuit, context: Exporting) -> bytes:
        """Return the graph, in ASCII.

        Raises:
            BadInput: The model's shape is unknown, or the tool does not have a part.
        """
        model = context.model
        space = _space(circuit, model)
        document = _document(circuit, model, space, context.scores)
        return "".join(document).encode("ascii")


EXPORTER = EapIgJson()


def _space(circuit: Circuit, model: Model) -> EdgeSpace:
    """Return all edges of the model, keys and values once per query head as the tool has them."""
    if model.n_layers is None or model.n_heads is None or model.d_model is None:
        unknown = [name for name in ("n_layers", "n_heads", "d_model") if not getattr(model, name)]
        raise BadInput(
            f"the graph needs {', '.join(unknown)} of {model.slug}, which the registry does not"
            " know; discovery, or an import of a file that gives them, adds them"
        )
    grouped = circuit.kv_heads == "grouped" or any(
        parse_local(node.component).kind is Kind.KV_HEAD for node in circuit.nodes
    )
    if grouped and model.n_kv_heads != model.n_heads:
        raise BadInput(
            "the circuit has keys and values once per key/value head; the tool has them once per"
            f" query head, which is equivalent only if {model.slug} has the same number of both"
        )
    return EdgeSpace(model.n_layers, model.n_heads, model.n_heads, model.parallel_attn_mlp)


def _document(
    circuit: Circuit, model: Model, space: EdgeSpace, scores: bytes | None
) -> Iterator[str]:
    cfg = {
        "n_layers": model.n_layers, "n_heads": model.n_heads,
        "parallel_attn_mlp": model.parallel_attn_mlp, "d_model": model.d_model,
    }  # fmt: skip
    yield '{"cfg": ' + json.dumps(cfg) + ', "nodes": ' + json.dumps(_nodes(circuit, space))
    yield ', "edges": {'
    inside = {_place(edge, space): edge.effect for edge in circuit.edges}
    kept = {} if scores is None else _kept(scores, space)
    scored = bool(kept) or any(effect is not None for effect in inside.values())
    separator = ""
    for place in space.edges():
        score, mark = kept.get(place, 0.0), "false"
        if place in inside:
            effect, mark = inside[place], "true"
            score = (math.nan if scored else 0.0) if effect is None else effect
        name = space.edge_id(*place)
        number = "NaN" if math.isnan(score) else repr(score)
        yield f'{separator}"{name}": {{"score": {number}, "in_graph": {mark}}}'
        separator = ", "
    yield "}}\n"


def _nodes(circuit: Circuit, space: EdgeSpace) -> Mapping[str, Mapping[str, bool | float]]:
    """Return all nodes of the model, with their own effects if the circuit has them."""
    found: dict[str, dict[str, bool | float]] = {
        name: {"in_graph": False} for name in (*space.senders, "logits")
    }
    for node in circuit.nodes:
        name = _name(node.key)
        if name not in found:
            raise BadInput(
                f"{node.key} is no node of {circuit.model}, which has {space.n_layers} layers with"
                f" {space.n_heads} heads"
            )
        found[name]["in_graph"] = True
        if node.effect is not None:
            found[name]["score"] = node.effect
    return found


def _name(key: str) -> str:
    """Return a node's name in the file.

    Raises:
        BadInput: The tool has no such node.
    """
    local, position = parse_node_key(key)
    if position is not None:
        raise BadInput(f"{key} is bound to a position; a graph is the same at all of them")
    if local.kind not in _KINDS:
        raise BadInput(
            f"{key} is a part that a graph does not have: only input, heads, MLPs and logits"
        )
    return _ungrouped(str(local))


def _place(edge: Edge, space: EdgeSpace) -> tuple[int, int]:
    """Return row and column of an edge."""
    source, target = _name(edge.source), _name(edge.target)
    if parse_local(target).kind is Kind.HEAD and edge.port is None:
        raise BadInput(
            f"{edge.connection} does not say whether the query, key or value is used; a graph has"
            " a separate edge for each"
        )
    return space.locate(f"{source}->{target}" + (f"<{edge.port}>" if edge.port else ""))


def _kept(scores: bytes, space: EdgeSpace) -> dict[tuple[int, int], float]:
    """Return scores other than 0 and NaN by row and column of the model's edges."""
    import numpy

    found = read_score_file(scores)
    rows = {name: row for row, name in enumerate(space.senders)}
    columns = {receiver.name: column for column, receiver in enumerate(space.receivers)}
    at_row = [rows.get(_ungrouped(name)) for name in found.senders]
    at_column = [columns.get(_ungrouped(name)) for name in found.receivers]
    matrix = found.matrix.astype(float)
    present = numpy.isfinite(matrix) & (matrix != 0)
    values: dict[tuple[int, int], float] = {}
    for at, into in zip(*(axis.tolist() for axis in present.nonzero()), strict=True):
        row, column = at_row[at], at_column[into]
        if row is not None and column is not None:
            values[row, column] = float(matrix[at, into])
    return values


def _ungrouped(name: str) -> str:
    """Return the query head with a key/value head's number; valid if their numbers are equal."""
    return name.replace(".kv", ".h")
