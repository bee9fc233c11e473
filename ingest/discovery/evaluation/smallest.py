"""The smallest circuit found that keeps a given share of a model's behaviour.

Faithfulness does not grow steadily with size: a harmful edge may be added before an edge that
compensates for it. So the search measures a grid of sizes, each twice the previous one, until a
size reaches the target. It then continues by bisection between this size and the one before it. A
smaller circuit between two sizes of the grid may be missed; therefore the result is called the
smallest found.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ingest.discovery.edges.scores import PrunedCircuit
from ingest.discovery.evaluation.faithfulness import CircuitEvaluation
from registry.errors import BadInput

__all__ = ["FaithfulCircuit", "find_faithful", "grid_of_sizes"]

_GROWTH = 2
_FINEST = 0.05
"""Two sizes closer than this share of the larger one are not distinguished."""


@dataclass(frozen=True, eq=False, repr=False)
class FaithfulCircuit:
    """The smallest circuit found to be faithful enough.

    Attributes:
        chosen: Its edges.
        measured: Its evaluation.
        tried: Every measured size, in edges before pruning, with its faithfulness; by size.
    """

    chosen: PrunedCircuit
    measured: CircuitEvaluation
    tried: tuple[tuple[int, float], ...]

    def __repr__(self) -> str:
        return f"<FaithfulCircuit of {len(self.tried)} tried: {self.chosen!r}, {self.measured!r}>"


def grid_of_sizes(n_edges: int) -> tuple[int, ...]:
    """Return sizes from one in a thousand edges to all edges, each twice the previous one."""
    sizes, size = [], max(1, round(n_edges / 1000))
    while size < n_edges:
        sizes.append(size)
        size *= _GROWTH
    return (*sizes, n_edges)


def find_faithful(
    n_edges: int,
    target: float,
    choose: Callable[[int], PrunedCircuit],
    measure: Callable[[PrunedCircuit], CircuitEvaluation],
) -> FaithfulCircuit:
    """Search for the smallest circuit whose faithfulness is at least ``target``.

    Args:
        n_edges: Number of edges of the whole model, the largest size.
        target: Faithfulness; 1 is that of the whole model.
        choose: Returns a circuit with this number of edges before pruning.
        measure: Returns its evaluation. Not called for circuits without edges, which are not
            faithful.

    Raises:
        BadInput: ``target`` is not positive, no size reaches it, or the whole model's metric equals
            the ablated one, so that nothing can be faithful to it.
    """
    if not (math.isfinite(target) and target > 0):
        raise BadInput(f"the requested faithfulness must be above 0, such as 0.85; got {target}")
    search = _Search(target, choose, measure)
    below, size, found = 0, 0, None
    for size in grid_of_sizes(n_edges):
        found = search.attempt(size)
        if found is not None:
            break
        below = size
    if found is None:
        raise search.nothing_found()
    while size - below > max(1, _FINEST * size):
        middle = max(below + 1, round(math.sqrt(max(below, 1) * size)))
        smaller = search.attempt(middle)
        if smaller is None:
            below = middle
        else:
            size, found = middle, smaller
    return FaithfulCircuit(*found, tried=tuple(sorted(search.tried.items())))


class _Search:
    """Tries sizes and stores their faithfulness."""

    def __init__(
        self,
        target: float,
        choose: Callable[[int], PrunedCircuit],
        measure: Callable[[PrunedCircuit], CircuitEvaluation],
    ) -> None:
        self._target = target
        self._choose = choose
        self._measure = measure
        self.tried: dict[int, float] = {}

    def attempt(self, size: int) -> tuple[PrunedCircuit, CircuitEvaluation] | None:
        """Return the circuit of this size with its evaluation if faithful enough, else None."""
        chosen = self._choose(size)
        if not chosen.edges:
            self.tried[size] = 0.0
            return None
        measured = self._measure(chosen)
        if measured.faithfulness is None:
            raise BadInput(
                "no circuit can be faithful: the model's metric is the same with every edge "
                "ablated; choose by number or threshold instead, or other prompts"
            )
        self.tried[size] = measured.faithfulness
        return (chosen, measured) if measured.faithfulness >= self._target else None

    def nothing_found(self) -> BadInput:
        """Return the error that gives the best faithfulness of the search."""
        size = max(self.tried, key=lambda n: self.tried[n])
        return BadInput(
            f"no circuit keeps {self._target:g} of the behaviour: the best of {len(self.tried)} "
            f"sizes keeps {self.tried[size]:.3g}, with {size} edges; request at most that, or "
            "choose edges in another way"
        )
