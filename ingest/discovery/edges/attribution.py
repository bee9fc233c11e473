"""Edge attribution patching: how much every edge of a decoder matters to a metric.

Syed, Rager and Conmy 2023 (arXiv 2310.10348): ``score(edge) = sum_pos (clean - ablated)[sender] . d
metric / d input[receiver]``, mean over prompts; with integrated gradients (Hanna, Pezzelle and
Belinkov 2024, arXiv 2403.17806) the gradient is the mean over runs between the two ends. Usually a
model's residual stream is split into one copy per receiver to compute these gradients. Here plain
forward and backward passes are enough: see :mod:`ingest.discovery.edges.products`.

Positive means that the edge helps the metric. A first-order estimate misleads where the metric
saturates: corrupting one edge changes nothing if another edge compensates. ``exact`` patches every
edge in turn and does not have this fault, but it is slow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ingest.discovery.ablation.patches import score_by_patching
from ingest.discovery.ablation.replacement import (
    Replacement,
    Stream,
    Written,
    stream_hooks,
    stream_of,
    written_hooks,
    written_of,
)
from ingest.discovery.ablation.setting import Setting, in_a_setting
from ingest.discovery.edges.gradients import GradientRun, differentiate
from ingest.discovery.edges.origin import Origin, known_name
from ingest.discovery.edges.products import EdgeProducts
from ingest.discovery.edges.proof import check_runs, differing_prompt, require_known_arithmetic
from ingest.discovery.edges.scores import EdgeScores
from ingest.discovery.model.anatomy import Anatomy
from ingest.discovery.model.batches import PromptBatch
from ingest.discovery.model.metrics import Metric, per_prompt
from ingest.discovery.model.recording import Recording
from registry.errors import BadInput, NonFiniteScores
from registry.progress import OnProgress

__all__ = ["BatchObserver", "Method", "attribute_edges"]

BatchObserver = Callable[[Tensor, Tensor], None]
"""``on_batch(index[batch], scores[sender, receiver])``; the scores are float64, on the CPU."""

Method = Literal["eap", "eap-ig-inputs", "eap-ig-activations", "clean-corrupted", "exact"]


@in_a_setting
def attribute_edges(
    setting: Setting,
    *,
    method: Method = "eap",
    steps: int = 5,
    progress: OnProgress | None = None,
    on_batch: BatchObserver | None = None,
) -> EdgeScores:
    """Estimate for every edge how much ablating it would reduce the metric.

    Args:
        setting: From :func:`ingest.discovery.prepare_setting`.
        method: Where the gradient is computed. ``eap``: on the clean prompts. ``clean-corrupted``:
            mean of clean and corrupt prompts. ``eap-ig-inputs``: mean over embeddings ``k/steps``
            of the path from ablated to clean, k from 0 to steps - 1. ``eap-ig-activations``: mean
            over replacing the embedding, each block's heads, each MLP by ``k/steps`` clean and the
            rest ablated, k from 1 to steps. ``exact``: no gradient, every edge is patched in turn.
            With ``zero``, integrated gradients on inputs begin at an embedding of zero, where an
            RMSNorm is so steep that the first run outweighs all others; prefer another ablation.
        steps: Number of steps of integrated gradients.
        progress: Called after each batch with the number of finished prompts and the total.
        on_batch: Called after each batch with its prompts' indices and its scores, summed over
            them. With ``setting.with_batch_size(1)`` this gives every prompt's scores in one pass.

    Returns:
        Scores in units of the metric. Positive: the edge helps it. Finite; 0 for impossible edges.

    Raises:
        UnsupportedModel: Senders do not sum to the residual stream, the mapped gradients differ
            from the model's own, or finite differences disagree.
        BadInput: The method is unknown, the metric has no gradient, or memory is too small for one
            prompt.
        NonFiniteScores: A prompt's activations, gradients or metric are not finite.
        SettingNeeded: The first argument is not a setting.
    """
    _check_method(method, steps, setting.ablation)
    with setting.at_work() as ready:
        n_prompts, space = ready.n_prompts, ready.anatomy.space
        total = torch.zeros(len(space.senders), len(space.receivers), dtype=torch.float64)
        metrics = torch.full((2, n_prompts), torch.nan, dtype=torch.float64)
        job = _Job(ready.model, ready.anatomy, ready.metric, ready.replacement, method, steps)
        proven = ready.kept.proven
        if method == "exact":
            ready.prove_structure()

        def work(batch: PromptBatch) -> None:
            known = method == "exact" or "gradients" in proven
            found = job.score(batch) if known else job.prove_and_score(batch)
            if not known:
                proven.add("gradients")
            total.add_(found.scores)
            metrics[:, batch.index] = found.metrics
            if on_batch is not None:
                on_batch(batch.index, found.scores)

        # Many patches of one prompt fill a batch; one prompt per batch reports progress earlier.
        ready.inputs.each_batch(work, progress, start=1 if method == "exact" else None)
    corrupt_metric = metrics[1] if job.resampled else None
    origin = Origin(
        model=known_name(setting.model),
        method=method,
        steps=steps if method.startswith("eap-ig") else None,
        ablation=setting.ablation,
        kv_heads=setting.kv_heads,
        metric=getattr(setting.metric, "name", None),
    )
    return EdgeScores(total / n_prompts, space, metrics[0], corrupt_metric, origin)


@dataclass(frozen=True, eq=False)
class _BatchScores:
    """Scores summed over a batch ``[sender, receiver]``; its metrics ``[clean/corrupt, batch]``."""

    scores: Tensor
    metrics: Tensor


@dataclass(frozen=True, eq=False)
class _Run:
    """A run whose gradients count, and ``clean - ablated`` for every sender."""

    run: GradientRun
    changed: Written


@dataclass(frozen=True, eq=False)
class _Plain:
    """A run without gradients; on request, with the whole stream of some of its prompts."""

    written: Written
    metric: Tensor
    witness: Stream | None = None


@dataclass(frozen=True, eq=False)
class _Job:
    """Data that is the same for all batches."""

    model: Any
    anatomy: Anatomy
    metric: Metric
    replacement: Replacement
    method: Method
    steps: int

    @property
    def resampled(self) -> bool:
        """Whether senders write their outputs on the corrupt prompts, which are then run."""
        return self.replacement.constant is None

    def prove_and_score(self, batch: PromptBatch) -> _BatchScores:
        """Return scores of the first batch, after a proof of the model's assumed properties.

        Raises:
            UnsupportedModel: The model does not have them.
        """
        prompt = differing_prompt(batch, self.replacement) if self.method == "eap" else None
        if prompt is not None:
            return self.score(batch, proof=prompt)
        require_known_arithmetic(self.model, self.anatomy, batch, self.metric, self.replacement)
        return self.score(batch)

    def score(self, batch: PromptBatch, *, proof: int | None = None) -> _BatchScores:
        """Return scores of a batch, which names its first bad prompt if there is one.

        Args:
            batch: Pairs of prompts.
            proof: Index of a pair whose runs prove the model first; only for ``eap``.
        """
        if self.method == "exact":
            patched = score_by_patching(
                self.model, self.anatomy, batch, self.metric, self.replacement
            )
            found = _BatchScores(patched.scores, torch.stack([patched.full, patched.empty]))
            _require_finite(found, batch, None, resampled=self.resampled)
            return found
        products = EdgeProducts(self.anatomy)
        metrics = torch.full((2, len(batch.index)), torch.nan, dtype=torch.float64)
        n_runs = 0
        runs = _RUNS[self.method](self, batch, metrics)
        if proof is not None:
            runs = _on_clean_proving(self, batch, metrics, proof)
        for one in runs:
            with torch.no_grad():
                products.add(one.run, one.changed)
            n_runs += 1
            del one  # a run's tensors must be freed before the model runs again
        with torch.no_grad():
            products.finish()
        found = _BatchScores(products.scores / n_runs, metrics)
        _require_finite(found, batch, products.bad_prompts, resampled=self.resampled)
        return found

    def plain(self, batch: PromptBatch, tokens: Tensor, witness: slice | None = None) -> _Plain:
        """Run prompts without gradients; ``witness`` are rows whose whole stream is recorded."""
        record, few = Recording(), Recording(witness)
        hooks = written_hooks(self.anatomy, record)
        if witness is not None:
            hooks += stream_hooks(self.anatomy, few)
        with torch.no_grad():
            logits = self.anatomy.run(self.model, tokens, hooks)
            metric = per_prompt(self.metric, logits, batch.index)
        written = written_of(self.anatomy, record.values)
        if witness is None:
            return _Plain(written, metric)
        part = {name: value[witness] for name, value in record.values.items()}
        return _Plain(written, metric, stream_of(self.anatomy, {**part, **few.values}))

    def ablated(self, batch: PromptBatch, metrics: Tensor) -> Written:
        """Return senders' ablated outputs; note the corrupt prompts' metric if they are run."""
        if self.replacement.constant is not None:
            return self.replacement.constant
        corrupt = self.plain(batch, batch.counterpart())
        metrics[1] = corrupt.metric
        return corrupt.written

    def gradients(
        self,
        batch: PromptBatch,
        tokens: Tensor,
        instead: dict[str, Tensor] | None = None,
        *,
        senders: bool = False,
    ) -> GradientRun:
        """Run prompts forward and backward; ``senders`` keeps senders' outputs."""
        return differentiate(
            self.model, self.anatomy, tokens, self.metric, batch, instead=instead, senders=senders
        )


