"""Edge attribution patching: how much every edge of a decoder matters to a metric, to first order.

Syed, Rager and Conmy 2023 (arXiv 2310.10348): ``score(edge) = sum_pos (clean - corrupt)[sender] .
d metric / d input[receiver]``, mean over pairs of prompts. Usually a model's residual stream is
split into one copy per receiver to take these gradients. Here one forward on the corrupt prompts
and one forward and backward on the clean ones are enough: the gradient at each head's query, key or
value is mapped back through its weight and through the transpose Jacobian of the norm before it.

Positive means that the edge helps the metric. A first-order estimate misleads where the metric
saturates: where corrupting one edge changes nothing because another one takes over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from ingest.discovery.anatomy import (
    Anatomy,
    BlockParts,
    Hook,
    Norm,
    frozen,
    read_anatomy,
    require_close,
)
from ingest.discovery.metrics import Metric, Progress, per_prompt
from ingest.discovery.prompts import PromptBatch, read_prompts
from ingest.discovery.recording import Recording
from ingest.discovery.scores import EdgeScores
from registry.errors import BadInput, NonFiniteScores

__all__ = ["attribute_edges"]


def attribute_edges(
    model: Any,
    clean: Tensor,
    corrupt: Tensor,
    metric: Metric,
    *,
    method: str = "eap",
    attention_mask: Tensor | None = None,
    batch_size: int | None = None,
    kv_heads: str = "grouped",
    progress: Progress | None = None,
) -> EdgeScores:
    """Estimate for every edge what corrupting it would take from the metric, to first order.

    Args:
        model: A TransformerLens ``TransformerBridge``. Its weights are frozen meanwhile.
        clean: Token ids ``[prompt, position]``.
        corrupt: Token ids of the same shape: each pair's counterpart, token by token.
        metric: One number per prompt from the logits at its last real position; ``index`` says
            which prompts these are.
        method: ``eap``.
        attention_mask: 1 at real tokens, 0 at padding on either side, ``[prompt, position]``.
        batch_size: Prompts run at once; None: as many as keep all senders' outputs in 256 MiB.
            Scores do not depend on it.
        kv_heads: ``grouped``: the model's own key/value heads.
        progress: Called after each batch with prompts done and in all.

    Returns:
        Scores in units of the metric. Positive: the edge helps it. Finite; 0 where no edge can be.

    Raises:
        UnsupportedModel: A part is missing, senders do not add up to the residual stream, or the
            mapped gradients are not the model's own.
        BadInput: Prompts, method or batch size are malformed, or the metric has no gradient.
        NonFiniteScores: A prompt's activations, gradients or metric are not finite.
    """
    if method != "eap":
        raise BadInput(f"method must be 'eap'; got {method!r}")
    prompts = read_prompts(clean, corrupt, attention_mask)
    anatomy = read_anatomy(model, kv_heads)
    size = anatomy.batch_size(len(prompts), prompts.longest, batch_size)
    space = anatomy.space
    total = torch.zeros(len(space.senders), len(space.receivers), dtype=torch.float64)
    metrics = torch.zeros(2, len(prompts), dtype=torch.float64)
    done = 0
    with frozen(model):
        for batch in prompts.batches(size, anatomy.device):
            found = _score_batch(model, anatomy, batch, metric)
            total += found.scores
            metrics[:, batch.index] = found.metrics
            done += len(batch.index)
            if progress is not None:
                progress(done, len(prompts))
    return EdgeScores(total / len(prompts), space, metrics[0], metrics[1])


@dataclass(frozen=True, eq=False)
class _BatchScores:
    """Scores summed over a batch ``[sender, receiver]``; its metrics ``[clean/corrupt, batch]``."""

    scores: Tensor
    metrics: Tensor


def _score_batch(model: Any, anatomy: Anatomy, batch: PromptBatch, metric: Metric) -> _BatchScores:
    corrupt, clean = Recording(), Recording()
    with torch.no_grad():
        logits = anatomy.run(model, batch.corrupt, _sender_hooks(anatomy, corrupt))
        corrupt_metric = per_prompt(metric, logits, batch.index).detach()
    with torch.enable_grad():
        hooks = _sender_hooks(anatomy, clean) + _receiver_hooks(anatomy, clean)
        logits = anatomy.run(model, batch.clean, hooks)
        clean_metric = per_prompt(metric, logits, batch.index)
        gradients = _gradients(anatomy, clean, clean_metric)
    values = clean.detached()
    changes = _changes(anatomy, values, corrupt.detached())
    scores = _multiply(anatomy, values, gradients, changes)
    metrics = torch.stack([clean_metric.detach(), corrupt_metric]).double().cpu()
    _require_finite(scores, metrics, batch.index, [changes.transpose(0, 1), *gradients.values()])
    return _BatchScores(scores, metrics)


def _sender_hooks(anatomy: Anatomy, record: Recording) -> list[tuple[str, Hook]]:
    """Outputs of senders, and the residual stream that they must add up to."""
    hooks = [record.start("blocks.0.hook_in"), record.keep("ln_final.hook_in")]
    for block in anatomy.blocks:
        hooks.append(record.keep(block.at("attn.o.hook_in")))
        hooks.append(record.keep(block.at(block.mlp_out)))
        hooks.append(record.fork(block.at("ln2.hook_in")))
        if block.layer:
            hooks.append(record.keep(block.at("hook_in")))
        if block.post_norm is not None:
            hooks.append(record.keep(block.at("attn.hook_out")))
    return hooks


def _receiver_hooks(anatomy: Anatomy, record: Recording) -> list[tuple[str, Hook]]:
    hooks = []
    for block in anatomy.blocks:
        hooks.append(record.fork(block.at("ln1.hook_in")))
        hooks += [record.keep(projection.hook) for projection in block.ports.values()]
    return hooks


def _gradients(anatomy: Anatomy, record: Recording, metric: Tensor) -> dict[str, Tensor]:
    """Gradients of the summed metric at every receiver and along the residual stream."""
    if not metric.requires_grad:
        raise BadInput(
            "the metric has no gradient: it must be computed from the logits it is given"
        )
    wanted = ["ln_final.hook_in"]
    for block in anatomy.blocks:
        wanted += [block.at(place) for place in ("hook_in", "ln1.hook_in", "ln2.hook_in")]
        wanted += [projection.hook for projection in block.ports.values()]
    inputs = [record.values[name] for name in wanted]
    found = torch.autograd.grad(metric.sum(), inputs, allow_unused=True)
    unread = [name for name, gradient in zip(wanted, found, strict=True) if gradient is None]
    if unread:
        raise anatomy.refuse(f"nothing reads {unread[0]}")
    return dict(zip(wanted, found, strict=True))


def _changes(anatomy: Anatomy, clean: dict[str, Tensor], corrupt: dict[str, Tensor]) -> Tensor:
    """``clean - corrupt`` of every sender, ``[sender, batch, pos, d_model]``.

    Senders must add up to the residual stream before each MLP and after each block.
    """
    space = anatomy.space
    first = clean["blocks.0.hook_in"]
    changes = first.new_empty(len(space.senders), *first.shape)
    changes[0] = stream = first - corrupt["blocks.0.hook_in"]

    def change(name: str) -> Tensor:
        return clean[name] - corrupt[name]

    for block, after in zip(anatomy.blocks, _inputs_after(anatomy), strict=True):
        heads = block.head_outputs(change(block.at("attn.o.hook_in")))
        written = heads.sum(0)
        if block.post_norm is not None:
            raw = clean[block.at("attn.hook_out")]
            require_close(
                anatomy, change(block.at("attn.hook_out")), written,
                f"heads of block {block.layer} do not add up to its attention's output", raw,
            )  # fmt: skip
            written = block.post_norm(raw) - block.post_norm(corrupt[block.at("attn.hook_out")])
            heads = _push_forward(block.post_norm, raw, heads)
        mlp = change(block.at(block.mlp_out))
        before_mlp, stream = (
            (stream if space.parallel else stream + written),
            stream + written + mlp,
        )
        for name, expected in ((block.at("ln2.hook_in"), before_mlp), (after, stream)):
            require_close(
                anatomy, change(name), expected,
                f"senders do not add up to the residual stream at {name}", clean[name],
            )  # fmt: skip
        changes[space.head_rows(block.layer)] = heads
        changes[space.mlp_row(block.layer)] = mlp
    return changes


def _inputs_after(anatomy: Anatomy) -> list[str]:
    """Hook point that reads the residual stream after each block."""
    return [block.at("hook_in") for block in anatomy.blocks[1:]] + ["ln_final.hook_in"]


def _push_forward(norm: Norm, at: Tensor, changes: Tensor) -> Tensor:
    """Small changes ``[change, batch, pos, d_model]`` through a norm's Jacobian at a point."""
    point = at.expand_as(changes).contiguous()
    _, pushed = torch.autograd.functional.jvp(norm, point, changes)  # type: ignore[no-untyped-call]
    return cast(Tensor, pushed)


