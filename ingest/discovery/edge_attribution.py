"""Edge attribution patching: how much every edge of a decoder matters to a metric.

Syed, Rager and Conmy 2023 (arXiv 2310.10348): ``score(edge) = sum_pos (clean - ablated)[sender] .
d metric / d input[receiver]``, mean over prompts; with integrated gradients (Hanna, Pezzelle and
Belinkov 2024, arXiv 2403.17806) the gradient is the mean over runs between the two ends. Usually a
model's residual stream is split into one copy per receiver to take these gradients. Here plain
forwards and backwards are enough: see :mod:`ingest.discovery.products`.

Positive means that the edge helps the metric. A first-order estimate misleads where the metric
saturates: where corrupting one edge changes nothing because another one takes over. ``exact``
patches every edge in turn and has no such fault, only its price.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ingest.discovery.ablation import (
    Ablation,
    Replacement,
    Stream,
    Written,
    stream_hooks,
    stream_of,
    written_hooks,
    written_of,
)
from ingest.discovery.anatomy import Anatomy, frozen
from ingest.discovery.exact import score_by_patching
from ingest.discovery.gradients import GradientRun, differentiate
from ingest.discovery.guard import check_runs, differing_prompt, require_known_arithmetic
from ingest.discovery.inputs import read_inputs
from ingest.discovery.metrics import Metric, Progress, per_prompt
from ingest.discovery.origin import Origin, known_name
from ingest.discovery.products import EdgeProducts
from ingest.discovery.prompts import PromptBatch
from ingest.discovery.recording import Recording
from ingest.discovery.scores import EdgeScores
from ingest.discovery.texts import Prompts
from registry.errors import BadInput, NonFiniteScores

__all__ = ["BatchObserver", "Method", "attribute_edges"]

BatchObserver = Callable[[Tensor, Tensor], None]
"""``on_batch(index[batch], scores[sender, receiver])``; the scores are float64, on the CPU."""

Method = Literal["eap", "eap-ig-inputs", "eap-ig-activations", "clean-corrupted", "exact"]


def attribute_edges(
    model: Any,
    clean: Prompts,
    corrupt: Prompts | None,
    metric: Metric,
    *,
    method: Method = "eap",
    steps: int = 5,
    ablation: Ablation = "resample",
    reference: Prompts | None = None,
    kv_heads: str = "grouped",
    batch_size: int | None = None,
    attention_mask: Tensor | None = None,
    reference_mask: Tensor | None = None,
    progress: Progress | None = None,
    on_batch: BatchObserver | None = None,
) -> EdgeScores:
    """Estimate for every edge what ablating it would take from the metric.

    Args:
        model: A TransformerLens ``TransformerBridge``. Its weights are frozen meanwhile.
        clean: Texts, or token ids ``[prompt, position]``.
        corrupt: Each pair's counterpart, of as many tokens. None where the ablation is not
            ``resample``.
        metric: One number per prompt from the logits at its last real position; ``index`` says
            which prompts these are.
        method: Where the gradient is taken. ``eap``: on the clean prompts. ``clean-corrupted``:
            mean of clean and corrupt prompts. ``eap-ig-inputs``: mean over embeddings ``k/steps``
            of the way from ablated to clean, k from 0 to steps - 1. ``eap-ig-activations``: mean
            over replacing the embedding, each block's heads, each MLP by ``k/steps`` clean and the
            rest ablated, k from 1 to steps. ``exact``: no gradient, every edge is patched in turn.
            With ``zero``, integrated gradients on inputs begin at an embedding of nothing, where an
            RMSNorm is so steep that the first run outweighs all others; prefer another ablation.
        steps: Of integrated gradients.
        ablation: What senders write instead: ``resample``: what they write on the corrupt prompt;
            ``mean``: their mean over all real tokens of ``reference``; ``zero``: nothing.
        reference: Token ids ``[prompt, position]`` of any number and length, for ``mean``.
        kv_heads: ``grouped``: the model's own key/value heads. ``per-query-head``: a copy for every
            query head that reads them, as EAP-IG and MIB count.
        batch_size: Prompts run at once; None: as memory allows, beginning with as many as keep all
            senders' outputs in 256 MiB. Scores do not depend on it.
        attention_mask: 1 at real tokens, 0 at padding on either side, ``[prompt, position]``.
        reference_mask: The same of ``reference``.
        progress: Called after each batch with prompts done and in all.
        on_batch: Called after each batch with its prompts' indices and its scores, summed over
            them. With ``batch_size=1`` that gives every prompt's own scores in one pass.

    Returns:
        Scores in units of the metric. Positive: the edge helps it. Finite; 0 where no edge can be.

    Raises:
        UnsupportedModel: A part is missing, senders do not add up to the residual stream, the
            mapped gradients are not the model's own, or finite differences disagree.
        BadInput: Prompts, method, ablation or batch size are malformed, prompts are padded and
            there is no mask, the metric has no gradient, or memory does not hold one prompt.
        NonFiniteScores: A prompt's activations, gradients or metric are not finite.
    """
    _check_method(method, steps, ablation)
    inputs = read_inputs(
        model, clean, corrupt, ablation=ablation, reference=reference, kv_heads=kv_heads,
        batch_size=batch_size, attention_mask=attention_mask, reference_mask=reference_mask,
    )  # fmt: skip
    anatomy, n_prompts = inputs.anatomy, len(inputs.prompts)
    space = anatomy.space
    total = torch.zeros(len(space.senders), len(space.receivers), dtype=torch.float64)
    metrics = torch.full((2, n_prompts), torch.nan, dtype=torch.float64)
    with frozen(model):
        replacement = inputs.replacement(model)
        job = _Job(model, anatomy, metric, replacement, method, steps)
        proven = False

        def work(batch: PromptBatch) -> None:
            nonlocal proven
            found = job.score(batch) if proven else job.prove_and_score(batch)
            proven = True
            total.add_(found.scores)
            metrics[:, batch.index] = found.metrics
            if on_batch is not None:
                on_batch(batch.index, found.scores)

        # Many patches of one prompt fill a batch, and one by one their progress is told sooner.
        inputs.each_batch(work, progress, start=1 if method == "exact" else None)
    corrupt_metric = metrics[1] if job.resampled else None
    origin = Origin(
        model=known_name(model),
        method=method,
        steps=steps if method.startswith("eap-ig") else None,
        ablation=ablation,
        kv_heads=kv_heads,
        metric=getattr(metric, "name", None),
    )
    return EdgeScores(total / n_prompts, space, metrics[0], corrupt_metric, origin)


@dataclass(frozen=True, eq=False)
class _BatchScores:
    """Scores summed over a batch ``[sender, receiver]``; its metrics ``[clean/corrupt, batch]``."""

    scores: Tensor
    metrics: Tensor


@dataclass(frozen=True, eq=False)
class _Run:
    """A run whose gradients count, and ``clean - ablated`` of every sender."""

    run: GradientRun
    changed: Written


@dataclass(frozen=True, eq=False)
class _Plain:
    """A run without gradients; of some of its prompts the whole stream, where asked for."""

    written: Written
    metric: Tensor
    witness: Stream | None = None


@dataclass(frozen=True, eq=False)
class _Job:
    """What stays the same for all batches."""

    model: Any
    anatomy: Anatomy
    metric: Metric
    replacement: Replacement
    method: Method
    steps: int

    @property
    def resampled(self) -> bool:
        """Whether senders write what they write on the corrupt prompts, which are run then."""
        return self.replacement.constant is None

    def prove_and_score(self, batch: PromptBatch) -> _BatchScores:
        """Scores of the first batch, once the model has been found to do what they rest on.

        Raises:
            UnsupportedModel: It does something else.
        """
        prompt = differing_prompt(batch, self.replacement) if self.method == "eap" else None
        if prompt is not None:
            return self.score(batch, proof=prompt)
        require_known_arithmetic(
            self.model, self.anatomy, batch, self.metric, self.replacement,
            gradients=self.method != "exact",
        )  # fmt: skip
        return self.score(batch)

    def score(self, batch: PromptBatch, *, proof: int | None = None) -> _BatchScores:
        """Scores of a batch, which names its first bad prompt if there is one.

        Args:
            batch: Pairs of prompts.
            proof: Place of a pair whose runs are to prove the model first; of ``eap`` alone.
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
            del one  # a run's tensors are not to be there while the model runs again
        with torch.no_grad():
            products.finish()
        found = _BatchScores(products.scores / n_runs, metrics)
        _require_finite(found, batch, products.bad_prompts, resampled=self.resampled)
        return found

    def plain(self, batch: PromptBatch, tokens: Tensor, witness: slice | None = None) -> _Plain:
        """Run prompts without gradients; ``witness`` are rows whose whole stream is wanted."""
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
        """What senders write when ablated; notes the corrupt prompts' metric where they are run."""
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
        """Run prompts forward and backward; ``senders`` keeps what they write."""
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
    """As :func:`_on_clean`, but one prompt's runs prove the model's arithmetic first."""
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
    """Embeddings ``ablated + k/steps (clean - ablated)``, k from 0: the clean end is left out."""
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
    """Each place in turn ``k/steps`` clean and the rest ablated, k from 1."""
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
        infinite = bad  # a prompt whose metric is bad says more than one whose gradient is
    suspects = batch.index[infinite] if bool(infinite.any()) else batch.index
    raise NonFiniteScores(int(suspects[0]))
