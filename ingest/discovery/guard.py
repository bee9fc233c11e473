"""Numerical proof, before anything is scored, that a model does what the algorithms assume.

On one prompt: senders must add up to the residual stream wherever it is read, the mapped
gradients must be the model's own, and all edges, moved a little at random, must change the metric
as their scores say. A model that fails is refused by name. Passes of one prompt cost nearly as much
as those of several, as each reads all weights; where the first batch is run clean and corrupt
anyway, a prompt of it proves the model by these runs (:func:`check_runs`).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ingest.discovery.ablation import (
    Replacement,
    Stream,
    Written,
    record_stream,
    stream_of,
    stream_without,
)
from ingest.discovery.anatomy import Anatomy, require_close
from ingest.discovery.gradients import GradientRun, differentiate
from ingest.discovery.metrics import Metric, per_prompt
from ingest.discovery.patched_run import run_patched
from ingest.discovery.products import EdgeProducts, mapped_gradients
from ingest.discovery.prompts import PromptBatch

__all__ = [
    "check_patching",
    "check_runs",
    "check_scores",
    "check_stream",
    "differing_prompt",
    "require_known_arithmetic",
]

_STEP = 1e-2
_STEP_HALF = 5e-2
_TOLERANCE = 5e-2
_TOLERANCE_HALF = 0.3
_ROUNDING = 8


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
        clean, logits = record_stream(model, anatomy, one.clean)
        check_stream(model, anatomy, one, clean, replacement)
        with torch.no_grad():
            ablated, _ = replacement.stream(model, anatomy, one, clean)
        check_patching(model, anatomy, one, ablated, logits)
        return
    two = torch.cat([one.clean, _another_prompt(one, anatomy, replacement)])
    both = differentiate(model, anatomy, two, metric, one, witness=slice(2)).witness
    assert both is not None
    with torch.no_grad():
        _check_positions(anatomy, two, both.written.input, replacement)
        other = stream_of(anatomy, both.part(slice(1, 2)).values)
        first = both.part(slice(1))
        check_runs(model, anatomy, one, metric, first, other, replacement.constant)


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
    constant: Written | None = None,
) -> None:
    """Check everything that gradients rest on, by runs of one prompt and of another.

    Args:
        model: Frozen.
        anatomy: Of the model.
        one: The prompt.
        metric: What is differentiated.
        run: Of the prompt, with the whole stream (``witness``).
        other: Of another prompt of the same length that differs; the ablated run with ``resample``.
        constant: What senders write when ablated, where it is no run's.

    Raises:
        UnsupportedModel: The model does something else.
    """
    clean = stream_of(anatomy, run.values)
    _compare_streams(anatomy, clean, other)
    ablated = other if constant is None else stream_without(anatomy, clean, constant)
    scores = _check_gradients(anatomy, run, ablated.written)
    check_scores(model, anatomy, one, metric, scores, ablated)


def check_patching(
    model: Any, anatomy: Anatomy, one: PromptBatch, ablated: Stream, expected: Tensor
) -> None:
    """Inputs put together anew with every edge kept must give the model's own logits."""
    space = anatomy.space
    every = torch.ones(
        len(space.senders), len(space.receivers), device=anatomy.device, dtype=anatomy.dtype
    )
    with torch.no_grad():
        logits = run_patched(model, anatomy, one.clean, every, ablated)
    require_close(anatomy, logits, expected, "with every edge kept it gives other logits")


def check_stream(
    model: Any, anatomy: Anatomy, one: PromptBatch, clean: Stream, replacement: Replacement
) -> None:
    """Senders of two prompts must differ by what the residual streams differ by, everywhere."""
    tokens = _another_prompt(one, anatomy, replacement)
    other, _ = record_stream(model, anatomy, tokens)
    _compare_streams(anatomy, clean, other)
    inputs = torch.cat([clean.written.input, other.written.input])
    _check_positions(anatomy, torch.cat([one.clean, tokens]), inputs, replacement)


def _check_positions(
    anatomy: Anatomy, two: Tensor, inputs: Tensor, replacement: Replacement
) -> None:
    """A token's embedding must be the same one position further on: no position may be in it.

    Asked only where a constant takes its place; with ``resample`` positions cancel.
    """
    if replacement.constant is None or not torch.equal(two[0].roll(1), two[1]):
        return
    require_close(
        anatomy, inputs[1, 1:], inputs[0, :-1],
        "its embedding holds positions that cannot be told from tokens; use ablation='resample'",
    )  # fmt: skip


def _compare_streams(anatomy: Anatomy, clean: Stream, other: Stream) -> None:
    expected = stream_without(anatomy, clean, other.written)
    for layer, raw in expected.attention.items():
        require_close(
            anatomy, other.attention[layer] - clean.attention[layer], raw - clean.attention[layer],
            f"heads of block {layer} do not add up to its attention's output",
            clean.attention[layer],
        )  # fmt: skip
    for name, value in clean.at.items():
        require_close(
            anatomy, other.at[name] - value, expected.at[name] - value,
            f"senders do not add up to the residual stream at {name}", value,
        )  # fmt: skip


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
    whose input is exactly 0, any slope between those of both sides will do. Half precision rounds
    the metric so much that edges are moved by the signs of their scores, which only shows gross
    errors.
    """
    half = anatomy.dtype.itemsize < 4
    step, tolerance = (_STEP_HALF, _TOLERANCE_HALF) if half else (_STEP, _TOLERANCE)
    generator = torch.Generator().manual_seed(0)
    coin = torch.rand(scores.shape, generator=generator) < 0.5
    direction = scores.sign() * coin if half else torch.where(coin, 1.0, -1.0).double()
    weights = direction.to(anatomy.device, anatomy.dtype)

    def moved(*by: float) -> tuple[list[float], float]:
        """The metric after each move, in one pass; the largest logit, whose rounding it shares."""
        moves = weights.new_tensor(by)[:, None, None] * weights
        tokens = one.clean.expand(len(by), -1)
        logits = run_patched(model, anatomy, tokens, 1 - moves, ablated)
        metrics = per_prompt(metric, logits, one.index.expand(len(by)))
        return metrics.tolist(), float(logits.abs().max())

    (towards, away), largest = moved(step, -step)
    expected = float((direction * scores).sum())
    size = float(scores.abs().sum()) if half else float(scores.norm())
    slope = (away - towards) / (2 * step)
    allowed = tolerance * size + _ROUNDING * torch.finfo(anatomy.dtype).eps * largest / step
    if abs(slope - expected) <= allowed or not math.isfinite(slope + expected):
        return  # what is not finite is reported with its prompt later
    (here,), _ = moved(0.0)
    sides = sorted([(here - towards) / step, (away - here) / step])
    if not half and sides[0] - allowed <= expected <= sides[1] + allowed:
        return
    raise anatomy.refuse(
        f"edges moved by {step} change the metric by {slope:.4g} times that, their scores say "
        f"{expected:.4g}"
    )


def _another_prompt(one: PromptBatch, anatomy: Anatomy, replacement: Replacement) -> Tensor:
    """A prompt of the same length that is not the same: the corrupt one, or the clean one moved."""
    resampled = replacement.constant is None
    if resampled and one.corrupt is not None and not torch.equal(one.corrupt, one.clean):
        return one.corrupt
    other = one.clean.roll(1, -1)
    if torch.equal(other, one.clean):
        other = torch.where(one.clean == 0, 1, 0).to(anatomy.device)
    return other
