"""Draws, probabilities and saturation of circuits, computed once for all pairs of a circuit."""

from __future__ import annotations

import hashlib

from queries.chance.degrees import Draws, draw_circuits, saturation
from queries.chance.hubs import EdgeChances, edge_chances

__all__ = ["PairNulls"]


class PairNulls:
    """What the nulls of many pairs need for each circuit.

    Args:
        n_draws: Random circuits for each; 0 for none.
        seed: Seed of the draws; equal seeds give equal draws.
    """

    def __init__(self, n_draws: int, seed: int) -> None:
        self.n_draws = n_draws
        self._seed = seed
        self._drawn: dict[tuple[frozenset[str], int, bool], Draws] = {}
        self._chances: dict[tuple[frozenset[str], bool], EdgeChances] = {}
        self._saturations: dict[tuple[frozenset[str], bool], float | None] = {}

    def draws(self, connections: frozenset[str], number: int, *, parallel: bool) -> Draws:
        """Draws of a circuit; each number gives different, independent draws."""
        key = (connections, number, parallel)
        if key not in self._drawn:
            # Seeded by content, so that the order of a pair does not matter.
            digest = hashlib.sha256("\n".join(sorted(connections)).encode()).digest()
            seed = [self._seed, int.from_bytes(digest[:8]), number]
            self._drawn[key] = draw_circuits(
                connections, self.n_draws, seed, parallel_attn_mlp=parallel
            )
        return self._drawn[key]

    def chances(self, connections: frozenset[str], *, parallel: bool) -> EdgeChances:
        """Probability of each edge under saturated hubs."""
        key = (connections, parallel)
        if key not in self._chances:
            self._chances[key] = edge_chances(connections, parallel_attn_mlp=parallel)
        return self._chances[key]

    def saturation(self, connections: frozenset[str], *, parallel: bool) -> float | None:
        """How saturated a circuit's hubs are."""
        key = (connections, parallel)
        if key not in self._saturations:
            self._saturations[key] = saturation(connections, parallel_attn_mlp=parallel)
        return self._saturations[key]
