"""circuitkit's two kinds of JSON: scores of nodes, and CircuitArtifact.

Scores: ``{"task", "model", "algorithm", "level", "node_scores": {"A0.1": s, "MLP 3": s}, ...}``.
``L3.42`` is neuron 42 of MLP 3. The file has all parts that a method scored, marks none as the
circuit, and has no edges. Some files contain only ``node_scores``. Artifact: ``{"version",
"metadata": {"model_id", "discovery_method", "task", ...}, "nodes": {id: {"layer_idx", "node_type",
"index", "importance", "name"}}, "edges": {id: {"src_id", "dst_id", "weight"}}}``, a circuit that is
already selected. Facts that matter here: scores are absolute, and importances and weights are from
0 to 1, so the sign is lost. An edge into a head does not give the input of the head, and is kept
without one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ingest.formats.base import Context, Imported, Said
from ingest.formats.building import also_in_file, edge_circuit
from ingest.formats.choosing import Choice, choose, is_asked
from ingest.formats.circuitkit.names import artifact_part, scored_part
from ingest.formats.reading import (
    OddScores,
    as_number,
    check_count,
    finite,
    outer_keys,
    read_json,
)
from ingest.formats.spelling import notes_on_names
from ingest.formats.universe import whole_model
from registry.errors import BadInput
from registry.identifiers import Kind, can_feed, parse_local
from registry.models.known_models import common_model
from registry.records import Circuit, Edge, Level, Node, Sign

__all__ = ["FORMAT", "Circuitkit"]

_OF_SCORES = ("version", "timestamp", "discovery_cfg", "provenance")
_OF_ARTIFACTS = ("dataset", "granularity", "threshold", "timestamp", "algorithm_params")


class Circuitkit:
    """The format."""

    name = "circuitkit"
    summary = "circuitkit's scores of nodes and CircuitArtifact, as JSON"
    companions = ()

    def sniff(self, path: Path, head: bytes) -> float:
        """Sure if scores of nodes, or an artifact's fields of nodes and metadata, are present."""
        if path.suffix.lower() != ".json":
            return 0.0
        outer = outer_keys(head)
        artifact = {"metadata", "nodes"} <= outer
        described = b'"discovery_method"' in head or b'"layer_idx"' in head or b'"src_id"' in head
        return 0.95 if "node_scores" in outer or (artifact and described) else 0.0

    def read(self, path: Path, context: Context) -> Imported:
        """Read either kind; of scores, the requested number of nodes is the circuit."""
        data = read_json(path, context.limits, odd=True)
        if isinstance(data, dict) and isinstance(data.get("node_scores"), dict):
            return _scores(data, path.name, context)
        if isinstance(data, dict) and isinstance(data.get("nodes"), dict):
            return _artifact(data, path.name, context)
        raise BadInput(
            f"{path.name} has neither node_scores nor nodes as circuitkit writes them: an object of"
            " scores by name, or of nodes by id"
        )


FORMAT = Circuitkit()


def _scores(data: Mapping[str, Any], name: str, context: Context) -> Imported:
    notes: list[str] = []
    named = {key: data.get(key) for key in ("model", "task")}
    said = also_in_file(context.said, notes, **named, method=data.get("algorithm"))
    check_count(len(data["node_scores"]), "nodes", name, context.limits)
    scores: dict[str, float] = {}
    odd = OddScores()
    read_as: dict[str, str] = {}
    for text, value in data["node_scores"].items():
        part = read_as[text] = scored_part(text, data, name)
        if part in scores:
            raise BadInput(f"{name}: {text!r} is {part}, which is scored already")
        score = odd.taken(as_number(value, f"{name}: the score of {text}"), text)
        if score is not None:
            scores[part] = _size(score, f"{name}: {text}")
        else:
            notes.append(f"{text} has no score and is omitted")
    notes += odd.notes()
    chosen, choice = _choose(scores, said, name)
    notes += choice.notes
    level = Level.NEURON if _has_neurons(scores) else Level.NODE
    about = {key: data[key] for key in ("algorithm", "level", *_OF_SCORES) if key in data}
    circuit = _circuit(
        said,
        level,
        [Node(component=part, effect=scores[part], rank=rank) for rank, part in chosen],
        [],
        parameters={"tool": "circuitkit", **finite(about)},
        selection=choice.selection,
        universe_size=whole_model(read_as.values(), common_model(said.need("model", "task"))),
    )
    return Imported([circuit], notes=[*notes_on_names(read_as), *notes])


def _choose(
    scores: Mapping[str, float], said: Said, name: str
) -> tuple[list[tuple[int, str]], Choice]:
    """Return the strongest nodes with their ranks, ties by name, and the rule."""
    if not is_asked(said):
        raise BadInput(
            f"{name} scores {len(scores):,} nodes and marks none as the circuit; give a number"
            " with --top N or a smallest score with --threshold X"
        )
    ranked = list(enumerate(sorted(scores, key=lambda part: (-scores[part], part)), 1))
    choice = choose([scores[part] for _, part in ranked], None, said, name, "node")
    return [ranked[at] for at in choice.places], choice


