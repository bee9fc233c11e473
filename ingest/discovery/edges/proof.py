"""Numerical proof, before scoring, that a model has the properties that the algorithms assume.

On one prompt: the model must have the assumed structure
(:mod:`ingest.discovery.ablation.structure`). If scores come from gradients, the mapped gradients
must equal the model's own, and small random changes of all edges must change the metric as their
scores predict. A model that fails is refused by name. A pass of one prompt costs nearly as much as
a pass of several, because each reads all weights. If the first batch is run clean and corrupt
anyway, these runs of one of its prompts prove the model (:func:`check_runs`).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ingest.discovery.ablation.patched_run import run_patched
from ingest.discovery.ablation.replacement import (
    Replacement,
    Stream,
    Written,
    stream_of,
    stream_with,
)
from ingest.discovery.ablation.structure import TwoRuns, another_prompt, prove_structure
from ingest.discovery.edges.gradients import GradientRun, differentiate
from ingest.discovery.edges.products import EdgeProducts, mapped_gradients
from ingest.discovery.model.anatomy import Anatomy, frozen, read_anatomy, require_close
from ingest.discovery.model.batches import PromptBatch, spread_tokens
from ingest.discovery.model.metrics import Metric, per_prompt
from ingest.discovery.model.widened import is_half, widened

__all__ = [
    "check_runs",
    "check_scores",
    "differing_prompt",
    "prove_model",
    "require_known_arithmetic",
]

_STEPS = (1e-2, 1e-3, 1e-4)
"""Tried steps: with large weights the metric is curved within the first; the limit counts."""
_TOLERANCE = 5e-2
_TOLERANCE_HALF = 0.3
"""Tolerance for scores whose gradients were rounded to half precision."""
_ROUNDING = 8
_EPS = torch.finfo(torch.float32).eps
"""Precision, also for a model in float64: many families compute norms and softmax in float32."""
_N_TOKENS = 5


def require_known_arithmetic(
    model: Any,
    anatomy: Anatomy,
    batch: PromptBatch,
    metric: Metric,
    replacement: Replacement,
) -> None:
    """Check everything on the first prompt of a batch.

    Args:
        model: Frozen.
        anatomy: Anatomy of the model.
        batch: Prompts.
        metric: The function to differentiate.
        replacement: The ablation.

    Raises:
        UnsupportedModel: The model does not have the properties.
    """
    one = batch.part(slice(1))
    two = torch.cat([one.clean, another_prompt(one, anatomy, replacement)])
    both = differentiate(model, anatomy, two, metric, one, witness=slice(2)).witness
    assert both is not None
    other = stream_of(anatomy, both.part(slice(1, 2)).values)
    first = both.part(slice(1))
    check_runs(model, anatomy, one, metric, first, other, replacement)


def prove_model(model: Any, kv_heads: str = "grouped") -> int:
    """Check everything on a short prompt of our own, independent of later computations.

    Args:
        model: A TransformerLens ``TransformerBridge``.
        kv_heads: ``grouped`` or ``per-query-head``.

    Returns:
        The number of its edges.

    Raises:
        UnsupportedModel: The model does not have the properties.
    """
    anatomy = read_anatomy(model, kv_heads)
    n_tokens = min(_N_TOKENS, int(model.cfg.n_ctx))
    tokens = spread_tokens(int(model.cfg.d_vocab), 2 * n_tokens).to(anatomy.device)
    batch = PromptBatch(torch.zeros(1, dtype=torch.long), tokens[:, ::2], tokens[:, 1::2])

    def difference(logits: Tensor, index: Tensor) -> Tensor:  # noqa: ARG001
        if not bool(logits.isfinite().all()):
            raise anatomy.refuse("its logits of a short prompt are not finite")
        return (logits[:, 0] - logits[:, -1]).to(torch.promote_types(logits.dtype, torch.float32))

    with frozen(model):
        require_known_arithmetic(model, anatomy, batch, difference, Replacement("resample", None))
    return anatomy.space.n_edges


def differing_prompt(batch: PromptBatch, replacement: Replacement) -> int | None:
    """Return the index of a pair whose runs can prove a model; None if the ablation has none."""
    if replacement.constant is not None:
        return None
    differs = (batch.clean != batch.counterpart()).any(1).nonzero().flatten()
    return int(differs[0]) if len(differs) else None


def check_runs(
    model: Any,
    anatomy: Anatomy,
    one: PromptBatch,
    metric: Metric,
    run: GradientRun,
    other: Stream,
    replacement: Replacement,
) -> None:
    """Check all assumptions of gradients, by runs of one prompt and of another.

    Args:
        model: Frozen.
        anatomy: Anatomy of the model.
        one: The prompt.
        metric: The function to differentiate.
        run: Run of the prompt, with the whole stream (``witness``).
        other: Run of a different prompt of the same length; the ablated run with ``resample``.
        replacement: The ablation.

    Raises:
        UnsupportedModel: The model does not have the properties.
    """
    half = is_half(anatomy.dtype)
    with torch.no_grad():
        clean = stream_of(anatomy, run.values)
        constant = replacement.constant
        ablated = other if constant is None else stream_with(anatomy, clean, constant)
        known = None if half or constant is not None else TwoRuns(clean, other)
        proven = prove_structure(model, anatomy, one, replacement, known)
        scores = _check_gradients(anatomy, run, ablated.written)
        with widened(model.original_model):
            check_scores(model, anatomy, one, metric, scores, proven)


def _check_gradients(anatomy: Anatomy, run: GradientRun, ablated: Written) -> Tensor:
    """Check mapped gradients against the model's own in every block; return the prompt's scores."""
    stream = run.gradients["ln_final.hook_in"]
    for block in reversed(anatomy.blocks):
        mapped = mapped_gradients(block, run)
        require_close(
            anatomy, run.gradients[block.at(block.attention_in)],
            mapped.sum(0) if block.mlp_norm is not None else mapped[:-1].sum(0),
            "something besides queries, keys and values reads the first norm of block "
            f"{block.layer}",
        )  # fmt: skip
        stream = stream + mapped.sum(0)
        require_close(
            anatomy, run.gradients[block.at("hook_in")], stream,
            f"something besides its heads and MLP reads the input of block {block.layer}",
        )  # fmt: skip
    products = EdgeProducts(anatomy)
    products.add(run, run.written.minus(ablated))
    products.finish()
    return products.scores


def check_scores(
    model: Any,
    anatomy: Anatomy,
    one: PromptBatch,
    metric: Metric,
    scores: Tensor,
    ablated: Stream,
) -> None:
    """Change all edges a little, each in a random direction.

    The metric's central slope must equal the signed sum of the scores, at one of several steps:
    smaller steps are tried as long as rounding is below the tolerance. At a kink, such as a ReLU
    whose input is exactly 0, any slope between those of both sides is accepted. The model runs in
    the precision of ``ablated``, which may be wider than that of the scores.
    """
    dtype = ablated.at["blocks.0.hook_in"].dtype
    tolerance = _TOLERANCE_HALF if is_half(anatomy.dtype) else _TOLERANCE
    near = tolerance * float(scores.norm())
    generator = torch.Generator().manual_seed(0)
    coin = torch.rand(scores.shape, generator=generator) < 0.5
    direction = torch.where(coin, 1.0, -1.0).double()
    expected = float((direction * scores).sum())
    weights = direction.to(anatomy.device, dtype)

    def moved(*by: float) -> tuple[list[float], float]:
        """Return the metric after each move, in one pass; and the largest logit, for rounding."""
        moves = weights.new_tensor(by)[:, None, None] * weights
        tokens = one.clean.expand(len(by), -1)
        logits = run_patched(model, anatomy, tokens, 1 - moves, ablated)
        metrics = per_prompt(metric, logits, one.index.expand(len(by)))
        return metrics.tolist(), float(logits.abs().max())

    seen: tuple[float, float] | None = None
    for step in _STEPS:
        (towards, away), largest = moved(step, -step)
        rounding = _ROUNDING * _EPS * largest / step
        if seen is not None and rounding > near:
            break
        slope = (away - towards) / (2 * step)
        if not math.isfinite(slope + expected):
            return  # numbers that are not finite are reported with their prompt later
        allowed = near + rounding
        if abs(slope - expected) <= allowed:
            return
        (here,), _ = moved(0.0)
        sides = sorted([(here - towards) / step, (away - here) / step])
        if sides[0] - allowed <= expected <= sides[1] + allowed:
            return
        seen = step, slope
    assert seen is not None
    raise anatomy.refuse(
        f"edges moved by {seen[0]} change the metric by {seen[1]:.4g} times that, their scores say "
        f"{expected:.4g}"
    )
