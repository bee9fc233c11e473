"""The campaign ``matrix``: circuits of several tasks and seeds, each measured on every task.

For every task and seed, a run of ``edge-attribution`` finds a circuit, on separate prompts. Then
for every task and seed, a run of ``transfer`` measures the circuits that the same seed gave for the
other tasks, on that task's prompts. Each of these circuits, and the task's own circuit, is compared
with random circuits of the same degrees. So any circuit can represent a task later. Several seeds
show how much two circuits of one task share. Circuits of two tasks are not expected to share more.

All circuits have the same size, so that the overlap does not depend on the number of edges.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pydantic import Field, model_validator

from ingest.jobs.base import Configuration, FinishedRun, Job, finished_runs, run_job
from ingest.jobs.campaigns import Account, NumberedRuns
from ingest.jobs.edge_attribution.configuration import EdgeAttributionConfiguration
from ingest.jobs.edge_attribution.job import EdgeAttribution, read_model
from ingest.jobs.fields import DEFAULT_PROMPTS, Method, ModelName, Names
from ingest.jobs.options import (
    AnsweredPrompts,
    Chosen,
    DividedPrompts,
    Labelled,
    PlacedModel,
    Scored,
)
from ingest.jobs.places import KeptModel
from ingest.jobs.progress import Progress
from ingest.jobs.shared_pairs import shared_pairs
from ingest.jobs.transfer.job import Transfer, TransferConfiguration
from ingest.tasks.catalogue import all_tasks, find_task
from registry.circuits.prompt_pairs import PromptPairs
from registry.errors import BadInput, IncompatibleModel, NonFiniteScores, TooFewPrompts
from registry.files.prompt_files import Pairs
from registry.ledger.base import CircuitEntry
from registry.records import CircuitState, Run

if TYPE_CHECKING:
    from registry.registry import Registry

__all__ = ["JOB", "Matrix", "MatrixConfiguration"]

_SHARED_RUNS = 3
"""Runs of the model that a measurement makes in addition to those of its circuits."""
_MEASURED_ALIKE = ("model", "revision", "device", "device_map", "dtype", "batch_size")

C = TypeVar("C", bound=Configuration)

log = logging.getLogger(__name__)


class MatrixConfiguration(AnsweredPrompts, DividedPrompts, Scored, Chosen, PlacedModel, Labelled):
    """The configuration of the campaign. Only the model is required."""

    model: ModelName
    tasks: Names = Field(
        (),
        description="Task such as ioi, repeatable, or several with commas; default: all of"
        " 'circuits tasks'.",
    )
    seed: int = Field(0, description="The first seed; determines the drawn prompts.")
    seeds: int = Field(3, ge=1, description="Circuits per task, each on new prompts.")
    controls: int = Field(
        10,
        ge=0,
        description="Random circuits measured with each circuit, on every task; 0 for none.",
    )
    prompts: int | None = Field(
        None, ge=1, description=f"Prompts to keep per task; default: {DEFAULT_PROMPTS}."
    )
    method: Method = "eap-ig-inputs"

    def attribution(self, task: str, seed: int) -> EdgeAttributionConfiguration:
        """Return the configuration of the run that finds a circuit."""
        own = {"tasks", "seed", "seeds", "controls"}
        return EdgeAttributionConfiguration(task=task, seed=seed, **self.model_dump(exclude=own))

    def transfer(
        self, circuits: Iterable[str], prompt_set: str, seed: int
    ) -> TransferConfiguration:
        """Return the configuration of the run that measures circuits."""
        return TransferConfiguration(
            circuits=tuple(sorted(circuits)),
            prompt_set=prompt_set,
            seed=seed,
            controls=self.controls or None,
            **self.model_dump(include=set(_MEASURED_ALIKE)),
        )

    @model_validator(mode="after")
    def _chooses_one_way(self) -> Self:
        if self.edges is not None and self.share is not None:
            raise ValueError("edges and share contradict each other; give one of them")
        return self


class Matrix:
    r"""Find circuits of several tasks with several seeds, and measure each on every other task.

    Each circuit is a separate run of edge-attribution, each measurement a run of transfer. Existing
    runs are not repeated, so the same command continues after a stop. 'circuits matrix' compares
    the results. With --split, circuits are found and measured on that part of each task's prompts.

    \b
    circuits discover matrix --model smollm2
    circuits discover matrix --model smollm2 --task ioi,sequence/months --seeds 2 --split train
    circuits discover matrix --model gpt2 --task ioi --task capitals --share 1% --controls 50
    """

    name = "matrix"
    Configuration = MatrixConfiguration

    def run(
        self, configuration: MatrixConfiguration, registry: Registry, progress: Progress
    ) -> Account:
        """Make the runs that do not exist yet.

        Raises:
            BadInput, NotFound, MissingExtra: The model, a task or a number is wrong; or no task
                gave a circuit.
            UnsupportedModel: Raised by the algorithms; finished runs stay recorded.
            KeyboardInterrupt: Ctrl-C or SIGTERM; finished runs stay recorded.
        """
        asked = configuration.tasks or tuple(all_tasks())
        tasks = tuple(dict.fromkeys(find_task(task).slug for task in asked))
        return _Runs(configuration, registry, progress, tasks).make()


JOB = Matrix()


@dataclass
class _Cell:
    """The results of one task and one seed.

    Attributes:
        attribution: Origin of its circuit: ``run``, ``skipped`` (it existed), ``failed``, or None.
        transfer: Origin of the measurements on its prompts, with the same values.
        problem: The reason why a run failed or was omitted.
    """

    task: str
    seed: int
    circuit: CircuitEntry | None = None
    attribution: str | None = None
    transfer: str | None = None
    problem: str | None = None

    @property
    def active(self) -> CircuitEntry | None:
        """Return its circuit, unless it was retracted or superseded."""
        found = self.circuit
        return found if found and found.labels.state is CircuitState.ACTIVE else None

    @property
    def row(self) -> dict[str, Any]:
        """Return it as a line of the summary."""
        found = self.circuit
        return {
            "task": self.task,
            "seed": self.seed,
            "circuit": found.id if found else None,
            "edges": found.n_edges if found else None,
            "faithfulness": found.faithfulness if found else None,
            "attribution": self.attribution,
            "transfer": self.transfer,
            "problem": self.problem,
        }


class _Runs:
    """The runs of one campaign, in order: seed by seed, circuits before their measurements."""

    def __init__(
        self,
        asked: MatrixConfiguration,
        registry: Registry,
        progress: Progress,
        tasks: Sequence[str],
    ) -> None:
        self._asked = asked
        self._registry = registry
        self._seeds = range(asked.seed, asked.seed + asked.seeds)
        self._cells = [_Cell(task, seed) for seed in self._seeds for task in tasks]
        self._load = KeptModel()
        self._finding, self._measuring = EdgeAttribution(self._load), Transfer(self._load)
        self._progress = NumberedRuns(progress, list(self._sizes(len(tasks))))
        self._model_fits = False
        self._n_made = self._n_there = self._n_failed = 0
        self._shared: tuple[str, ...] = ()

    def make(self) -> Account:
        """Make the runs that do not exist yet, and return the results of all."""
        try:
            for seed in self._seeds:
                cells = [cell for cell in self._cells if cell.seed == seed]
                for cell in cells:
                    self._find(cell)
                if seed == self._seeds[-1]:
                    self._warn_of_shared_pairs()
                for cell in cells:
                    self._measure(cell, cells)
        except KeyboardInterrupt:
            log.warning(
                "stopped after %d runs; the same command continues from there", self._n_made
            )
            raise
        if not any(cell.circuit for cell in self._cells):
            raise BadInput(f"no task gave a circuit; {self._cells[0].problem}")
        return Account(tuple(cell.row for cell in self._cells), (self._note(), *self._shared))

    def _sizes(self, n_tasks: int) -> Iterator[tuple[str, float]]:
        n_controls = self._asked.controls
        n_circuits = n_tasks * (1 + n_controls) if n_controls else n_tasks - 1
        for _ in self._seeds:
            yield from [("attribution", 1.0)] * n_tasks
            yield from [("transfer", float(n_circuits + _SHARED_RUNS))] * n_tasks

    def _find(self, cell: _Cell) -> None:
        self._progress.begin()
        if any(c.task == cell.task and c.attribution == "failed" for c in self._cells):
            cell.problem = "omitted: this task failed with another seed"
            return
        options = self._asked.attribution(cell.task, cell.seed)
        there = finished_runs(self._finding, options, self._registry)
        if there:
            self._n_there += 1
            cell.attribution = "skipped"
            cell.circuit = self._circuit_of(there[0])
        else:
            made = self._attempt(cell, self._finding, options)
            cell.attribution = "run" if made else "failed"
            cell.circuit = self._circuit_of(made.run) if made else None
        if cell.circuit and not cell.active:
            cell.problem = f"omitted: its circuit is {cell.circuit.labels.state}"

    def _warn_of_shared_pairs(self) -> None:
        """Warn of tasks of which several seeds drew the same pairs, and note it."""
        read = PromptPairs(self._registry)
        drawn: dict[str, dict[int, Pairs]] = defaultdict(dict)
        for cell in self._cells:
            prompt_set = cell.active.prompt_set if cell.active else None
            pairs = read.of(cell.task, prompt_set) if prompt_set else None
            if pairs is not None:
                drawn[cell.task][cell.seed] = pairs
        lines = (shared_pairs(task, of_seeds).in_words for task, of_seeds in drawn.items())
        self._shared = tuple(line for line in lines if line is not None)
        for line in self._shared:
            log.warning("%s", line)

    def _measure(self, cell: _Cell, cells: list[_Cell]) -> None:
        self._progress.begin()
        with_own = self._asked.controls > 0
        there = [c.active for c in cells if c.active and (with_own or c is not cell)]
        prompt_set = cell.active.prompt_set if cell.active else None
        if not there or prompt_set is None:
            return
        circuits = [entry.id for entry in there]
        options = self._asked.transfer(circuits, prompt_set, cell.seed)
        # If a task is added later, only its circuits are missing on the prompts of the other tasks.
        alike = finished_runs(self._measuring, options, self._registry, whatever="circuits")
        measured = {circuit for run in alike for circuit in run.configuration["circuits"]}
        missing = [circuit for circuit in circuits if circuit not in measured]
        if missing:
            options = self._asked.transfer(missing, prompt_set, cell.seed)
            cell.transfer = "run" if self._attempt(cell, self._measuring, options) else "failed"
        else:
            self._n_there += 1
            cell.transfer = "skipped"

    def _attempt(self, cell: _Cell, job: Job[C, Any], options: C) -> FinishedRun | None:
        """Make a run; if it fails because of its task, report this and continue."""
        self._require_model()
        try:
            outcome = run_job(job, options, self._registry, progress=self._progress)
        except IncompatibleModel:
            raise
        except (BadInput, TooFewPrompts, NonFiniteScores) as error:
            cell.problem = str(error)
            self._n_failed += 1
            log.warning(
                "%s with seed %d failed, the others continue: %s", cell.task, cell.seed, error
            )
            return None
        self._progress.made()
        self._n_made += 1
        return outcome

    def _require_model(self) -> None:
        """Raise an error if the model or a number is wrong, because this affects all tasks."""
        if not self._model_fits:
            options = self._asked.attribution(self._cells[0].task, self._asked.seed)
            read_model(options, self._load, self._progress)
            self._model_fits = True

    def _circuit_of(self, run: Run) -> CircuitEntry:
        return next(entry for entry in self._registry.circuits() if run.id in entry.runs)

    def _note(self) -> str:
        if not (self._n_made or self._n_failed):
            return f"all {self._n_there} runs exist already; nothing was run"
        failed = f", {self._n_failed} failed" if self._n_failed else ""
        return f"{self._n_made} runs were made, {self._n_there} existed already{failed}"
