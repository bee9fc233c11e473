"""Circuits that are too large for one transaction of a server, written and removed in several.

A server holds the writes of a transaction in memory, about 7 kB for an edge with its related data,
and refuses a transaction that takes too much. An incomplete circuit is marked by a node
``Unfinished`` with its id, which is written with the first part and removed with the last. The next
process that projects removes incomplete circuits. Until then, readers get the message that the
graph is being written.
"""

from __future__ import annotations

from collections.abc import Sequence

from registry.graph import statements
from registry.graph.rows import CircuitRows, connection_row
from registry.graph.writer import GraphWriter, Part, chunks, each, reference_parts

__all__ = ["add_in_parts", "remove_most", "unfinished"]


def unfinished(writer: GraphWriter) -> list[str]:
    """Ids of circuits that an interrupted process left incomplete."""
    if writer.largest_transaction is None:
        return []
    return [row["id"] for row in writer.answer(statements.UNFINISHED, id="string")]


def add_in_parts(
    writer: GraphWriter,
    circuits: Sequence[tuple[str, CircuitRows]],
    first: Sequence[Part],
    last: Sequence[Part],
) -> None:
    """Add circuits in as many transactions as they need.

    Args:
        writer: The graph, which has none of the circuits.
        circuits: Ids and rows.
        first: Parts of the first transaction: the circuits' own nodes.
        last: Parts of the last transaction: facts about the circuits.
    """
    ids = [id for id, _ in circuits]
    writer.write((statements.MARK_UNFINISHED, ids), *first)
    for _, rows in circuits:
        # A part of the reference layer is written with its first use: it never exists alone.
        for nodes in chunks(rows.nodes, writer.rows_per_transaction):
            names = {row.component: row.component.partition("/") for row in nodes}
            wanted = {key: (model, local) for key, (model, _, local) in names.items()}
            components = writer.missing_components(wanted)
            writer.write(*reference_parts(components), (statements.ADD_NODES, nodes))
            writer.know(components)
        for uses in chunks(rows.uses, writer.rows_per_transaction):
            connections = writer.missing_connections({row.connection for row in uses})
            added = statements.ADD_CONNECTIONS, each(connection_row, connections)
            writer.write(added, (statements.ADD_USES, uses))
            writer.know((), connections)
        for edges in chunks(rows.edges, writer.rows_per_transaction):
            writer.write((statements.ADD_EDGES, edges))
    writer.write(*last, (statements.UNMARK_UNFINISHED, ids))


def remove_most(writer: GraphWriter, ids: Sequence[str]) -> None:
    """Remove edges, uses and nodes of the large ones among those circuits.

    The rest fits into one transaction, which must also remove their marks.
    """
    most = writer.largest_transaction
    if most is None:
        return
    sizes = writer.read(statements.CIRCUIT_SIZES, ids, id="string", size="integer")
    large = [row["id"] for row in sizes if row["size"] > most]
    if large:
        writer.write((statements.MARK_UNFINISHED, large))
    for id in large:
        _remove_edges(writer, id)
        _remove_uses(writer, id)
        _remove_nodes(writer, id)


def _remove_edges(writer: GraphWriter, id: str) -> None:
    (counted,) = writer.read(statements.COUNT_EDGES, [id], n="integer")
    for _ in range(0, counted["n"], statements.REMOVED_AT_ONCE):
        writer.write((statements.DELETE_SOME_EDGES, [id]))


def _remove_uses(writer: GraphWriter, id: str) -> None:
    while some := list(writer.read(statements.SOME_USES, [id], circuit="string", id="string")):
        ids = [row["id"] for row in some]
        writer.forget(set(), set(ids))
        writer.write(
            (statements.DELETE_SOME_USES, some), (statements.DELETE_UNUSED_CONNECTIONS, ids)
        )


def _remove_nodes(writer: GraphWriter, id: str) -> None:
    while some := list(writer.read(statements.SOME_NODES, [id], component="string", id="string")):
        components = {row["component"] for row in some}
        writer.forget(components, set())
        writer.write(
            (statements.DELETE_SOME_NODES, [row["id"] for row in some]),
            (statements.DELETE_UNUSED_COMPONENTS, sorted(components)),
        )
