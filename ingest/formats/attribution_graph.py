"""Attribution graphs of circuit-tracer and Neuronpedia, JSON of both schema generations.

``{"metadata": {...}, "qParams": {...}, "nodes": [...], "links": [...]}``: which features of
transcoders, errors, tokens and logits act on each other on one prompt. A link's weight is the
signed direct effect on the target's activation (a logit, at the logits), not on a metric: the
circuit's sign is unknown unless the user says one. Influence on the logits and activations are no
effects either and are kept beside the circuit, influence giving the nodes' ranks too.

Features and errors are named where the dictionary reads, also those of cross-layer transcoders,
which write to all later layers: ``m5.f3036#DICTIONARY`` and ``m5.error#DICTIONARY``; those that
stand in for attention (Lorsa) where it writes, ``l5.attn_out.f3036#DICTIONARY``; tokens are
``input`` and logits ``logits[VOCABULARY]``, each at its position. Llamascopium's files count each
layer twice, as attention and as MLP, which is undone. Nodes of a type that is not known (``bias``)
have no name here: they take part in influence and are then left out with their links, which the
circuit's parameters say (``left_out``). Where ``scan`` is a model that we know, as Neuronpedia
writes it, the model need not be said.

Two nodes may share a ``node_id``. A link with such an id joins the only nodes it can join, or those
that the tool's order of links leaves (:mod:`ingest.formats.attribution_graph_links`); where it
still fits two, it is left out of the circuit and kept in its parameters (``ambiguous_links``).

A file is read piece by piece. Where a share of influence, ``--top`` or ``--threshold`` is asked
for, it may be four times as large as others and have more links than a circuit may have edges, as
long as these take no more memory than a file may have bytes (32 for each). Pruning weighs all links
of the file; the ``influence`` that it gives for each node is of the graph its tool once pruned.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ingest.formats.attribution_graph_file import FileLink, GraphFile, read_graph
from ingest.formats.attribution_graph_nodes import FileNode, NodeType
from ingest.formats.attribution_graph_pruning import Kept
from ingest.formats.attribution_graph_selecting import known_alone, listed, selected, takes_part
from ingest.formats.attribution_graph_values import NodeValues, pack
from ingest.formats.base import Context, Imported, Said
from ingest.formats.building import also_in_file, edge_circuit, with_sign
from ingest.formats.reading import outer_keys
from ingest.known_models import known_model, model_slug
from registry.errors import BadInput
from registry.records import Edge, Level, Node

__all__ = ["FORMAT", "METHOD", "AttributionGraph", "dictionary_name", "model_name"]

METHOD = "attribution-graph"
_ODD = re.compile(r"[^A-Za-z0-9_.\-]")


class AttributionGraph:
    """The format."""

    name = "attribution-graph"
    summary = "attribution graphs of circuit-tracer and Neuronpedia, JSON of both generations"
    companions = ()

    def sniff(self, path: Path, head: bytes) -> float:
        """Sure where the viewer's parameters or a node's fields are seen."""
        text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
        if path.suffix.lower() not in {".json", ""} or not text.startswith(b"{"):
            return 0.0
        if b'"$schema"' in text:  # what describes such graphs
            return 0.0
        outer = outer_keys(head)
        nodes = "nodes" in outer and b'"feature_type"' in text and b'"ctx_idx"' in text
        if "qParams" in outer or nodes:
            return 0.95
        # A long prompt may fill the head; the list of graphs beside them is no graph.
        return 0.6 if b'"prompt_tokens"' in text and b'"graphs"' not in text else 0.0

    def read(self, path: Path, context: Context) -> Imported:
        """Read a graph, whole or what holds the shares of influence that the user says."""
        said = context.said
        graph = read_graph(path, context, part=takes_part(said))
        notes: list[str] = []
        said = also_in_file(said, notes, model=model_name(graph.metadata))
        names = dictionary_names(graph, said)
        keys = _keys(graph.nodes, names, path.name)
        kept, selection = selected(graph, said, context.limits)
        kept, left_out = known_alone(graph, kept, path.name)
        links = [graph.links[at] for at in kept.links]
        n_links = len(graph.links)
        graph = replace(graph, links=graph.links[:0])  # they may be most of the memory
        values = _values(graph, keys, kept)
        artifact = pack(sorted(keys[at] for at in kept.nodes), values)
        circuit = edge_circuit(
            said,
            _edges(links, keys, said),
            nodes=_nodes(graph, keys, kept),
            level=Level.FEATURE,
            method=said.method or METHOD,
            parameters=_parameters(graph, keys, kept) | left_out,
            selection=selection,
            # The tool prunes before it writes; of how many links that was is not written.
            universe_size=None,
            scores=hashlib.sha256(artifact).hexdigest(),
        )
        notes += _notes(graph, kept, n_links, names, left_out)
        return Imported([circuit], artifacts=[artifact], notes=notes)


FORMAT = AttributionGraph()


def dictionary_name(metadata: Mapping[str, Any], said: Said) -> str:
    """What the transcoders are called: as the user says, else as the file does.

    A file may name them as the set they come from, in ``scan``, one by one, or as what the viewer
    calls them; ``scan`` may instead be the model.

    Raises:
        BadInput: Nobody says.
    """
    if said.dictionary is not None:
        return _word(said.dictionary)
    info, details = (_inner(metadata, name) for name in ("info", "feature_details"))
    scan, several = metadata.get("scan"), metadata.get("transcoder_list")
    if isinstance(several, list) and several and all(isinstance(one, str) for one in several):
        # ``scan`` is then "custom-" and a number that differs from run to run.
        return _word(several[0]) if len(set(several)) == 1 else f"transcoders-{_digest(several)}"
    named = (
        info.get("transcoder_set"),
        scan if isinstance(scan, str) and "/" in scan else None,
        details.get("neuronpedia_source_set"),
        info.get("neuronpedia_source_set"),
        # Llamascopium's; our exporter adds the model as ``scan``.
        metadata.get("tc_analysis_name"),
        metadata.get("clt_analysis_name"),
        metadata.get("sae_series"),
        scan,
    )
    found = next((name for name in named if isinstance(name, str) and name.strip()), None)
    return _word(said.need("dictionary") if found is None else found)


def dictionary_names(graph: GraphFile, said: Said) -> tuple[str, str]:
    """What the transcoders are called, and what the features of attention.

    The latter go by the name of the former where neither the user nor the file gives them one:
    their places tell them apart.

    Raises:
        BadInput: As :func:`dictionary_name`.
    """
    name = dictionary_name(graph.metadata, said)
    details = _inner(graph.metadata, "feature_details")
    named = (details.get("neuronpedia_lorsa_source_set"), graph.metadata.get("lorsa_analysis_name"))
    found = next((one for one in named if isinstance(one, str) and one.strip()), None)
    return name, name if said.dictionary is not None or found is None else _word(found)


def model_name(metadata: Mapping[str, Any]) -> str | None:
    """The model that a file names.

    Neuronpedia writes it as ``scan``, where circuit-tracer writes the transcoders' set: only the
    name of a model whose shape is known is taken as one.
    """
    scan = metadata.get("scan")
    named = isinstance(scan, str) and known_model(model_slug(scan)) is not None
    return scan if named else None


def _inner(metadata: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = metadata.get(name)
    return value if isinstance(value, dict) else {}


def _word(name: str) -> str:
    """A name as the grammar has it: the owner's slash is two dashes."""
    word = name.strip().strip("/").replace("/", "--")
    if _ODD.search(word) or not word[:1].isalnum():
        word = f"{_ODD.sub('-', word).lstrip('-_.')[:80] or 'dictionary'}-{_digest([name])}"
    return word


