"""What two circuits share by chance if hubs saturate: the null for edges selected by weight.

In the null of degrees, the *odds* of an edge are the product of its ends' propensities. If edges
are selected one after the other by that product, like in a ranking by score, the product is the
*rate* at which an edge is selected. The edge is then in the circuit with probability ``1 -
exp(-rate)``, which approaches 1 between strong hubs much sooner. Circuits found this way share more
than random circuits with the same degrees, so the null of degrees wrongly finds them similar.

This null chooses propensities for each circuit such that every sender and every receiver port has,
on average, as many edges as in the found circuit. Edges are then independent, so that the number of
shared edges is a sum of independent events, and its distribution is known exactly.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from queries.chance.chance import Chance, of_distribution
from queries.chance.degrees import edge_places

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
    """Probability of each edge between a circuit's parts.

    Attributes:
        senders: Local names.
        receivers: Local names, with their ports.
        probabilities: ``[sender, receiver]``; 0 if the model has no such edge.
    """

    senders: tuple[str, ...]
    receivers: tuple[str, ...]
    probabilities: NDArray[numpy.float64]


def shared_by_hubs(
    a: Collection[str], b: Collection[str], *, parallel_attn_mlp: bool = False
) -> Chance:
    """Compare two circuits' overlap with that expected from saturated hubs.

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
    """Apply the null of hubs to existing probabilities, for example when many pairs are compared.

    Args:
        n_shared: Number of connections that the found circuits share.
        a: Probabilities of one circuit.
        b: Probabilities of the other circuit.
    """
    import numpy

    # One order for both, so that no digit depends on which circuit comes first.
    rows, columns = (
        sorted(set(ours) & set(theirs))
        for ours, theirs in ((a.senders, b.senders), (a.receivers, b.receivers))
    )
    both = _part(a, rows, columns) * _part(b, rows, columns)
    distribution = _number_of(both[both > 0])
    last = numpy.flatnonzero(distribution > _NEGLIGIBLE)[-1]
    return of_distribution(distribution[: max(int(last), n_shared) + 1], n_shared)


def edge_chances(connections: Collection[str], *, parallel_attn_mlp: bool = False) -> EdgeChances:
    """Find each edge's probability such that all parts keep their mean number of edges.

    The propensities of senders and of receivers are corrected in turn by the error of their numbers
    of edges. This stops when no sender's error exceeds a hundredth of an edge, or after 500 rounds:
    in small circuits that hold most of their possible edges, a sender's error can remain at .07.

    Args:
        connections: The circuit's connections.
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
    """Distribution of the number of these independent events that happen.

    Distributions are combined in pairs: the distribution of a sum is a convolution.
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
