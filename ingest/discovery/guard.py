"""Numerical proof, before anything is scored, that a model does what the algorithms assume.

On one prompt: the model must be built as assumed (:mod:`ingest.discovery.structure`); where scores
come from gradients, the mapped gradients must be the model's own, and all edges, moved a little at
random, must change the metric as their scores say. A model that fails is refused by name. Passes of
one prompt cost nearly as much as those of several, as each reads all weights; where the first batch
is run clean and corrupt anyway, a prompt of it proves the model by these runs (:func:`check_runs`).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ingest.discovery.ablation import Replacement, Stream, Written, stream_of, stream_without
from ingest.discovery.anatomy import Anatomy, frozen, read_anatomy, require_close
from ingest.discovery.gradients import GradientRun, differentiate
from ingest.discovery.metrics import Metric, per_prompt
from ingest.discovery.patched_run import run_patched
from ingest.discovery.products import EdgeProducts, mapped_gradients
from ingest.discovery.prompts import PromptBatch, spread_tokens
from ingest.discovery.structure import TwoRuns, another_prompt, prove_structure
from ingest.discovery.widened import is_half, widened

__all__ = [
    "check_runs",
    "check_scores",
    "differing_prompt",
    "prove_model",
    "require_known_arithmetic",
]

_STEP = 1e-2
_TOLERANCE = 5e-2
_TOLERANCE_HALF = 0.3
"""Of scores whose gradients were rounded to half precision."""
_ROUNDING = 8
_N_TOKENS = 5


def require_known_arithmetic(
    model: Any,
    anatomy: Anatomy,
    batch: PromptBatch,
    metric: Metric,
    replacement: Replacement,
    *,
    gradients: bool = True,
) -> None:
    """Check everything on the first prompt of a batch.

    Args:
        model: Frozen.
        anatomy: Of the model.
        batch: Prompts.
        metric: What is to be differentiated.
        replacement: The ablation.
        gradients: Whether they will be used; else the metric need not have any.

    Raises:
        UnsupportedModel: The model does something else.
    """
    one = batch.part(slice(1))
    if not gradients:
        prove_structure(model, anatomy, one, replacement)
        return
    two = torch.cat([one.clean, another_prompt(one, anatomy, replacement)])
    both = differentiate(model, anatomy, two, metric, one, witness=slice(2)).witness
    assert both is not None
    other = stream_of(anatomy, both.part(slice(1, 2)).values)
    first = both.part(slice(1))
    check_runs(model, anatomy, one, metric, first, other, replacement)


def prove_model(model: Any, kv_heads: str = "grouped") -> int:
    """Check everything on a short prompt of the algorithm's own, whatever is to be asked of it.

    Args:
        model: A TransformerLens ``TransformerBridge``.
        kv_heads: ``grouped`` or ``per-query-head``.

    Returns:
        How many edges it has.

    Raises:
        UnsupportedModel: The model does something else.
    """
    anatomy = read_anatomy(model, kv_heads)
    tokens = spread_tokens(int(model.cfg.d_vocab), 2 * _N_TOKENS).to(anatomy.device)
    batch = PromptBatch(torch.zeros(1, dtype=torch.long), tokens[:, ::2], tokens[:, 1::2])

    def difference(logits: Tensor, index: Tensor) -> Tensor:  # noqa: ARG001
        return (logits[:, 0] - logits[:, -1]).to(torch.promote_types(logits.dtype, torch.float32))

    with frozen(model):
        require_known_arithmetic(model, anatomy, batch, difference, Replacement("resample", None))
    return anatomy.space.n_edges


def differing_prompt(batch: PromptBatch, replacement: Replacement) -> int | None:
    """Place of a pair whose two runs can prove a model; None where ablation runs no such pair."""
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
    """Check everything that gradients rest on, by runs of one prompt and of another.

    Args:
        model: Frozen.
        anatomy: Of the model.
        one: The prompt.
        metric: What is differentiated.
        run: Of the prompt, with the whole stream (``witness``).
        other: Of another prompt of the same length that differs; the ablated run with ``resample``.
        replacement: The ablation.

    Raises:
        UnsupportedModel: The model does something else.
    """
    half = is_half(anatomy.dtype)
    with torch.no_grad():
        clean = stream_of(anatomy, run.values)
        constant = replacement.constant
        ablated = other if constant is None else stream_without(anatomy, clean, constant)
        known = None if half or constant is not None else TwoRuns(clean, other)
        proven = prove_structure(model, anatomy, one, replacement, known)
        scores = _check_gradients(anatomy, run, ablated.written)
        with widened(model.original_model):
            check_scores(model, anatomy, one, metric, scores, proven)


def _check_gradients(anatomy: Anatomy, run: GradientRun, ablated: Written) -> Tensor:
    """Mapped gradients must be the model's own in every block; gives the prompt's scores."""
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
    """Move all edges a little, each at random to one side or the other.

    The metric's central slope must be the signed sum of the scores. At a kink, such as a ReLU's
    whose input is exactly 0, any slope between those of both sides will do. The model runs in the
    precision of ``ablated``, which may be wider than that of the scores.
    """
    dtype = ablated.at["blocks.0.hook_in"].dtype
    tolerance = _TOLERANCE_HALF if is_half(anatomy.dtype) else _TOLERANCE
    generator = torch.Generator().manual_seed(0)
    coin = torch.rand(scores.shape, generator=generator) < 0.5
    direction = torch.where(coin, 1.0, -1.0).double()
    weights = direction.to(anatomy.device, dtype)

    def moved(*by: float) -> tuple[list[float], float]:
        """The metric after each move, in one pass; the largest logit, whose rounding it shares."""
        moves = weights.new_tensor(by)[:, None, None] * weights
        tokens = one.clean.expand(len(by), -1)
        logits = run_patched(model, anatomy, tokens, 1 - moves, ablated)
        metrics = per_prompt(metric, logits, one.index.expand(len(by)))
        return metrics.tolist(), float(logits.abs().max())

    (towards, away), largest = moved(_STEP, -_STEP)
    expected = float((direction * scores).sum())
    slope = (away - towards) / (2 * _STEP)
    rounding = _ROUNDING * torch.finfo(dtype).eps * largest / _STEP
    allowed = tolerance * float(scores.norm()) + rounding
    if abs(slope - expected) <= allowed or not math.isfinite(slope + expected):
        return  # what is not finite is reported with its prompt later
    (here,), _ = moved(0.0)
    sides = sorted([(here - towards) / _STEP, (away - here) / _STEP])
    if sides[0] - allowed <= expected <= sides[1] + allowed:
        return
    raise anatomy.refuse(
        f"edges moved by {_STEP} change the metric by {slope:.4g} times that, their scores say "
        f"{expected:.4g}"
    )
