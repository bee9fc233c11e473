"""Circuits of several tasks, each beside each other: what they share, beyond chance, and transfer.

One call compares all pairs, so that p-values are corrected for how many there are, and puts beside
them what has been measured of each circuit on each task, and how much a task shares with itself:
circuits that were found the same way on other prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Literal

from queries.choosing import Chosen, Which, choose_circuits
from queries.comparing import DRAWS, Ceiling, PairComparison, Progress, ceiling, compare_pairs
from queries.transfers import FAITHFULNESS, Transfer, read_transfers
from registry.errors import BadInput
from registry.identifiers import Kind
from registry.rows import Rows

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from queries.compare import Overlap
    from registry.registry import Registry

__all__ = ["CircuitMatrix", "Of", "circuit_matrix"]

Of = Literal["connections", "components", "heads"]
"""What is counted as shared."""

MAX_CIRCUITS = 100
_SHOWN_DIGITS = 8

_COLUMNS = (
    "task_a", "task_b", "circuit_a", "circuit_b", "of", "n_shared", "iou", "n_shared_components",
    "iou_components", "n_shared_heads", "iou_heads", "expected", "z", "p", "q", "sign_agreement",
    "rank_correlation", "transfer_ab", "random_ab", "transfer_ba", "random_ba",
)  # fmt: skip


@dataclass(frozen=True, repr=False)
class CircuitMatrix:
    """Circuits of several tasks, two by two.

    Attributes:
        chosen: Which circuits stand for the tasks.
        pairs: Each two of them, in the order in which they were chosen.
        transfers: How faithful they are on these tasks, as far as it was measured.
        ceilings: By circuit, what it shares with circuits found the same way on other prompts;
            circuits without such are left out.
        draws: Pairs of random circuits drawn for each null of degrees.
        seed: What decided which.
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
        """Tasks that the circuits stand for."""
        return tuple(self.chosen.by_task)

    @cached_property
    def of(self) -> Of:
        """What is counted: connections, or components where some circuit has no connections."""
        return "connections" if all(_has_edges(pair) for pair in self.pairs) else "components"

    @cached_property
    def labels(self) -> Mapping[str, str]:
        """A name for each circuit: its task, with the first digits of its id where several are."""
        return {
            id: task if len(ids) == 1 else f"{task} {id[:_SHOWN_DIGITS]}"
            for task, ids in self.chosen.by_task.items()
            for id in ids
        }

    @cached_property
    def measure(self) -> str:
        """What :meth:`transfer` shows: ``faithfulness``, or ``F`` where there is nothing else."""
        measures = {one.measure for one in self.transfers}
        return FAITHFULNESS if FAITHFULNESS in measures or not measures else min(measures)

    def order(self, of: Of | None = None) -> tuple[str, ...]:
        """Circuits with those next to each other that share most; see :meth:`linkage`."""
        from scipy.cluster.hierarchy import leaves_list

        return tuple(self.circuits[place] for place in leaves_list(self.linkage(of)))

    def linkage(self, of: Of | None = None) -> list[list[float]]:
        """Which circuits join in what order, as scipy writes it, over :attr:`circuits`.

        Clustered by 1 - IoU with average linkage (UPGMA), leaves turned so that neighbours are as
        near as can be.

        Args:
            of: What the IoU counts; :attr:`of` by default.
        """
        from scipy.cluster.hierarchy import linkage

        distances = [1.0 - (_overlap(pair, of or self.of).iou or 0.0) for pair in self.pairs]
        joined: list[list[float]] = linkage(distances, "average", optimal_ordering=True).tolist()
        return joined

    def transfer(self, circuit: str, task: str) -> Transfer | None:
        """How faithful a circuit is on a task; None where that was not measured."""
        return self._transfers.get((circuit, task))

    @cached_property
    def _transfers(self) -> Mapping[tuple[str, str], Transfer]:
        shown = (one for one in self.transfers if one.measure == self.measure)
        return {(one.circuit, one.task): one for one in shown}

    def overlap(self, of: Of | None = None) -> pandas.DataFrame:
        """IoU of each circuit with each, 0 to 1; on the diagonal the ceiling, where there is one.

        Args:
            of: What is counted; :attr:`of` by default. A ceiling is of connections, or of
                components where circuits have none, and is left out where something else is.
        """
        what = of or self.of
        both_ways = {
            ids: _overlap(pair, what).iou for pair in self.pairs for ids in _both_ways(pair)
        }
        ceilings = {(id, id): one.mean_iou for id, one in self.ceilings.items()}
        return self._frame({**both_ways, **(ceilings if what == self.of else {})}, self.circuits)

    def beyond_chance(self) -> pandas.DataFrame:
        """By how many standard deviations each two share more than their null expects."""
        found: dict[tuple[str, str], float | None] = {}
        for pair in self.pairs:
            null = pair.null
            found |= dict.fromkeys(_both_ways(pair), None if null is None else null.z)
        return self._frame(found, self.circuits)

    def transferred(self, *, random: bool = False) -> pandas.DataFrame:
        """What was measured of each circuit (row) on each task (column), missing where nothing was.

        Args:
            random: Of random circuits with the same degrees instead.
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
        """One row a pair; ``transfer_ab`` is how faithful circuit a is on the task of b.

        ``of`` says what ``n_shared``, ``iou``, ``expected``, ``z``, ``p`` and ``q`` count.
        ``expected`` and ``z`` are of :attr:`PairComparison.null`; ``p`` is the largest of any null.
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

    def to_frame(self) -> pandas.DataFrame:
        """The same as :meth:`rows`, as a frame."""
        return self.rows().to_frame()

    def plot(self, of: Of | None = None) -> Figure:
        """Three heat maps side by side: overlap, beyond chance, transfer.

        Args:
            of: What the first counts; :attr:`of` by default.

        Raises:
            MissingExtra: matplotlib or seaborn is not installed.
        """
        from queries.matrix_picture import figure_of_matrix

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
    progress: Progress | None = None,
    anyway: bool = False,
) -> CircuitMatrix:
    """Compare circuits of several tasks, each with each.

    Args:
        registry: Where they are.
        tasks: Slugs; may be empty where circuits are named, whose tasks these are then.
        circuits: ``best``: each task's most faithful circuit at the smallest size that all of them
            have; ``all``; or ids.
        model: Only circuits of this model. Needed where the tasks have several in common.
        method: Only circuits found by this method.
        draws: Pairs of random circuits for each null of degrees; 0 for no null at all.
        seed: Decides which are drawn; equal seeds give equal numbers.
        progress: Called with how many pairs are done and how many there are.
        anyway: Compare what would be refused as unsound.

    Raises:
        NotFound: No task, model or circuit goes by that name.
        BadInput: There are fewer than two circuits, or more than 100; or they do not compare.
        GraphError: The graph cannot be read.
    """
    chosen = choose_circuits(registry, tasks, circuits=circuits, model=model, method=method)
    ids = chosen.ids
    if not 2 <= len(ids) <= MAX_CIRCUITS:
        raise BadInput(
            f"a matrix compares from 2 to {MAX_CIRCUITS} circuits, got {len(ids)}; best takes one "
            "for each task, and ids may be named"
        )
    pairs = compare_pairs(
        registry, list(combinations(ids, 2)), draws=draws, seed=seed, anyway=anyway,
        progress=progress,
    )  # fmt: skip
    of_all = {one.id: one for pair in pairs for one in (pair.circuit_a, pair.circuit_b)}
    ceilings = {id: ceiling(registry, of_all[id]) for id in ids}
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
