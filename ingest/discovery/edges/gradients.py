"""One forward and backward pass of a model, and its results for every receiver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ingest.discovery.ablation.replacement import Written, written_hooks, written_of
from ingest.discovery.model.anatomy import Anatomy, Hook
from ingest.discovery.model.batches import PromptBatch
from ingest.discovery.model.metrics import Metric, per_prompt
from ingest.discovery.model.recording import Recording
from registry.errors import BadInput

__all__ = ["GradientRun", "differentiate"]


@dataclass(frozen=True, eq=False)
class GradientRun:
    """Values and gradients of one run, by hook name.

    Attributes:
        metric: Metric of each prompt, ``[batch]``.
        written: Outputs of all senders.
        values: At hook points for linearisations: inputs of the norms before attention, queries,
            keys and values, attention's output before a post-norm; and at requested hook points.
        gradients: Gradients of the summed metric at each query, key and value, at each MLP's input
            (``mlp_in``, without the skip path), at ``ln_final.hook_in``, and of the whole residual
            stream at ``blocks.0.hook_in``.
        witness: The same for some of the prompts, with values and gradients at all readers of the
            residual stream, which a check of the model's computations needs; None unless requested.
            stream is read, which a check of the model's arithmetic needs; None unless asked for.
    """

    metric: Tensor
    written: Written
    values: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor]
    witness: GradientRun | None = None

    def part(self, rows: slice) -> GradientRun:
        """Return a part of the prompts."""
        return GradientRun(
            self.metric[rows],
            self.written.part(rows),
            {name: value[rows] for name, value in self.values.items()},
            {name: gradient[rows] for name, gradient in self.gradients.items()},
        )


def differentiate(
    model: Any,
    anatomy: Anatomy,
    tokens: Tensor,
    metric: Metric,
    batch: PromptBatch,
    *,
    instead: Mapping[str, Tensor] | None = None,
    senders: bool = True,
    witness: slice | None = None,
) -> GradientRun:
    """Run prompts ``[batch, pos]`` forward and backward.

    Args:
        model: Frozen.
        anatomy: Anatomy of the model.
        tokens: Tokens to run; further prompts after those of the batch are run with them.
        metric: The function to differentiate.
        batch: Gives the indices of the prompts.
        instead: Values that replace those at hook points.
        senders: Whether senders' outputs are requested; else ``written`` has no head and no MLP.
        witness: Prompts, as rows, whose whole residual stream is requested.

    Raises:
        BadInput: The metric has no gradient.
        UnsupportedModel: A receiver is not read, although nothing was replaced above it.
    """
    record = Recording()
    hooks = [(name, _put(value)) for name, value in (instead or {}).items()]
    hooks += [record.start("blocks.0.hook_in"), *_sender_hooks(anatomy, record, senders)]
    hooks += _receiver_hooks(anatomy, record)
    few = Recording(witness)
    if witness is not None:
        hooks += [few.keep_with_gradient(block.at("hook_in")) for block in anatomy.blocks[1:]]
        hooks += [few.keep_with_gradient(b.at(b.attention_in)) for b in anatomy.blocks]
    with torch.enable_grad():
        logits = anatomy.run(model, tokens, hooks)[: len(batch.index)]
        found = per_prompt(metric, logits, batch.index)
        if not found.requires_grad:
            raise BadInput("the metric has no gradient: it must be computed from the given logits")
        gradients = _gradients(anatomy, record.values, found, altered=bool(instead))
    values = {name: record.values[name].detach() for name in _needed(anatomy)}
    written = written_of(anatomy, record.values, senders=senders)
    run = GradientRun(found.detach(), written, values, gradients)
    if witness is None:
        return run
    return replace(run, witness=_witness(anatomy, run, record, few, witness))


def _witness(
    anatomy: Anatomy, run: GradientRun, record: Recording, few: Recording, rows: slice
) -> GradientRun:
    """Return some prompts of a run, with what ``few`` recorded of them in addition."""
    for name in few.values.keys() - few.gradients.keys():
        raise anatomy.refuse(f"nothing reads {name}")
    part = run.part(rows)
    values = {name: value.detach()[rows] for name, value in record.values.items()}
    return replace(
        part, values={**values, **few.values}, gradients={**part.gradients, **few.gradients}
    )


def _put(by: Tensor) -> Hook:
    def put(value: Tensor, hook: object) -> Tensor:  # noqa: ARG001
        return by.reshape(value.shape)  # heads' outputs come flat or by head

    return put


def _sender_hooks(anatomy: Anatomy, record: Recording, senders: bool) -> list[tuple[str, Hook]]:
    hooks = written_hooks(anatomy, record, senders=senders)
    hooks = [hook for hook in hooks if hook[0] != "blocks.0.hook_in"]
    with_norm = [block for block in anatomy.blocks if block.post_norm is not None]
    return hooks + [record.keep(block.at("attn.hook_out")) for block in with_norm]


def _receiver_hooks(anatomy: Anatomy, record: Recording) -> list[tuple[str, Hook]]:
    hooks = [record.keep("ln_final.hook_in")]
    for block in anatomy.blocks:
        hooks += [record.fork(block.at(place)) for place in (block.attention_in, block.mlp_in)]
        hooks += [record.keep(projection.hook) for projection in block.ports.values()]
    return hooks


def _needed(anatomy: Anatomy) -> list[str]:
    names = []
    for block in anatomy.blocks:
        names.append(block.at(block.attention_in))
        names += [projection.hook for projection in block.ports.values()]
        if block.post_norm is not None:
            names.append(block.at("attn.hook_out"))
    return names


def _gradients(
    anatomy: Anatomy,
    values: Mapping[str, Tensor],
    metric: Tensor,
    *,
    altered: bool,
) -> dict[str, Tensor]:
    wanted = ["ln_final.hook_in", "blocks.0.hook_in"]
    for block in anatomy.blocks:
        wanted.append(block.at(block.mlp_in))
        wanted += [projection.hook for projection in block.ports.values()]
    inputs = [values[name] for name in wanted]
    found = torch.autograd.grad(metric.sum(), inputs, allow_unused=True)
    unread = [name for name, gradient in zip(wanted, found, strict=True) if gradient is None]
    if unread and not altered:
        raise anatomy.refuse(f"nothing reads {unread[0]}")
    return {
        name: torch.zeros_like(value) if gradient is None else gradient
        for name, value, gradient in zip(wanted, inputs, found, strict=True)
    }