def _artifact(data: Mapping[str, Any], name: str, context: Context) -> Imported:
    notes: list[str] = []
    about = data.get("metadata", {})
    edges_given = data.get("edges") or {}
    if not isinstance(about, dict) or not isinstance(edges_given, dict):
        raise BadInput(f"{name}: metadata and edges are objects in a CircuitArtifact")
    said = also_in_file(
        context.said, notes, model=about.get("model_id"), task=about.get("task"),
        method=about.get("discovery_method"),
    )  # fmt: skip
    for what, given in (("nodes", data["nodes"]), ("edges", edges_given)):
        check_count(len(given), what, name, context.limits)
    parts = {key: artifact_part(key, node, name) for key, node in data["nodes"].items()}
    odd = OddScores()
    sizes = {
        part: _given_size(data["nodes"][key].get("importance"), f"{name}: {key}", odd)
        for key, part in parts.items()
    }
    if len(sizes) < len(parts):
        raise BadInput(f"{name}: two nodes are the same part of the model")
    edges = _edges(edges_given, parts, name, odd)
    shown, edges, choice = _chosen(sizes, edges, said, name)
    level = Level.NEURON if _has_neurons(shown) else Level.EDGE if edges else Level.NODE
    circuit = _circuit(
        said,
        level,
        _ranked_nodes(shown),
        edges,
        parameters={
            "tool": "circuitkit",
            **finite({key: about[key] for key in _OF_ARTIFACTS if about.get(key) is not None}),
            **({"version": finite(data["version"])} if "version" in data else {}),
        },
        selection=choice.selection,
    )
    return Imported([circuit], notes=[*notes_on_names(parts), *notes, *odd.notes(), *choice.notes])


def _chosen(
    sizes: Mapping[str, float | None], edges: list[Edge], said: Said, name: str
) -> tuple[Mapping[str, float | None], list[Edge], Choice]:
    """Select all of an artifact, or by size its edges, or its nodes if it has no edges."""
    if not is_asked(said):
        return sizes, edges, Choice(())
    if not edges:
        choice = choose(list(sizes.values()), [True] * len(sizes), said, name, "node")
        parts = list(sizes)
        return {parts[at]: sizes[parts[at]] for at in choice.places}, [], choice
    choice = choose([edge.effect for edge in edges], [True] * len(edges), said, name)
    chosen = [edges[at] for at in choice.places]
    ends = {end for edge in chosen for end in (edge.source, edge.target)}
    return {part: size for part, size in sizes.items() if part in ends}, chosen, choice


def _given_size(value: Any, where: str, odd: OddScores) -> float | None:
    score = odd.taken(as_number(value, f"the size of {where}"), where)
    return None if score is None else _size(score, where)


def _size(score: float, where: str) -> float:
    """Return a score of the tool, which must not be negative.

    Raises:
        BadInput: It is negative.
    """
    if score < 0:
        raise BadInput(
            f"{where} has the score {score:g}, but circuitkit's unsigned scores cannot"
            " be negative: another program wrote this file, and its signs would be lost"
        )
    return score


def _edges(
    given: Mapping[str, Any], parts: Mapping[str, str], name: str, odd: OddScores
) -> list[Edge]:
    edges: dict[tuple[str, str], Edge] = {}
    for key, edge in given.items():
        if not isinstance(edge, dict):
            raise BadInput(f"{name}: edge {key!r} is no object with src_id and dst_id")
        source, target = (_end(edge, end, parts, key, name) for end in ("src_id", "dst_id"))
        if (source, target) in edges:
            raise BadInput(f"{name}: two edges run from {source} to {target}")
        if not can_feed(parse_local(source), parse_local(target)):
            raise BadInput(f"{name}: edge {key!r} runs back, from {source} to {target}")
        size = _given_size(edge.get("weight"), f"{name}: {key}", odd)
        edges[source, target] = Edge(source=source, target=target, effect=size)
    return _ranked_edges(list(edges.values()))


def _ranked_edges(edges: Sequence[Edge]) -> list[Edge]:
    sized = [at for at, edge in enumerate(edges) if edge.effect is not None]
    best = sorted(sized, key=lambda at: -(edges[at].effect or 0.0))
    ranks = {at: rank for rank, at in enumerate(best, 1)}
    return [edge.model_copy(update={"rank": ranks.get(at)}) for at, edge in enumerate(edges)]


def _end(edge: Mapping[str, Any], end: str, parts: Mapping[str, str], key: str, name: str) -> str:
    given = edge.get(end)
    if not isinstance(given, str) or given not in parts:
        raise BadInput(f"{name}: edge {key!r} has {end} {given!r}, which is none of its nodes")
    return parts[given]


def _ranked_nodes(sizes: Mapping[str, float | None]) -> list[Node]:
    scored = [part for part, size in sizes.items() if size is not None]
    ranked = sorted(scored, key=lambda part: (-abs(sizes[part] or 0.0), part))
    ranks = {part: rank for rank, part in enumerate(ranked, 1)}
    return [Node(component=part, effect=size, rank=ranks.get(part)) for part, size in sizes.items()]


def _circuit(
    said: Said, level: Level, nodes: Sequence[Node], edges: Sequence[Edge], **more: Any
) -> Circuit:
    return edge_circuit(said, edges, level=level, nodes=tuple(nodes), sign=Sign.UNSIGNED, **more)


def _has_neurons(parts: Mapping[str, Any]) -> bool:
    return any(parse_local(part).kind is Kind.NEURON for part in parts)
