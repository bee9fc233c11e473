"""All content of a report, gathered from one registry for one choice of circuits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from queries.answers.compare import DRAWS
from queries.answers.matrix import CircuitMatrix, circuit_matrix
from queries.answers.reuse import DRAWS as DRAWS_OF_REUSE
from queries.answers.reuse import Reuse, reuse
from queries.answers.shared.subgraph import SharedSubgraph, shared_subgraph
from queries.circuits.choosing import Which
from queries.report.families import Resemblance, resemblances
from queries.report.provenance import Provenance, provenance_of
from registry.errors import BadInput
from registry.progress import OnProgress
from registry.records import Circuit

if TYPE_CHECKING:
    from registry.registry import Registry

__all__ = ["Report", "gather_report"]


@dataclass(frozen=True, repr=False)
class Report:
    """What circuits of several tasks have in common.

    Attributes:
        matrix: Pairwise comparison: overlap, chance, transfer, ceilings.
        shared: The subgraph that at least ``min_tasks`` of the tasks use.
        reuse: Components and connections by the number of tasks that use them.
        families: For each family with several of these tasks, how similar its tasks are.
        provenance: The sources of the numbers.
    """

    matrix: CircuitMatrix
    shared: SharedSubgraph
    reuse: Reuse
    families: tuple[Resemblance, ...]
    provenance: Provenance

    def __repr__(self) -> str:
        return f"<Report on {self.matrix!r}>"

    @cached_property
    def circuits(self) -> Mapping[str, Circuit]:
        """The compared circuits by id, in the order in which they were chosen."""
        found = {
            one.id: one for pair in self.matrix.pairs for one in (pair.circuit_a, pair.circuit_b)
        }
        return {id: found[id] for id in self.matrix.circuits}

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes that the reader must know."""
        return tuple(
            dict.fromkeys((*self.matrix.chosen.notes, *self.shared.notes, *self.reuse.notes))
        )


def gather_report(
    registry: Registry,
    tasks: Sequence[str],
    *,
    circuits: Which = "best",
    model: str | None = None,
    method: str | None = None,
    min_tasks: int | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    anyway: bool = False,
    progress: OnProgress | None = None,
) -> Report:
    """Compare the circuits of several tasks in all ways.

    Args:
        registry: The open registry.
        tasks: Slugs. May be empty if circuits are named; their tasks are used then.
        circuits: Circuits that represent the tasks; see
            :func:`queries.circuits.choosing.choose_circuits`.
        model: Only circuits of this model. Needed if the tasks have several models in common.
        method: Only circuits found by this method.
        min_tasks: Number of tasks that must use a part for it to count as shared; all by default.
        draws: Random circuits for each null of degrees; 0 omits the nulls. The null of reuse uses
            at most :data:`queries.answers.reuse.DRAWS` of them.
        seed: Seed of the draws; equal seeds give equal numbers.
        anyway: Compare even if a comparison is unsound and would be refused.
        progress: Called with the number of compared pairs and the number of all pairs.

    Raises:
        NotFound: No task, model or circuit has that name.
        BadInput: There are fewer than two tasks, or fewer than ``min_tasks``; or the circuits
            cannot be compared.
        GraphError: The graph cannot be read.
    """
    if min_tasks is not None and tasks and not 1 <= min_tasks <= len(tasks):
        raise BadInput(f"--min-tasks is {min_tasks}, but {len(tasks)} tasks are given")
    matrix = circuit_matrix(
        registry, tasks, circuits=circuits, model=model, method=method, draws=draws, seed=seed,
        progress=progress, anyway=anyway,
    )  # fmt: skip
    ids = matrix.circuits
    return Report(
        matrix=matrix,
        shared=shared_subgraph(registry, matrix.tasks, min_tasks=min_tasks, circuits=ids),
        reuse=reuse(
            registry, matrix.tasks, circuits=ids, draws=min(draws, DRAWS_OF_REUSE), seed=seed
        ),
        families=resemblances(matrix, {task.slug: task.family for task in registry.ledger.tasks()}),
        provenance=provenance_of(registry, matrix),
    )
