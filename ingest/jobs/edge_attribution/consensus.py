"""The consensus of several circuits of one task: each edge's frequency, and frequent edges.

Circuits that are found on different prompts of the same task differ. Their consensus is recorded
with them: the edges that are in at least a given share of them, with mean scores as effects, after
removing edges that are then on no path. It was not found on any prompts itself, so its method has
another name. Its score file has two matrices: ``scores``, their mean, and ``frequency``, the share
of the circuits that contain each edge of the model.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest.jobs.edge_attribution.records import METRIC, RecordedCircuit, edge_circuit
from ingest.jobs.edge_attribution.search import Found, Prepared, choose_edges, score
from ingest.jobs.progress import Progress
from registry.errors import BadInput
from registry.measures import EDGE_OVERLAP
from registry.records import Circuit, Evaluation

if TYPE_CHECKING:
    from torch import Tensor

    from ingest.discovery import EdgeScores, PrunedCircuit
    from registry.registry import Registry

__all__ = [
    "CONSENSUS",
    "Agreement",
    "agree",
    "consensus_circuit",
    "edge_frequencies",
    "resampled",
    "stability",
]

CONSENSUS = "edge-attribution-consensus"
_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class Agreement:
    """Several circuits over the edges of one model.

    Attributes:
        n_circuits: Number of circuits.
        frequency: Share of the circuits that contain an edge, ``[sender, receiver]``, 0 to 1.
        scores: The mean of their scores.
        mean_overlap: Mean over pairs of circuits of the intersection of their edges over the union.
        chosen: The frequent edges without dangling ones, with their mean scores. May be empty.
    """

    n_circuits: int
    frequency: Tensor
    scores: EdgeScores
    mean_overlap: float
    chosen: PrunedCircuit


def agree(several: Sequence[tuple[EdgeScores, PrunedCircuit]], share: float) -> Agreement:
    """Count the circuits that contain each edge, and keep edges in at least ``share`` of them.

    Args:
        several: Circuits, each with the scores by which it was selected.
        share: 0 to 1.
    """
    import torch

    scores, chosen = zip(*several, strict=True)
    sets = [frozenset(edge.id for edge in circuit.edges) for circuit in chosen]
    space = scores[0].space
    counts = torch.zeros_like(scores[0].matrix)
    for edge, count in Counter(itertools.chain.from_iterable(sets)).items():
        counts[space.locate(edge)] = count
    frequency = counts / len(sets)
    mean = _mean(scores)
    return Agreement(
        n_circuits=len(sets),
        frequency=frequency,
        scores=mean,
        mean_overlap=_mean_overlap(sets),
        chosen=_frequent(frequency, mean, share, chosen[0]),
    )


def consensus_circuit(
    prepared: Prepared,
    agreement: Agreement,
    *,
    prompt_set: str | None,
    parameters: Mapping[str, Any],
) -> RecordedCircuit:
    """Return the record of a consensus.

    Args:
        prepared: Model, task, ablation, key/value heads.
        agreement: The agreement; it has at least one chosen edge.
        prompt_set: Id of the prompts that were resampled; None if new prompts were drawn.
        parameters: Parameters of the method, and the circuits.
    """
    matrix = agreement.scores.to_safetensors(METRIC, frequency=agreement.frequency)
    space, chosen = agreement.scores.space, agreement.chosen
    counts = Counter(
        round(float(agreement.frequency[space.locate(edge.id)]) * agreement.n_circuits)
        for edge in chosen.edges
    )
    circuit = edge_circuit(
        prepared,
        method=CONSENSUS,
        prompt_set=prompt_set,
        parameters={
            **parameters,
            "circuits": agreement.n_circuits,
            "edges_by_frequency": {
                f"{n}/{agreement.n_circuits}": counts[n] for n in sorted(counts, reverse=True)
            },
        },
        selection={
            "frequency": prepared.configuration.consensus_share,
            "dangling_removed": chosen.n_pruned,
        },
        scores=agreement.scores,
        chosen=chosen,
        address=hashlib.sha256(matrix).hexdigest(),
    )
    return RecordedCircuit(circuit, matrix)


def edge_frequencies(registry: Registry, circuit: Circuit) -> dict[str, float]:
    """Return the share of a consensus' circuits that contain each edge, 0 to 1, by edge id.

    Edges in no circuit are omitted.

    Raises:
        BadInput: The circuit is not a consensus.
    """
    from safetensors import safe_open

    if circuit.method != CONSENSUS or circuit.scores is None:
        raise BadInput(
            f"circuit {circuit.id[:12]} is no consensus, whose edges have frequencies; "
            f"'circuits list --method {CONSENSUS}' shows all of them"
        )
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(registry.artifact(circuit.scores))
        with safe_open(file.name, framework="pt") as kept:
            about = json.loads(kept.metadata()["circuits"])
            frequency = kept.get_tensor("frequency")
    return {
        f"{about['senders'][row]}->{about['receivers'][column]}": float(frequency[row, column])
        for row, column in frequency.nonzero().tolist()
    }


def stability(circuit: Circuit, agreement: Agreement) -> Evaluation:
    """Return the overlap of the circuits of a consensus."""
    return Evaluation(
        circuit=circuit.id,
        task=circuit.task,
        prompt_set=circuit.prompt_set,
        measure=EDGE_OVERLAP.name,
        value=agreement.mean_overlap,
        parameters={
            "statistic": "intersection over union of edges, mean over pairs of circuits",
            "circuits": agreement.n_circuits,
        },
    )


def resampled(
    prepared: Prepared, found: Found, progress: Progress
) -> list[tuple[EdgeScores, PrunedCircuit]]:
    """Select edges on resamples of the prompts, drawn with replacement.

    A score is a mean over prompts, so each prompt is scored once and resamples only change its
    weight. The number of edges is that of the circuit found on all prompts; a threshold stays the
    same.
    """
    from ingest.discovery import EdgeScores

    n_prompts = len(found.kept.pairs)
    alone = _scores_of_each_prompt(prepared, found, progress)
    size = found.chosen.n_selected if prepared.configuration.threshold is None else None
    several = []
    for weights in _draw_weights(prepared, n_prompts):
        matrix = sum(
            (w * each for w, each in zip(weights, alone, strict=True) if w),
            start=found.scores.matrix.new_zeros(found.scores.matrix.shape),
        )
        metric = found.scores.clean_metric
        scores = EdgeScores(matrix / n_prompts, found.scores.space, metric, None)
        several.append((scores, _chosen_or_none(prepared, scores, size)))
    return several


def _scores_of_each_prompt(prepared: Prepared, found: Found, progress: Progress) -> list[Tensor]:
    """Return each prompt's scores, ``[sender, receiver]``, float64; in one pass, one by one."""
    each: dict[int, Tensor] = {}

    def keep(index: Tensor, scores: Tensor) -> None:
        each[int(index)] = scores.clone()

    stage = f"scoring each prompt of {prepared.source.slug}, to be resampled"
    score(prepared, found.setting.with_batch_size(1), progress.stage(stage), on_batch=keep)
    return [each[at] for at in range(len(each))]


