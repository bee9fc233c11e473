"""Prune an attribution graph by influence on its logits, as circuit-tracer does.

After Ameisen et al. 2025 (transformer-circuits.pub, attribution graphs, methods) and
``prune_graph`` of circuit-tracer. The inputs of a node are weighted by the absolute values of their
links, normalised to sum to 1. Influence flows from the logits, each weighted by its probability,
backwards along all paths. Pruning keeps the fewest nodes, then the fewest links, that hold a share
of all influence. The tool prunes the whole graph; its file contains what was left, so pruning a
file again measures shares of the file's content.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from ingest.formats.attribution_graph.file import GraphFile
from ingest.formats.attribution_graph.links import blocks
from ingest.formats.attribution_graph.nodes import NodeType
from ingest.formats.base import Limits
from registry.errors import BadInput

if TYPE_CHECKING:
    import numpy

_Array: TypeAlias = "numpy.ndarray[Any, Any]"

__all__ = ["Kept", "prune"]

_SMALLEST_SUM = 1e-10  # of a node's inputs; circuit-tracer divides by at least this
_LARGEST = 1e100  # of a weight or probability; sums of larger ones may overflow a float
_LONGEST_PATH = 2_000  # links of a path: each leads to a later layer
_ENDLESS = (
    f"its links run in a circle, or through more than {_LONGEST_PATH:,} nodes one behind the other,"
    " so that influence cannot be told: import whole"
)


@dataclass(frozen=True, slots=True)
class Kept:
    """Indices of the kept nodes and links, in the file's order."""

    nodes: tuple[int, ...]
    links: tuple[int, ...]


def prune(
    graph: GraphFile,
    node_threshold: float | None,
    edge_threshold: float | None,
    limits: Limits | None = None,
) -> Kept:
    """Keep the nodes and links that hold a share of the influence; tokens and logits stay.

    Features and errors without outputs, and features without inputs, are removed too, repeatedly
    until none is left.

    Args:
        graph: A checked file.
        node_threshold: Share of the nodes' influence to keep, above 0 and up to 1; None for all.
        edge_threshold: Share of the links' influence to keep, in the same way.
        limits: Number of links that may be left.

    Raises:
        BadInput: No logit has a probability, links form a cycle, or too many links are left.
    """
    import numpy as np

    start = np.array([node.probability or 0.0 for node in graph.nodes])
    if not start.any():
        raise BadInput("no logit has a probability, so that influence cannot be told: import whole")
    if start.min() < 0 or start.max() > _LARGEST:
        raise BadInput("a logit's token_prob is no probability, so influence cannot be told")
    flow = _Flow(graph)
    nodes = np.ones(len(graph.nodes), dtype=bool)
    if node_threshold is not None:
        influence = flow.influence(flow.shares(None), start)
        nodes = (influence >= _least(influence.copy(), node_threshold)) | flow.ends
    links = flow.between(nodes)
    if edge_threshold is not None:
        links &= flow.strongest(links, start, edge_threshold)
    _drop_useless(flow, nodes, links)
    n_links = int(np.count_nonzero(links))
    if limits is not None and n_links > limits.max_edges:
        raise BadInput(
            f"{n_links:,} of {len(graph.links):,} links are left and {limits.max_edges:,} are"
            " allowed; smaller shares leave fewer, --max-edges allows more"
        )
    return Kept(tuple(np.flatnonzero(nodes).tolist()), tuple(np.flatnonzero(links).tolist()))


def _drop_useless(flow: _Flow, nodes: _Array, links: _Array) -> None:
    """Remove nodes without outputs and features without inputs, with their links."""
    import numpy as np

    for _ in range(_LONGEST_PATH):
        sends, receives = np.zeros_like(nodes), np.zeros_like(nodes)
        for part in blocks(len(links)):
            sends[flow.source[part][links[part]]] = True
            receives[flow.target[part][links[part]]] = True
        useful = nodes & (flow.ends | sends) & (~flow.features | receives)
        if (useful == nodes).all():
            return
        nodes &= useful
        links &= flow.between(nodes)
    raise BadInput(_ENDLESS)


