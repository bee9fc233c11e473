"""Parts in the order of their effects, and the agreement of two orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from registry.records import Node

__all__ = ["nodes_by_size", "rank_correlation"]

_FEWEST = 3
"""Minimum number of pairs; for two pairs the correlation is always 1 or -1."""


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Spearman correlation; None for fewer than three pairs, or if all values of a side are equal.

    Returns:
        1: the same order; -1: the opposite one. Equal values share the mean of their ranks.
    """
    ours, theirs = [one for one, _ in pairs], [other for _, other in pairs]
    if len(pairs) < _FEWEST or 1 in (len(set(ours)), len(set(theirs))):
        return None
    import numpy
    from scipy.stats import rankdata

    found = float(numpy.corrcoef(rankdata(ours), rankdata(theirs))[0, 1])
    return max(-1.0, min(1.0, found))  # rounding can exceed 1 in its last digit


def nodes_by_size(effects: Mapping[str, float | None]) -> tuple[Node, ...]:
    """Nodes by component; only nodes with an effect are ranked, by its absolute value."""
    sizes = {name: abs(effect) for name, effect in effects.items() if effect is not None}
    by_size = sorted(sizes, key=lambda name: -sizes[name])
    ranks = {name: rank for rank, name in enumerate(by_size, 1)}
    return tuple(
        Node(component=name, effect=effect, rank=ranks.get(name))
        for name, effect in effects.items()
    )
