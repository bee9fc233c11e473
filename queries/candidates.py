"""Which circuits of one task are compared with each other, and of which model they are.

Circuits of two models never compare. Where several have circuits of the task but only one has such
as can be compared, that one is meant, and a note says so; else the model has to be named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from queries.alike import Alike, group_alike
from registry.errors import BadInput

if TYPE_CHECKING:
    from registry.registry import Registry

__all__ = ["By", "Candidates", "candidates"]

By = Literal["seeds", "methods"]
"""``seeds``: within each group; ``methods``: between groups, all of which weigh the same."""

_CONSENSUS = "consensus"


@dataclass(frozen=True, eq=False)
class Candidates:
    """Circuits of one task in one model, as rows of the query ``circuits-of-task``.

    Attributes:
        model: The model.
        with_edges: Those that can be compared.
        n_without_edges: How many cannot.
        recorded: What jobs recorded as a consensus.
        ways: How those with edges were found.
        notes: What has to be said where other models have circuits of the task too.
    """

    model: str
    with_edges: Sequence[Mapping[str, Any]]
    n_without_edges: int
    recorded: Sequence[Mapping[str, Any]]
    ways: Sequence[Alike]
    notes: tuple[str, ...] = ()

    @property
    def found_again(self) -> bool:
        """Whether two of them were found the same way."""
        return any(len(way.circuits) > 1 for way in self.ways)


def candidates(
    registry: Registry, task: str, *, model: str | None, method: str | None, by: By
) -> Candidates:
    """Find the circuits of a task that are compared, all of one model.

    Args:
        registry: Where they are.
        task: Their task.
        model: Only circuits of this model.
        method: Only circuits found by this method.
        by: ``methods`` compares any two with edges; ``seeds`` those found the same way, and any two
            only where no model has such.

    Raises:
        NotFound: No task or model goes by that name.
        BadInput: There are none, or several models have such as can be compared.
        GraphError: The graph cannot be read.
    """
    rows = registry.query("circuits-of-task", task=task, model=model).to_dicts()
    if not rows:
        raise BadInput(f"{task} has no active circuit that would do; see 'circuits list'")
    slugs = sorted({row["model"] for row in rows})
    found = [_of_model(registry, slug, rows, method) for slug in slugs]
    return found[0] if len(found) == 1 else _only(task, found, by)


def _of_model(
    registry: Registry, model: str, rows: Sequence[Mapping[str, Any]], method: str | None
) -> Candidates:
    own = [row for row in rows if row["model"] == model]
    recorded = [row for row in own if _CONSENSUS in row["method"]]
    found = [row for row in own if row not in recorded and method in (None, row["method"])]
    with_edges = [row for row in found if row["n_edges"]]
    return Candidates(
        model=model,
        with_edges=with_edges,
        n_without_edges=len(found) - len(with_edges),
        recorded=recorded,
        ways=group_alike(registry, [row["circuit"] for row in with_edges]),
    )


def _only(task: str, found: Sequence[Candidates], by: By) -> Candidates:
    """Those of the one model that has some to compare.

    Raises:
        BadInput: None of the models has, or several have.
    """
    repeated = [one for one in found if one.found_again] if by == "seeds" else []
    fitting = repeated or [one for one in found if len(one.with_edges) > 1]
    models = [one.model for one in found]
    if len(fitting) != 1:
        raise BadInput(
            f"{task} has circuits in {len(models)} models ({', '.join(models)}); choose one with "
            "--model"
        )
    (only,) = fitting
    others = ", ".join(model for model in models if model != only.model)
    note = (
        f"circuits of {only.model} are taken: those of {others} cannot be compared this way; "
        "--model names another"
    )
    return replace(only, notes=(note,))
