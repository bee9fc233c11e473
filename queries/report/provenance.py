"""Where the numbers of a report come from: circuits, prompts, runs, measurements, software."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from queries.matrix import CircuitMatrix
from queries.transfers import FAITHFULNESS, PERCENT_OF_METRIC
from registry.ledger.base import CircuitEntry
from registry.records import Evaluation, Model, PromptSet, Run, RunStatus

if TYPE_CHECKING:
    from registry.registry import Registry

__all__ = ["QUERIES", "Provenance", "provenance_of"]

QUERIES = (
    "circuits-of-task", "circuit-overlaps", "circuit-overlaps-of-components", "transfers",
    "shared-components", "shared-connections", "tasks-using-components", "tasks-using-connections",
)  # fmt: skip
"""Named queries that a report is made of."""

_MEASURES = (FAITHFULNESS, "random_faithfulness", PERCENT_OF_METRIC)
_COMPUTED_WITH = ("circuit-registry", "networkx", "numpy", "scipy")


@dataclass(frozen=True)
class Provenance:
    """Where numbers come from.

    Attributes:
        registry_id: The registry's.
        newest: When the youngest of the circuits and runs was recorded or ended.
        model: The model that the circuits lie in.
        circuits: As they are recorded, in the order in which they were chosen.
        measurements: Of these circuits on these tasks.
        prompt_sets: That circuits were found or measured on.
        runs: That found the circuits, and finished ones that name them as what they measured.
        software: Versions of what computed the report.
    """

    registry_id: str
    newest: datetime
    model: Model
    circuits: tuple[CircuitEntry, ...]
    measurements: tuple[Evaluation, ...]
    prompt_sets: tuple[PromptSet, ...]
    runs: tuple[Run, ...]
    software: Mapping[str, str]


def provenance_of(registry: Registry, matrix: CircuitMatrix) -> Provenance:
    """Read from the record what the circuits of a matrix come from."""
    ledger = registry.ledger
    entries = tuple(ledger.circuit(id) for id in matrix.circuits)
    measured = tuple(
        one
        for entry in entries
        for one in ledger.evaluations(entry.id)
        if one.measure in _MEASURES and one.task in matrix.tasks
    )
    used = {one.prompt_set for one in entries} | {one.prompt_set for one in measured}
    runs = _runs(registry, entries)
    ends = [run.finished_at or run.started_at for run in runs]
    return Provenance(
        registry_id=ledger.registry_id,
        newest=max([*(entry.recorded_at for entry in entries), *ends]),
        model=next(model for model in ledger.models() if model.slug == matrix.chosen.model),
        circuits=entries,
        measurements=measured,
        prompt_sets=tuple(one for one in ledger.prompt_sets() if one.id in used),
        runs=runs,
        software=_software(),
    )


def _runs(registry: Registry, entries: tuple[CircuitEntry, ...]) -> tuple[Run, ...]:
    found_by = {run for entry in entries for run in entry.runs}
    ids = {entry.id for entry in entries}
    return tuple(
        run
        for run in sorted(registry.ledger.runs(), key=lambda run: (run.started_at, run.id))
        if run.id in found_by
        or (run.status is RunStatus.FINISHED and not ids.isdisjoint(_named_circuits(run)))
    )


def _named_circuits(run: Run) -> list[str]:
    named = run.configuration.get("circuits")
    return [one for one in named if isinstance(one, str)] if isinstance(named, list) else []


def _software() -> dict[str, str]:
    from importlib.metadata import version
    from platform import python_version

    return {"Python": python_version(), **{name: version(name) for name in _COMPUTED_WITH}}
