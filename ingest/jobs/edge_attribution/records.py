"""Records of edge attribution: a circuit, its faithfulness and the score matrix."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ingest.discovery.edges.origin import Origin
from ingest.jobs.edge_attribution.search import Found, Prepared
from registry.circuits.findings import ranked_edges, ranked_nodes
from registry.measures import FAITHFULNESS, LOGIT_DIFFERENCE
from registry.records import Ablation, Circuit, Evaluation, Level, PromptSet, Sign

if TYPE_CHECKING:
    from torch import Tensor

    from ingest.discovery import CircuitEvaluation, EdgeScores, PrunedCircuit

__all__ = [
    "METRIC",
    "Baselines",
    "RecordedCircuit",
    "edge_circuit",
    "evaluation",
    "faithfulness",
    "found_circuit",
    "method_parameters",
]

METRIC = LOGIT_DIFFERENCE.name


@dataclass(frozen=True, eq=False)
class RecordedCircuit:
    """A circuit and the file of its scores."""

    circuit: Circuit
    scores: bytes


def found_circuit(prepared: Prepared, found: Found) -> RecordedCircuit:
    """Return the record of a circuit found on one set of prompts."""
    matrix = found.scores.to_safetensors(METRIC)
    prompt_set = found.kept.record.id
    reference = prompt_set if prepared.reference is None else prepared.reference[1].record.id
    circuit = edge_circuit(
        prepared,
        method="edge-attribution",
        prompt_set=prompt_set,
        parameters=method_parameters(prepared, reference),
        selection=_selection(prepared, found.chosen),
        scores=found.scores,
        chosen=found.chosen,
        address=hashlib.sha256(matrix).hexdigest(),
    )
    return RecordedCircuit(circuit, matrix)


def edge_circuit(
    prepared: Prepared,
    *,
    method: str,
    prompt_set: str | None,
    parameters: Mapping[str, Any],
    selection: Mapping[str, Any],
    scores: EdgeScores,
    chosen: PrunedCircuit,
    address: str,
) -> Circuit:
    """Return selected edges as a circuit.

    Args:
        prepared: Model, task, ablation, key/value heads.
        method: The method that found it.
        prompt_set: Id of the prompts on which edges were scored, or None for several sets.
        parameters: Parameters of the method.
        selection: The rule by which edges were selected.
        scores: Scores of all edges.
        chosen: The kept edges.
        address: Address of the score matrix.
    """
    return Circuit(
        model=prepared.model.slug,
        task=prepared.source.slug,
        prompt_set=prompt_set,
        method=method,
        parameters=parameters,
        metric=METRIC,
        higher_is_better=LOGIT_DIFFERENCE.higher_is_better,
        ablation=Ablation(prepared.configuration.ablation),
        sign=Sign.HELPS_POSITIVE,
        level=Level.EDGE,
        kv_heads=prepared.configuration.kv_heads,
        selection=selection,
        universe_size=scores.space.n_edges,
        nodes=ranked_nodes(chosen),
        edges=ranked_edges(chosen),
        scores=address,
    )


def method_parameters(prepared: Prepared, reference: str) -> dict[str, Any]:
    """Return parameters that affect scores, in addition to the circuit's own fields.

    Args:
        prepared: Has the configuration.
        reference: Id of the prompts over which a mean was taken, if one was.
    """
    configuration = prepared.configuration
    origin = Origin(
        model=prepared.model.slug,
        method=configuration.method,
        steps=configuration.n_steps if configuration.is_integrated else None,
        ablation=configuration.ablation,
        kv_heads=configuration.kv_heads,
        metric=METRIC,
    )
    found = dict(origin.parameters)
    if configuration.ablation == "mean":
        found["reference"] = reference
    return found


def _selection(prepared: Prepared, chosen: PrunedCircuit) -> Mapping[str, Any]:
    """Return the rule of selection. A share is given as a number, because the result is equal."""
    wanted = prepared.configuration.faithfulness
    if wanted is None:
        return chosen.selection
    return {**chosen.selection, "faithfulness": wanted, "rule": "smallest found"}


def faithfulness(
    circuit: Circuit,
    measured: CircuitEvaluation,
    measure: str = FAITHFULNESS.name,
    parameters: Mapping[str, Any] | None = None,
    *,
    on: PromptSet | None = None,
) -> tuple[Evaluation, ...]:
    """Return a circuit's faithfulness; none if ablating everything changes nothing.

    Args:
        circuit: The circuit of the evaluation.
        measured: The measurement.
        measure: Name under which it is stored.
        parameters: Further parameters.
        on: The prompts; None for the circuit's own.
    """
    value = measured.faithfulness
    if value is None:
        return ()
    return (evaluation(circuit, measured, measure, value, parameters or {}, on=on),)


class Baselines(Protocol):
    """The values that normalise a measurement: the metric of each prompt, ``[prompt]``."""

    @property
    def full(self) -> Tensor:
        """With nothing ablated."""

    @property
    def empty(self) -> Tensor:
        """With everything ablated."""


def evaluation(
    circuit: Circuit,
    baselines: Baselines,
    measure: str,
    value: float,
    parameters: Mapping[str, Any],
    *,
    on: PromptSet | None = None,
) -> Evaluation:
    """Return the evaluation of a circuit, on its own task and prompts or on those of ``on``."""
    return Evaluation(
        circuit=circuit.id,
        task=circuit.task if on is None else on.task,
        prompt_set=circuit.prompt_set if on is None else on.id,
        measure=measure,
        value=value,
        full=float(baselines.full.mean()),
        empty=float(baselines.empty.mean()),
        ablation=circuit.ablation,
        n_prompts=len(baselines.full),
        parameters={"metric": METRIC, **parameters},
    )