def _pull_back(norm: Norm, at: Tensor, gradients: Tensor) -> Tensor:
    """Gradients ``[port, batch, pos, d_model]`` through a norm's transpose Jacobian at a point."""
    with torch.enable_grad():
        point = at.expand_as(gradients).contiguous().requires_grad_()
        (pulled,) = torch.autograd.grad(norm(point), point, gradients)
    return pulled


def _multiply(
    anatomy: Anatomy, clean: dict[str, Tensor], gradients: dict[str, Tensor], changes: Tensor
) -> Tensor:
    """Scores summed over the batch, ``[sender, receiver]``, float64 on the CPU.

    The gradient of the residual stream is followed from the logits down; at each block it must be
    the model's own.
    """
    space = anatomy.space
    flat = changes.flatten(1)
    scores = torch.zeros(len(space.senders), len(space.receivers), dtype=torch.float64)
    stream = gradients["ln_final.hook_in"]
    scores[:, space.logits_column] = _products(flat, stream[None])[:, 0]
    for block in reversed(anatomy.blocks):
        at_mlp = gradients[block.at("ln2.hook_in")]
        column = space.mlp_column(block.layer)
        n_sources = space.receivers[column].n_sources
        scores[:n_sources, column] = _products(flat[:n_sources], at_mlp[None])[:, 0]
        at_heads = _head_gradients(anatomy, block, clean, gradients)
        columns, n_sources = space.attention_columns(block.layer), space.first_sender(block.layer)
        scores[:n_sources, columns] = _products(flat[:n_sources], at_heads)
        stream = stream + at_mlp + at_heads.sum(0)
        require_close(
            anatomy, gradients[block.at("hook_in")], stream,
            f"something besides its heads and MLP reads the input of block {block.layer}",
        )  # fmt: skip
    return scores


