"""How faithful circuits are on tasks they were not found on, read from the record.

A job measures it (``circuits discover transfer``, ``circuits discover matrix``) together with
random circuits with the same degrees. Published circuits come with their own values, in percent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from types import MappingProxyType
from typing import TYPE_CHECKING

from registry import measures
from registry.measures import Measure

if TYPE_CHECKING:
    from registry.registry import Registry

__all__ = ["FAITHFULNESS", "MEASURED", "PERCENT_OF_METRIC", "Transfer", "read_transfers"]

MEASURED: Mapping[str, Measure] = MappingProxyType(
    {one.name: one for one in (measures.FAITHFULNESS, measures.PERCENT_OF_METRIC)}
)
"""Measures of transfer, the usual one first."""
FAITHFULNESS = measures.FAITHFULNESS.name
PERCENT_OF_METRIC = measures.PERCENT_OF_METRIC.name


@dataclass(frozen=True, slots=True)
class Transfer:
    """The faithfulness of a circuit on a task.

    Attributes:
        circuit: Its id.
        found_on: The task it was found on.
        task: The task it was measured on, its own or another.
        measure: ``faithfulness``: 1 for the metric of the whole model, 0 for its metric with all
            components ablated; ``F``: percent of the model's metric.
        value: Mean over all measurements.
        n_measured: Number of measurements, for example one for each set of prompts.
        random: Median of the same measure over random circuits with its degrees, or without edges
            as many parts of each kind; None if none were measured.
    """

    circuit: str
    found_on: str
    task: str
    measure: str
    value: float
    n_measured: int
    random: float | None


def read_transfers(registry: Registry, circuits: Iterable[str]) -> tuple[Transfer, ...]:
    """Read the transfers recorded for these circuits, by circuit and task.

    Raises:
        GraphError: The graph cannot be read.
    """
    values: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for row in registry.query("transfers", circuits=list(circuits)):
        about = (row["circuit"], row["found_on"], row["task"])
        values.setdefault(about, {}).setdefault(row["measure"], []).append(row["value"])
    found = []
    for (circuit, found_on, task), measured in values.items():
        random = measured.get(measures.RANDOM_FAITHFULNESS.name)
        for measure in MEASURED:
            if measure in measured:
                beside = fmean(random) if random and measure == FAITHFULNESS else None
                found.append(
                    Transfer(
                        circuit, found_on, task, measure, fmean(measured[measure]),
                        len(measured[measure]), beside,
                    )
                )  # fmt: skip
    return tuple(found)
