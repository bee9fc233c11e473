"""In which of several circuits each part is, and how much any two of them overlap.

Parts are connections, or components where circuits have no connections to compare.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from registry.identifiers import parse_connection, ports_of
from registry.rows import Rows

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from registry.registry import Registry

__all__ = [
    "FrequentComponent",
    "FrequentConnection",
    "FrequentPart",
    "Over",
    "Recurrence",
    "frequent_parts",
    "merges_ports",
    "recurrence",
]

Over = Literal["connections", "components"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrequentPart:
    """How often a part is found, and what it does then.

    Attributes:
        group: Number of the group it was counted in; None if it was counted over all.
        n_circuits: Number of circuits that have it.
        share: Share of the group's circuits that have it. Over all groups, the mean of their
            shares, so that a method with many circuits does not outweigh a method with few.
        effect: Mean of the signed effects; positive helps.
        smallest: Smallest signed effect.
        largest: Largest signed effect.
        n_signed: Number of circuits that give its effect with a sign.
        n_positive: Number of these circuits in which it helps.
    """

    group: int | None
    n_circuits: int
    share: float
    effect: float | None
    smallest: float | None
    largest: float | None
    n_signed: int
    n_positive: int

    @property
    def name(self) -> str:
        """The part with its model."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class FrequentConnection(FrequentPart):
    """How often a connection is found.

    Attributes:
        connection: With its model.
    """

    connection: str

    @property
    def name(self) -> str:
        """The connection with its model."""
        return self.connection


@dataclass(frozen=True, slots=True, kw_only=True)
class FrequentComponent(FrequentPart):
    """How often a component is found, at whatever position.

    Attributes:
        component: With its model.
    """

    component: str

    @property
    def name(self) -> str:
        """The component with its model."""
        return self.component


@dataclass(frozen=True, eq=False)
class Recurrence:
    """Several circuits, and the parts that any of them has.

    Attributes:
        circuits: Their ids, group by group.
        groups: Of each group of circuits, what ``connection-frequency`` or
            ``component-frequency`` says of its parts.
        over: Whether the parts are connections or components.
        names: The parts of any group, with their model.
        ports: Whether the queries, keys and values of heads are kept separate.
        present: Which circuit has which, ``[circuit, part]``.
    """

    circuits: tuple[str, ...]
    groups: tuple[Rows, ...]
    over: Over
    names: tuple[str, ...]
    ports: bool
    present: NDArray[numpy.bool_]

    def places(self, circuits: Iterable[str]) -> list[int]:
        """Indices of these circuits among all circuits."""
        place = {id: at for at, id in enumerate(self.circuits)}
        return [place[id] for id in circuits]

    def counts(self, circuits: Sequence[str]) -> NDArray[numpy.int64]:
        """How many of these circuits have each part."""
        found: NDArray[numpy.int64] = self.present[self.places(circuits)].sum(0)
        return found

    @cached_property
    def iou(self) -> tuple[tuple[float, ...], ...]:
        """Intersection over union of any two circuits, ``[circuit][circuit]``."""
        import numpy

        # Floats hold these counts exactly, and products of float matrices are fast.
        present = self.present.astype(numpy.float64)
        shared = present @ present.T
        sizes = shared.diagonal()
        union = sizes[:, None] + sizes[None, :] - shared
        return tuple(map(tuple, (shared / numpy.maximum(union, 1)).tolist()))


def recurrence(
    registry: Registry, *groups: Sequence[str], over: Over = "connections"
) -> Recurrence:
    """Read in which of these circuits each connection or component is, group by group.

    If one circuit merges the inputs of heads, connections into heads are folded in all circuits.

    Raises:
        GraphError: The graph cannot be read.
    """
    import numpy

    part = _PART[over]
    read = [_frequencies(registry, group, over) for group in groups]
    names = dict.fromkeys(name for rows in read for name in _column(rows, part))
    merged = over == "connections" and any(map(merges_ports, names))
    if merged:
        read = [_frequencies(registry, group, over, ports=False) for group in groups]
        names = dict.fromkeys(name for rows in read for name in _column(rows, part))
    place = {id: at for at, id in enumerate(dict.fromkeys(id for group in groups for id in group))}
    column = {name: at for at, name in enumerate(names)}
    present = numpy.zeros((len(place), len(column)), dtype=bool)
    for rows in read:
        users = zip(_column(rows, part), _column(rows, "circuits"), strict=True)
        for name, circuits in users:
            present[[place[id] for id in circuits], column[name]] = True
    return Recurrence(tuple(place), tuple(read), over, tuple(names), not merged, present)


def frequent_parts(
    rows: Rows, over: Over, shares: Sequence[float] | None = None, *, group: int | None = None
) -> list[FrequentPart]:
    """Say how often each part is found.

    Args:
        rows: What ``connection-frequency`` says, or ``component-frequency``.
        over: Which of them.
        shares: Of each connection, in the order of ``rows``, where circuits do not weigh the same.
        group: Number of the group that these circuits are.
    """
    kept = ("n_circuits", "effect", "smallest", "largest", "n_signed", "n_positive")
    part, record = _PART[over], FrequentConnection if over == "connections" else FrequentComponent
    return [
        record(
            group=group,
            share=row["share"] if shares is None else shares[place],
            **{name: row[name] for name in (part, *kept)},
        )
        for place, row in enumerate(rows)
    ]


def merges_ports(name: str) -> bool:
    """Whether a connection leads into a head without naming one of its inputs."""
    connection = parse_connection(name)
    return connection.port is None and bool(ports_of(connection.target))


_PART = {"connections": "connection", "components": "component"}


def _frequencies(
    registry: Registry, circuits: Sequence[str], over: Over, *, ports: bool = True
) -> Rows:
    if over == "components":
        return registry.query("component-frequency", circuits=list(circuits))
    return registry.query("connection-frequency", circuits=list(circuits), ports=ports)


def _column(rows: Rows, name: str) -> list[Any]:
    place = rows.columns.index(name)
    return [row[place] for row in rows.values]
