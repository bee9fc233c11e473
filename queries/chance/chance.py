"""What two circuits share by chance under several nulls, and how reliable each null is.

Every circuit found in a model has hubs, so two circuits share many edges even if their tasks are
unrelated. A null that ignores hubs makes every overlap significant.

**Degrees.** Every sender and every receiver port keeps its number of edges in its circuit. Only the
pairing of senders and receivers is random, in both circuits (:mod:`queries.chance.degrees`). This
null is exact if an edge is in a circuit independently of the others, with odds that are the product
of a sender's and a receiver's factor. It rejects too often if hubs are saturated: then the edges
between strong hubs are certain to be in any circuit. They do not show that tasks are similar, and
the degrees alone do not predict them. :func:`queries.chance.degrees.saturation` measures this.

**Hubs.** Every sender and receiver keeps its number of edges on average, and hubs saturate, as they
do when edges are selected by weight (:mod:`queries.chance.hubs`).

**Layers.** Effects are permuted among all edges of the model between the same two layers and kinds
of part, into the same port. The same number of edges of each group is chosen as in the found
circuits (:mod:`queries.chance.layers`). This null keeps no hubs except MLPs, input and logits,
because a layer has only one of them.

Report the weakest of these conclusions. The null of degrees would fix a circuit's components, so
components have only the null of layers: random heads of the same layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

__all__ = ["Chance", "corrected", "of_distribution"]

_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Chance:
    """How much two circuits share under a null, compared with the found circuits.

    Attributes:
        n_shared: Number of parts that the found circuits share.
        expected: Mean of the null.
        low: 2.5 % of the null are below.
        high: 2.5 % of the null are above.
        z: Standard deviations from ``expected`` to ``n_shared``; None if the null has only one
            possible value.
        p: Share of the null that shares at least ``n_shared``. The found pair counts as one of the
            draws, ``(b + 1) / (n + 1)``, so that p is never 0 (Phipson & Smyth 2010, arXiv
            1603.05766).
        n_draws: Number of drawn pairs of circuits; None if the probabilities are known exactly.
    """

    n_shared: int
    expected: float
    low: float
    high: float
    z: float | None
    p: float
    n_draws: int | None


def corrected(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for multiple tests: of those below .05, 5 % are expected to be false.

    Benjamini & Hochberg 1995, like ``scipy.stats.false_discovery_control``, which takes half a
    second to load.
    """
    import numpy

    n = len(p_values)
    largest_first = numpy.argsort(p_values)[::-1]
    each = numpy.asarray(p_values, dtype=numpy.float64)[largest_first] * n / numpy.arange(n, 0, -1)
    adjusted = numpy.empty(n)
    adjusted[largest_first] = numpy.minimum.accumulate(each)
    found: list[float] = adjusted.tolist()
    return found


def of_distribution(probabilities: NDArray[numpy.float64], n_shared: int) -> Chance:
    """Exact values from the probabilities of sharing 0, 1, 2, ... and the shared number."""
    import numpy

    values = numpy.arange(len(probabilities))
    expected = float(values @ probabilities)
    variance = float((values - expected) ** 2 @ probabilities)
    low, high = numpy.searchsorted(probabilities.cumsum(), (0.025, 0.975))
    return Chance(
        n_shared=n_shared,
        expected=expected,
        low=float(low),
        high=float(min(high, values[-1])),
        z=(n_shared - expected) / variance**0.5 if variance > _ROUNDING else None,
        p=min(1.0, float(probabilities[n_shared:].sum())),
        n_draws=None,
    )