def _draw_weights(prepared: Prepared, n_prompts: int) -> Iterator[list[int]]:
    """Yield how often each prompt is in each resample."""
    # A text seeds the generator in the same way in every process and version of Python.
    choose = random.Random(f"bootstrap:{prepared.configuration.seed}")
    for _ in range(prepared.configuration.bootstrap or 0):
        drawn = Counter(int(choose.random() * n_prompts) for _ in range(n_prompts))
        yield [drawn[at] for at in range(n_prompts)]


def _chosen_or_none(prepared: Prepared, scores: EdgeScores, size: int | None) -> PrunedCircuit:
    """Return a resample's circuit; without edges if none reaches the threshold."""
    from ingest.discovery import PrunedCircuit

    try:
        return choose_edges(prepared, scores, size)
    except BadInput:
        return PrunedCircuit((), (), prepared.configuration.select, 0, 0)


def _mean(scores: Sequence[EdgeScores]) -> EdgeScores:
    import torch

    from ingest.discovery import EdgeScores

    total = torch.zeros_like(scores[0].matrix)
    for each in scores:  # not stacked: many may need too much memory
        total += each.matrix
    metric = torch.cat([each.clean_metric for each in scores])
    return EdgeScores(total / len(scores), scores[0].space, metric, None)


def _frequent(
    frequency: Tensor, mean: EdgeScores, share: float, like: PrunedCircuit
) -> PrunedCircuit:
    """Return edges of at least this frequency, with mean scores, pruned like other circuits."""
    from ingest.discovery import EdgeScores, PrunedCircuit

    counted = EdgeScores(frequency, mean.space, mean.clean_metric, None)
    if float(frequency.max()) < share - _ROUNDING:
        return PrunedCircuit((), (), like.by, 0, 0)
    frequent = counted.threshold(share - _ROUNDING)
    effects = mean.node_effects()
    return PrunedCircuit(
        edges=tuple(
            replace(edge, score=float(mean.matrix[mean.space.locate(edge.id)]))
            for edge in frequent.edges
        ),
        nodes=tuple(replace(node, effect=effects[node.id]) for node in frequent.nodes),
        by=like.by,
        n_selected=frequent.n_selected,
        n_pruned=frequent.n_pruned,
    )


def _mean_overlap(sets: Sequence[frozenset[str]]) -> float:
    pairs = list(itertools.combinations(sets, 2))
    # Two circuits without edges are equal.
    shares = [len(a & b) / len(a | b) if a | b else 1.0 for a, b in pairs]
    return sum(shares) / len(shares)
