"""How much of a model's behaviour a circuit keeps when every other edge is ablated.

See :mod:`ingest.discovery.patched_run` for how. Exact, without gradients.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ingest.discovery.ablation import (
    Ablation,
    Replacement,
    Stream,
    record_stream,
)
from ingest.discovery.anatomy import Anatomy, frozen
from ingest.discovery.inputs import read_inputs
from ingest.discovery.metrics import Metric, Progress, per_prompt
from ingest.discovery.patched_run import run_patched
from ingest.discovery.prompts import PromptBatch
from ingest.discovery.structure import prove_structure
from ingest.discovery.texts import Prompts
from registry.errors import NonFiniteScores

__all__ = ["CircuitEvaluation", "as_text", "evaluate_circuit", "evaluate_circuits"]

_SMALLEST_GAP = 1e-6


def as_text(faithfulness: float | None) -> str:
    """A faithfulness as results show themselves."""
    return "unknown" if faithfulness is None else f"{faithfulness:.3g}"


@dataclass(frozen=True, eq=False, repr=False)
class CircuitEvaluation:
    """The metric of each prompt, ``[prompt]``, float64, under three amounts of ablation.

    Attributes:
        circuit: Every edge outside the circuit carries the ablated value.
        empty: Every edge does; with ``resample`` that is the corrupt run.
        full: None does: the clean run.
        ablation: What the ablated value is; None where that is not known.
    """

    circuit: Tensor
    empty: Tensor
    full: Tensor
    ablation: Ablation | None = None

    def __repr__(self) -> str:
        return (
            f"<CircuitEvaluation on {len(self.full)} prompts: "
            f"faithfulness {as_text(self.faithfulness)}>"
        )

    @property
    def faithfulness(self) -> float | None:
        """``(m(circuit) - m(empty)) / (m(full) - m(empty))`` of the mean metrics.

        1: the circuit does what the model does; 0: no more than the ablated run. Neither a bound.
        None where the full model does no better or worse than the ablated run, to rounding.
        """
        circuit, empty, full = (float(m.mean()) for m in (self.circuit, self.empty, self.full))
        if abs(full - empty) <= _SMALLEST_GAP * max(abs(full), abs(empty), 1.0):
            return None
        return (circuit - empty) / (full - empty)


def evaluate_circuit(
    model: Any,
    edges: Iterable[str],
    clean: Prompts,
    corrupt: Prompts | None,
    metric: Metric,
    *,
    ablation: Ablation = "resample",
    reference: Prompts | None = None,
    kv_heads: str = "grouped",
    batch_size: int | None = None,
    attention_mask: Tensor | None = None,
    reference_mask: Tensor | None = None,
    progress: Progress | None = None,
) -> CircuitEvaluation:
    """Measure a circuit with every edge outside it ablated.

    Args:
        model: A TransformerLens ``TransformerBridge``.
        edges: The circuit, as ids like ``input->a0.h0<q>``. May be empty.
        clean: Texts, or token ids ``[prompt, position]``.
        corrupt: Each pair's counterpart, of as many tokens. None where the ablation is not
            ``resample``.
        metric: One number per prompt from the logits at its last real position.
        ablation: ``resample``, ``mean`` or ``zero``, as in ``attribute_edges``.
        reference: Prompts whose mean is taken for ``mean``.
        kv_heads: ``grouped`` or ``per-query-head``, as the edges are named.
        batch_size: Prompts run at once; None: as memory allows.
        attention_mask: 1 at real tokens, 0 at padding on either side, ``[prompt, position]``.
        reference_mask: The same of ``reference``.
        progress: Called after each batch with prompts done and in all.

    Raises:
        UnsupportedModel: A part is missing, or the model is not built as is assumed
            (:mod:`ingest.discovery.structure`).
        BadInput: An edge is none of this model's, or prompts, ablation or batch size are malformed.
        NonFiniteScores: The metric of a prompt is not finite.
    """
    (found,) = evaluate_circuits(
        model, [edges], clean, corrupt, metric, ablation=ablation, reference=reference,
        kv_heads=kv_heads, batch_size=batch_size, attention_mask=attention_mask,
        reference_mask=reference_mask, progress=progress,
    )  # fmt: skip
    return found


def evaluate_circuits(
    model: Any,
    circuits: Sequence[Iterable[str]],
    clean: Prompts,
    corrupt: Prompts | None,
    metric: Metric,
    *,
    ablation: Ablation = "resample",
    reference: Prompts | None = None,
    kv_heads: str = "grouped",
    batch_size: int | None = None,
    attention_mask: Tensor | None = None,
    reference_mask: Tensor | None = None,
    progress: Progress | None = None,
) -> list[CircuitEvaluation]:
    """Measure several circuits on the same prompts; their clean and ablated runs are shared.

    ``progress`` counts prompts times circuits. Else as :func:`evaluate_circuit`.
    """
    inputs = read_inputs(
        model, clean, corrupt, ablation=ablation, reference=reference, kv_heads=kv_heads,
        batch_size=batch_size, attention_mask=attention_mask, reference_mask=reference_mask,
    )  # fmt: skip
    anatomy, prompts = inputs.anatomy, inputs.prompts
    matrices = [_as_matrix(anatomy, edges) for edges in circuits]
    metrics = torch.zeros(2 + len(matrices), len(prompts), dtype=torch.float64)
    with frozen(model), torch.no_grad():
        replacement = inputs.replacement(model)
        prove_structure(model, anatomy, inputs.first(), replacement)
        watched = _Watched(progress, len(matrices), len(prompts))

        def work(batch: PromptBatch) -> None:
            logits = _run_all(model, anatomy, matrices, batch, replacement, watched)
            # Logits of many circuits over a wide vocabulary would fill the memory.
            found = [per_prompt(metric, part, batch.index) for part in logits]
            metrics[:, batch.index] = torch.stack(found).to(metrics)

        inputs.each_batch(work, watched.settled)
    bad = (~torch.isfinite(metrics).all(0)).nonzero()
    if len(bad):
        raise NonFiniteScores(int(bad[0]))
    empty, full = metrics[:2]
    return [CircuitEvaluation(circuit, empty, full, ablation) for circuit in metrics[2:]]


class _Watched:
    """Progress in prompts times circuits, told after each circuit of each batch."""

    def __init__(self, progress: Progress | None, n_circuits: int, n_prompts: int) -> None:
        self._progress = progress
        self._n_circuits = n_circuits
        self._total = n_circuits * n_prompts
        self._done = 0

    def ran(self, n_circuits: int, batch: PromptBatch) -> None:
        """So many circuits have run on a batch that is not settled yet."""
        if self._progress is not None:
            self._progress(self._done + n_circuits * len(batch.index), self._total)

    def settled(self, done: int, total: int) -> None:  # noqa: ARG002
        """So many prompts are done with all circuits."""
        self._done = done * self._n_circuits
        if self._progress is not None and not self._n_circuits:
            self._progress(self._done, self._total)


def _as_matrix(anatomy: Anatomy, edges: Iterable[str]) -> Tensor:
    """1 where an edge is in the circuit, ``[sender, receiver]``, in the model's dtype."""
    space = anatomy.space
    matrix = torch.zeros(len(space.senders), len(space.receivers))
    for edge in edges:
        matrix[space.locate(edge)] = 1
    return matrix.to(anatomy.device, anatomy.dtype)


def _run_all(
    model: Any,
    anatomy: Anatomy,
    circuits: Sequence[Tensor],
    batch: PromptBatch,
    replacement: Replacement,
    watched: _Watched,
) -> Iterator[Tensor]:
    """Logits ``[batch, word]`` of the ablated run, the clean run and every circuit, one by one."""
    ablated, empty, full = _both_ends(model, anatomy, batch, replacement)
    if empty is None:
        empty = run_patched(model, anatomy, batch.clean, _as_matrix(anatomy, ()), ablated)
    yield empty
    yield full
    for n_run, circuit in enumerate(circuits, start=1):
        yield run_patched(model, anatomy, batch.clean, circuit, ablated)
        watched.ran(n_run, batch)


def _both_ends(
    model: Any, anatomy: Anatomy, batch: PromptBatch, replacement: Replacement
) -> tuple[Stream, Tensor | None, Tensor]:
    """The ablated run, its logits where it is a real one, and the clean run's logits."""
    if replacement.constant is None:
        ablated, empty = record_stream(model, anatomy, batch.counterpart())
        return ablated, empty, anatomy.run(model, batch.clean, [])
    clean, full = record_stream(model, anatomy, batch.clean)
    return *replacement.stream(model, anatomy, batch, clean), full
