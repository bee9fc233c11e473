"""Stored circuits beside each other: what they share, beyond chance, and how they transfer.

Circuits are read from the record, what replicates share and what was measured on other tasks from
the graph. :func:`compare_circuits` tells all of one pair; :func:`compare_pairs` compares many at
once, so that their p-values are corrected for how many there are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING

from queries.chance import (
    Chance,
    corrected,
    edges_by_layers,
    parts_by_chance,
    saturation,
    shared_by_draws,
)
from queries.choosing import replicates
from queries.compare import Comparison, compare
from queries.nulls import Draws, draw_circuits
from queries.saturating import EdgeChances, edge_chances, shared_by_chances
from queries.transfers import Transfer, read_transfers
from registry.records import Circuit, Model

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from queries.drawn import Picture
    from registry.registry import Registry

__all__ = ["DRAWS", "Ceiling", "PairComparison", "ceiling", "compare_circuits", "compare_pairs"]

DRAWS = 1000
SIGNIFICANT = 0.05

Progress = Callable[[int, int], None]
"""Called with how many pairs are done and how many there are."""


@dataclass(frozen=True, slots=True)
class Ceiling:
    """How much circuits of one task share that were found the same way on other prompts.

    Two tasks cannot be expected to share more than one task does with itself.

    Attributes:
        task: The task.
        n_circuits: Circuits there are, each found on prompts of its own.
        mean_iou: Mean over all pairs of shared connections over all connections of the two, 0 to 1;
            of components where circuits have no connections.
        lowest_iou: Of the pair that shares least.
        highest_iou: Of the pair that shares most.
    """

    task: str
    n_circuits: int
    mean_iou: float
    lowest_iou: float
    highest_iou: float


@dataclass(frozen=True, repr=False)
class PairComparison:
    """Two stored circuits beside each other.

    Attributes:
        circuit_a: The first.
        circuit_b: The second.
        model: The model that both lie in.
        comparison: What they share.
        by_degrees: Connections shared by chance if every part keeps its number of edges; None where
            nothing was drawn or one has no edges.
        by_hubs: Connections shared by chance if edges are taken by the weight of their ends, so
            that hubs saturate; None as above.
        by_layers: Connections shared by chance if only layers matter; None where one has no edges
            or the model's size is unknown.
        components_by_layers: Components shared by chance: any of the same layer and kind.
        saturation_a: Share of the edges between the hubs of the first that it has; near 1 the null
            of degrees is too eager.
        saturation_b: The same of the second.
        q: The weakest p, corrected for all pairs of the call (Benjamini & Hochberg 1995).
        ceilings: Of both tasks, where there are several circuits found the same way.
        transfers: How faithful either circuit is on both tasks, as far as it was measured.
    """

    circuit_a: Circuit
    circuit_b: Circuit
    model: Model
    comparison: Comparison
    by_degrees: Chance | None
    by_hubs: Chance | None
    by_layers: Chance | None
    components_by_layers: Chance | None
    saturation_a: float | None
    saturation_b: float | None
    q: float | None = None
    ceilings: tuple[Ceiling, ...] = ()
    transfers: tuple[Transfer, ...] = ()

    def __repr__(self) -> str:
        a, b = self.circuit_a, self.circuit_b
        return (
            f"<PairComparison of {a.id[:12]} ({a.task}) and {b.id[:12]} ({b.task}): "
            f"{self.conclusion}>"
        )

    @property
    def null(self) -> Chance | None:
        """The null that leaves least: fewest standard deviations, of connections or components.

        Not always the one with the largest p, since a p of draws is never below one by their
        number. A null that leaves but one value leaves nothing to exceed it by.
        """
        nulls = self._nulls
        return min(nulls, key=lambda one: (one.z or 0.0, -one.p)) if nulls else None

    @property
    def p(self) -> float | None:
        """How often chance alone shares as much, under the null where it does so most often."""
        return max((one.p for one in self._nulls), default=None)

    @property
    def counts_components(self) -> bool:
        """Whether chance is told of components, as one of the circuits has no edges."""
        return self.by_degrees is None and self.components_by_layers is not None

    @property
    def _nulls(self) -> tuple[Chance, ...]:
        if self.counts_components:
            return tuple(one for one in (self.components_by_layers,) if one is not None)
        nulls = (self.by_degrees, self.by_hubs, self.by_layers)
        return tuple(one for one in nulls if one is not None)

    @property
    def conclusion(self) -> str:
        """In words, for the largest p there is, after correction."""
        q = self.q
        if q is None:
            return "chance was not asked for, or cannot be told"
        of = "components" if self.counts_components else "connections"
        verdict = "share more" if q < SIGNIFICANT else "are not shown to share more"
        return f"the circuits {verdict} than by chance ({of}, q = {q:.3g})"

    @property
    def picture(self) -> Picture:
        """What there is to draw of them."""
        from queries.pair_picture import picture_of_pair

        return picture_of_pair(self.circuit_a, self.circuit_b, self.comparison, self.model)

    def plot(self) -> Figure:
        """Draw what they share, and faintly the strongest of what they do not.

        Raises:
            BadInput: There is nothing to draw.
            MissingExtra: matplotlib is not installed.
        """
        from queries.drawing import figure_of

        return figure_of(self.picture)

    def to_frame(self) -> pandas.DataFrame:
        """One row for each level: its overlap, and what chance would share."""
        import pandas as pd

        found = self.comparison
        nulls: Mapping[str, Chance | None] = {
            "components": self.components_by_layers,
            "connections": None if self.counts_components else self.null,
        }
        rows = []
        for level in ("components", "edges", "connections"):
            overlap, null = getattr(found, level), nulls.get(level)
            rows.append(
                {
                    "of": level, "n_a": overlap.n_a, "n_b": overlap.n_b,
                    "n_shared": overlap.n_shared, "iou": overlap.iou, "iom": overlap.iom,
                    "share_of_a": overlap.share_of_a, "share_of_b": overlap.share_of_b,
                    "expected": null and null.expected, "z": null and null.z,
                    "p": null and (self.p if level == "connections" else null.p),
                }
            )  # fmt: skip
        return pd.DataFrame(rows)


def compare_circuits(
    registry: Registry,
    a: str,
    b: str,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    anyway: bool = False,
) -> PairComparison:
    """Compare two stored circuits, with what replicates share and how either does the other's task.

    Args:
        registry: Where they are.
        a: Id of one, or its first digits.
        b: Of the other.
        draws: Pairs of random circuits for the null of degrees; 0 for no null at all.
        seed: Decides which are drawn; equal seeds give equal numbers, in either order of a and b.
        anyway: Compare what would be refused as unsound.

    Raises:
        NotFound: There is no such circuit.
        BadInput: They do not compare; see :func:`queries.compare.compare`.
        GraphError: The graph cannot be read.
    """
    (pair,) = compare_pairs(registry, [(a, b)], draws=draws, seed=seed, anyway=anyway)
    ids = (pair.circuit_a.id, pair.circuit_b.id)
    tasks = {pair.circuit_a.task, pair.circuit_b.task}
    ceilings = [ceiling(registry, circuit) for circuit in (pair.circuit_a, pair.circuit_b)]
    return replace(
        pair,
        ceilings=tuple(dict.fromkeys(one for one in ceilings if one is not None)),
        transfers=tuple(one for one in read_transfers(registry, ids) if one.task in tasks),
    )


def compare_pairs(
    registry: Registry,
    pairs: Sequence[tuple[str, str]],
    *,
    draws: int = DRAWS,
    seed: int = 0,
    anyway: bool = False,
    progress: Progress | None = None,
) -> tuple[PairComparison, ...]:
    """Compare many pairs of stored circuits; each circuit is drawn once for all its pairs.

    Args as in :func:`compare_circuits`; ``q`` is corrected over these pairs.
    """
    ids = {prefix: registry.ledger.circuit_id(prefix) for pair in pairs for prefix in pair}
    circuits = {id: registry.document(id) for id in dict.fromkeys(ids.values())}
    models = {model.slug: model for model in registry.ledger.models()}
    nulls = _Nulls(draws, seed)
    found = []
    for done, (a, b) in enumerate(pairs, start=1):
        first, second = circuits[ids[a]], circuits[ids[b]]
        model = models[first.model]
        comparison = compare(first, second, model, anyway=anyway)
        found.append(_with_nulls(first, second, comparison, model, nulls))
        if progress is not None:
            progress(done, len(pairs))
    return _corrected(found)


class _Nulls:
    """Draws, chances and saturation of circuits, each made once for all its pairs."""

    def __init__(self, n_draws: int, seed: int) -> None:
        self.n_draws = n_draws
        self._seed = seed
        self._drawn: dict[tuple[frozenset[str], int, bool], Draws] = {}
        self._chances: dict[tuple[frozenset[str], bool], EdgeChances] = {}
        self._saturations: dict[tuple[frozenset[str], bool], float | None] = {}

    def draws(self, connections: frozenset[str], number: int, *, parallel: bool) -> Draws:
        """The first draws of a circuit, or others, by number."""
        key = (connections, number, parallel)
        if key not in self._drawn:
            # By content, so that the order of a pair does not matter.
            digest = hashlib.sha256("\n".join(sorted(connections)).encode()).digest()
            seed = [self._seed, int.from_bytes(digest[:8]), number]
            self._drawn[key] = draw_circuits(
                connections, self.n_draws, seed, parallel_attn_mlp=parallel
            )
        return self._drawn[key]

    def chances(self, connections: frozenset[str], *, parallel: bool) -> EdgeChances:
        """How likely each edge is where hubs saturate."""
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


def _with_nulls(
    a: Circuit, b: Circuit, comparison: Comparison, model: Model, nulls: _Nulls
) -> PairComparison:
    of_a, of_b = comparison.folded_a, comparison.folded_b
    parallel, n_shared = model.parallel_attn_mlp, comparison.connections.n_shared
    by_degrees = by_hubs = by_layers = components = None
    if nulls.n_draws:
        components = parts_by_chance(of_a.components, of_b.components, model)
    if nulls.n_draws and of_a.connections and of_b.connections:
        both = (of_a.connections, of_b.connections)
        by_layers = edges_by_layers(*both, model)
        chances = (nulls.chances(one, parallel=parallel) for one in both)
        by_hubs = shared_by_chances(n_shared, *chances)
        # A circuit beside itself needs two independent draws of the same.
        numbers = (0, int(of_a.connections == of_b.connections))
        draws = (
            nulls.draws(one, number, parallel=parallel)
            for one, number in zip(both, numbers, strict=True)
        )
        by_degrees = shared_by_draws(n_shared, *draws)
    return PairComparison(
        circuit_a=a,
        circuit_b=b,
        model=model,
        comparison=comparison,
        by_degrees=by_degrees,
        by_hubs=by_hubs,
        by_layers=by_layers,
        components_by_layers=components,
        saturation_a=nulls.saturation(of_a.connections, parallel=parallel),
        saturation_b=nulls.saturation(of_b.connections, parallel=parallel),
    )


def _corrected(pairs: Sequence[PairComparison]) -> tuple[PairComparison, ...]:
    told = {place: pair.p for place, pair in enumerate(pairs) if pair.p is not None}
    adjusted = dict(zip(told, corrected([*told.values()]), strict=True))
    return tuple(replace(pair, q=adjusted.get(place)) for place, pair in enumerate(pairs))


def ceiling(registry: Registry, circuit: Circuit) -> Ceiling | None:
    """How much a circuit's replicates share with each other; None where it has none.

    Raises:
        GraphError: The graph cannot be read.
    """
    same = replicates(registry, circuit.id)
    if len(same) < 2:
        return None
    asked = "circuit-overlaps" if circuit.edges else "circuit-overlaps-of-components"
    shared = {
        (row["a"], row["b"]): row["n_shared"] for row in registry.query(asked, circuits=list(same))
    }
    ordered = sorted(same)
    overlaps = [_iou(shared, a, b) for place, a in enumerate(ordered) for b in ordered[place + 1 :]]
    return Ceiling(circuit.task, len(same), fmean(overlaps), min(overlaps), max(overlaps))


def _iou(shared: Mapping[tuple[str, str], int], a: str, b: str) -> float:
    both = shared.get((a, b), 0)
    union = shared.get((a, a), 0) + shared.get((b, b), 0) - both
    return both / union if union else 0.0