def _head_gradients(
    anatomy: Anatomy, block: BlockParts, clean: dict[str, Tensor], gradients: dict[str, Tensor]
) -> Tensor:
    """Gradient at each query's, key's and value's input, ``[port, batch, pos, d_model]``."""
    shape = clean[block.at("hook_in")].shape[:2]
    normed = torch.cat(
        [
            projection.pull_back(
                gradients[projection.hook].reshape(*shape, projection.weight.shape[0], -1)
            )
            for projection in block.ports.values()
        ]
    )
    mapped = _pull_back(block.norm, clean[block.at("ln1.hook_in")], normed)
    require_close(
        anatomy, gradients[block.at("ln1.hook_in")], mapped.sum(0),
        f"something besides queries, keys and values reads the first norm of block {block.layer}",
    )  # fmt: skip
    return mapped


def _products(changes: Tensor, gradients: Tensor) -> Tensor:
    return (changes @ gradients.flatten(1).mT).double().cpu()


def _require_finite(scores: Tensor, metrics: Tensor, index: Tensor, tensors: list[Tensor]) -> None:
    """Name the first prompt whose numbers are not finite."""
    if bool(torch.isfinite(scores).all()) and bool(torch.isfinite(metrics).all()):
        return
    bad = ~torch.isfinite(metrics).all(0)
    for tensor in tensors:
        bad |= ~torch.isfinite(tensor).flatten(1).all(1).cpu()
    suspects = index[bad] if bool(bad.any()) else index
    raise NonFiniteScores(int(suspects[0]))
