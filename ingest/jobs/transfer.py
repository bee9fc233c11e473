"""The job ``transfer``: measure recorded circuits on the prompts of another task.

A circuit that keeps what a model does on one task may keep what it does on another. Each circuit
runs on the other task's prompts with every edge outside it ablated; all circuits of a run share the
clean and the ablated runs. Random circuits with each circuit's degrees say what its faithfulness is
worth: one of a thousand edges keeps much of any task by their number alone.

The ablation is the circuits' own: ``resample`` takes the other task's corrupt prompts, ``mean`` the
mean over its clean ones, unless the circuits took it over prompts that a file gave, which it keeps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from ingest.jobs.base import Configuration, Finding
from ingest.jobs.edge_measurements import random_faithfulness
from ingest.jobs.edge_prompts import check_prompts, keep_prompts, opening_tokens, task_record
from ingest.jobs.edge_records import faithfulness
from ingest.jobs.fields import (
    DEFAULT_PROMPTS,
    MIN_PROMPTS,
    BatchSize,
    Device,
    DeviceMap,
    Dtype,
    MinPrompts,
    Revision,
    check_place,
)
from ingest.jobs.model_place import LoadModel, load_place
from ingest.jobs.progress import Progress, Report
from ingest.jobs.stored_circuits import find_prompt_set, kept_prompts, load_model
from ingest.jobs.transfer_circuits import AlikeCircuits, alike_circuits, measurement_key
from ingest.tasks.base import TokenPair
from ingest.tasks.catalogue import find_task
from registry.ledger.base import Batch
from registry.records import Circuit, Evaluation, PromptSet, Task

if TYPE_CHECKING:
    from ingest.discovery import CircuitEvaluation
    from ingest.discovery.controls import RandomComparison
    from ingest.discovery.options import EvaluationOptions
    from ingest.jobs.answering import PromptTensors
    from registry.registry import Registry

__all__ = ["JOB", "Transfer", "TransferConfiguration"]


class TransferConfiguration(Configuration):
    """What the job is told. Circuits are needed, and a task or a prompt set."""

    circuits: tuple[str, ...] = Field(
        min_length=1, description="Circuit to measure, the first digits of its id; repeatable."
    )
    task: str | None = Field(
        None,
        description="Task to measure on. Prompts of it that are kept for the model and the seed "
        "are taken again, else drawn.",
    )
    prompt_set: str | None = Field(
        None,
        description="Kept prompts to measure on, the first digits of their id, in task's place.",
    )
    seed: int = Field(0, description="Decides which prompts are drawn, and which random circuits.")
    controls: int | None = Field(
        None,
        ge=1,
        description="Measure for each circuit as many random ones of the same nodes and degrees.",
    )
    prompts: int | None = Field(
        None, ge=1, description=f"Prompts to measure on; default: those kept, or {DEFAULT_PROMPTS}."
    )
    min_prompts: MinPrompts = MIN_PROMPTS
    bos: bool | None = Field(
        None,
        description="Draw prompts with a BOS token; default: as those the circuits were found on.",
    )
    model: str | None = Field(
        None, description="Where the circuits' model is, if not where it was when they were found."
    )
    revision: Revision = None
    device: Device = None
    device_map: DeviceMap = None
    dtype: Dtype = "float32"
    batch_size: BatchSize = None

    def resolved(self, registry: Registry) -> Self:
        """The same with whole ids, and circuits in their order."""
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
            raise ValueError("a prompt set is measured on as a whole; leave the number out")
        return self

    @model_validator(mode="after")
    def _lies_somewhere(self) -> Self:
        check_place(self.device, self.device_map)
        return self


@dataclass(frozen=True)
class _Prompts:
    """Prompts that circuits are measured on.

    Attributes:
        drawn: The task and the file that keeps them; None where they are recorded.
    """

    record: PromptSet
    pairs: tuple[TokenPair, ...]
    drawn: tuple[Task, bytes] | None = None


@dataclass(frozen=True, eq=False)
class _Prepared:
    """Input that was read and found right.

    Attributes:
        prompts: Gives those to measure on, and may take its time.
        measured: What is recorded already, by :func:`measurement_key`.
    """

    configuration: TransferConfiguration
    alike: AlikeCircuits
    prompts: Callable[[Progress], _Prompts]
    bridge: Any
    measured: frozenset[str]


class Transfer:
    r"""Measure how faithful recorded circuits are on another task.

    Runs the circuits' model on the other task's prompts with every edge outside a circuit ablated,
    and stores each circuit's faithfulness there; with controls, also that of random circuits with
    the same degrees.

    \b
    circuits discover transfer --circuit 3f2a --circuit 81c0 --task sequence/numerals
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
            NotFound: There is no such circuit, task, prompt set or model.
            BadInput: The circuits cannot be measured, or not together; the prompts are another
                model's or do not fit; or the model is not the circuits'.
        """
        stored = [registry.circuit(given) for given in configuration.circuits]
        alike = alike_circuits(registry, [each.circuit for each in stored])
        bos = configuration.bos
        if bos is None and configuration.prompt_set is None:
            bos = alike.bos(registry)
        kept = alike.kept_prompts(registry, configuration, bos)
        if kept is None:
            find_task(configuration.task or "")  # before torch takes its seconds
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
        """The device the model lies on."""
        from ingest.jobs.answering import device_name

        return device_name(prepared.bridge)

    def compute(self, prepared: _Prepared, progress: Progress) -> Finding:
        """Draw prompts where none are kept, and measure every circuit on them.

        Raises:
            TooFewPrompts: The model answers too few prompts rightly.
            BadInput: An edge is none of the model's.
            UnsupportedModel, NonFiniteScores: From the algorithm.
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


