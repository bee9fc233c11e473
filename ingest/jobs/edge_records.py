"""What edge attribution finds, as records: a circuit, its faithfulness and the score matrix."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ingest.jobs.edge_search import Found, Prepared
from ingest.score_files import score_metadata
from registry.records import Ablation, Circuit, Edge, Evaluation, Level, Node, PromptSet, Sign

if TYPE_CHECKING:
    from torch import Tensor

    from ingest.discovery import CircuitEvaluation, EdgeScores, PrunedCircuit

__all__ = [
    "METRIC",
    "VERSION",
    "Baselines",
    "RecordedCircuit",
    "edge_circuit",
    "evaluation",
    "faithfulness",
    "found_circuit",
    "method_parameters",
    "scores_file",
]

METRIC = "logit_difference"
VERSION = "2"
"""Of the job's arithmetic; part of what a circuit's id is made of."""

_GRADIENT = {
    "eap": "clean",
    "eap-ig-inputs": "between inputs",
    "eap-ig-activations": "between activations",
    "clean-corrupted": "clean and corrupt",
    "exact": "none",
}


@dataclass(frozen=True, eq=False)
class RecordedCircuit:
    """A circuit and the file of its scores."""

    circuit: Circuit
    scores: bytes


def found_circuit(prepared: Prepared, found: Found) -> RecordedCircuit:
    """The record of a circuit found on one set of prompts."""
    matrix = scores_file(found.scores)
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
    """Chosen edges as a circuit.

    Args:
        prepared: Model, task, ablation, key/value heads.
        method: What found it.
        prompt_set: Id of the prompts the edges were scored on, or None for several sets.
        parameters: Of the method.
        selection: How edges were chosen.
        scores: Of every edge.
        chosen: The edges kept.
        address: Where the score matrix lies.
    """
    return Circuit(
        model=prepared.model.slug,
        task=prepared.source.slug,
        prompt_set=prompt_set,
        method=method,
        parameters=parameters,
        metric=METRIC,
        higher_is_better=True,
        ablation=Ablation(prepared.configuration.ablation),
        sign=Sign.HELPS_POSITIVE,
        level=Level.EDGE,
        kv_heads=prepared.configuration.kv_heads,
        selection=selection,
        universe_size=scores.space.n_edges,
        nodes=_nodes(chosen),
        edges=_edges(chosen),
        scores=address,
    )


def method_parameters(prepared: Prepared, reference: str) -> dict[str, Any]:
    """What scores depend on, besides what the circuit says itself.

    Args:
        prepared: Says what was asked for.
        reference: Id of the prompts whose mean was taken, if one was.
    """
    configuration = prepared.configuration
    found: dict[str, Any] = {
        "method": configuration.method,
        "gradient": _GRADIENT[configuration.method],
        "positions": "summed",
        "version": VERSION,
    }
    if configuration.is_integrated:
        found["steps"] = configuration.n_steps
    if configuration.ablation == "mean":
        found["reference"] = reference
    return found


def _selection(prepared: Prepared, chosen: PrunedCircuit) -> dict[str, Any]:
    """How edges were chosen. A share is the number it came to: what is found is the same."""
    configuration = prepared.configuration
    found: dict[str, Any] = {"by": chosen.by, "dangling_removed": chosen.n_pruned}
    if configuration.threshold is not None:
        return {"threshold": configuration.threshold, "selected": chosen.n_selected, **found}
    if configuration.faithfulness is not None:
        found |= {"faithfulness": configuration.faithfulness, "rule": "smallest found"}
    return {configuration.choose: chosen.n_selected, **found}


def _edges(chosen: PrunedCircuit) -> tuple[Edge, ...]:
    """Edges ranked by the size or the value that chose them, whatever order they came in."""
    signed = chosen.by == "signed"
    ranked = sorted(chosen.edges, key=lambda e: -(e.score if signed else abs(e.score)))
    return tuple(
        Edge(source=edge.source, target=edge.target, port=edge.port, effect=edge.score, rank=rank)
        for rank, edge in enumerate(ranked, 1)
    )


def _nodes(chosen: PrunedCircuit) -> tuple[Node, ...]:
    """Nodes with their own effect; ranks go by its size, and to those that have one."""
    with_effect = [node for node in chosen.nodes if node.effect is not None]
    by_size = sorted(with_effect, key=lambda node: -abs(node.effect or 0.0))
    ranks = {node.id: rank for rank, node in enumerate(by_size, 1)}
    return tuple(
        Node(component=node.id, effect=node.effect, rank=ranks.get(node.id))
        for node in chosen.nodes
    )


def faithfulness(
    circuit: Circuit,
    measured: CircuitEvaluation,
    measure: str = "faithfulness",
    parameters: Mapping[str, Any] | None = None,
    *,
    on: PromptSet | None = None,
) -> tuple[Evaluation, ...]:
    """A circuit's faithfulness; none where ablating everything changes nothing.

    Args:
        circuit: Whose evaluation it is.
        measured: What was measured.
        measure: Name it is stored under.
        parameters: What else is to be known of it.
        on: The prompts; None for the circuit's own.
    """
    value = measured.faithfulness
    if value is None:
        return ()
    return (evaluation(circuit, measured, measure, value, parameters or {}, on=on),)


class Baselines(Protocol):
    """What a measurement is normalised by: the metric of each prompt, ``[prompt]``."""

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
    """What was measured of a circuit, on its own task and prompts or on those of ``on``."""
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


def scores_file(scores: EdgeScores, **others: Tensor) -> bytes:
    """The whole matrix as safetensors, with the names of its rows and columns.

    Args:
        scores: The matrix, kept as ``scores``.
        others: Further matrices over the same senders and receivers, by name.
    """
    import torch
    from safetensors.torch import save

    metadata = score_metadata(scores.senders, scores.receivers, METRIC, Sign.HELPS_POSITIVE)
    named: Iterable[tuple[str, Tensor]] = [("scores", scores.matrix), *others.items()]
    tensors = {name: matrix.to(torch.float32).contiguous() for name, matrix in named}
    data: bytes = save(tensors, metadata)
    return data
