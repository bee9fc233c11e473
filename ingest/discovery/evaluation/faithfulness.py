"""How much of a model's behaviour a circuit keeps when every other edge is ablated.

:mod:`ingest.discovery.ablation.patched_run` describes the method. It is exact, without gradients.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ingest.discovery.ablation.patched_run import run_patched
from ingest.discovery.ablation.replacement import Ablation, Stream
from ingest.discovery.ablation.setting import Ready, Setting, in_a_setting, require_finite
from ingest.discovery.model.batches import PromptBatch
from ingest.discovery.model.metrics import per_prompt
from registry.progress import OnProgress

__all__ = ["CircuitEvaluation", "as_text", "evaluate_circuit", "evaluate_circuits"]

_SMALLEST_GAP = 1e-6


def as_text(faithfulness: float | None) -> str:
    """Return a faithfulness as text for representations of results."""
    return "unknown" if faithfulness is None else f"{faithfulness:.3g}"


@dataclass(frozen=True, eq=False, repr=False)
class CircuitEvaluation:
    """The metric of each prompt, ``[prompt]``, float64, under three amounts of ablation.

    Attributes:
        circuit: Every edge outside the circuit carries the ablated value.
        empty: Every edge carries it; with ``resample`` this is the corrupt run.
        full: No edge carries it: the clean run.
        ablation: The kind of ablated value; None if it is unknown.
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

        1: the circuit does what the model does; 0: no more than the ablated run. Values outside
        this range are possible. None if the full model's metric equals the ablated run's, up to
        rounding.
        """
        circuit, empty, full = (float(m.mean()) for m in (self.circuit, self.empty, self.full))
        if abs(full - empty) <= _SMALLEST_GAP * max(abs(full), abs(empty), 1.0):
            return None
        return (circuit - empty) / (full - empty)


@in_a_setting
def evaluate_circuit(
    setting: Setting, edges: Iterable[str], *, progress: OnProgress | None = None
) -> CircuitEvaluation:
    """Measure a circuit with every edge outside it ablated.

    Args:
        setting: From :func:`ingest.discovery.prepare_setting`; names edges by its ``kv_heads``.
        edges: The circuit, as ids like ``input->a0.h0<q>``. May be empty.
        progress: Called after each batch with the number of finished prompts and the total.

    Raises:
        UnsupportedModel: The model does not have the assumed structure
            (:mod:`ingest.discovery.ablation.structure`).
        BadInput: The model does not have an edge, or memory is too small for one prompt.
        NonFiniteScores: The metric of a prompt is not finite.
        SettingNeeded: The first argument is not a setting.
    """
    (found,) = evaluate_circuits(setting, [edges], progress=progress)
    return found


@in_a_setting
def evaluate_circuits(
    setting: Setting, circuits: Sequence[Iterable[str]], *, progress: OnProgress | None = None
) -> list[CircuitEvaluation]:
    """Measure several circuits on the same prompts; their clean and ablated runs are shared.

    ``progress`` counts prompts times circuits. Otherwise like :func:`evaluate_circuit`.
    """
    with setting.at_work() as ready:
        anatomy, n_prompts = ready.anatomy, ready.n_prompts
        matrices = [anatomy.as_matrix(edges) for edges in circuits]
        ends = torch.zeros(2, n_prompts, dtype=torch.float64)
        metrics = torch.zeros(len(matrices), n_prompts, dtype=torch.float64)
        ready.prove_structure()
        watched = _Watched(progress, len(matrices), n_prompts)

        def work(batch: PromptBatch) -> None:
            ablated, both = ready.ablated(batch)
            # Logits of many circuits over a large vocabulary would fill the memory.
            found = [
                per_prompt(ready.metric, logits, batch.index)
                for logits in _run_all(ready, matrices, batch, ablated, watched)
            ]
            if both is not None:
                ends[:, batch.index] = both
            if found:
                metrics[:, batch.index] = torch.stack(found).to(metrics)

        ready.inputs.each_batch(work, watched.settled)
        known = ready.kept.ends
        if known is not None:
            ends = torch.stack([known.empty, known.full])
        require_finite(torch.cat([ends, metrics]))
        kept = known or ready.note(ends)
    return [
        CircuitEvaluation(circuit, kept.empty, kept.full, setting.ablation) for circuit in metrics
    ]


class _Watched:
    """Progress in prompts times circuits, reported after each circuit of each batch."""

    def __init__(self, progress: OnProgress | None, n_circuits: int, n_prompts: int) -> None:
        self._progress = progress
        self._n_circuits = n_circuits
        self._total = n_circuits * n_prompts
        self._done = 0

    def ran(self, n_circuits: int, batch: PromptBatch) -> None:
        """Note that this many circuits have run on a batch that is not finished yet."""
        if self._progress is not None:
            self._progress(self._done + n_circuits * len(batch.index), self._total)

    def settled(self, done: int, total: int) -> None:  # noqa: ARG002
        """Note that this many prompts are finished with all circuits."""
        self._done = done * self._n_circuits
        if self._progress is not None and not self._n_circuits:
            self._progress(self._done, self._total)


def _run_all(
    ready: Ready,
    circuits: Sequence[Tensor],
    batch: PromptBatch,
    ablated: Stream,
    watched: _Watched,
) -> Iterator[Tensor]:
    """Yield logits ``[batch, word]`` of every circuit, one by one."""
    for n_run, circuit in enumerate(circuits, start=1):
        yield run_patched(ready.model, ready.anatomy, batch.clean, circuit, ablated)
        watched.ran(n_run, batch)
