"""A process that records circuits into a ledger until it is done or killed.

Run as ``python -m tests.conformance.recording_process URL FIRST N``. Each circuit comes with a run
and an evaluation, in one batch; its id is printed once the ledger has acknowledged the batch.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from registry.ledger.base import NewCircuit
from registry.ledger.sql import open_ledger
from registry.records import CircuitLabels, Evaluation
from tests.conformance.ledger_examples import DESCRIBED, RUN, circuit


def main(url: str, first: int, n_circuits: int) -> None:
    with open_ledger(url) as ledger:
        for number in range(first, first + n_circuits):
            found = circuit(number)
            run = RUN.model_copy(update={"id": f"{number + 1:032x}"})
            measured = Evaluation(circuit=found.id, task="ioi", measure="faithfulness", value=0.5)
            new = NewCircuit(found, run.id, labels=CircuitLabels(tags=("recorded", "together")))
            ledger.record(
                replace(
                    DESCRIBED,
                    runs=[*DESCRIBED.runs, run],
                    circuits=[new],
                    evaluations=[measured],
                )
            )
            print(found.id, flush=True)  # noqa: T201 - how it acknowledges


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
