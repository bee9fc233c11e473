"""Pairwise comparison of circuits of several tasks: overlap, overlap beyond chance, transfer.

One call compares all pairs and corrects p-values for the number of pairs. It adds the measurements
of each circuit on each task. It also adds how much a task shares with itself: the overlap of
circuits that were found the same way on other prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Literal

from queries.answers.compare import DRAWS, PairComparison, compare_pairs
from queries.circuits.choosing import Chosen, Which, choose_circuits
from queries.circuits.replicates import Ceiling, ceiling
from queries.circuits.transfers import FAITHFULNESS, Transfer, read_transfers
from registry.circuits.prompt_pairs import PromptPairs
from registry.errors import BadInput
from registry.identifiers import Kind
from registry.progress import OnProgress
from registry.rows import Parts, Rows

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from queries.answers.overlap import Overlap
    from registry.registry import Registry

__all__ = ["CircuitMatrix", "Of", "circuit_matrix"]

Of = Literal["connections", "components", "heads"]
"""The kind of part that is counted."""

MAX_CIRCUITS = 100
_SHOWN_DIGITS = 8
_TRANSFER = ("circuit", "found_on", "task", "measure", "value", "random", "n_measured")

_COLUMNS = (
    "task_a", "task_b", "circuit_a", "circuit_b", "of", "n_shared", "iou", "n_shared_components",
    "iou_components", "n_shared_heads", "iou_heads", "expected", "z", "p", "q", "sign_agreement",
    "rank_correlation", "transfer_ab", "random_ab", "transfer_ba", "random_ba",
)  # fmt: skip


@dataclass(frozen=True, repr=False)
class CircuitMatrix:
    """Pairwise comparison of circuits of several tasks.

    Attributes:
        chosen: The circuits that represent the tasks.
        pairs: All pairs of circuits, in the order in which the circuits were chosen.
        transfers: The faithfulness of the circuits on these tasks, if measured.
        ceilings: For each circuit, its overlap with circuits found the same way on other prompts;
            circuits without such replicates are omitted.
        draws: Pairs of random circuits drawn for each null of degrees.
        seed: Seed of the draws.
    """

    chosen: Chosen
    pairs: tuple[PairComparison, ...]
    transfers: tuple[Transfer, ...]
    ceilings: Mapping[str, Ceiling]
    draws: int
    seed: int

    def __repr__(self) -> str:
        return (
            f"<CircuitMatrix of {len(self.circuits)} circuits of {len(self.tasks)} tasks in "
            f"{self.chosen.model}>"
        )

    @property
    def circuits(self) -> tuple[str, ...]:
        """Ids, task by task."""
        return self.chosen.ids

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks that the circuits represent."""
        return tuple(self.chosen.by_task)

    @cached_property
    def of(self) -> Of:
        """The kind of part counted: connections, or components if a circuit has no connections."""
        return "connections" if all(_has_edges(pair) for pair in self.pairs) else "components"

    @cached_property
    def labels(self) -> Mapping[str, str]:
        """A name for each circuit: its task, with its first digits if the task has several."""
        return {
            id: task if len(ids) == 1 else f"{task} {id[:_SHOWN_DIGITS]}"
            for task, ids in self.chosen.by_task.items()
            for id in ids
        }

    @cached_property
    def measure(self) -> str:
        """The measure that :meth:`transfer` shows: ``faithfulness``, or ``F`` if only F exists."""
        measures = {one.measure for one in self.transfers}
        return FAITHFULNESS if FAITHFULNESS in measures or not measures else min(measures)

    def order(self, of: Of | None = None) -> tuple[str, ...]:
        """Circuits ordered so that similar circuits are neighbours; see :meth:`linkage`."""
        from scipy.cluster.hierarchy import leaves_list

        return tuple(self.circuits[place] for place in leaves_list(self.linkage(of)))

    def linkage(self, of: Of | None = None) -> list[list[float]]:
        """Linkage matrix of scipy for a hierarchical clustering of :attr:`circuits`.

        The distance is 1 - IoU, with average linkage (UPGMA) and optimal leaf ordering: the
        distance between neighbours is minimal.

        Args:
            of: The kind of part that the IoU counts; :attr:`of` by default.
        """
        from scipy.cluster.hierarchy import linkage

        distances = [1.0 - (_overlap(pair, of or self.of).iou or 0.0) for pair in self.pairs]
        joined: list[list[float]] = linkage(distances, "average", optimal_ordering=True).tolist()
        return joined

    def transfer(self, circuit: str, task: str) -> Transfer | None:
        """The faithfulness of a circuit on a task; None if it was not measured."""
        return self._transfers.get((circuit, task))

    @cached_property
    def _transfers(self) -> Mapping[tuple[str, str], Transfer]:
        shown = (one for one in self.transfers if one.measure == self.measure)
        return {(one.circuit, one.task): one for one in shown}

    def overlap(self, of: Of | None = None) -> pandas.DataFrame:
        """IoU of each pair of circuits, 0 to 1; the diagonal holds the ceilings, if known.

        Args:
            of: The kind of part counted; :attr:`of` by default. A ceiling counts connections, or
                components if circuits have no connections; it is omitted if ``of`` is another kind.
        """
        what = of or self.of
        both_ways = {
            ids: _overlap(pair, what).iou for pair in self.pairs for ids in _both_ways(pair)
        }
        ceilings = {(id, id): one.mean_iou for id, one in self.ceilings.items()}
        return self._frame({**both_ways, **(ceilings if what == self.of else {})}, self.circuits)

    def beyond_chance(self) -> pandas.DataFrame:
        """Standard deviations by which each pair shares more than its null expects (z)."""
        found: dict[tuple[str, str], float | None] = {}
        for pair in self.pairs:
            null = pair.null
            found |= dict.fromkeys(_both_ways(pair), None if null is None else null.z)
        return self._frame(found, self.circuits)

    def transferred(self, *, random: bool = False) -> pandas.DataFrame:
        """Transfer of each circuit (row) to each task (column); missing if not measured.

        Args:
            random: Give the values of random circuits with the same degrees instead.
        """
        found = {key: one.random if random else one.value for key, one in self._transfers.items()}
        return self._frame(found, self.tasks)

    def _frame(
        self, values: Mapping[tuple[str, str], float | None], columns: Sequence[str]
    ) -> pandas.DataFrame:
        import pandas as pd

        rows = [[values.get((row, column)) for column in columns] for row in self.circuits]
        return pd.DataFrame(rows, list(self.circuits), list(columns), dtype=float)

    def rows(self) -> Rows:
        """One row per pair; ``transfer_ab`` is the faithfulness of circuit a on the task of b.

        ``of`` names what ``n_shared``, ``iou``, ``expected``, ``z``, ``p`` and ``q`` count.
        ``expected`` and ``z`` belong to :attr:`PairComparison.null`; ``p`` is the largest of all
        nulls.
        """
        return Rows(_COLUMNS, tuple(self._row(pair) for pair in self.pairs))

    def _row(self, pair: PairComparison) -> tuple[object, ...]:
        a, b, found, null = pair.circuit_a, pair.circuit_b, pair.comparison, pair.null
        of: Of = "connections" if _has_edges(pair) else "components"
        shared, heads = _overlap(pair, of), _overlap(pair, "heads")
        ab, ba = self.transfer(a.id, b.task), self.transfer(b.id, a.task)
        return (
            a.task, b.task, a.id, b.id, of, shared.n_shared, shared.iou,
            found.components.n_shared, found.components.iou, heads.n_shared, heads.iou,
            null and null.expected, null and null.z, pair.p, pair.q,
            found.sign_agreement, found.rank_correlation,
            ab and ab.value, ab and ab.random, ba and ba.value, ba and ba.random,
        )  # fmt: skip

    def parts(self) -> Parts:
        """Pairs, transfers and ceilings, as in ``circuits matrix --format json``."""
        return {
            "pairs": self.rows(),
            "transfer": Rows.of_records(self.transfers, _TRANSFER),
            "ceiling": _ceilings(self),
        }

    def to_frame(self) -> pandas.DataFrame:
        """The rows of :meth:`rows` as a frame."""
        return self.rows().to_frame()

    def plot(self, of: Of | None = None) -> Figure:
        """Three heat maps side by side: overlap, beyond chance, transfer.

        Args:
            of: The kind of part that the first map counts; :attr:`of` by default.

        Raises:
            MissingExtra: matplotlib or seaborn is not installed.
        """
        from queries.plots.matrix import figure_of_matrix

        return figure_of_matrix(self, of or self.of)