def _on_clean(job: _Job, batch: PromptBatch, metrics: Tensor) -> Iterator[_Run]:
    ablated = job.ablated(batch, metrics)
    run = job.gradients(batch, batch.clean, senders=True)
    metrics[0] = run.metric
    yield _Run(run, run.written.minus(ablated))


def _on_clean_proving(
    job: _Job, batch: PromptBatch, metrics: Tensor, prompt: int
) -> Iterator[_Run]:
    """Like :func:`_on_clean`, but one prompt's runs prove the model's computations first."""
    row = slice(prompt, prompt + 1)
    corrupt = job.plain(batch, batch.counterpart(), row)
    run = differentiate(job.model, job.anatomy, batch.clean, job.metric, batch, witness=row)
    metrics[0], metrics[1] = run.metric, corrupt.metric
    assert run.witness is not None
    assert corrupt.witness is not None
    with torch.no_grad():
        check_runs(
            job.model, job.anatomy, batch.part(row), job.metric, run.witness, corrupt.witness,
            job.replacement,
        )  # fmt: skip
    yield _Run(run, run.written.minus(corrupt.written))


def _on_both(job: _Job, batch: PromptBatch, metrics: Tensor) -> Iterator[_Run]:
    clean = job.plain(batch, batch.clean)
    corrupt = job.gradients(batch, batch.counterpart(), senders=True)
    metrics[0], metrics[1] = clean.metric, corrupt.metric
    changed = clean.written.minus(corrupt.written)
    yield _Run(corrupt, changed)
    yield _Run(job.gradients(batch, batch.clean), changed)


