"""The part of an attribution graph that becomes a circuit: all, a share, or the largest links."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ingest.formats.attribution_graph.file import GraphFile
from ingest.formats.attribution_graph.links import blocks
from ingest.formats.attribution_graph.nodes import NodeType
from ingest.formats.attribution_graph.pruning import Kept, prune
from ingest.formats.base import Limits, Said
from ingest.formats.reading import check_count
from registry.errors import BadInput

__all__ = ["known_alone", "listed", "selected", "takes_part"]

_MOST_TYPES = 5  # number of types that one text names


def takes_part(said: Said) -> bool:
    """Return whether the user requests a part of a file."""
    shares = (said.node_threshold, said.edge_threshold, said.top, said.threshold)
    return any(one is not None for one in shares)


def selected(graph: GraphFile, said: Said, limits: Limits) -> tuple[Kept, dict[str, Any] | None]:
    """Return what becomes the circuit, and the rule of selection; None if all is selected."""
    shares = {
        name: getattr(said, name)
        for name in ("node_threshold", "edge_threshold")
        if getattr(said, name) is not None
    }
    if shares:
        if said.top is not None or said.threshold is not None:
            raise BadInput("give either shares of influence or --top or --threshold, not both")
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
    """Return the links that the user requests by size, in the file's order; ties keep the first.

    Raises:
        BadInput: There are more than are allowed.
    """
    import numpy as np

    other = np.array([node.type is NodeType.OTHER for node in graph.nodes])
    sizes = np.abs(graph.links.weight)
    for part in blocks(len(sizes)):  # links without a size or a name here cannot be selected
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
    """Keep only nodes that have a name here, and record the omitted ones.

    Raises:
        BadInput: There are only nodes without a name.
    """
    import numpy as np

    types = Counter(node.type_name for node in graph.nodes if node.type is NodeType.OTHER)
    if not types:
        return kept, {}
    other = np.array([node.type is NodeType.OTHER for node in graph.nodes])
    if other.all():
        raise BadInput(f"{name} has no node of a known type: {listed(types)}")
    n_links = sum(
        int(np.count_nonzero(other[links.source] | other[links.target]))
        for links in (graph.links[part] for part in blocks(len(graph.links)))
    )
    ends = graph.links
    links = tuple(at for at in kept.links if not (other[ends.source[at]] or other[ends.target[at]]))
    nodes = tuple(at for at in kept.nodes if not other[at])
    return Kept(nodes, links), {"left_out": {"nodes": dict(types), "links": n_links}}


def listed(types: Mapping[str, int]) -> str:
    """List the first few types with their numbers of nodes."""
    most = sorted(types.items(), key=lambda one: (-one[1], one[0]))
    shown = [f"{count:,} of {type_[:60]!r}" for type_, count in most[:_MOST_TYPES]]
    return ", ".join(shown) + (f" and {len(most) - len(shown):,} more" * (len(most) > len(shown)))
