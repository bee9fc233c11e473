"""Comparison of stored circuits: what they share, beyond chance, and how they transfer.

Circuits are read from the ledger. The overlap of replicates and the measurements on other tasks are
read from the graph. :func:`compare_circuits` gives everything about one pair. :func:`compare_pairs`
compares many pairs at once and corrects their p-values for the number of pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from queries.answers.overlap import Comparison, compare
from queries.chance.chance import Chance, corrected
from queries.chance.degrees import shared_by_draws
from queries.chance.hubs import shared_by_chances
from queries.chance.layers import edges_by_layers, parts_by_chance
from queries.chance.pairs import PairNulls
from queries.circuits.replicates import Ceiling, ceiling
from queries.circuits.transfers import Transfer, read_transfers
from registry.circuits.copies import copies_among
from registry.circuits.prompt_pairs import PromptPairs
from registry.progress import OnProgress
from registry.records import Circuit, Model

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from queries.plots.picture import Picture
    from registry.registry import Registry
    from registry.rows import Parts

__all__ = ["DRAWS", "PairComparison", "compare_circuits", "compare_pairs"]

DRAWS = 1000
SIGNIFICANT = 0.05


@dataclass(frozen=True, repr=False)
class PairComparison:
    """The comparison of two stored circuits.

    Attributes:
        circuit_a: The first.
        circuit_b: The second.
        model: The model of both.
        comparison: What they share.
        by_degrees: Connections shared by chance if every part keeps its number of edges; None if
            nothing was drawn or one circuit has no edges.
        by_hubs: Connections shared by chance if edges are selected by the weight of their ends, so
            that hubs saturate; None in the same cases.
        by_layers: Connections shared by chance if only layers matter; None if one circuit has no
            edges or the model's size is unknown.
        components_by_layers: Components shared by chance: random ones of the same layer and kind.
        saturation_a: Share of the possible edges between the hubs of the first circuit that it has.
            Near 1, the null of degrees rejects too often.
        saturation_b: The saturation of the second circuit.
        q: The largest p, corrected for all pairs of the call (Benjamini & Hochberg 1995).
        ceilings: Ceilings of both tasks, if they have several circuits found the same way.
        transfers: The faithfulness of each circuit on both tasks, if measured.
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
        """The null with the smallest z, for connections or components.

        It is not always the null with the largest p, because a p from n draws is never below
        1 / (n + 1). A null with only one possible value has no z.
        """
        nulls = self._nulls
        return min(nulls, key=lambda one: (one.z or 0.0, -one.p)) if nulls else None

    @property
    def p(self) -> float | None:
        """The largest p of any null: how often the null shares at least as much."""
        return max((one.p for one in self._nulls), default=None)

    @property
    def counts_components(self) -> bool:
        """Whether the nulls are those of components, because one of the circuits has no edges."""
        return self.by_degrees is None and self.components_by_layers is not None

    @property
    def _nulls(self) -> tuple[Chance, ...]:
        if self.counts_components:
            return tuple(one for one in (self.components_by_layers,) if one is not None)
        nulls = (self.by_degrees, self.by_hubs, self.by_layers)
        return tuple(one for one in nulls if one is not None)

    @property
    def sameness(self) -> str:
        """Why the overlap is no evidence: both are, or may be, the same circuit. Else empty."""
        a, b = self.circuit_a, self.circuit_b
        if a.id == b.id:
            return "both are the same circuit"
        if None not in (a.prompt_set, b.prompt_set) or len(a.edges) != len(b.edges):
            return ""
        contents = {one.id: one.model_dump(mode="json", exclude_none=True) for one in (a, b)}
        if not copies_among(contents):
            return ""
        return "one may be a copy of the other: they are equal, and prompts of one are not recorded"

    @property
    def conclusion(self) -> str:
        """The conclusion in words, from the largest p after correction."""
        if self.sameness:
            return f"{self.sameness}, so their overlap is no evidence"
        q = self.q
        if q is None:
            return "no comparison with chance: not requested, or not possible"
        of = "components" if self.counts_components else "connections"
        verdict = "share more" if q < SIGNIFICANT else "are not shown to share more"
        return f"the circuits {verdict} than by chance ({of}, q = {q:.3g})"

    @property
    def picture(self) -> Picture:
        """The picture of both circuits."""
        from queries.plots.compare import picture_of_pair

        return picture_of_pair(self.circuit_a, self.circuit_b, self.comparison, self.model)

    def plot(self) -> Figure:
        """Draw what they share, and faintly the strongest parts that they do not share.

        Raises:
            BadInput: There is nothing to draw.
            MissingExtra: matplotlib is not installed.
        """
        from queries.plots.circuit import figure_of

        return figure_of(self.picture)

    def parts(self) -> Parts:
        """The whole answer, by the titles of ``circuits compare --format json``."""
        from queries.answers.compare_rows import parts_of

        return parts_of(self)

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
    """Compare two stored circuits, with the overlap of replicates and the transfer between tasks.

    Args:
        registry: The open registry.
        a: Id of one, or its first digits.
        b: Id of the other, or its first digits.
        draws: Pairs of random circuits for the null of degrees; 0 for no nulls.
        seed: Seed of the draws; equal seeds give equal numbers, in either order of a and b.
        anyway: Compare even if the comparison is unsound and would be refused.

    Raises:
        NotFound: There is no such circuit.
        BadInput: They cannot be compared; see :func:`queries.answers.overlap.compare`.
        GraphError: The graph cannot be read.
    """
    (pair,) = compare_pairs(registry, [(a, b)], draws=draws, seed=seed, anyway=anyway)
    ids = (pair.circuit_a.id, pair.circuit_b.id)
    tasks = {pair.circuit_a.task, pair.circuit_b.task}
    prompts = PromptPairs(registry)
    ceilings = [ceiling(registry, circuit, prompts) for circuit in (pair.circuit_a, pair.circuit_b)]
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
    progress: OnProgress | None = None,
) -> tuple[PairComparison, ...]:
    """Compare many pairs of stored circuits; each circuit is drawn once for all its pairs.

    Args as in :func:`compare_circuits`; ``q`` is corrected over these pairs.
    """
    ids = {prefix: registry.ledger.circuit_id(prefix) for pair in pairs for prefix in pair}
    circuits = {id: registry.document(id) for id in dict.fromkeys(ids.values())}
    models = {model.slug: model for model in registry.ledger.models()}
    nulls = PairNulls(draws, seed)
    found = []
    for done, (a, b) in enumerate(pairs, start=1):
        first, second = circuits[ids[a]], circuits[ids[b]]
        model = models[first.model]
        comparison = compare(first, second, model, anyway=anyway)
        found.append(_with_nulls(first, second, comparison, model, nulls))
        if progress is not None:
            progress(done, len(pairs))
    return _corrected(found)


def _with_nulls(
    a: Circuit, b: Circuit, comparison: Comparison, model: Model, nulls: PairNulls
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
        # A circuit compared with itself needs two independent draws.
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
    known = {place: pair.p for place, pair in enumerate(pairs) if pair.p is not None}
    adjusted = dict(zip(known, corrected([*known.values()]), strict=True))
    return tuple(replace(pair, q=adjusted.get(place)) for place, pair in enumerate(pairs))