def _digest(names: Sequence[str]) -> str:
    joined = "\n".join(names).encode(errors="surrogatepass")
    return hashlib.sha256(joined).hexdigest()[:8]


def _keys(nodes: Sequence[FileNode], names: tuple[str, str], file: str) -> list[str]:
    """Of each node; of a type that is not known, empty."""
    keys = [
        "" if node.type is NodeType.OTHER else node.key(names[node.attention]) for node in nodes
    ]
    repeated = next((key for key, count in Counter(keys).items() if key and count > 1), None)
    if repeated is not None:
        raise BadInput(f"{file} has the node {repeated} twice")
    return keys


def _values(graph: GraphFile, keys: Sequence[str], kept: Kept) -> NodeValues:
    nodes = [(keys[at], graph.nodes[at]) for at in kept.nodes]
    return NodeValues(
        {key: n.influence for key, n in nodes if n.influence is not None},
        {key: n.activation for key, n in nodes if n.activation is not None},
        {key: n.label for key, n in nodes if n.label and n.type is not NodeType.FEATURE},
        {
            key: n.index
            for key, n in nodes
            if n.index is not None and n.type is NodeType.TOKEN
        },
    )  # fmt: skip


def _nodes(graph: GraphFile, keys: Sequence[str], kept: Kept) -> tuple[Node, ...]:
    """The nodes; those that few others hold more influence than come first."""
    known = [at for at in kept.nodes if graph.nodes[at].influence is not None]
    known.sort(key=lambda at: (graph.nodes[at].influence, keys[at]))
    ranks = {at: rank for rank, at in enumerate(known, 1)}
    return tuple(
        Node(
            component=keys[at].partition("@")[0],
            position=str(graph.nodes[at].position),
            rank=ranks.get(at),
            role=graph.nodes[at].label if graph.nodes[at].type is NodeType.FEATURE else None,
        )
        for at in kept.nodes
    )


