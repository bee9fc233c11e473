"""The job ``transfer``: measure recorded circuits on the prompts of another task.

A circuit that keeps a model's behaviour on one task may keep it on another task. Each circuit runs
on the other task's prompts with every edge outside it ablated; all circuits of a run share the
clean and the ablated runs. Random circuits with each circuit's degrees provide a baseline for its
faithfulness: a circuit of a thousand edges keeps much of any task only by their number.

A circuit without edges has none to choose from: every part that it does not name is ablated, with
all its outputs; the named parts compute their own outputs. For a circuit of nodes these parts are
all heads and MLPs, and the key/value heads if it names one; for neurons, the neurons of the MLPs of
which it names neurons, and all heads, key/value heads or other MLPs if it names one; for
parameters, the norms of the kinds that it names; for subspaces, everything orthogonal to them at
their sites. Random circuits have the same number of parts of each kind, or of dimensions.

The ablation is that of the circuits: ``resample`` uses the other task's corrupt prompts, ``mean``
the mean over its clean prompts, or over the prompts of a file if the circuits were found with
these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from ingest.jobs.base import Finding
from ingest.jobs.edge_attribution.measurements import random_faithfulness
from ingest.jobs.edge_attribution.records import faithfulness
from ingest.jobs.fields import DEFAULT_PROMPTS, Names
from ingest.jobs.options import AnsweredPrompts, DividedPrompts, PlacedModel
from ingest.jobs.places import LoadModel, load_place
from ingest.jobs.progress import Progress
from ingest.jobs.prompts import (
    check_prompts,
    keep_prompts,
    opening_tokens,
    task_record,
    wanted_split,
)
from ingest.jobs.recorded import find_prompt_set, kept_prompts, load_model
from ingest.jobs.setting import setting_of
from ingest.jobs.transfer.circuits import (
    AlikeCircuits,
    alike_circuits,
    measurement_key,
)
from ingest.jobs.transfer.measuring import Controls, Measured, measure_circuits
from ingest.tasks.base import PromptSource, TokenPair
from ingest.tasks.catalogue import find_task
from ingest.tasks.splits import split_source
from registry.ledger.base import Batch
from registry.measures import FAITHFULNESS, RANDOM_FAITHFULNESS
from registry.records import Circuit, Evaluation, PromptSet, Task

if TYPE_CHECKING:
    from registry.registry import Registry

__all__ = ["JOB", "Transfer", "TransferConfiguration"]

_WITHOUT_TASK = "choose kept prompts with --prompt-set; 'circuits prompts' lists them"


class TransferConfiguration(AnsweredPrompts, DividedPrompts, PlacedModel):
    """The configuration of the job. Circuits are required, and a task or a prompt set."""

    circuits: Names = Field(
        min_length=1,
        description="Circuits to measure, the first digits of their ids; repeatable, or several "
        "with commas.",
    )
    task: str | None = Field(
        None,
        description="Task to measure on. Prompts of it that are kept for the model and the seed "
        "are used again, else drawn.",
    )
    prompt_set: str | None = Field(
        None,
        description="Kept prompts to measure on, the first digits of their id, instead of a task.",
    )
    seed: int = Field(0, description="Determines the drawn prompts and random circuits.")
    controls: int | None = Field(
        None,
        ge=1,
        description="Measure this many random circuits per circuit, with its nodes and degrees; "
        "without edges, with the same number of parts of each kind, heads and neurons by layer.",
    )
    prompts: int | None = Field(
        None, ge=1, description=f"Prompts to measure on; default: kept ones, or {DEFAULT_PROMPTS}."
    )
    bos: bool | None = Field(
        None,
        description="Put a BOS token before prompts, or none; default: as for the circuits.",
    )
    model: str | None = Field(None, description="Location of the circuits' model, if it has moved.")

    def resolved(self, registry: Registry) -> Self:
        """Return the configuration with whole ids, and circuits in their order."""
        circuits = sorted({registry.ledger.circuit(given).id for given in self.circuits})
        changes: dict[str, Any] = {"circuits": tuple(circuits)}
        if self.prompt_set is not None:
            changes["prompt_set"] = find_prompt_set(registry, self.prompt_set).id
        return self.model_copy(update=changes)

    @model_validator(mode="after")
    def _has_prompts(self) -> Self:
        if (self.task is None) == (self.prompt_set is None):
            raise ValueError("give either a task or a prompt set to measure the circuits on")
        if self.prompt_set is not None and self.prompts is not None:
            raise ValueError("a prompt set is always used as a whole; omit the number")
        if self.prompt_set is not None and self.split is not None:
            raise ValueError("a prompt set is always used as a whole; omit the split")
        return self


@dataclass(frozen=True)
class _Prompts:
    """Prompts for measuring circuits.

    Attributes:
        drawn: The task and the file of the prompts; None if they are recorded already.
    """

    record: PromptSet
    pairs: tuple[TokenPair, ...]
    drawn: tuple[Task, bytes] | None = None


@dataclass(frozen=True, eq=False)
class _Prepared:
    """Input that was read and checked.

    Attributes:
        prompts: Returns the prompts to measure on, and may take some time.
        measured: Existing evaluations, by :func:`measurement_key`.
    """

    configuration: TransferConfiguration
    alike: AlikeCircuits
    prompts: Callable[[Progress], _Prompts]
    bridge: Any
    measured: frozenset[str]


class Transfer:
    r"""Measure how faithful recorded circuits are on another task.

    Runs the circuits' model on the other task's prompts with every edge outside a circuit ablated,
    and stores each circuit's faithfulness there; with controls, also the faithfulness of random
    circuits with the same degrees. For a circuit without edges, all parts outside it are ablated:
    for nodes, heads and MLPs, and key/value heads if it names one; for neurons, those of the MLPs
    of which it names neurons; for parameters, the norms of the kinds that it names; for subspaces
    imported from a folder of pyvene, everything orthogonal to them at their sites.

    \b
    circuits discover transfer --circuit 3f2a,81c0 --task sequence/numerals
    circuits discover transfer --circuit 3f2a --task ioi --controls 10
    circuits discover transfer --circuit 3f2a --prompt-set 9b41 --format json
    """

    name = "transfer"
    version = "1"
    Configuration = TransferConfiguration

    def __init__(self, load: LoadModel = load_place) -> None:
        self._load = load

    def prepare(
        self,
        configuration: TransferConfiguration,
        registry: Registry,
        progress: Progress,
    ) -> _Prepared:
        """Read the circuits, their model and the prompts.

        Raises:
            NotFound: A circuit, task, prompt set or the model does not exist.
            BadInput: The circuits cannot be measured, or not together; the prompts belong to
                another model or do not fit; or the model is not that of the circuits.
        """
        stored = [registry.circuit(given) for given in configuration.circuits]
        alike = alike_circuits(registry, [each.circuit for each in stored])
        bos = configuration.bos
        if bos is None and configuration.prompt_set is None:
            bos = alike.bos(registry)
        kept = alike.kept_prompts(registry, configuration, bos)
        if kept is None:
            find_task(configuration.task or "", _WITHOUT_TASK)  # before the slow import of torch
        bridge = load_model(
            registry,
            alike.circuits[0],
            configuration.model,
            progress,
            revision=configuration.revision,
            device=configuration.device,
            device_map=configuration.device_map,
            dtype=configuration.dtype,
            load=self._load,
        )
        if kept is None:
            prompts = _to_draw(configuration, bridge, alike.model, bos)
        else:
            prompts = _recorded(kept, kept_prompts(registry, kept.id))
        measured = frozenset(measurement_key(of) for each in stored for of in each.evaluations)
        return _Prepared(configuration, alike, prompts, bridge, measured)

    def device(self, prepared: _Prepared) -> str:
        """Return the device of the model."""
        from ingest.jobs.answering import device_name

        return device_name(prepared.bridge)

    def compute(self, prepared: _Prepared, progress: Progress) -> Finding:
        """Draw prompts if none are kept, and measure every circuit on them.

        Raises:
            TooFewPrompts: The model answers too few prompts correctly.
            BadInput: The model does not have an edge.
            UnsupportedModel, NonFiniteScores: Raised by the algorithm.
        """
        prompts = prepared.prompts(progress)
        evaluations: list[Evaluation] = []
        rows = []
        for circuit, measured in zip(
            prepared.alike.circuits, _measure(prepared, prompts, progress), strict=True
        ):
            found = _evaluations(prepared, circuit, measured, prompts.record)
            values = {each.measure: each.value for each in found}
            rows.append(_row(circuit, prompts.record, values, prepared.configuration.controls))
            evaluations += found
        new = [each for each in evaluations if measurement_key(each) not in prepared.measured]
        batch = Batch(evaluations=new)
        if prompts.drawn is None:
            return Finding(batch, (), rows[-1], tuple(rows))
        task, file = prompts.drawn
        batch = replace(batch, tasks=(task,), prompt_sets=(prompts.record,))
        return Finding(batch, (file,), rows[-1], tuple(rows))


JOB = Transfer()


def _recorded(record: PromptSet, pairs: tuple[TokenPair, ...]) -> Callable[[Progress], _Prompts]:
    prompts = _Prompts(record, pairs)
    return lambda _: prompts


def _to_draw(
    configuration: TransferConfiguration, bridge: Any, model: str, bos: bool | None
) -> Callable[[Progress], _Prompts]:
    source: PromptSource = find_task(configuration.task or "")
    split, opening = wanted_split(configuration), opening_tokens(bridge, bos)
    if split is not None:
        source = split_source(source, split)
    check_prompts(bridge, source, configuration.seed, opening)

    def draw(progress: Progress) -> _Prompts:
        progress.stage(f"drawing prompts of {source.slug}")
        kept = keep_prompts(
            bridge, source, configuration, model=model, opening=opening, seed=configuration.seed
        )
        return _Prompts(kept.record, kept.pairs, (task_record(source), kept.artifact))

    return draw


def _measure(prepared: _Prepared, prompts: _Prompts, progress: Progress) -> list[Measured]:
    alike, asked = prepared.alike, prepared.configuration
    setting = setting_of(
        prepared.bridge,
        prompts.pairs,
        ablation=alike.ablation,
        reference=None if alike.reference is None else alike.reference_pairs,
        kv_heads=alike.kv_heads,
        batch_size=asked.batch_size,
    )
    controls = Controls(asked.controls, asked.seed)
    return measure_circuits(setting, alike, controls, prompts.record.task, progress)


def _evaluations(
    prepared: _Prepared, circuit: Circuit, measured: Measured, on: PromptSet
) -> tuple[Evaluation, ...]:
    reference = prepared.alike.reference
    about = {**({} if reference is None else {"reference": reference}), **measured.about}
    found = faithfulness(circuit, measured.circuit, parameters=about, on=on)
    if measured.compared is None:
        return found
    seed = prepared.configuration.seed
    return *found, *random_faithfulness(circuit, measured.compared, seed, measured.about, on=on)


def _row(
    circuit: Circuit, on: PromptSet, values: dict[str, float], controls: int | None
) -> dict[str, Any]:
    row = {
        "circuit": circuit.id,
        "found_on": circuit.task,
        "task": on.task,
        "prompt_set": on.id,
        "prompts": on.n_prompts,
        "faithfulness": values.get(FAITHFULNESS.name),
    }
    if controls is not None:
        row["random_faithfulness"] = values.get(RANDOM_FAITHFULNESS.name)
    return row
