"""What edge attribution finds, as records: a circuit, its faithfulness and the score matrix."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from registry.records import Ablation, Circuit, Edge, Evaluation, Level, Node, Sign

if TYPE_CHECKING:
    from ingest.discovery import CircuitEvaluation, EdgeScores, PrunedCircuit

__all__ = ["METRIC", "edge_circuit", "faithfulness", "scores_file"]

METRIC = "logit_difference"
_SCORES_FORMAT = "circuits-edge-scores/1"


def edge_circuit(
    *,
    model: str,
    task: str,
    prompt_set: str,
    version: str,
    scores: EdgeScores,
    chosen: PrunedCircuit,
    address: str,
) -> Circuit:
    """The chosen edges as a circuit.

    Args:
        model: Slug.
        task: Slug.
        prompt_set: Id of the prompts the edges were scored on.
        version: Of the job's arithmetic; part of what the circuit's id is made of.
        scores: Of every edge.
        chosen: The edges kept, best first.
        address: Where the score matrix lies.
    """
    selection = {"top": chosen.n_selected, "by": chosen.by, "dangling_removed": chosen.n_pruned}
    return Circuit(
        model=model,
        task=task,
        prompt_set=prompt_set,
        method="edge-attribution",
        parameters={"gradient": "clean", "positions": "summed", "version": version},
        metric=METRIC,
        higher_is_better=True,
        ablation=Ablation.RESAMPLE,
        sign=Sign.HELPS_POSITIVE,
        level=Level.EDGE,
        kv_heads="grouped",
        selection=selection,
        universe_size=scores.space.n_edges,
        nodes=_nodes(chosen),
        edges=tuple(
            Edge(
                source=edge.source, target=edge.target, port=edge.port, effect=edge.score, rank=rank
            )
            for rank, edge in enumerate(chosen.edges, 1)
        ),
        scores=address,
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


def faithfulness(circuit: Circuit, measured: CircuitEvaluation) -> tuple[Evaluation, ...]:
    """The circuit's faithfulness; none where corrupting everything changes nothing."""
    value = measured.faithfulness
    if value is None:
        return ()
    return (
        Evaluation(
            circuit=circuit.id,
            task=circuit.task,
            prompt_set=circuit.prompt_set,
            measure="faithfulness",
            value=value,
            full=float(measured.full.mean()),
            empty=float(measured.empty.mean()),
            ablation=Ablation.RESAMPLE,
            n_prompts=len(measured.full),
            parameters={"metric": METRIC},
        ),
    )


def scores_file(scores: EdgeScores) -> bytes:
    """The whole matrix as safetensors, with the names of its rows and columns."""
    import torch
    from safetensors.torch import save

    about = {
        "format": _SCORES_FORMAT,
        "axes": ["sender", "receiver"],
        "senders": scores.senders,
        "receivers": scores.receivers,
        "unit": METRIC,
        "sign": Sign.HELPS_POSITIVE.value,
    }
    # One key alone: safetensors writes several in an order that changes from run to run.
    metadata = {"circuits": json.dumps(about, sort_keys=True, separators=(",", ":"))}
    data: bytes = save({"scores": scores.matrix.to(torch.float32).contiguous()}, metadata)
    return data
