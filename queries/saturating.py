"""What two circuits share by chance where hubs saturate: the null for edges taken by weight.

The null of degrees lets the *odds* of an edge be the product of its ends' propensities. Where edges
are taken one after the other by that product, as a ranking by score takes them, what multiplies is
the *rate* at which an edge comes up: it is in the circuit with probability ``1 - exp(-rate)``,
which tends to 1 between strong hubs much sooner. Circuits found so share more than circuits with
the same degrees that are drawn evenly, and the null of degrees calls them alike.

Here propensities are chosen for either circuit such that every sender and every receiver port has
as many edges as it has in it, on average. Edges are then independent of each other, so that what
two circuits share is a sum of independent chances, and known exactly.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from queries.chance import Chance, of_distribution
from queries.nulls import edge_places

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

__all__ = ["EdgeChances", "edge_chances", "shared_by_chances", "shared_by_hubs"]

_CLOSE_ENOUGH = 0.01
_MOST_ROUNDS = 500
_LARGEST_RATE = 1e6
_NEGLIGIBLE = 1e-15


@dataclass(frozen=True, eq=False)
class EdgeChances:
    """How likely each edge between a circuit's parts is to be in it.

    Attributes:
        senders: Local names.
        receivers: Local names, with their ports.
        probabilities: ``[sender, receiver]``; 0 where the model has no such edge.
    """

    senders: tuple[str, ...]
    receivers: tuple[str, ...]
    probabilities: NDArray[numpy.float64]


def shared_by_hubs(
    a: Collection[str], b: Collection[str], *, parallel_attn_mlp: bool = False
) -> Chance:
    """Compare what two circuits share with what hubs that saturate would let them share.

    Args:
        a: Connections of one circuit.
        b: Connections of the other.
        parallel_attn_mlp: Attention and MLP of a block read the same input.

    Raises:
        BadInput: A connection leads backwards.
    """
    chances = [edge_chances(one, parallel_attn_mlp=parallel_attn_mlp) for one in (a, b)]
    return shared_by_chances(len(set(a) & set(b)), *chances)


def shared_by_chances(n_shared: int, a: EdgeChances, b: EdgeChances) -> Chance:
    """The same with chances that are there already, such as those of many pairs.

    Args:
        n_shared: Connections that the found circuits share.
        a: Of one.
        b: Of the other.
    """
    import numpy

    # In one order for both, so that no digit hangs on which comes first.
    rows, columns = (
        sorted(set(ours) & set(theirs))
        for ours, theirs in ((a.senders, b.senders), (a.receivers, b.receivers))
    )
    both = _part(a, rows, columns) * _part(b, rows, columns)
    distribution = _number_of(both[both > 0])
    told = numpy.flatnonzero(distribution > _NEGLIGIBLE)[-1]
    return of_distribution(distribution[: max(int(told), n_shared) + 1], n_shared)


def edge_chances(connections: Collection[str], *, parallel_attn_mlp: bool = False) -> EdgeChances:
    """Find how likely each edge is where all parts have as many as in this circuit, on average.

    The propensities of senders and of receivers are raised or lowered in turn by what their numbers
    of edges are off, until none is off by more than a hundredth of an edge.

    Args:
        connections: The circuit's.
        parallel_attn_mlp: Attention and MLP of a block read the same input.

    Raises:
        BadInput: A connection leads backwards.
    """
    import numpy

    places = edge_places(connections, parallel_attn_mlp=parallel_attn_mlp)
    sent = numpy.bincount(places.source, minlength=len(places.senders)).astype(float)
    received = numpy.bincount(places.target, minlength=len(places.receivers)).astype(float)
    scale = max(float(sent.sum()), 1.0) ** 0.5
    sending, receiving = sent / scale, received / scale
    probabilities = _probabilities(sending, receiving, places.allowed)
    for _ in range(_MOST_ROUNDS):
        sending = numpy.minimum(sending * sent / probabilities.sum(1), _LARGEST_RATE)
        probabilities = _probabilities(sending, receiving, places.allowed)
        receiving = numpy.minimum(receiving * received / probabilities.sum(0), _LARGEST_RATE)
        probabilities = _probabilities(sending, receiving, places.allowed)
        if numpy.abs(probabilities.sum(1) - sent).max(initial=0) < _CLOSE_ENOUGH:
            break
    return EdgeChances(places.senders, places.receivers, probabilities)


def _probabilities(
    sending: NDArray[numpy.float64],
    receiving: NDArray[numpy.float64],
    allowed: NDArray[numpy.bool_],
) -> NDArray[numpy.float64]:
    import numpy

    found: NDArray[numpy.float64] = -numpy.expm1(-numpy.outer(sending, receiving)) * allowed
    return found


def _part(
    chances: EdgeChances, rows: Collection[str], columns: Collection[str]
) -> NDArray[numpy.float64]:
    import numpy

    row = {name: at for at, name in enumerate(chances.senders)}
    column = {name: at for at, name in enumerate(chances.receivers)}
    wanted = numpy.ix_([row[name] for name in rows], [column[name] for name in columns])
    part: NDArray[numpy.float64] = chances.probabilities[wanted]
    return part


def _number_of(probabilities: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
    """Distribution of how many of these independent events happen.

    Distributions of single events are joined two by two; sums of numbers convolve.
    """
    import numpy

    found = numpy.stack([1 - probabilities, probabilities], axis=1)
    if not len(found):
        return numpy.ones(1)
    while len(found) > 1:
        if len(found) % 2:
            never = numpy.zeros((1, found.shape[1]))
            never[0, 0] = 1
            found = numpy.concatenate([found, never])
        length = 2 * found.shape[1] - 1
        spectrum = numpy.fft.rfft(found, length, axis=1)
        found = numpy.fft.irfft(spectrum[0::2] * spectrum[1::2], length, axis=1)
    total: NDArray[numpy.float64] = found[0].clip(min=0)
    return total
