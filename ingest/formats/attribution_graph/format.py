"""Attribution graphs of circuit-tracer and Neuronpedia, JSON of both schema generations.

``{"metadata": {...}, "qParams": {...}, "nodes": [...], "links": [...]}``: the effects of features
of transcoders, errors, tokens and logits on each other, on one prompt. The weight of a link is the
signed direct effect on the target's activation (for a logit, on the logit), not on a metric. So the
circuit's sign is unknown unless the user gives it. Influence on the logits and activations are not
effects either and are stored with the circuit. The ranks of nodes follow influence.

Features and errors are named at the point that the dictionary reads, also for cross-layer
transcoders, which write to all later layers: ``m5.f3036#DICTIONARY`` and ``m5.error#DICTIONARY``.
Features that replace attention (Lorsa) are named at the point that they write,
``l5.attn_out.f3036#DICTIONARY``. Tokens are ``input`` and logits ``logits[VOCABULARY]``, each at
its position. Llamascopium's files count each layer twice, as attention and as MLP; the import
corrects this. Nodes of an unknown type (``bias``) have no name here: they count for influence and
are then omitted with their links, and the circuit's parameters list them (``left_out``). If
``scan`` is a known model, as Neuronpedia writes it, the user need not give the model.

Two nodes may have the same ``node_id``. A link with such an id joins the only nodes that it can
join, or those that follow from the tool's order of links
(:mod:`ingest.formats.attribution_graph.links`). If two nodes still fit, the link is omitted from
the circuit and kept in its parameters (``ambiguous_links``).

A file is read in pieces. If the user requests a share of influence, ``--top`` or ``--threshold``,
the file may be four times as large as other files, and may have more links than a circuit may have
edges, if these need no more memory than a file may have bytes (32 bytes per link). Pruning
considers all links of the file; the ``influence`` that the file gives for each node refers to the
graph before its tool pruned it.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ingest.formats.attribution_graph.file import FileLink, GraphFile, read_graph
from ingest.formats.attribution_graph.nodes import FileNode, NodeType
from ingest.formats.attribution_graph.pruning import Kept
from ingest.formats.attribution_graph.selecting import known_alone, listed, selected, takes_part
from ingest.formats.attribution_graph.values import NodeValues, pack
from ingest.formats.base import Context, Imported, Said
from ingest.formats.building import also_in_file, edge_circuit, with_sign
from ingest.formats.choosing import is_asked, notes_on_count
from ingest.formats.contraction import notes_on_positions
from ingest.formats.reading import outer_keys
from ingest.models.names import model_slug
from registry.errors import BadInput
from registry.models.known_models import common_model
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
        """Sure if the viewer's parameters or a node's fields are present."""
        text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
        if path.suffix.lower() not in {".json", ""} or not text.startswith(b"{"):
            return 0.0
        if b'"$schema"' in text:  # a schema that describes such graphs
            return 0.0
        # Searching for the words comes first: parsing the structure takes much longer.
        nodes = all(word in text for word in (b'"nodes"', b'"feature_type"', b'"ctx_idx"'))
        outer = outer_keys(head) if nodes or b'"qParams"' in text else frozenset()
        if "qParams" in outer or (nodes and "nodes" in outer):
            return 0.95
        # A long prompt may fill the head; a list of graphs in the same folder is not a graph.
        return 0.6 if b'"prompt_tokens"' in text and b'"graphs"' not in text else 0.0

    def read(self, path: Path, context: Context) -> Imported:
        """Read a graph: all of it, or the shares of influence that the user requests."""
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
        graph = replace(graph, links=graph.links[:0])  # they may take most of the memory
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
            # The tool prunes before it writes, and does not write the number of links before that.
            universe_size=None,
            scores=hashlib.sha256(artifact).hexdigest(),
        )
        notes += _notes(graph, kept, n_links, names, left_out)
        notes += notes_on_positions(circuit.edges)
        if is_asked(said):
            notes += notes_on_count(len(links), said.top, "link")
        return Imported([circuit], artifacts=[artifact], notes=notes)


FORMAT = AttributionGraph()


def dictionary_name(metadata: Mapping[str, Any], said: Said) -> str:
    """Return the name of the transcoders, from the user or else from the file.

    A file may name the set of transcoders in ``scan``, list them one by one, or give the name that
    the viewer shows; ``scan`` may instead be the model.

    Raises:
        BadInput: Neither gives it.
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
    """Return the name of the transcoders, and of the features of attention.

    The latter get the name of the former if neither the user nor the file names them: their sites
    are different.

    Raises:
        BadInput: See :func:`dictionary_name`.
    """
    name = dictionary_name(graph.metadata, said)
    details = _inner(graph.metadata, "feature_details")
    named = (details.get("neuronpedia_lorsa_source_set"), graph.metadata.get("lorsa_analysis_name"))
    found = next((one for one in named if isinstance(one, str) and one.strip()), None)
    return name, name if said.dictionary is not None or found is None else _word(found)


