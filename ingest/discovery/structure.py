"""Numerical proof that a model is built as the algorithms assume, whatever is computed with it.

On one prompt and another, in float32 or wider whatever the model's own precision: senders must add
up to the residual stream, block by block; inputs put together anew with every edge kept must give
the clean run, with none the ablated one; what a partial circuit does must not hang on what flows
through the model besides it; and a head must carry the values of its own name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ingest.discovery.ablation import Replacement, Stream, record_stream, stream_without
from ingest.discovery.anatomy import Anatomy, Hook, require_close
from ingest.discovery.block_parts import BlockParts
from ingest.discovery.patched_run import run_patched
from ingest.discovery.prompts import PromptBatch
from ingest.discovery.recording import Recording
from ingest.discovery.widened import widened

__all__ = ["TwoRuns", "another_prompt", "prove_structure"]

_NOTHING = 1e-5


@dataclass(frozen=True, eq=False)
class TwoRuns:
    """Runs of the prompt and of another of its length that differs.

    Attributes:
        clean: Of the prompt.
        other: Of the other; the ablated run where senders are resampled.
        logits: Last logits of both, ``[2, word]``, where they are known.
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
    """Check all that scores and faithfulness rest on but gradients.

    Args:
        model: Frozen.
        anatomy: Of the model.
        one: The prompt.
        replacement: The ablation.
        known: Runs that were made already; of a model of half precision they are made anew.

    Returns:
        The ablated run, in the precision of the proof.

    Raises:
        UnsupportedModel: The model does something else.
    """
    with torch.no_grad(), widened(model.original_model):
        runs = _run_two(model, anatomy, one, replacement) if known is None else known
        _compare_streams(anatomy, runs.clean, runs.other)
        constant = replacement.constant
        ablated = runs.other
        if constant is not None:
            ablated = stream_without(anatomy, runs.clean, constant)
        _check_circuits(model, anatomy, one, ablated, runs, resampled=constant is None)
        _check_heads(model, anatomy, one)
    return ablated


def another_prompt(one: PromptBatch, anatomy: Anatomy, replacement: Replacement) -> Tensor:
    """A prompt of the same length that is not the same: the corrupt one, or the clean one moved."""
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
        # With resample positions cancel; a constant in an embedding's place takes them away.
        require_close(
            anatomy, inputs[1, 1:], inputs[0, :-1],
            "its embedding holds positions that cannot be told from tokens; use "
            "ablation='resample'",
        )  # fmt: skip
    return TwoRuns(clean, other, logits)


def _compare_streams(anatomy: Anatomy, clean: Stream, other: Stream) -> None:
    """Between two prompts, each block's part of the stream must change by what its senders do.

    Part by part, as what a block adds can be small beside the whole stream.
    """
    expected = stream_without(anatomy, clean, other.written)
    for layer, raw in expected.attention.items():
        before = clean.attention[layer]
        require_close(
            anatomy, other.attention[layer] - before, raw - before,
            f"heads of block {layer} do not add up to its attention's output", before,
        )  # fmt: skip
    last: tuple[Tensor, Tensor] | None = None
    for name, value in clean.at.items():
        found = other.at[name] - value, expected.at[name] - value
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
    """Every edge, none, and a third of them at random, twice, in one pass.

    The second time what flows through the model besides the circuit is something else. What reads
    it, past the parts that are named, shows in the logits.
    """
    space = anatomy.space
    shape = (len(space.senders), len(space.receivers))
    generator = torch.Generator().manual_seed(0)
    third = (torch.rand(shape, generator=generator) < 1 / 3).float()
    weights = torch.stack([torch.ones(shape), torch.zeros(shape), third, third])
    logits = run_patched(
        model, anatomy, one.clean.expand(4, -1), weights.to(anatomy.device), ablated,
        also=[(b.at("hook_in"), _disturbing(generator, 3)) for b in anatomy.blocks],
    )  # fmt: skip
    require_close(
        anatomy, logits[3], logits[2],
        "something besides queries, keys, values and MLPs reads the residual stream",
    )  # fmt: skip
    if runs.logits is None:
        return
    require_close(anatomy, logits[0], runs.logits[0], "with every edge kept it gives other logits")
    if resampled:
        require_close(
            anatomy, logits[1], runs.logits[1], "with every edge ablated it gives other logits"
        )


def _disturbing(generator: torch.Generator, row: int) -> Hook:
    """Noise as large as what is there, in one prompt."""

    def disturb(value: Tensor, hook: object) -> Tensor:  # noqa: ARG001
        noise = torch.randn(value[row].shape, generator=generator).to(value)
        changed = value.clone()
        changed[row] += noise * value[row].std()
        return changed

    return disturb


def _check_heads(model: Any, anatomy: Anatomy, one: PromptBatch) -> None:
    """Query heads whose values are nothing must write nothing: names of heads are in order."""
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
