"""Paths through a graph of parts: what is connected, and what leads from input to logits.

A graph is a networkx multigraph. Its nodes are local names such as ``a9.h6``. Its edges have
``connection``, the local name of the connection, and ``strength``, 0 or more; None, for unknown,
counts as 0. An edge without ``connection`` is a link from a key/value head to a query head that
reads it. Paths follow it like any other edge, and it never makes a path weaker.

There can be too many paths to list. They are counted, and the strongest are found, part by part in
the order in which the model runs them, without listing the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from registry.identifiers import Kind, can_feed, parse_local, sort_key

if TYPE_CHECKING:
    import networkx

    Graph = networkx.MultiDiGraph[str]

__all__ = ["Hop", "Route", "connected_parts", "count_routes", "group_links", "strongest_routes"]

_STARTS = frozenset({Kind.INPUT, Kind.EMBED, Kind.POS_EMBED})
_ENDS = frozenset({Kind.LOGITS, Kind.LOGIT})


@dataclass(frozen=True, slots=True)
class Hop:
    """One step of a path.

    Attributes:
        source: Local name of the part it leaves.
        target: Local name of the part it enters.
        port: Input of an attention head, or None.
        connection: Local name of the connection; None for a key/value head's link to a query head.
        strength: Strength of the connection; infinite for such a link.
    """

    source: str
    target: str
    port: str | None
    connection: str | None
    strength: float


@dataclass(frozen=True, slots=True)
class Route:
    """A path from input to logits, as strong as its weakest connection.

    Attributes:
        hops: Its steps in order; at least one is a connection.
    """

    hops: tuple[Hop, ...]

    def __str__(self) -> str:
        """``input -> a4.kv2<k> => a4.h7 -> logits``; ``=>`` is a link, not a connection."""
        return self.hops[0].source + "".join(map(_written, self.hops))

    @property
    def connections(self) -> tuple[str, ...]:
        """Local names of its connections, in order."""
        return tuple(hop.connection for hop in self.hops if hop.connection is not None)

    @property
    def weakest(self) -> str:
        """Local name of its weakest connection, the first of several."""
        hop = min(self.hops, key=lambda hop: hop.strength)
        return hop.connection or ""

    @property
    def strength(self) -> float:
        """Strength of its weakest connection."""
        return min(hop.strength for hop in self.hops)


def connected_parts(graph: Graph) -> tuple[frozenset[str], ...]:
    """The weakly connected components, the largest first; parts without edges are omitted.

    Two parts that are joined only by a link are connected, too.
    """
    import networkx as nx

    found = [frozenset(part) for part in nx.weakly_connected_components(graph) if len(part) > 1]
    return tuple(sorted(found, key=lambda part: (-len(part), sorted(part))))


def count_routes(graph: Graph) -> int:
    """Number of paths from input to logits; two inputs of one head make two paths."""
    ways = {name: int(parse_local(name).kind in _STARTS) for name in graph}
    for name, hops in _in_order(graph):
        ways[name] += sum(ways[hop.source] for hop in hops)
    return sum(ways[name] for name in graph if parse_local(name).kind in _ENDS)


def strongest_routes(graph: Graph, n: int) -> tuple[Route, ...]:
    """The ``n`` paths from input to logits whose weakest connection is strongest.

    Paths often have the same weakest connection. In a tie the next weakest connection decides, and
    so on; finally the names decide.
    """
    # Adding one step to two paths never changes which of them is stronger. A path that is not among
    # the strongest up to some part can therefore not be among the strongest at the end.
    best: dict[str, list[_Partial]] = {
        name: [_Partial()] if parse_local(name).kind in _STARTS else [] for name in graph
    }
    for name, hops in _in_order(graph):
        for hop in sorted(hops, key=lambda hop: -hop.strength):
            if len(best[name]) == n and hop.strength < best[name][-1].weakest:
                break  # weaker hops cannot be on one of the strongest paths either
            found = [*best[name], *(way.then(hop) for way in best[hop.source])]
            best[name] = sorted(found, key=_Partial.order)[:n]
    ends = [way for name in graph if parse_local(name).kind in _ENDS for way in best[name]]
    return tuple(Route(way.hops) for way in sorted(ends, key=_Partial.order)[:n])


def group_links(names: Iterable[str], heads_per_group: int | None) -> tuple[tuple[str, str], ...]:
    """Links from key/value heads to the query heads that read them, if both are in ``names``.

    Args:
        names: Local names.
        heads_per_group: Query heads that read one key/value head; None if each has its own.
    """
    if heads_per_group is None:
        return ()
    present = set(names)
    heads = sorted((parse_local(name) for name in present), key=sort_key)
    pairs = (
        (f"a{head.layer}.kv{head.head // heads_per_group}", str(head))
        for head in heads
        if head.kind is Kind.HEAD and head.head is not None
    )
    return tuple(pair for pair in pairs if pair[0] in present)


@dataclass(frozen=True, slots=True)
class _Partial:
    """A path from input to some part; ``strengths`` of its connections, the weakest first."""

    strengths: tuple[float, ...] = ()
    hops: tuple[Hop, ...] = ()

    def then(self, hop: Hop) -> _Partial:
        added = () if hop.connection is None else (hop.strength,)
        return _Partial(tuple(sorted(self.strengths + added)), (*self.hops, hop))

    @property
    def weakest(self) -> float:
        return self.strengths[0] if self.strengths else inf

    def order(self) -> tuple[tuple[float, ...], tuple[str, ...]]:
        """Sort key, small for strong paths; of equal beginnings the shorter path comes first."""
        names = tuple(f"{hop.target}<{hop.port or ''}" for hop in self.hops)
        return (*(-strength for strength in self.strengths), -inf), names


def _in_order(graph: Graph) -> Iterator[tuple[str, list[Hop]]]:
    """Every part, after the parts that feed it, with the steps that lead to it.

    Edges from a later part to an earlier one are skipped: no model has them, but some sources draw
    them.
    """
    import networkx as nx

    entering: dict[str, list[Hop]] = {name: [] for name in graph}
    for source, target, data in graph.edges(data=True):
        port, connection = data.get("port"), data["connection"]
        if connection is None:
            entering[target].append(Hop(source, target, None, None, inf))
        elif can_feed(parse_local(source), parse_local(target), port):
            entering[target].append(Hop(source, target, port, connection, data["strength"] or 0.0))
    feeds = nx.DiGraph((hop.source, name) for name, hops in entering.items() for hop in hops)
    feeds.add_nodes_from(graph)
    for name in nx.topological_sort(feeds):
        yield name, entering[name]


def _written(hop: Hop) -> str:
    port = f"<{hop.port}>" if hop.port else ""
    return f" => {hop.target}" if hop.connection is None else f" -> {hop.target}{port}"
