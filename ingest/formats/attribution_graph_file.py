"""An attribution graph's JSON, checked: nodes with what they are, links with both ends found.

Links name nodes by an id that a feature of layer 0 and the error of another layer may share. What
such a link joins is told where only one pair of nodes can be joined: nothing leads to errors and
tokens, and no link runs within a layer or backwards. What is left is told by the order in which
circuit-tracer writes links, by target and then by source as nodes are listed, where all other links
of the file are in that order.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingest.formats.attribution_graph_nodes import (
    FileNode,
    NodeType,
    read_node,
    read_number,
    shortened,
)
from ingest.formats.base import Limits
from ingest.formats.reading import OddScores, check_count, finite, read_json
from registry.errors import BadInput

__all__ = ["FileLink", "GraphFile", "read_graph"]

_ENOUGH_IN_ORDER = 10  # links in order that are not so by chance
_MOST_PAIRS = 64  # that a link is looked into; a tool's own ids are shared by two nodes at most
_MOST_CHOICES = 1024  # of ambiguous links one after another that are tried together
_Pair = tuple[int, int]  # source and target, by their places in the list of nodes


@dataclass(frozen=True, slots=True)
class FileLink:
    """A link between two nodes, by their places in the list; None: no weight is given."""

    source: int
    target: int
    weight: float | None


@dataclass(frozen=True, slots=True)
class GraphFile:
    """A whole file.

    Attributes:
        metadata: As in the file.
        qparams: What was pinned and grouped in the viewer, as in the file.
        ambiguous: Links that fit two nodes of one id: source, target and weight as in the file.
        dangling: How many links lead to or from what is no node.
        repeated: How many links are given twice with the same weight.
        odd: What to say of weights and other numbers that are no finite ones.
    """

    metadata: Mapping[str, Any]
    qparams: Mapping[str, Any]
    nodes: Sequence[FileNode]
    links: Sequence[FileLink]
    ambiguous: Sequence[tuple[str, str, float | None]]
    dangling: int
    repeated: int
    odd: Sequence[str] = ()


def read_graph(path: Path, limits: Limits) -> GraphFile:
    """Read and check a file.

    Raises:
        BadInput: It is malformed or has too many links.
    """
    data = read_json(path, limits, each_edge=('"source"', '"target"'), odd=True)
    name = path.name
    if not isinstance(data, dict):
        raise BadInput(f"{name} is no object with metadata, nodes and links")
    metadata, qparams = (_object(data, field, name) for field in ("metadata", "qParams"))
    raw_nodes, raw_links = (_list(data, field, name) for field in ("nodes", "links"))
    check_count(len(raw_links), "links", name, limits)
    check_count(len(raw_nodes), "nodes", name, limits)
    if not raw_nodes:
        raise BadInput(f"{name} holds no node")
    paired = metadata.get("schema_version") is not None
    odd = OddScores()
    nodes = [
        read_node(finite(raw), f"{name}, node {at}", paired) for at, raw in enumerate(raw_nodes)
    ]
    links = _links(raw_links, nodes, name, odd)
    return GraphFile(finite(metadata), finite(qparams), nodes, *links, odd.notes())


def _object(data: Mapping[str, Any], field: str, name: str) -> Mapping[str, Any]:
    value = data.get(field)
    if value is None and field == "qParams":  # only what the viewer shows
        return {}
    if not isinstance(value, dict):
        raise BadInput(f"{name}: {field} is no object")
    return value


def _list(data: Mapping[str, Any], field: str, name: str) -> list[Any]:
    value = data.get(field)
    if not isinstance(value, list):
        raise BadInput(f"{name}: {field} is no list; an attribution graph has nodes and links")
    return value


def _links(
    raw: Sequence[Any], nodes: Sequence[FileNode], name: str, odd: OddScores
) -> tuple[list[FileLink], list[tuple[str, str, float | None]], int, int]:
    places: dict[str, list[int]] = defaultdict(list)
    for at, node in enumerate(nodes):
        places[node.id].append(at)
    read = [_ends(one, f"{name}, link {at}", odd) for at, one in enumerate(raw)]
    known = [one for one in read if one[0] in places and one[1] in places]
    chosen = _chosen([_pairs(places[one[0]], places[one[1]], nodes) for one in known])
    found: dict[_Pair, FileLink] = {}
    ambiguous: list[tuple[str, str, float | None]] = []
    repeated = 0
    for link, pair in zip(known, chosen, strict=True):
        source, target, weight = link
        if pair is None:
            ambiguous.append(link)
        elif pair not in found:
            found[pair] = FileLink(*pair, weight)
        elif found[pair].weight == weight:
            repeated += 1
        else:
            raise BadInput(
                f"{name}: {shortened(source)} -> {shortened(target)} is given twice with different"
                " weights"
            )
    return list(found.values()), ambiguous, len(read) - len(known), repeated


def _ends(raw: Any, where: str, odd: OddScores) -> tuple[str, str, float | None]:
    if not isinstance(raw, dict):
        raise BadInput(f"{where} is no object with source, target and weight")
    source, target = raw.get("source"), raw.get("target")
    if not isinstance(source, str) or not isinstance(target, str):
        raise BadInput(
            f"{where}: source and target are {shortened(source)} and {shortened(target)}"
        )
    weight = read_number(raw.get("weight"), f"{where}: weight")
    return source, target, odd.taken(weight, f"{shortened(source)} -> {shortened(target)}")


def _pairs(
    sources: Sequence[int], targets: Sequence[int], nodes: Sequence[FileNode]
) -> list[_Pair]:
    """The nodes that a link may join, of those with its ids; none where these are very many."""
    if len(sources) == len(targets) == 1:
        return [(sources[0], targets[0])]
    if len(sources) * len(targets) > _MOST_PAIRS:
        return []
    return [
        (source, target)
        for target in targets
        for source in sources
        if nodes[target].type in {NodeType.FEATURE, NodeType.LOGIT}
        and _place(nodes[source]) < _place(nodes[target])
    ]


def _place(node: FileNode) -> float:
    if node.type is NodeType.TOKEN:
        return -1
    return math.inf if node.type is NodeType.LOGIT else float(node.layer or 0)


def _chosen(options: Sequence[Sequence[_Pair]]) -> list[_Pair | None]:
    """Which of the pairs that each link may join it does join; None where that is open."""
    chosen = [pairs[0] if len(pairs) == 1 else None for pairs in options]
    certain = [pair for pair in chosen if pair is not None]
    if len(certain) == len(chosen) or not _as_the_tool_orders(certain):
        return chosen
    for is_open, group in itertools.groupby(range(len(options)), lambda at: chosen[at] is None):
        run = list(group)
        choices = [options[at] for at in run]
        if is_open and _few(choices):
            around = chosen[max(run[0] - 1, 0) : run[0]], chosen[run[-1] + 1 : run[-1] + 2]
            fits = [
                pairs
                for pairs in itertools.product(*choices)
                if _ascending([pair for pair in (*around[0], *pairs, *around[1]) if pair])
            ]
            if len(fits) == 1:
                chosen[run[0] : run[-1] + 1] = fits[0]
    return chosen


def _few(choices: Sequence[Sequence[_Pair]]) -> bool:
    """Whether all can be tried together."""
    n_ways = 1
    for pairs in choices:
        n_ways *= len(pairs)
        if n_ways > _MOST_CHOICES:
            return False
    return True


def _as_the_tool_orders(pairs: Sequence[_Pair]) -> bool:
    return len(pairs) >= _ENOUGH_IN_ORDER and _ascending(pairs)


def _ascending(pairs: Sequence[_Pair]) -> bool:
    return all(one[::-1] < other[::-1] for one, other in itertools.pairwise(pairs))
