"""In which of several circuits each connection is, and how much any two of them overlap."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from registry.identifiers import parse_connection, ports_of
from registry.rows import Rows

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from registry.registry import Registry

__all__ = [
    "FrequentConnection",
    "Recurrence",
    "frequent_connections",
    "merges_ports",
    "recurrence",
]


@dataclass(frozen=True, slots=True)
class FrequentConnection:
    """How often a connection is found, and what it does then.

    Attributes:
        connection: With its model.
        group: Number of the group it was counted in; None where it was counted over all.
        n_circuits: How many circuits have it.
        share: Share of the group's circuits that have it; over all groups the mean of their shares,
            so that a method with many circuits does not outweigh one with few.
        effect: Mean effect where effects have signs; positive helps.
        smallest: Least of them.
        largest: Greatest of them.
        n_signed: How many circuits give its effect, with a sign.
        n_positive: In how many of these it helps.
    """

    connection: str
    group: int | None
    n_circuits: int
    share: float
    effect: float | None
    smallest: float | None
    largest: float | None
    n_signed: int
    n_positive: int


@dataclass(frozen=True, eq=False)
class Recurrence:
    """Several circuits, and the connections that any of them has.

    Attributes:
        circuits: Their ids, group by group.
        groups: Of each group of circuits, what ``connection-frequency`` says of its connections.
        connections: Ids of the connections of any group.
        ports: Whether the queries, keys and values of heads are told apart.
        present: Which circuit has which, ``[circuit, connection]``.
    """

    circuits: tuple[str, ...]
    groups: tuple[Rows, ...]
    connections: tuple[str, ...]
    ports: bool
    present: NDArray[numpy.bool_]

    def places(self, circuits: Iterable[str]) -> list[int]:
        """Where circuits stand among all of them."""
        place = {id: at for at, id in enumerate(self.circuits)}
        return [place[id] for id in circuits]

    def counts(self, circuits: Sequence[str]) -> NDArray[numpy.int64]:
        """How many of these circuits have each connection."""
        found: NDArray[numpy.int64] = self.present[self.places(circuits)].sum(0)
        return found

    @cached_property
    def iou(self) -> tuple[tuple[float, ...], ...]:
        """Intersection over union of any two, ``[circuit][circuit]``."""
        import numpy

        # Counts are exact in floats, whose products are fast.
        present = self.present.astype(numpy.float64)
        shared = present @ present.T
        sizes = shared.diagonal()
        union = sizes[:, None] + sizes[None, :] - shared
        return tuple(map(tuple, (shared / numpy.maximum(union, 1)).tolist()))


def recurrence(registry: Registry, *groups: Sequence[str]) -> Recurrence:
    """Read in which of these circuits each connection is, group by group.

    Where one of them merges the inputs of heads, connections into heads are folded in all.

    Raises:
        GraphError: The graph cannot be read.
    """
    import numpy

    read = [_frequencies(registry, group, ports=True) for group in groups]
    names = dict.fromkeys(name for rows in read for name in _column(rows, "connection"))
    merged = any(map(merges_ports, names))
    if merged:
        read = [_frequencies(registry, group, ports=False) for group in groups]
        names = dict.fromkeys(name for rows in read for name in _column(rows, "connection"))
    place = {id: at for at, id in enumerate(dict.fromkeys(id for group in groups for id in group))}
    column = {name: at for at, name in enumerate(names)}
    present = numpy.zeros((len(place), len(column)), dtype=bool)
    for rows in read:
        users = zip(_column(rows, "connection"), _column(rows, "circuits"), strict=True)
        for name, circuits in users:
            present[[place[id] for id in circuits], column[name]] = True
    return Recurrence(tuple(place), tuple(read), tuple(names), not merged, present)


def frequent_connections(
    rows: Rows, shares: Sequence[float] | None = None, *, group: int | None = None
) -> list[FrequentConnection]:
    """Say how often each connection is found.

    Args:
        rows: What ``connection-frequency`` says.
        shares: Of each connection, in the order of ``rows``, where circuits do not weigh the same.
        group: Number of the group that these circuits are.
    """
    kept = ("connection", "n_circuits", "effect", "smallest", "largest", "n_signed", "n_positive")
    return [
        FrequentConnection(
            group=group,
            share=row["share"] if shares is None else shares[place],
            **{name: row[name] for name in kept},
        )
        for place, row in enumerate(rows)
    ]


def merges_ports(name: str) -> bool:
    """Whether a connection leads into a head and does not say into which of its inputs."""
    connection = parse_connection(name)
    return connection.port is None and bool(ports_of(connection.target))


def _frequencies(registry: Registry, circuits: Sequence[str], *, ports: bool) -> Rows:
    return registry.query("connection-frequency", circuits=list(circuits), ports=ports)


def _column(rows: Rows, name: str) -> list[Any]:
    place = rows.columns.index(name)
    return [row[place] for row in rows.values]
