"""Numerical proof that a model has the structure that all algorithms assume.

Four properties are checked on two prompts, for any model in float32 or wider:

- senders sum to the residual stream, block by block;
- recomputed inputs give the clean run with every edge kept, and the ablated run with no edge kept;
- the output of a partial circuit does not depend on other values in the model;
- a head carries the values of its own key/value head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ingest.discovery.ablation.patched_run import run_patched
from ingest.discovery.ablation.replacement import Replacement, Stream, record_stream, stream_with
from ingest.discovery.model.anatomy import Anatomy, Hook, require_close
from ingest.discovery.model.batches import PromptBatch
from ingest.discovery.model.block_parts import BlockParts
from ingest.discovery.model.recording import Recording
from ingest.discovery.model.widened import widened

__all__ = ["TwoRuns", "another_prompt", "prove_structure"]

_NOTHING = 1e-5


@dataclass(frozen=True, eq=False)
class TwoRuns:
    """Runs of the prompt and of a different prompt of the same length.

    Attributes:
        clean: Run of the prompt.
        other: Run of the other prompt; the ablated run if senders are resampled.
        logits: Last logits of both, ``[2, word]``, if they are known.
    """

    clean: Stream
    other: Stream
    logits: Tensor | None = None


def prove_structure(
    model: Any,
    anatomy: Anatomy,
    one: PromptBatch,
    replacement: Replacement,
    known: TwoRuns | None = None,
) -> Stream:
    """Check all assumptions of scores and faithfulness except gradients.

    Args:
        model: Frozen.
        anatomy: Anatomy of the model.
        one: The prompt.
        replacement: The ablation.
        known: Existing runs, in float32 or wider; None: both prompts are run here.

    Returns:
        The ablated run, in the precision of the proof.

    Raises:
        UnsupportedModel: The model does not have one of the properties.
    """
    with torch.no_grad(), widened(model.original_model):
        runs = _run_two(model, anatomy, one, replacement) if known is None else known
        for run in (runs.clean, runs.other):
            _compare_stream(anatomy, run)
        constant = replacement.constant
        ablated = runs.other
        if constant is not None:
            ablated = stream_with(anatomy, runs.clean, constant)
        _check_circuits(model, anatomy, one, ablated, runs, resampled=constant is None)
        _check_heads(model, anatomy, one)
    return ablated


def another_prompt(one: PromptBatch, anatomy: Anatomy, replacement: Replacement) -> Tensor:
    """Return another prompt of the same length: the corrupt one, or the clean one shifted."""
    resampled = replacement.constant is None
    if resampled and one.corrupt is not None and not torch.equal(one.corrupt, one.clean):
        return one.corrupt
    other = one.clean.roll(1, -1)
    if torch.equal(other, one.clean):
        other = torch.where(one.clean == 0, 1, 0).to(anatomy.device)
    return other


def _run_two(model: Any, anatomy: Anatomy, one: PromptBatch, replacement: Replacement) -> TwoRuns:
    tokens = torch.cat([one.clean, another_prompt(one, anatomy, replacement)])
    both, logits = record_stream(model, anatomy, tokens)
    clean, other = both.part(slice(1)), both.part(slice(1, 2))
    inputs = both.written.input
    if replacement.constant is not None and torch.equal(tokens[0].roll(1), tokens[1]):
        # With resample, positions cancel. A constant in place of an embedding removes them.
        require_close(
            anatomy, inputs[1, 1:], inputs[0, :-1],
            "its embedding contains positions that cannot be separated from tokens; use "
            "ablation='resample'",
        )  # fmt: skip
    return TwoRuns(clean, other, logits)


def _compare_stream(anatomy: Anatomy, run: Stream) -> None:
    """Check that each block adds its senders' outputs and biases to the stream.

    This is checked part by part, because a block's output can be small compared with the stream.
    """
    expected = stream_with(anatomy, run, run.written)
    for layer, raw in expected.attention.items():
        require_close(
            anatomy, run.attention[layer], raw,
            f"heads of block {layer} do not add up to its attention's output",
        )  # fmt: skip
    last: tuple[Tensor, Tensor] | None = None
    for name, value in run.at.items():
        found = value, expected.at[name]
        added = found
        if last is not None:
            added = tuple(a - b.to(a.device) for a, b in zip(found, last, strict=True))  # type: ignore[assignment]
        require_close(
            anatomy, *added, f"senders do not add up to the residual stream at {name}", value
        )
        last = found


def _check_circuits(
    model: Any,
    anatomy: Anatomy,
    one: PromptBatch,
    ablated: Stream,
    runs: TwoRuns,
    *,
    resampled: bool,
) -> None:
    """Run all edges, no edges, and two random circuits, each of these two twice, in one pass.

    In the second run of a random circuit, values outside the circuit are disturbed. If a part other
    than the named parts reads them, the logits change. The first circuit is a random third of the
    edges. The second one has, in addition, all edges that leave the input or enter the logits: in a
    small model whose senders are set to zero, a third of the edges may leave no part that is both
    fed and read.
    """
    space = anatomy.space
    shape = (len(space.senders), len(space.receivers))
    generator = torch.Generator().manual_seed(0)
    third = (torch.rand(shape, generator=generator) < 1 / 3).float()
    fed = third.clone()
    fed[0] = 1
    fed[:, space.logits_column] = 1
    weights = torch.stack([torch.ones(shape), torch.zeros(shape), third, fed, third, fed])
    logits = run_patched(
        model, anatomy, one.clean.expand(6, -1), weights.to(anatomy.device), ablated,
        also=[(b.at("hook_in"), _disturbing(generator, slice(4, 6))) for b in anatomy.blocks],
    )  # fmt: skip
    for disturbed, undisturbed in zip(logits[4:], logits[2:4], strict=True):
        require_close(
            anatomy, disturbed, undisturbed,
            "something besides queries, keys, values and MLPs reads the residual stream",
        )  # fmt: skip
    if runs.logits is None:
        return
    require_close(anatomy, logits[0], runs.logits[0], "with every edge kept it gives other logits")
    if resampled:
        require_close(
            anatomy, logits[1], runs.logits[1], "with every edge ablated it gives other logits"
        )


def _disturbing(generator: torch.Generator, rows: slice) -> Hook:
    """Add noise of the same size as the values, in some prompts."""

    def disturb(value: Tensor, hook: object) -> Tensor:  # noqa: ARG001
        noise = torch.randn(value[rows].shape, generator=generator).to(value)
        changed = value.clone()
        changed[rows] += noise * value[rows].std()
        return changed

    return disturb


def _check_heads(model: Any, anatomy: Anatomy, one: PromptBatch) -> None:
    """Check the order of heads: query heads whose values are zero must write zero."""
    generator = torch.Generator().manual_seed(0)
    record, hooks = Recording(), []
    silent: dict[int, Tensor] = {}
    for block in anatomy.blocks:
        values = block.ports["v"]
        n_values = len(values.weight)
        chosen = torch.randperm(n_values, generator=generator)[: (n_values + 1) // 2]
        hooks += [
            (values.hook, _silencing(chosen, n_values)),
            record.keep(block.at("attn.o.hook_in")),
        ]
        silent[block.layer] = chosen
    anatomy.run(model, one.clean, hooks)
    for block in anatomy.blocks:
        written = _sizes_by_head(block, record.values[block.at("attn.o.hook_in")])
        n_values = len(block.ports["v"].weight)
        reads = torch.arange(len(written)) * n_values // len(written)
        own = torch.isin(reads, silent[block.layer])
        if bool((written[own] > _NOTHING * written.max()).any()):
            raise anatomy.refuse(
                f"heads of block {block.layer} carry values of other heads, or more than values"
            )


def _silencing(chosen: Tensor, n_values: int) -> Hook:
    def silence(value: Tensor, hook: object) -> Tensor:  # noqa: ARG001
        by_head = value.clone().reshape(*value.shape[:2], n_values, -1)
        by_head[:, :, chosen.to(value.device)] = 0
        return by_head.reshape(value.shape)

    return silence


def _sizes_by_head(block: BlockParts, z: Tensor) -> Tensor:
    by_head = z.flatten(2).reshape(*z.shape[:2], len(block.w_o), -1)
    return by_head.float().square().sum((0, 1, 3)).sqrt().cpu()