def _edges(links: Sequence[FileLink], keys: Sequence[str], said: Said) -> list[Edge]:
    sized = [link for link in links if link.weight is not None]
    sized.sort(key=lambda link: (-abs(link.weight or 0.0), keys[link.source], keys[link.target]))
    ranks = {(link.source, link.target): rank for rank, link in enumerate(sized, 1)}
    return [
        Edge(
            source=keys[link.source],
            target=keys[link.target],
            effect=with_sign(link.weight, said, f"{keys[link.source]}->{keys[link.target]}"),
            rank=ranks.get((link.source, link.target)),
        )
        for link in links
    ]


def _parameters(graph: GraphFile, keys: Sequence[str], kept: Kept) -> dict[str, Any]:
    logits = [at for at in kept.nodes if graph.nodes[at].type is NodeType.LOGIT]
    probabilities = {keys[at]: graph.nodes[at].probability for at in logits}
    parameters: dict[str, Any] = {
        "metadata": graph.metadata,
        "qParams": graph.qparams,
        "probabilities": {key: p for key, p in probabilities.items() if p is not None},
        "targets": sorted(keys[at] for at in logits if graph.nodes[at].target),
    }
    layers = {graph.nodes[at].layer for at in logits} - {None}
    if len(layers) == 1:  # one beyond the last, by the tool's counting; part of logits' ids
        parameters["logit_layer"] = layers.pop()
    if graph.ambiguous:
        parameters["ambiguous_links"] = [list(link) for link in graph.ambiguous]
    return parameters


def _notes(
    graph: GraphFile, kept: Kept, n_links: int, names: tuple[str, str], left_out: Mapping[str, Any]
) -> list[str]:
    notes = [f"features and errors are named by the dictionary {names[0]}", *graph.odd]
    if any(node.attention for node in graph.nodes):
        notes.append(f"those of attention are named by {names[1]}")
    if graph.counted_twice:
        notes.append("the file counts each layer twice, as attention and as MLP; taken as one")
    numbers = Counter(node.numbering for node in graph.nodes if node.numbering is not None)
    notes += [
        f"{count:,} features are numbered by {way}; circuits name them by their indices"
        for way, count in sorted(numbers.items())
    ]
    if left_out:
        types, n_lost = left_out["left_out"]["nodes"], left_out["left_out"]["links"]
        notes.append(
            f"nodes of types that are not known are left out, with {n_lost:,} links:"
            f" {listed(types)}"
        )
    if len(kept.links) < n_links:
        notes.append(
            f"{len(kept.nodes):,} of {len(graph.nodes):,} nodes and {len(kept.links):,} of"
            f" {n_links:,} links are kept"
        )
    for count, what in (
        (graph.dangling, "lead to or from what is no node and are left out"),
        (graph.repeated, "are given twice and counted once"),
        (len(graph.ambiguous), "fit two nodes of one id and are kept as ambiguous_links only"),
    ):
        if count:
            notes.append(f"{count:,} links {what}")
    tokens = graph.metadata.get("prompt_tokens")
    if isinstance(tokens, list):
        beyond = sum(node.position >= len(tokens) for node in graph.nodes)
        if beyond:
            notes.append(f"{beyond:,} nodes stand beyond the prompt's {len(tokens):,} tokens")
    return notes
