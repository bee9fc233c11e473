"""The null of degrees: random circuits with the degrees of found circuits, and what they share.

Every circuit found in a model has hubs, so two circuits share many edges even if their tasks are
unrelated. This null keeps the hubs: every sender and every receiver (query, key and value of a head
are separate receivers) has as many edges as in the found circuit, and only edges of the model are
used. Only the pairing of senders and receivers is random.

Two edges repeatedly swap their targets (Maslov & Sneppen 2002; Milo et al. 2003, arXiv
cond-mat/0312028). A swap is valid if the model has both new edges and the circuit has neither yet.
A swap that is not valid is rejected and counts as a step, so that all circuits with these degrees
are equally likely in the limit. All of them can be reached: each receiver can read an initial part
of one order of senders, so that every longer exchange can be split into single swaps.

Draws are independent of each other, and all of them take each step together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from queries.chance.chance import Chance
from registry.errors import BadInput
from registry.identifiers import Local, can_feed, parse_connection, parse_local

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

__all__ = [
    "Draws",
    "Places",
    "draw_circuits",
    "edge_places",
    "ends_of",
    "saturation",
    "shared_by_chance",
    "shared_by_draws",
]

# Two 500-edge circuits of MIB's IOI file: the number of edges that their draws share is stable
# from 10 swaps per edge on. Draws share slightly more edges with the found circuit than with each
# other, at 20 (321 and 313) and at 40 (317 and 312).
_SWAPS_PER_EDGE = 20
_STEPS_AT_ONCE = 256
_HUBS_HOLD = 0.5


@dataclass(frozen=True, eq=False)
class Draws:
    """Random circuits over the senders and receivers of a found circuit.

    Attributes:
        senders: Local names.
        receivers: Local names, with their ports.
        cells: Sorted edges of each circuit, ``[draw, edge]``: the sender's index times the number
            of receivers, plus the receiver's index.
    """

    senders: tuple[str, ...]
    receivers: tuple[str, ...]
    cells: NDArray[numpy.int32]

    @property
    def present(self) -> NDArray[numpy.bool_]:
        """Whether each circuit has each edge, ``[draw, sender, receiver]``; large."""
        import numpy

        n = len(self.cells)
        found = numpy.zeros((n, len(self.senders) * len(self.receivers)), dtype=bool)
        numpy.put_along_axis(found, self.cells.astype(numpy.int64), values=True, axis=1)
        return found.reshape(n, len(self.senders), len(self.receivers))

    def n_shared(self, other: Draws) -> NDArray[numpy.int64]:
        """Number of edges shared with the circuit of the same index in ``other``, ``[draw]``."""
        import numpy

        place = {name: at for at, name in enumerate(_edge_names(other))}
        common = [place.get(name, -1) for name in _edge_names(self)]
        named = numpy.array(common, dtype=numpy.int64)
        theirs = numpy.zeros(len(place) + 1, dtype=bool)  # no edge has the last index
        shared = numpy.zeros(len(self.cells), dtype=numpy.int64)
        for draw, (mine, its) in enumerate(zip(self.cells, other.cells, strict=True)):
            theirs[its] = True
            shared[draw] = theirs[named[mine]].sum()
            theirs[its] = False
        return shared


@dataclass(frozen=True, eq=False)
class Places:
    """Edges of a circuit among all edges of the model between its senders and receivers.

    Attributes:
        senders: Local names.
        receivers: Local names, with their ports.
        allowed: Whether the model has each edge, ``[sender, receiver]``.
        source: Index of each edge's sender.
        target: Index of each edge's receiver.
    """

    senders: tuple[str, ...]
    receivers: tuple[str, ...]
    allowed: NDArray[numpy.bool_]
    source: NDArray[numpy.int64]
    target: NDArray[numpy.int64]


def draw_circuits(
    connections: Collection[str],
    n: int,
    seed: int | Sequence[int],
    *,
    parallel_attn_mlp: bool = False,
    swaps_per_edge: int = _SWAPS_PER_EDGE,
) -> Draws:
    """Draw circuits in which every sender and receiver has as many edges as in this circuit.

    Args:
        connections: The circuit's connections, such as ``a9.h6->a10.h7<k>``, in any order.
        n: Number of circuits.
        seed: Equal seeds draw equal circuits.
        parallel_attn_mlp: Attention and MLP of a block read the same input.
        swaps_per_edge: Number of swaps proposed for each edge; swapping starts at the found
            circuit.

    Raises:
        BadInput: A connection leads backwards, or ``n`` is less than 1.
    """
    import numpy

    if n < 1:
        raise BadInput(f"the number of random circuits must be at least 1; got {n}")
    places = edge_places(connections, parallel_attn_mlp=parallel_attn_mlp)
    source, target, n_edges = places.source, places.target, len(places.source)
    present = numpy.zeros((n, *places.allowed.shape), dtype=bool)
    present[:, source, target] = True
    if n_edges > 1:
        _swap(present, source, target, places.allowed, swaps_per_edge * n_edges, seed)
    _, cells = numpy.nonzero(present.reshape(n, -1))
    return Draws(places.senders, places.receivers, cells.reshape(n, -1).astype(numpy.int32))


def edge_places(connections: Collection[str], *, parallel_attn_mlp: bool = False) -> Places:
    """Locate edges in the matrix of all possible edges between their ends.

    Args:
        connections: Local names, such as ``a9.h6->a10.h7<k>``, in any order.
        parallel_attn_mlp: Attention and MLP of a block read the same input.

    Raises:
        BadInput: A connection leads backwards.
    """
    import numpy

    ends = sorted(set(map(ends_of, connections)))
    senders = tuple(dict.fromkeys(sender for sender, _ in ends))
    receivers = tuple(sorted({receiver for _, receiver in ends}))
    sources = [parse_local(sender) for sender in senders]
    targets = [_target(receiver) for receiver in receivers]
    may_feed = (
        can_feed(source, target, port, parallel_attn_mlp=parallel_attn_mlp)
        for source in sources
        for target, port in targets
    )
    allowed = numpy.array([*may_feed], dtype=bool).reshape(len(senders), len(receivers))
    rows = {name: at for at, name in enumerate(senders)}
    columns = {name: at for at, name in enumerate(receivers)}
    source = numpy.array([rows[sender] for sender, _ in ends], dtype=numpy.int64)
    target = numpy.array([columns[receiver] for _, receiver in ends], dtype=numpy.int64)
    backwards = numpy.flatnonzero(~allowed[source, target])
    if len(backwards):
        raise BadInput(f"{'->'.join(ends[backwards[0]])} leads from a later part to an earlier one")
    return Places(senders, receivers, allowed, source, target)


def _swap(
    present: NDArray[numpy.bool_],
    source: NDArray[numpy.int64],
    target: NDArray[numpy.int64],
    allowed: NDArray[numpy.bool_],
    n_steps: int,
    seed: int | Sequence[int],
) -> None:
    """Propose swaps in all draws at once; modifies ``present``.

    All arrays are flat: a cell of a draw is one number, because numpy is fastest with single
    indices.
    """
    import numpy

    generator = numpy.random.default_rng(seed)
    n, n_senders, n_receivers = present.shape
    n_edges, n_cells = len(source), n_senders * n_receivers
    cells, may = present.reshape(-1), allowed.reshape(-1)
    base, first = numpy.arange(n) * n_cells, numpy.arange(n) * n_edges
    starts = numpy.tile(source * n_receivers, n)  # for each edge of each draw; constant
    ends = numpy.tile(target, n)
    for done in range(0, n_steps, _STEPS_AT_ONCE):
        chosen = generator.integers(n_edges, size=(min(_STEPS_AT_ONCE, n_steps - done), 2, n))
        chosen += first
        for one, other in chosen:
            row, column = starts[one], ends[one]
            row_2, column_2 = starts[other], ends[other]
            new, new_2 = row + column_2, row_2 + column
            # Two edges with a common end, or an edge with itself, find their new cells occupied.
            free = may[new] & may[new_2] & ~cells[base + new] & ~cells[base + new_2]
            at = numpy.flatnonzero(free)
            offset = base[at]
            cells[offset + row[at] + column[at]] = False
            cells[offset + row_2[at] + column_2[at]] = False
            cells[offset + new[at]] = True
            cells[offset + new_2[at]] = True
            ends[one[at]], ends[other[at]] = column_2[at], column[at]


def ends_of(connection: str) -> tuple[str, str]:
    """Sender and receiver, with its port, of a connection."""
    source, _, target = connection.partition("->")
    return source, target


def _target(receiver: str) -> tuple[Local, str | None]:
    """The part and the port of a receiver."""
    name, _, port = receiver.rstrip(">").partition("<")
    return parse_local(name), port or None


def _edge_names(draws: Draws) -> list[str]:
    return [f"{sender}->{receiver}" for sender in draws.senders for receiver in draws.receivers]


def shared_by_chance(
    a: Collection[str],
    b: Collection[str],
    n: int,
    seed: int,
    *,
    parallel_attn_mlp: bool = False,
) -> Chance:
    """Compare two circuits' overlap with that of pairs of random circuits: the null of degrees.

    Args:
        a: Connections of one circuit.
        b: Connections of the other.
        n: Pairs to draw.
        seed: Equal seeds give equal numbers.
        parallel_attn_mlp: Attention and MLP of a block read the same input.

    Raises:
        BadInput: As from :func:`draw_circuits`.
    """
    drawn_a, drawn_b = (
        draw_circuits(circuit, n, [seed, side], parallel_attn_mlp=parallel_attn_mlp)
        for side, circuit in enumerate((a, b))
    )
    return shared_by_draws(len(set(a) & set(b)), drawn_a, drawn_b)


def shared_by_draws(n_shared: int, a: Draws, b: Draws) -> Chance:
    """Apply the null of degrees to existing draws, for example when many pairs are compared.

    Args:
        n_shared: Number of connections that the found circuits share.
        a: Draws of one circuit, independent of those of the other.
        b: The same number of draws of the other circuit.
    """
    import numpy

    shared = a.n_shared(b)
    low, high = numpy.quantile(shared, (0.025, 0.975))
    expected, spread = float(shared.mean()), float(shared.std())
    return Chance(
        n_shared=n_shared,
        expected=expected,
        low=float(low),
        high=float(high),
        z=(n_shared - expected) / spread if spread else None,
        p=(int((shared >= n_shared).sum()) + 1) / (len(shared) + 1),
        n_draws=len(shared),
    )


def saturation(connections: Collection[str], *, parallel_attn_mlp: bool = False) -> float | None:
    """Share of all possible edges between a circuit's hubs that the circuit has, 0 to 1.

    Hubs are the senders, and the receiver ports, of highest degree that together hold half of the
    edges, with all that tie with the last of them. Near 1, edges between hubs are certain in any
    circuit of this size, and the null of degrees rejects too often. None if no hub can feed
    another.
    """
    ends = {ends_of(connection) for connection in connections}
    senders = _hubs(Counter(sender for sender, _ in ends))
    receivers = _hubs(Counter(receiver for _, receiver in ends))
    possible = [
        (sender, receiver)
        for sender in senders
        for receiver in receivers
        if _may_feed(sender, receiver, parallel_attn_mlp=parallel_attn_mlp)
    ]
    return sum(edge in ends for edge in possible) / len(possible) if possible else None


def _hubs(degrees: Counter[str]) -> list[str]:
    """The parts of highest degree that hold half of all edges, with all ties."""
    ordered = sorted(degrees.values(), reverse=True)
    enough = (held >= _HUBS_HOLD * degrees.total() for held in accumulate(ordered))
    least = next((degree for degree, reached in zip(ordered, enough, strict=True) if reached), 0)
    return [name for name, degree in degrees.items() if degree >= least]


def _may_feed(sender: str, receiver: str, *, parallel_attn_mlp: bool) -> bool:
    named = parse_connection(f"m/{sender}->{receiver}")
    return can_feed(named.source, named.target, named.port, parallel_attn_mlp=parallel_attn_mlp)