@dataclass(frozen=True, eq=False)
class _Measured:
    """A circuit on the other task's prompts, beside random ones if any were asked for."""

    circuit: CircuitEvaluation
    compared: RandomComparison | None = None


def _recorded(record: PromptSet, pairs: tuple[TokenPair, ...]) -> Callable[[Progress], _Prompts]:
    prompts = _Prompts(record, pairs)
    return lambda _: prompts


def _to_draw(
    configuration: TransferConfiguration, bridge: Any, model: str, bos: bool | None
) -> Callable[[Progress], _Prompts]:
    source, opening = find_task(configuration.task or ""), opening_tokens(bridge, bos)
    check_prompts(bridge, source, configuration.seed, opening)

    def draw(progress: Progress) -> _Prompts:
        progress.stage(f"drawing prompts of {source.slug}")
        kept = keep_prompts(
            bridge, source, configuration, model=model, opening=opening, seed=configuration.seed
        )
        return _Prompts(kept.record, kept.pairs, (task_record(source), kept.artifact))

    return draw


def _measure(prepared: _Prepared, prompts: _Prompts, progress: Progress) -> list[_Measured]:
    from ingest.discovery import evaluate_circuits
    from ingest.discovery.controls import compare_each_with_random
    from ingest.jobs.answering import as_tensors

    tensors = as_tensors(prompts.pairs)
    given = (tensors.clean, tensors.corrupt, tensors.logit_difference)
    circuits = [[edge.connection for edge in c.edges] for c in prepared.alike.circuits]
    n, on = prepared.configuration.controls, prompts.record.task
    if n is None:
        report = progress.stage(f"measuring {_count(len(circuits))} on {on}")
        options = _options(prepared, tensors, report)
        each = evaluate_circuits(prepared.bridge, circuits, *given, **options)
        return [_Measured(one) for one in each]
    report = progress.stage(f"measuring {_count(len(circuits))}, {n} random ones for each, on {on}")
    compared = compare_each_with_random(
        prepared.bridge,
        circuits,
        *given,
        n=n,
        seed=prepared.configuration.seed,
        **_options(prepared, tensors, report),
    )
    return [_Measured(one.found, one) for one in compared]


def _options(prepared: _Prepared, prompts: PromptTensors, report: Report) -> EvaluationOptions:
    from ingest.jobs.answering import as_tensors

    alike = prepared.alike
    told: EvaluationOptions = {
        "ablation": alike.ablation,
        "kv_heads": alike.kv_heads,
        "batch_size": prepared.configuration.batch_size,
        "attention_mask": prompts.attention_mask,
        "progress": report,
    }
    if alike.ablation == "mean":
        mean_of = prompts if alike.reference is None else as_tensors(alike.reference_pairs)
        told["reference"], told["reference_mask"] = mean_of.clean, mean_of.attention_mask
    return told


def _evaluations(
    prepared: _Prepared, circuit: Circuit, measured: _Measured, on: PromptSet
) -> tuple[Evaluation, ...]:
    reference = prepared.alike.reference
    about = {} if reference is None else {"reference": reference}
    found = faithfulness(circuit, measured.circuit, parameters=about, on=on)
    if measured.compared is None:
        return found
    seed = prepared.configuration.seed
    return *found, *random_faithfulness(circuit, measured.compared, seed, on=on)


def _row(
    circuit: Circuit, on: PromptSet, values: dict[str, float], controls: int | None
) -> dict[str, Any]:
    row = {
        "circuit": circuit.id,
        "found_on": circuit.task,
        "task": on.task,
        "prompt_set": on.id,
        "prompts": on.n_prompts,
        "faithfulness": values.get("faithfulness"),
    }
    if controls is not None:
        row["random_faithfulness"] = values.get("random_faithfulness")
    return row


def _count(n: int) -> str:
    return f"{n} circuits" if n > 1 else "one circuit"
