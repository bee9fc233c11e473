"""What of an attribution graph becomes a circuit: all, a share of influence, or what is largest."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ingest.formats.attribution_graph_file import GraphFile
from ingest.formats.attribution_graph_links import blocks
from ingest.formats.attribution_graph_nodes import NodeType
from ingest.formats.attribution_graph_pruning import Kept, prune
from ingest.formats.base import Limits, Said
from ingest.formats.reading import check_count
from registry.errors import BadInput

__all__ = ["known_alone", "listed", "selected", "takes_part"]

_MOST_TYPES = 5  # that are named in one text


def takes_part(said: Said) -> bool:
    """Whether a part of a file is asked for."""
    shares = (said.node_threshold, said.edge_threshold, said.top, said.threshold)
    return any(one is not None for one in shares)


def selected(graph: GraphFile, said: Said, limits: Limits) -> tuple[Kept, dict[str, Any] | None]:
    """What of the file makes the circuit, and by what rule; no rule where all does."""
    shares = {
        name: getattr(said, name)
        for name in ("node_threshold", "edge_threshold")
        if getattr(said, name) is not None
    }
    if shares:
        if said.top is not None or said.threshold is not None:
            raise BadInput("say either shares of influence or --top or --threshold, not both")
        return prune(graph, said.node_threshold, said.edge_threshold, limits), {
            **shares,
            "by": "influence",
        }
    if said.top is None and said.threshold is None:
        return Kept(tuple(range(len(graph.nodes))), tuple(range(len(graph.links)))), None
    strongest = _strongest(graph, said, limits)
    ends = {end for at in strongest for end in (graph.links[at].source, graph.links[at].target)}
    rule = {"top": said.top} if said.top is not None else {"threshold": said.threshold}
    return Kept(tuple(sorted(ends)), tuple(strongest)), {**rule, "by": "absolute"}


def _strongest(graph: GraphFile, said: Said, limits: Limits) -> list[int]:
    """Links that are asked for by their size, in the file's order; of equal ones the first.

    Raises:
        BadInput: They are more than are allowed.
    """
    import numpy as np

    other = np.array([node.type is NodeType.OTHER for node in graph.nodes])
    sizes = np.abs(graph.links.weight)
    for part in blocks(len(sizes)):  # what has no size or no name here cannot be taken
        at = graph.links[part]
        sizes[part][np.isnan(at.weight) | other[at.source] | other[at.target]] = -1.0
    if said.top is None:
        chosen = sizes >= max(said.threshold or 0.0, 0.0)
    else:
        n_left = min(said.top, int(np.count_nonzero(sizes >= 0)))
        least = np.partition(sizes, -n_left)[-n_left] if n_left else math.inf
        chosen = sizes > least
        as_large = np.flatnonzero(sizes == least)
        chosen[as_large[: n_left - int(np.count_nonzero(chosen))]] = True
    found: list[int] = np.flatnonzero(chosen).tolist()
    check_count(len(found), "links that are asked for", "the file", limits)
    return found


def known_alone(graph: GraphFile, kept: Kept, name: str) -> tuple[Kept, dict[str, Any]]:
    """What is kept of nodes that have a name here, and what the file has besides.

    Raises:
        BadInput: It has nothing but such nodes.
    """
    import numpy as np

    types = Counter(node.type_name for node in graph.nodes if node.type is NodeType.OTHER)
    if not types:
        return kept, {}
    other = np.array([node.type is NodeType.OTHER for node in graph.nodes])
    if other.all():
        raise BadInput(f"{name} holds no node of a type that is known: {listed(types)}")
    n_links = sum(
        int(np.count_nonzero(other[links.source] | other[links.target]))
        for links in (graph.links[part] for part in blocks(len(graph.links)))
    )
    ends = graph.links
    links = tuple(at for at in kept.links if not (other[ends.source[at]] or other[ends.target[at]]))
    nodes = tuple(at for at in kept.nodes if not other[at])
    return Kept(nodes, links), {"left_out": {"nodes": dict(types), "links": n_links}}


def listed(types: Mapping[str, int]) -> str:
    """Types with how many nodes are of each, the first few."""
    most = sorted(types.items(), key=lambda one: (-one[1], one[0]))
    told = [f"{count:,} of {type_[:60]!r}" for type_, count in most[:_MOST_TYPES]]
    return ", ".join(told) + (f" and {len(most) - len(told):,} more" * (len(most) > len(told)))
