"""From gradients at projections to scores of edges: map back, sum over runs, multiply once.

The gradient at a head's query, key or value is mapped back through its weight and through the
transpose Jacobian of the norm before it. With the norm's ``unit`` vector and ``scale`` and the
weight ``W`` that reads that vector (gain folded in), the gradient on the residual stream is ::

    W^T (scale * dq)  -  unit * ((W unit) . (scale * dq)) / d_model

so that over several runs (integrated gradients) the first term is summed before it is mapped, and
of the second one vector per position and one number per port are kept. All ports of a block and
its MLP make one matrix product with the changes of the senders before them.

Where attention's output passes a norm before it reaches the residual stream (Gemma), a head's
change does so too, through that norm's Jacobian in the same run: then runs are multiplied one by
one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ingest.discovery.ablation import Written
from ingest.discovery.anatomy import Anatomy, BlockParts, require_close
from ingest.discovery.gradients import GradientRun
from ingest.discovery.scores import edge_mask

__all__ = ["EdgeProducts", "mapped_gradients", "sender_changes"]

_RUNS_KEPT = 5
"""So many runs' unit vectors are kept before they are used up; more would fill memory."""


@dataclass(eq=False)
class _BlockSums:
    """What the runs so far say of one block's receivers.

    Attributes:
        ports: ``scale * dq``, summed over runs, ``[batch, pos, head * d_head]`` by port.
        along: Of each run, the unit vectors ``[batch, pos, d_model]``, and how far each port's
            gradient points along them, ``[port, batch, pos]``.
        mlp: Gradient at the MLP's input, summed, ``[batch, pos, d_model]``.
    """

    ports: dict[str, Tensor]
    along: list[tuple[Tensor, Tensor]]
    mlp: Tensor


class EdgeProducts:
    """Scores of all edges on one batch of prompts, summed over prompts and runs.

    Attributes:
        scores: ``[sender, receiver]``, float64, on the CPU.
    """

    def __init__(self, anatomy: Anatomy) -> None:
        """Start from nothing."""
        space = anatomy.space
        self.scores = torch.zeros(len(space.senders), len(space.receivers), dtype=torch.float64)
        self._anatomy = anatomy
        self._is_edge = edge_mask(space)
        self._blocks: list[_BlockSums] = []
        self._logits: Tensor | None = None
        self._stream: Tensor | None = None
        self._n_kept = 0
        self._changes: Tensor | None = None
        self.bad_prompts: Tensor | None = None

    def add(self, run: GradientRun, clean: Written, ablated: Written) -> None:
        """Take a run into account; ``clean - ablated`` is what senders change."""
        found = [_block_sums(block, run) for block in self._anatomy.blocks]
        logits, stream = run.gradients["ln_final.hook_in"], run.gradients["blocks.0.hook_in"]
        if self._n_kept:
            self._blocks = [_added(*two) for two in zip(self._blocks, found, strict=True)]
            assert self._logits is not None
            assert self._stream is not None
            self._logits, self._stream = self._logits + logits, self._stream + stream
        else:
            self._blocks, self._logits, self._stream = found, logits, stream
        self._n_kept += 1
        if self._anatomy.through_post_norm or self._changes is None:
            self._changes = sender_changes(self._anatomy, clean, ablated, run, self._changes)
        if self._anatomy.through_post_norm or self._n_kept == _RUNS_KEPT:
            self.finish()

    def finish(self) -> None:
        """Multiply what is still kept."""
        if not self._n_kept:
            return
        assert self._changes is not None
        assert self._logits is not None
        assert self._stream is not None
        space, flat = self._anatomy.space, self._changes.flatten(1)
        found = torch.zeros_like(self.scores)
        found[:, space.logits_column] = _products(flat, self._logits[None])[:, 0]
        total = self._logits.clone()
        for block, sums in zip(reversed(self._anatomy.blocks), reversed(self._blocks), strict=True):
            receivers = _mapped(block, sums)
            columns = slice(
                space.attention_columns(block.layer).start, space.mlp_column(block.layer) + 1
            )
            n_sources = space.mlp_row(block.layer)
            found[:n_sources, columns] = _products(flat[:n_sources], receivers)
            total += receivers.sum(0)
        require_close(
            self._anatomy, self._stream, total,
            "the mapped gradients are not the model's own at the first block's input",
        )  # fmt: skip
        self.scores += found.masked_fill_(~self._is_edge, 0)
        if not bool(torch.isfinite(found).all()):
            self._note_bad_prompts()
        self._n_kept = 0

    def _note_bad_prompts(self) -> None:
        assert self._changes is not None
        assert self._logits is not None
        tensors = [self._changes.transpose(0, 1), self._logits]
        for sums in self._blocks:
            tensors += [*sums.ports.values(), sums.mlp]
        bad = torch.stack([~torch.isfinite(t).flatten(1).all(1).cpu() for t in tensors]).any(0)
        self.bad_prompts = bad if self.bad_prompts is None else self.bad_prompts | bad