def circuit_matrix(
    registry: Registry,
    tasks: Sequence[str],
    *,
    circuits: Which = "best",
    model: str | None = None,
    method: str | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    progress: OnProgress | None = None,
    anyway: bool = False,
) -> CircuitMatrix:
    """Compare circuits of several tasks pairwise.

    Args:
        registry: The open registry.
        tasks: Slugs. May be empty if circuits are named; their tasks are used then.
        circuits: ``best``: each task's most faithful circuit at the smallest size that all tasks
            have; ``all``; or ids.
        model: Only circuits of this model. Needed if the tasks have several models in common.
        method: Only circuits found by this method.
        draws: Pairs of random circuits for each null of degrees; 0 for no nulls.
        seed: Seed of the draws; equal seeds give equal numbers.
        progress: Called with the number of finished pairs and the number of all pairs.
        anyway: Compare even if a comparison is unsound and would be refused.

    Raises:
        NotFound: No task, model or circuit has that name.
        BadInput: There are fewer than two circuits, or more than 100; or they cannot be compared.
        GraphError: The graph cannot be read.
    """
    chosen = choose_circuits(registry, tasks, circuits=circuits, model=model, method=method)
    ids = chosen.ids
    if not 2 <= len(ids) <= MAX_CIRCUITS:
        raise BadInput(
            f"a matrix compares from 2 to {MAX_CIRCUITS} circuits, got {len(ids)}; best uses one "
            "for each task, and ids may be named"
        )
    pairs = compare_pairs(
        registry, list(combinations(ids, 2)), draws=draws, seed=seed, anyway=anyway,
        progress=progress,
    )  # fmt: skip
    of_all = {one.id: one for pair in pairs for one in (pair.circuit_a, pair.circuit_b)}
    prompts = PromptPairs(registry)
    ceilings = {id: ceiling(registry, of_all[id], prompts) for id in ids}
    return CircuitMatrix(
        chosen=chosen,
        pairs=pairs,
        transfers=tuple(one for one in read_transfers(registry, ids) if one.task in chosen.by_task),
        ceilings={id: one for id, one in ceilings.items() if one is not None},
        draws=draws,
        seed=seed,
    )


def _has_edges(pair: PairComparison) -> bool:
    return bool(pair.comparison.connections.n_a and pair.comparison.connections.n_b)


def _both_ways(pair: PairComparison) -> tuple[tuple[str, str], tuple[str, str]]:
    a, b = pair.circuit_a.id, pair.circuit_b.id
    return (a, b), (b, a)


def _overlap(pair: PairComparison, of: Of) -> Overlap:
    if of == "heads":
        return pair.comparison.of_kind(Kind.HEAD)
    return pair.comparison.connections if of == "connections" else pair.comparison.components


def _ceilings(found: CircuitMatrix) -> Rows:
    columns = ("n_circuits", "mean_iou", "lowest_iou", "highest_iou")
    return Rows(
        ("task", "circuit", *columns),
        tuple(
            (one.task, id, *(getattr(one, column) for column in columns))
            for id, one in found.ceilings.items()
        ),
    )
