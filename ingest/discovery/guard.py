"""Numerical proof, before anything is scored, that a model does what the algorithms assume.

On the first prompt: senders must add up to the residual stream wherever it is read, the mapped
gradients must be the model's own, and half of all edges, moved together a little, must change the
metric as their scores say. A model that fails is refused by name.
"""

from __future__ import annotations

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

__all__ = ["check_patching", "check_stream", "require_known_arithmetic"]

_STEP = 1e-3
_STEP_HALF = 2e-2
_TOLERANCE = 2e-2
_TOLERANCE_HALF = 0.3
_ROUNDING_STEPS = 64


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
    one = batch.head(1)
    if not gradients:
        clean, logits = record_stream(model, anatomy, one.clean)
        check_stream(model, anatomy, one, clean)
        with torch.no_grad():
            ablated, _ = replacement.stream(model, anatomy, one, clean)
        check_patching(model, anatomy, one, ablated, logits)
        return
    two = torch.cat([one.clean, _another_prompt(one, anatomy)])
    both = differentiate(model, anatomy, two, metric, one, whole_stream=True)
    with torch.no_grad():
        run, clean = _row(both, 0), stream_of(anatomy, _row(both, 0).values)
        ablated = stream_of(anatomy, _row(both, 1).values)
        _compare_streams(anatomy, clean, ablated)
        if replacement.constant is not None:
            ablated = stream_without(anatomy, clean, replacement.constant)
        scores = _check_gradients(anatomy, run, ablated.written)
        full = float(run.metric.sum())
        _check_finite_difference(model, anatomy, one, metric, (scores, full), ablated)


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


def check_stream(model: Any, anatomy: Anatomy, one: PromptBatch, clean: Stream) -> None:
    """Senders of two prompts must differ by what the residual streams differ by, everywhere."""
    other, _ = record_stream(model, anatomy, _another_prompt(one, anatomy))
    _compare_streams(anatomy, clean, other)


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


def _row(run: GradientRun, at: int) -> GradientRun:
    """One prompt of a run."""
    row = slice(at, at + 1)
    return GradientRun(
        run.metric[row],
        run.written.part(row),
        {name: value[row] for name, value in run.values.items()},
        {name: gradient[row] for name, gradient in run.gradients.items()},
    )


def _check_gradients(anatomy: Anatomy, run: GradientRun, ablated: Written) -> Tensor:
    """Mapped gradients must be the model's own in every block; gives the prompt's scores."""
    stream = run.gradients["ln_final.hook_in"]
    for block in reversed(anatomy.blocks):
        mapped = mapped_gradients(block, run)
        require_close(
            anatomy, run.gradients[block.at("ln1.hook_in")], mapped[:-1].sum(0),
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


def _check_finite_difference(
    model: Any,
    anatomy: Anatomy,
    one: PromptBatch,
    metric: Metric,
    claimed: tuple[Tensor, float],
    ablated: Stream,
) -> None:
    """Move half of all edges towards the ablated run and away from it, each by its score's sign.

    The scores' sum must be the slope on one side, or lie between those of both. They differ at a
    kink, such as a ReLU's whose input is exactly 0, where any slope between them is a gradient.
    """
    scores, full = claimed
    half = anatomy.dtype.itemsize < 4
    step, tolerance = (_STEP_HALF, _TOLERANCE_HALF) if half else (_STEP, _TOLERANCE)
    generator = torch.Generator().manual_seed(0)
    chosen = torch.rand(scores.shape, generator=generator) < 0.5
    direction = (scores.sign() * chosen).to(anatomy.device, anatomy.dtype)
    expected = float(scores[chosen].abs().sum())
    allowed = tolerance * expected
    allowed += _ROUNDING_STEPS * torch.finfo(anatomy.dtype).eps * abs(full) / step
    slopes: list[float] = []
    for by in (step, -step):
        logits = run_patched(model, anatomy, one.clean, 1 - by * direction, ablated)
        slopes.append((full - float(per_prompt(metric, logits, one.index).sum())) / by)
        if not (expected < min(slopes) - allowed or expected > max(slopes) + allowed):
            return
    raise anatomy.refuse(
        f"edges moved by {step} change the metric by {slopes[0]:.4g} or {slopes[1]:.4g} times "
        f"that, their scores say {expected:.4g}"
    )


def _another_prompt(one: PromptBatch, anatomy: Anatomy) -> Tensor:
    """A prompt of the same length that is not the same."""
    if one.corrupt is not None and not torch.equal(one.corrupt, one.clean):
        return one.corrupt
    other = one.clean.roll(1, -1)
    if torch.equal(other, one.clean):
        other = torch.where(one.clean == 0, 1, 0).to(anatomy.device)
    return other