def sender_changes(
    anatomy: Anatomy, clean: Written, ablated: Written, run: GradientRun, into: Tensor | None
) -> Tensor:
    """``clean - ablated`` of every sender on the stream, ``[sender, batch, pos, d_model]``.

    Heads go through their post-norm, where there is one, by its Jacobian in ``run``.

    Args:
        anatomy: Of the model.
        clean: What senders write.
        ablated: What they write when ablated.
        run: Where post-norms are linearised.
        into: A tensor of that shape to use again, or None.
    """
    space = anatomy.space
    if into is None:
        into = clean.input.new_empty(len(space.senders), *clean.input.shape)
    into[0] = clean.input - ablated.input
    for block in anatomy.blocks:
        rows, layer = space.head_rows(block.layer), block.layer
        heads = _head_changes(block, clean.z[layer] - ablated.z[layer], into[rows])
        if block.post_norm is not None:
            at = block.post_norm.point(run.values[block.at("attn.hook_out")])
            into[rows] = block.post_norm.push_forward(at, heads)
        torch.sub(clean.mlps[layer], ablated.mlps[layer], out=into[space.mlp_row(layer)])
    return into


def mapped_gradients(block: BlockParts, run: GradientRun) -> Tensor:
    """A block's gradients on the stream: ports, then the MLP, ``[receiver, batch, pos, d]``."""
    return _mapped(block, _block_sums(block, run))


def _head_changes(block: BlockParts, z: Tensor, into: Tensor) -> Tensor:
    """What a change ``[batch, pos, head * d_head]`` of heads adds, ``[head, batch, pos, d]``."""
    by_head = z.reshape(*z.shape[:2], len(block.w_o), -1).permute(2, 0, 1, 3).flatten(1, 2)
    torch.bmm(by_head, block.w_o, out=into.view(len(block.w_o), -1, into.shape[-1]))
    return into


def _block_sums(block: BlockParts, run: GradientRun) -> _BlockSums:
    point = block.norm.point(run.values[block.at("ln1.hook_in")])
    ports: dict[str, Tensor] = {}
    along = []
    for port, projection in block.ports.items():
        ports[port] = run.gradients[projection.hook].flatten(2) * point.scale
        if projection.bias is None and block.norm.bias is None and not block.norm.identity:
            read = projection.by_head(run.values[projection.hook])
        else:  # what the model adds to the projection has to stay out
            folded = block.norm.fold(projection.weight)
            read = (point.unit.flatten(0, 1) @ folded.mT).reshape(
                len(folded), *point.unit.shape[:2], -1
            )
        along.append((read * projection.by_head(ports[port])).sum(-1))
    share = torch.cat(along) / point.unit.shape[-1]
    mlp = run.gradients[block.at("ln2.hook_in")]
    return _BlockSums(ports, [(point.unit, share)], mlp)


def _added(one: _BlockSums, other: _BlockSums) -> _BlockSums:
    return _BlockSums(
        {port: value + other.ports[port] for port, value in one.ports.items()},
        [*one.along, *other.along],
        one.mlp + other.mlp,
    )


def _mapped(block: BlockParts, sums: _BlockSums) -> Tensor:
    """Gradients on the residual stream: all ports, then the MLP, ``[receiver, batch, pos, d]``."""
    batch, pos, d_model = sums.mlp.shape
    n_ports = sum(len(projection.weight) for projection in block.ports.values())
    mapped = sums.mlp.new_empty(n_ports + 1, batch * pos, d_model)
    first = 0
    for port, projection in block.ports.items():
        last = first + len(projection.weight)
        by_head = projection.by_head(sums.ports[port]).flatten(1, 2)
        torch.bmm(by_head, block.norm.fold(projection.weight), out=mapped[first:last])
        first = last
    for unit, share in sums.along:
        mapped[:-1].addcmul_(unit.flatten(0, 1)[None], share.flatten(1)[:, :, None], value=-1)
    mapped[-1] = sums.mlp.flatten(0, 1)
    return mapped.view(n_ports + 1, batch, pos, d_model)


def _products(changes: Tensor, gradients: Tensor) -> Tensor:
    return (changes @ gradients.flatten(1).mT).double().cpu()
