"""Circuits as networkx graphs, which offers paths, layouts and statistics within a circuit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.identifiers import parse_local
from registry.records import Circuit

if TYPE_CHECKING:
    import networkx

__all__ = ["to_networkx"]


def to_networkx(circuit: Circuit) -> networkx.MultiDiGraph[str]:
    """Return a circuit as a directed multigraph; an edge's key is its port, or ``""``.

    Nodes are named by :attr:`registry.records.Node.key` and carry ``component``, ``kind``,
    ``layer``, ``head``, ``position``, ``effect``, ``rank``, ``role`` and ``density``; edges carry
    ``port``, ``connection``, ``effect`` and ``rank``. The graph's own attributes are ``id``,
    ``model``, ``task``, ``method`` and ``metric``.
    """
    import networkx as nx

    graph: networkx.MultiDiGraph[str] = nx.MultiDiGraph(
        id=circuit.id,
        model=circuit.model,
        task=circuit.task,
        method=circuit.method,
        metric=circuit.metric,
    )
    for node in circuit.nodes:
        local = parse_local(node.component)
        graph.add_node(
            node.key,
            kind=str(local.kind),
            layer=local.layer,
            head=local.head,
            **node.model_dump(mode="python"),
        )
    for edge in circuit.edges:
        graph.add_edge(
            edge.source,
            edge.target,
            key=edge.port or "",
            port=edge.port,
            connection=edge.connection,
            effect=edge.effect,
            rank=edge.rank,
        )
    return graph
