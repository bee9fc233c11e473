"""The sources of a report's numbers: circuits, prompts, runs, measurements, software."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from queries.answers.matrix import CircuitMatrix
from queries.circuits.transfers import MEASURED
from registry.ledger.base import CircuitEntry
from registry.measures import RANDOM_FAITHFULNESS
from registry.records import Evaluation, Model, PromptSet, Run, RunStatus

if TYPE_CHECKING:
    from registry.registry import Registry

__all__ = ["QUERIES", "Provenance", "provenance_of"]

QUERIES = (
    "circuits-of-task", "circuit-overlaps", "circuit-overlaps-of-components", "transfers",
    "shared-components", "shared-connections", "tasks-using-components", "tasks-using-connections",
)  # fmt: skip
"""Named queries that a report is made of."""

_MEASURES = (*MEASURED, RANDOM_FAITHFULNESS.name)
_COMPUTED_WITH = ("circuit-registry", "networkx", "numpy", "scipy")


@dataclass(frozen=True)
class Provenance:
    """The sources of a report's numbers.

    Attributes:
        registry_id: Id of the registry.
        newest: Latest time at which one of the circuits was recorded or one of the runs ended.
        model: The model of the circuits.
        circuits: Their entries, in the order in which they were chosen.
        measurements: Measurements of these circuits on these tasks.
        prompt_sets: Prompts on which the circuits were found or measured.
        runs: Runs that found or measured the circuits. A measurement names its run; if it does not,
            these are the finished runs with its circuit in their configuration.
        software: Versions of the software that computed the report.
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
    """Read the sources of a matrix's circuits from the ledger."""
    ledger = registry.ledger
    entries = tuple(ledger.circuit(id) for id in matrix.circuits)
    measured = tuple(
        one
        for entry in entries
        for one in ledger.evaluations(entry.id)
        if one.measure in _MEASURES and one.task in matrix.tasks
    )
    used = {one.prompt_set for one in entries} | {one.prompt_set for one in measured}
    runs = _runs(registry, entries, measured)
    ends = [run.finished_at or run.started_at for run in runs]
    return Provenance(
        registry_id=ledger.registry_id,
        newest=max([*(entry.recorded_at for entry in entries), *ends]),
        model=ledger.model(matrix.chosen.model),
        circuits=entries,
        measurements=measured,
        prompt_sets=tuple(one for one in ledger.prompt_sets() if one.id in used),
        runs=runs,
        software=_software(),
    )


def _runs(
    registry: Registry, entries: tuple[CircuitEntry, ...], measured: tuple[Evaluation, ...]
) -> tuple[Run, ...]:
    recorded = {run for entry in entries for run in entry.runs}
    recorded |= {one.run for one in measured if one.run is not None}
    # Old measurements do not name their runs.
    unsaid = {one.circuit for one in measured if one.run is None}
    return tuple(
        run
        for run in sorted(registry.ledger.runs(), key=lambda run: (run.started_at, run.id))
        if run.id in recorded
        or (run.status is RunStatus.FINISHED and not unsaid.isdisjoint(_named_circuits(run)))
    )


def _named_circuits(run: Run) -> list[str]:
    named = run.configuration.get("circuits")
    return [one for one in named if isinstance(one, str)] if isinstance(named, list) else []


def _software() -> dict[str, str]:
    from importlib.metadata import version
    from platform import python_version

    return {"Python": python_version(), **{name: version(name) for name in _COMPUTED_WITH}}
