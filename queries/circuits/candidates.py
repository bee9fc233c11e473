"""Which circuits of one task are compared with each other, and which model they belong to.

Circuits of two models are never compared. Several models may have circuits of the task. If only one
of them has comparable circuits, that model is used, with a note. Otherwise the model must be named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from queries.circuits.recurrence import Over
from queries.circuits.replicates import Alike, group_alike
from registry.errors import BadInput

if TYPE_CHECKING:
    from registry.registry import Registry

__all__ = ["By", "Candidates", "candidates"]

By = Literal["seeds", "methods"]
"""``seeds``: within each group; ``methods``: between groups, with equal weight for each group."""

_CONSENSUS = "consensus"


@dataclass(frozen=True, eq=False)
class Candidates:
    """Circuits of one task in one model, as rows of the query ``circuits-of-task``.

    Attributes:
        model: The model.
        over: What they are compared over.
        compared: Those that can be compared, without copies of others: over connections those with
            edges, over components all that have any node.
        n_left_out: How many cannot.
        recorded: Circuits that jobs recorded as a consensus.
        ways: How those that can were found.
        notes: A note for the reader if other models have circuits of the task too.
    """

    model: str
    over: Over
    compared: Sequence[Mapping[str, Any]]
    n_left_out: int
    recorded: Sequence[Mapping[str, Any]]
    ways: Sequence[Alike]
    notes: tuple[str, ...] = ()

    @property
    def found_again(self) -> bool:
        """Whether two of them were found the same way."""
        return any(len(way.circuits) > 1 for way in self.ways)


def candidates(
    registry: Registry,
    task: str,
    *,
    model: str | None,
    method: str | None,
    by: By,
    over: Over | None = None,
) -> Candidates:
    """Find the circuits of a task to compare, all of one model.

    Args:
        registry: The open registry.
        task: Their task.
        model: Only circuits of this model.
        method: Only circuits found by this method.
        by: ``methods`` compares any two; ``seeds`` those found the same way, and any two only where
            no model has such.
        over: What is compared. Where it is left to the circuits: connections, or components where
            no two of one model have edges.

    Raises:
        NotFound: No task or model has that name.
        BadInput: There are no circuits, or several models have comparable ones.
        GraphError: The graph cannot be read.
    """
    rows = registry.query("circuits-of-task", task=task, model=model).to_dicts()
    if not rows:
        raise BadInput(f"{task} has no active circuit that can be used; see 'circuits list'")
    slugs = sorted({row["model"] for row in rows})
    found = [_of_model(registry, slug, rows, method, over or "connections") for slug in slugs]
    if over is None and all(len(one.compared) < 2 for one in found):
        found = [_of_model(registry, slug, rows, method, "components") for slug in slugs]
    return found[0] if len(found) == 1 else _only(task, found, by)


def _of_model(
    registry: Registry,
    model: str,
    rows: Sequence[Mapping[str, Any]],
    method: str | None,
    over: Over,
) -> Candidates:
    own = [row for row in rows if row["model"] == model]
    recorded = [row for row in own if _CONSENSUS in row["method"]]
    found = [row for row in own if row not in recorded and method in (None, row["method"])]
    size = "n_edges" if over == "connections" else "n_nodes"
    fitting = [row for row in found if row[size]]
    ways = group_alike(registry, [row["circuit"] for row in fitting])
    copies = {copy for way in ways for copy in way.copies}
    return Candidates(
        model=model,
        over=over,
        compared=[row for row in fitting if row["circuit"] not in copies],
        n_left_out=len(found) - len(fitting),
        recorded=recorded,
        ways=ways,
    )


def _only(task: str, found: Sequence[Candidates], by: By) -> Candidates:
    """Select the circuits of the only model that has comparable ones.

    Raises:
        BadInput: No model has comparable circuits, or several have.
    """
    repeated = [one for one in found if one.found_again] if by == "seeds" else []
    fitting = repeated or [one for one in found if len(one.compared) > 1]
    models = [one.model for one in found]
    if len(fitting) != 1:
        raise BadInput(
            f"{task} has circuits in {len(models)} models ({', '.join(models)}); choose one with "
            "--model"
        )
    (only,) = fitting
    others = ", ".join(model for model in models if model != only.model)
    note = (
        f"circuits of {only.model} are used: those of {others} cannot be compared this way; "
        "--model chooses another"
    )
    return replace(only, notes=(note,))