class _Flow:
    """Links as sparse arrays, because a graph of thousands of nodes has few of all links.

    The largest graphs have tens of millions of links. So at most one number per link is stored in
    addition to the links, and everything else is computed for blocks of links.
    """

    def __init__(self, graph: GraphFile) -> None:
        import numpy as np

        types = [node.type for node in graph.nodes]
        self.ends = np.array([t in {NodeType.TOKEN, NodeType.LOGIT} for t in types])
        self.features = np.array([t is NodeType.FEATURE for t in types])
        self.n_nodes = len(graph.nodes)
        self.source, self.target = graph.links.source, graph.links.target
        self._weight = graph.links.weight
        for part in self.blocks():
            if self._sizes(part, None).max(initial=0.0) > _LARGEST:
                raise BadInput("a link's weight is too large to tell influence: import whole")

    def blocks(self) -> Iterator[slice]:
        """Yield ranges of links, one block at a time."""
        return blocks(len(self.source))

    def between(self, nodes: _Array) -> _Array:
        """Return which links join two of the given nodes, ``[link]``."""
        import numpy as np

        found = np.empty(len(self.source), dtype=bool)
        for part in self.blocks():
            np.logical_and(nodes[self.source[part]], nodes[self.target[part]], out=found[part])
        return found

    def shares(self, links: _Array | None) -> _Array:
        """Return sizes of links as shares of all that their targets receive, ``[link]``.

        Args:
            links: The links that count; the shares of others are 0. None: all.
        """
        import numpy as np

        received = np.zeros(self.n_nodes)
        for part in self.blocks():
            np.add.at(received, self.target[part].astype(np.intp), self._sizes(part, links))
        received = np.maximum(received, _SMALLEST_SUM)
        found = np.empty(len(self.source))
        for part in self.blocks():
            np.divide(self._sizes(part, links), received[self.target[part]], out=found[part])
        return found

    def influence(self, shares: _Array, start: _Array) -> _Array:
        """Return the flow from ``start`` to each node along all paths of links, ``[node]``.

        Raises:
            BadInput: The flow never ends.
        """
        import numpy as np

        total, now = np.zeros(self.n_nodes), start
        for _ in range(min(self.n_nodes + 1, _LONGEST_PATH)):  # no longer than the longest path
            carried = np.zeros(self.n_nodes)
            for part in self.blocks():
                # Summed one by one in the file's order, so that blocks do not change the last
                # digits.
                flowing = shares[part] * now[self.target[part]]
                np.add.at(carried, self.source[part].astype(np.intp), flowing)
            now = carried
            if not now.any():
                return total
            total = total + now
        raise BadInput(_ENDLESS)

    def strongest(self, links: _Array, start: _Array, share: float) -> _Array:
        """Return which links hold a share of the influence through all links, ``[link]``."""
        import numpy as np

        scores = self.shares(links)
        reached = self.influence(scores, start) + start
        self._weigh(scores, reached)
        least = _least(scores, share)
        del scores  # they are now sorted; the links' scores are computed again, to hold them once
        scores = self.shares(links)
        self._weigh(scores, reached)
        return np.greater_equal(scores, least)

    def _weigh(self, shares: _Array, reached: _Array) -> None:
        for part in self.blocks():
            shares[part] *= reached[self.target[part]]

    def _sizes(self, part: slice, links: _Array | None) -> _Array:
        import numpy as np

        sizes: _Array = np.nan_to_num(np.abs(self._weight[part]), copy=False)
        if links is not None:
            sizes[~links[part]] = 0.0
        return sizes


def _least(scores: _Array, share: float) -> float:
    """Return the smallest of the largest scores that together hold ``share`` of their sum.

    Args:
        scores: Are sorted in place.
        share: Above 0, and up to 1.
    """
    import numpy as np

    scores.sort()
    ordered = scores[::-1]
    total, held = ordered.sum(), 0.0
    if total <= 0:
        return 0.0
    for part in blocks(len(ordered)):
        sums = ordered[part].copy()
        sums[0] += held
        np.cumsum(sums, out=sums)
        place = int(np.searchsorted(sums / total, share))
        if place < len(sums):
            return float(ordered[part.start + place])
        held = float(sums[-1])
    return float(ordered[-1])
