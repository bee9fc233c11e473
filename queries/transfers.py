"""How faithful circuits are on tasks they were not found on, read from the record.

A job measures it (``circuits discover transfer``, ``circuits discover matrix``) beside random
circuits with the same degrees; published circuits come with figures of their own, in percent.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from registry.registry import Registry

__all__ = ["FAITHFULNESS", "PERCENT_OF_METRIC", "Transfer", "read_transfers"]

PERCENT_OF_METRIC = "F"
FAITHFULNESS = "faithfulness"
_RANDOM = "random_faithfulness"


@dataclass(frozen=True, slots=True)
class Transfer:
    """A circuit on a task.

    Attributes:
        circuit: Its id.
        found_on: The task it was found on.
        task: The task it was measured on, its own or another.
        measure: ``faithfulness``: 1 keeps all that the model does, 0 no more than with everything
            ablated; ``F``: percent of the model's metric.
        value: Mean over the measurements there are.
        n_measured: How many, such as one for each set of prompts.
        random: The same of random circuits with its degrees, their median; None where none were
            measured.
    """

    circuit: str
    found_on: str
    task: str
    measure: str
    value: float
    n_measured: int
    random: float | None


def read_transfers(registry: Registry, circuits: Iterable[str]) -> tuple[Transfer, ...]:
    """What is recorded of these circuits, by circuit and task.

    Raises:
        GraphError: The graph cannot be read.
    """
    values: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for row in registry.query("transfers", circuits=list(circuits)):
        about = (row["circuit"], row["found_on"], row["task"])
        values.setdefault(about, {}).setdefault(row["measure"], []).append(row["value"])
    found = []
    for (circuit, found_on, task), measured in values.items():
        random = measured.get(_RANDOM)
        for measure in (FAITHFULNESS, PERCENT_OF_METRIC):
            if measure in measured:
                beside = fmean(random) if random and measure == FAITHFULNESS else None
                found.append(
                    Transfer(
                        circuit, found_on, task, measure, fmean(measured[measure]),
                        len(measured[measure]), beside,
                    )
                )  # fmt: skip
    return tuple(found)