def model_name(metadata: Mapping[str, Any]) -> str | None:
    """Return the model that a file names.

    Neuronpedia writes the model as ``scan``, but circuit-tracer writes the set of transcoders
    there. So only the name of a model with a known shape counts as a model.
    """
    scan = metadata.get("scan")
    named = isinstance(scan, str) and common_model(model_slug(scan)) is not None
    return scan if named else None


def _inner(metadata: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = metadata.get(name)
    return value if isinstance(value, dict) else {}


def _word(name: str) -> str:
    """Return a name as the grammar requires: the owner's slash becomes two dashes."""
    word = name.strip().strip("/").replace("/", "--")
    if _ODD.search(word) or not word[:1].isalnum():
        word = f"{_ODD.sub('-', word).lstrip('-_.')[:80] or 'dictionary'}-{_digest([name])}"
    return word


def _digest(names: Sequence[str]) -> str:
    joined = "\n".join(names).encode(errors="surrogatepass")
    return hashlib.sha256(joined).hexdigest()[:8]


def _keys(nodes: Sequence[FileNode], names: tuple[str, str], file: str) -> list[str]:
    """Return the key of each node; empty for an unknown type."""
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
    """Return the nodes, those with the largest influence first."""
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
    if len(layers) == 1:  # the tool's number of the layer after the last; part of logits' ids
        parameters["logit_layer"] = layers.pop()
    if graph.ambiguous:
        parameters["ambiguous_links"] = [list(link) for link in graph.ambiguous]
    return parameters


def _notes(
    graph: GraphFile, kept: Kept, n_links: int, names: tuple[str, str], left_out: Mapping[str, Any]
) -> list[str]:
    notes = [f"features and errors are named by the dictionary {names[0]}", *graph.odd]
    if any(node.attention for node in graph.nodes):
        notes.append(f"features of attention are named by {names[1]}")
    if graph.counted_twice:
        notes.append("the file counts each layer twice, as attention and as MLP; read as one layer")
    numbers = Counter(node.numbering for node in graph.nodes if node.numbering is not None)
    notes += [
        f"{count:,} features are numbered by {way}; circuits name them by their indices"
        for way, count in sorted(numbers.items())
    ]
    if left_out:
        types, n_lost = left_out["left_out"]["nodes"], left_out["left_out"]["links"]
        notes.append(f"nodes of unknown types are omitted, with {n_lost:,} links: {listed(types)}")
    if len(kept.links) < n_links:
        notes.append(
            f"{len(kept.nodes):,} of {len(graph.nodes):,} nodes and {len(kept.links):,} of"
            f" {n_links:,} links are kept"
        )
    for count, what in (
        (graph.dangling, "begin or end at no node and are omitted"),
        (graph.repeated, "are given twice and counted once"),
        (len(graph.ambiguous), "fit two nodes with one id and are kept only as ambiguous_links"),
    ):
        if count:
            notes.append(f"{count:,} links {what}")
    tokens = graph.metadata.get("prompt_tokens")
    if isinstance(tokens, list):
        beyond = sum(node.position >= len(tokens) for node in graph.nodes)
        if beyond:
            notes.append(f"{beyond:,} nodes are beyond the prompt's {len(tokens):,} tokens")
    return notes
