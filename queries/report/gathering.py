"""Everything a report tells, gathered from one registry for one choice of circuits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from queries.choosing import Which
from queries.comparing import DRAWS, Progress
from queries.matrix import CircuitMatrix, circuit_matrix
from queries.report.families import Resemblance, resemblances
from queries.report.provenance import Provenance, provenance_of
from queries.reuse import DRAWS as DRAWS_OF_REUSE
from queries.reuse import Reuse, reuse
from queries.shared import SharedSubgraph, shared_subgraph
from registry.errors import BadInput
from registry.records import Circuit

if TYPE_CHECKING:
    from registry.registry import Registry

__all__ = ["Report", "gather_report"]


@dataclass(frozen=True, repr=False)
class Report:
    """What circuits of several tasks have in common.

    Attributes:
        matrix: Each two of them: overlap, chance, transfer, ceilings.
        shared: The subgraph that enough of the tasks use.
        reuse: Components and connections by how many tasks use them.
        families: By family of tasks with several members here, whether these resemble each other.
        provenance: Where the numbers come from.
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
        """What a reader has to know."""
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
    progress: Progress | None = None,
) -> Report:
    """Compare the circuits of several tasks in every way there is.

    Args:
        registry: Where they are.
        tasks: Slugs; may be empty where circuits are named, whose tasks these are then.
        circuits: Which circuits stand for the tasks; see
            :func:`queries.choosing.choose_circuits`.
        model: Only circuits of this model. Needed where the tasks have several in common.
        method: Only circuits found by this method.
        min_tasks: How many tasks have to use a part for it to count as shared; all by default.
        draws: Random circuits for each null of degrees; 0 leaves chance out. What is reused takes
            no more than :data:`queries.reuse.DRAWS` of them.
        seed: Decides which are drawn; equal seeds give equal numbers.
        anyway: Compare what would be refused as unsound.
        progress: Called with how many pairs are compared and how many there are.

    Raises:
        NotFound: No task, model or circuit goes by that name.
        BadInput: There are fewer than two tasks, or than ``min_tasks``; or the circuits do not
            compare.
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