def _between_inputs(job: _Job, batch: PromptBatch, metrics: Tensor) -> Iterator[_Run]:
    """Yield embeddings ``ablated + k/steps (clean - ablated)``, k from 0, without the clean end."""
    clean = job.plain(batch, batch.clean)
    metrics[0] = clean.metric
    embedded, positions = clean.written.input, clean.written.positions
    if job.replacement.constant is None:  # the ablated end is the corrupt run itself
        corrupt = job.gradients(batch, batch.counterpart(), senders=True)
        metrics[1] = corrupt.metric
        changed = clean.written.minus(corrupt.written)
        del clean
        yield _Run(corrupt, changed)
        del corrupt
    else:
        changed = clean.written.minus(job.replacement.constant)
        del clean
    for k in range(0 if job.replacement.constant is not None else 1, job.steps):
        mixed = embedded - (1 - k / job.steps) * changed.input + positions
        yield _Run(job.gradients(batch, batch.clean, {"blocks.0.hook_in": mixed}), changed)


def _between_activations(job: _Job, batch: PromptBatch, metrics: Tensor) -> Iterator[_Run]:
    """Yield runs with each place in turn ``k/steps`` clean and the rest ablated, k from 1."""
    clean = job.plain(batch, batch.clean)
    metrics[0] = clean.metric
    written, changed = clean.written, clean.written.minus(job.ablated(batch, metrics))
    places = [("blocks.0.hook_in", written.input + written.positions, changed.input)]
    for block in job.anatomy.blocks:
        at, layer = block.at, block.layer
        places.append((at("attn.o.hook_in"), written.z[layer], changed.z[layer]))
        places.append((at(block.mlp_out), written.mlps[layer], changed.mlps[layer]))
    for name, at_clean, change in places:
        for k in range(1, job.steps + 1):
            mixed = at_clean - (1 - k / job.steps) * change
            yield _Run(job.gradients(batch, batch.clean, {name: mixed}), changed)


_RUNS: dict[str, Callable[[_Job, PromptBatch, Tensor], Iterator[_Run]]] = {
    "eap": _on_clean,
    "clean-corrupted": _on_both,
    "eap-ig-inputs": _between_inputs,
    "eap-ig-activations": _between_activations,
}


def _check_method(method: str, steps: int, ablation: str) -> None:
    if method not in get_args(Method):
        known = ", ".join(map(repr, get_args(Method)))
        raise BadInput(f"method must be one of {known}; got {method!r}")
    if not isinstance(steps, int) or steps < 1:
        raise BadInput(f"steps must be a whole number of at least 1; got {steps}")
    if method == "clean-corrupted" and ablation != "resample":
        raise BadInput(
            f"method='clean-corrupted' takes gradients on the corrupt prompts, which "
            f"ablation={ablation!r} does not run; use ablation='resample' or another method"
        )


def _require_finite(
    found: _BatchScores, batch: PromptBatch, bad: Tensor | None, *, resampled: bool
) -> None:
    """Name the first prompt whose numbers are not finite."""
    infinite = ~torch.isfinite(found.metrics[: 2 if resampled else 1]).all(0)
    if bool(torch.isfinite(found.scores).all()) and not bool(infinite.any()):
        return
    if bad is not None and not bool(infinite.any()):
        infinite = bad  # a prompt with a bad metric is a clearer error than one with a bad gradient
    suspects = batch.index[infinite] if bool(infinite.any()) else batch.index
    raise NonFiniteScores(int(suspects[0]))
