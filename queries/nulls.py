"""Random circuits with the degrees of found ones, many at once.

A found circuit has hubs, and so has any other of the model, so two circuits share many edges
whatever their tasks. The null here keeps that: every sender and every receiver (a head's query, key
and value apart) has as many edges as in the found circuit, and the model could have each of them;
only who feeds whom is drawn anew. Two edges swap their targets, over and over (Maslov & Sneppen
2002; Milo et al. 2003, arXiv cond-mat/0312028), where the model has both new edges and the circuit
has neither yet; what cannot be is refused and counts as a step, so that all circuits with these
degrees are equally likely in the end. All can be reached: a receiver reads a first part of one
order of senders, so that every longer exchange falls apart into single swaps.

Draws are independent of each other, and all of them take each step together.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.errors import BadInput
from registry.identifiers import Local, can_feed, parse_local

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

__all__ = ["Draws", "Places", "draw_circuits", "edge_places", "ends_of"]

# Draws of two 500-edge circuits of MIB's IOI file share as many edges from 10 on. With the found
# one they share a little more than with each other at 20 (321 to 313) and at 40 (317 to 312).
_SWAPS_PER_EDGE = 20
_STEPS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Draws:
    """Random circuits over the senders and receivers of a found one.

    Attributes:
        senders: Local names.
        receivers: Local names, with their ports.
        cells: Edges of each circuit in order, ``[draw, edge]``: the sender's place times the number
            of receivers, plus the receiver's place.
    """

    senders: tuple[str, ...]
    receivers: tuple[str, ...]
    cells: NDArray[numpy.int32]

    @property
    def present(self) -> NDArray[numpy.bool_]:
        """Which edges each circuit has, ``[draw, sender, receiver]``; large."""
        import numpy

        n = len(self.cells)
        found = numpy.zeros((n, len(self.senders) * len(self.receivers)), dtype=bool)
        numpy.put_along_axis(found, self.cells.astype(numpy.int64), values=True, axis=1)
        return found.reshape(n, len(self.senders), len(self.receivers))

    def n_shared(self, other: Draws) -> NDArray[numpy.int64]:
        """How many edges each circuit shares with the one of the same number in ``other``."""
        import numpy

        place = {name: at for at, name in enumerate(_edge_names(other))}
        common = [place.get(name, -1) for name in _edge_names(self)]
        named = numpy.array(common, dtype=numpy.int64)
        theirs = numpy.zeros(len(place) + 1, dtype=bool)  # the last place is that of no edge
        shared = numpy.zeros(len(self.cells), dtype=numpy.int64)
        for draw, (mine, its) in enumerate(zip(self.cells, other.cells, strict=True)):
            theirs[its] = True
            shared[draw] = theirs[named[mine]].sum()
            theirs[its] = False
        return shared


@dataclass(frozen=True, eq=False)
class Places:
    """Edges of a circuit among all that the model has between its senders and receivers.

    Attributes:
        senders: Local names.
        receivers: Local names, with their ports.
        allowed: Which edges the model has, ``[sender, receiver]``.
        source: Place of each edge's sender.
        target: Place of each edge's receiver.
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
    """Draw circuits in which every sender and every receiver has as many edges as in this one.

    Args:
        connections: The circuit's, such as ``a9.h6->a10.h7<k>``; their order does not matter.
        n: How many circuits.
        seed: Equal seeds draw equal circuits.
        parallel_attn_mlp: Attention and MLP of a block read the same input.
        swaps_per_edge: Swaps proposed for each edge, from the found circuit on.

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
    """Find where edges lie among all that their ends could have.

    Args:
        connections: Local names, such as ``a9.h6->a10.h7<k>``; their order does not matter.
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
    """Propose swaps in all draws at once; changes ``present``.

    Everything is flat: a cell of a draw is one number, as numpy takes single indices fastest.
    """
    import numpy

    generator = numpy.random.default_rng(seed)
    n, n_senders, n_receivers = present.shape
    n_edges, n_cells = len(source), n_senders * n_receivers
    cells, may = present.reshape(-1), allowed.reshape(-1)
    base, first = numpy.arange(n) * n_cells, numpy.arange(n) * n_edges
    starts = numpy.tile(source * n_receivers, n)  # of each edge of each draw; never changes
    ends = numpy.tile(target, n)
    for done in range(0, n_steps, _STEPS_AT_ONCE):
        chosen = generator.integers(n_edges, size=(min(_STEPS_AT_ONCE, n_steps - done), 2, n))
        chosen += first
        for one, other in chosen:
            row, column = starts[one], ends[one]
            row_2, column_2 = starts[other], ends[other]
            new, new_2 = row + column_2, row_2 + column
            # Edges with a common end, and an edge with itself, find their new cells taken.
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
    """A receiver's part, and the port it names."""
    name, _, port = receiver.rstrip(">").partition("<")
    return parse_local(name), port or None


def _edge_names(draws: Draws) -> list[str]:
    return [f"{sender}->{receiver}" for sender in draws.senders for receiver in draws.receivers]
