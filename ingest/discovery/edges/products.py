"""From gradients at projections to scores of edges: map back, sum over runs, multiply once.

The gradient at a head's query, key or value is mapped back through its weight and through the
transpose Jacobian of the norm before it. With the norm's ``unit`` vector and ``scale`` and the
weight ``W`` that reads that vector (gain folded in), the gradient on the residual stream is ::

    W^T (scale * dq)  -  unit * ((W unit) . (scale * dq)) / d_model

Over several runs (integrated gradients) the first term is therefore summed before it is mapped; for
the second term one vector per position and one number per port are kept. All ports of a block and
its MLP need one matrix product with the changes of the senders before them.

If attention's output passes a norm before it reaches the residual stream (Gemma), a head's change
does so too, through that norm's Jacobian in the same run: then runs are multiplied one by one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ingest.discovery.ablation.replacement import Written
from ingest.discovery.edges.gradients import GradientRun
from ingest.discovery.edges.scores import edge_mask
from ingest.discovery.model.anatomy import Anatomy, require_close
from ingest.discovery.model.block_parts import BlockParts

__all__ = ["EdgeProducts", "mapped_gradients", "sender_changes"]

_RUNS_KEPT = 5
"""Number of runs whose unit vectors are kept before they are used; more would fill memory."""
_CHANGES_BYTES = 2**25
"""Memory for the senders' changes of the prompts that are multiplied at once."""


@dataclass(eq=False)
class _BlockSums:
    """Sums over the runs so far for one block's receivers.

    Attributes:
        ports: ``scale * dq``, summed over runs, ``[batch, pos, head * d_head]`` by port.
        along: For each run, the unit vectors ``[batch, pos, d_model]``, and each port's gradient
            component along them, ``[port, batch, pos]``.
        mlp: Gradient at the MLP's input, summed, ``[batch, pos, d_model]``.
    """

    ports: dict[str, Tensor]
    along: list[tuple[Tensor, Tensor]]
    mlp: Tensor

    def add(self, other: _BlockSums) -> None:
        """Add another run."""
        for port, value in self.ports.items():
            value += other.ports[port]
        self.along += other.along
        self.mlp += other.mlp

    def part(self, rows: slice, positions: slice) -> _BlockSums:
        """Return a part of the prompts and positions."""
        return _BlockSums(
            {port: value[rows, positions] for port, value in self.ports.items()},
            [(unit[rows, positions], share[:, rows, positions]) for unit, share in self.along],
            self.mlp[rows, positions],
        )


@dataclass(eq=False)
class _Sums:
    """Sums over the runs so far.

    Attributes:
        blocks: Sums of each block.
        logits: Gradient at the final norm's input, summed, ``[batch, pos, d_model]``.
        stream: The model's own gradient at the first block's input, summed.
        changed: ``clean - ablated``, the same in all runs.
        attention: For each block with a post-norm, that norm's input, in the only run.
        n_runs: Number of runs.
    """

    blocks: list[_BlockSums]
    logits: Tensor
    stream: Tensor
    changed: Written
    attention: dict[int, Tensor]
    n_runs: int = 1

    def add(self, other: _Sums) -> None:
        """Add another run."""
        for mine, more in zip(self.blocks, other.blocks, strict=True):
            mine.add(more)
        self.logits += other.logits
        self.stream += other.stream
        self.n_runs += 1

    def part(self, rows: slice, positions: slice) -> _Sums:
        """Return a part of the prompts and positions."""
        return _Sums(
            [block.part(rows, positions) for block in self.blocks],
            self.logits[rows, positions],
            self.stream[rows, positions],
            self.changed.part(rows, positions),
            {layer: raw[rows, positions] for layer, raw in self.attention.items()},
        )


class EdgeProducts:
    """Scores of all edges on one batch of prompts, summed over prompts and runs.

    Attributes:
        scores: ``[sender, receiver]``, float64, on the CPU.
        bad_prompts: Mask of prompts with numbers that are not finite, ``[batch]``; None if none.
    """

    def __init__(self, anatomy: Anatomy) -> None:
        """Start with empty sums."""
        space = anatomy.space
        self.scores = torch.zeros(len(space.senders), len(space.receivers), dtype=torch.float64)
        self.bad_prompts: Tensor | None = None
        self._anatomy = anatomy
        self._is_edge = edge_mask(space)
        self._sums: _Sums | None = None

    def add(self, run: GradientRun, changed: Written) -> None:
        """Add a run; ``changed`` is ``clean - ablated`` for every sender."""
        found = _sums(self._anatomy, run, changed)
        if self._sums is None:
            self._sums = found
        else:
            self._sums.add(found)
        if self._anatomy.through_post_norm or self._sums.n_runs == _RUNS_KEPT:
            self.finish()

    def finish(self) -> None:
        """Multiply the kept sums, a few prompts at a time, because changes are large.

        Positions before the first difference of the prompts contribute nothing and are skipped.
        """
        if self._sums is None:
            return
        sums, self._sums = self._sums, None
        positions = slice(sums.changed.first_position, None)
        batch, one = len(sums.logits), sums.logits[0, positions]
        per_prompt = len(self._anatomy.space.senders) * one.numel() * one.element_size()
        at_once = min(batch, max(1, _CHANGES_BYTES // per_prompt))
        # One buffer for all: a new one each time costs more than the products.
        memory = one.new_empty(len(self._anatomy.space.senders) * at_once * one.numel())
        for first in range(0, batch, at_once):
            rows = slice(first, first + at_once)
            self._multiply(sums.part(rows, positions), rows, batch, memory)

    def _multiply(self, sums: _Sums, rows: slice, batch: int, memory: Tensor) -> None:
        space = self._anatomy.space
        changes = sender_changes(self._anatomy, sums.changed, sums.attention, memory)
        flat = changes.flatten(1)
        found = torch.zeros_like(self.scores)
        found[:, space.logits_column] = _products(flat, sums.logits[None].to(flat.device))[:, 0]
        total = sums.logits.to(flat.device, copy=True)
        for block, of_block in zip(self._anatomy.blocks, sums.blocks, strict=True):
            receivers = _mapped(block, of_block)
            columns = slice(
                space.attention_columns(block.layer).start, space.mlp_column(block.layer) + 1
            )
            n_sources = space.mlp_row(block.layer)
            receivers = receivers.to(flat.device)  # blocks may be on several devices
            found[:n_sources, columns] = _products(flat[:n_sources], receivers)
            total += receivers.sum(0)
        require_close(
            self._anatomy, sums.stream, total,
            "the mapped gradients are not the model's own at the first block's input",
        )  # fmt: skip
        self.scores += found.masked_fill_(~self._is_edge, 0)
        if not bool(torch.isfinite(found).all()):
            if self.bad_prompts is None:
                self.bad_prompts = torch.zeros(batch, dtype=torch.bool)
            self.bad_prompts[rows] |= _bad_prompts(changes, sums)


def _sums(anatomy: Anatomy, run: GradientRun, changed: Written) -> _Sums:
    return _Sums(
        [_block_sums(block, run) for block in anatomy.blocks],
        run.gradients["ln_final.hook_in"],
        run.gradients["blocks.0.hook_in"],
        changed,
        {
            block.layer: run.values[block.at("attn.hook_out")]
            for block in anatomy.blocks
            if block.post_norm is not None
        },
    )


def _bad_prompts(changes: Tensor, sums: _Sums) -> Tensor:
    tensors = [changes.transpose(0, 1), sums.logits]
    for block in sums.blocks:
        tensors += [*block.ports.values(), block.mlp]
    return torch.stack([~torch.isfinite(t).flatten(1).all(1).cpu() for t in tensors]).any(0)


def sender_changes(
    anatomy: Anatomy,
    changed: Written,
    attention: Mapping[int, Tensor],
    memory: Tensor | None = None,
) -> Tensor:
    """Return every sender's change on the residual stream, ``[sender, batch, pos, d_model]``.

    Args:
        anatomy: Anatomy of the model.
        changed: ``clean - ablated``.
        attention: For each block with a post-norm, the point of that norm's Jacobian, through which
            heads reach the stream.
        memory: Buffer for the result, one long row; None for a new one.
    """
    space = anatomy.space
    shape = (len(space.senders), *changed.input.shape)
    if memory is None:
        memory = changed.input.new_empty(math.prod(shape))
    into = memory[: math.prod(shape)].view(shape)
    into[0] = changed.input
    for block in anatomy.blocks:
        rows, layer = space.head_rows(block.layer), block.layer
        heads = _head_changes(block, changed.z[layer], into[rows])
        if block.post_norm is not None:
            point = block.post_norm.point(attention[layer])
            into[rows] = block.post_norm.push_forward(point, heads.to(point.unit.device))
        into[space.mlp_row(layer)] = changed.mlps[layer]
    return into


def mapped_gradients(block: BlockParts, run: GradientRun) -> Tensor:
    """A block's gradients on the stream: ports, then the MLP, ``[receiver, batch, pos, d]``."""
    return _mapped(block, _block_sums(block, run))


def _head_changes(block: BlockParts, z: Tensor, into: Tensor) -> Tensor:
    """What a change ``[batch, pos, head * d_head]`` of heads adds, ``[head, batch, pos, d]``."""
    z = block.scaled(z)
    by_head = z.reshape(*z.shape[:2], len(block.w_o), -1).permute(2, 0, 1, 3).flatten(1, 2)
    flat = into.view(len(block.w_o), -1, into.shape[-1])
    if block.w_o.device == into.device:
        torch.bmm(by_head, block.w_o, out=flat)
    else:
        flat.copy_(by_head @ block.w_o)
    return into


def _block_sums(block: BlockParts, run: GradientRun) -> _BlockSums:
    point = block.norm.point(run.values[block.at(block.attention_in)])
    ports: dict[str, Tensor] = {}
    along = []
    for port, projection in block.ports.items():
        ports[port] = run.gradients[projection.hook].flatten(2) * point.scale
        if projection.bias is None and block.norm.bias is None and not block.norm.identity:
            read = projection.by_head(run.values[projection.hook])
        else:  # additions of the model to the projection must be excluded
            folded = block.norm.fold(projection.weight)
            read = (point.unit.flatten(0, 1) @ folded.mT).reshape(
                len(folded), *point.unit.shape[:2], -1
            )
        along.append((read * projection.by_head(ports[port])).sum(-1))
    share = torch.cat(along) / point.unit.shape[-1]
    mlp = run.gradients[block.at(block.mlp_in)]
    if block.mlp_norm is not None:
        mlp = block.mlp_norm.pull_back(point, mlp)
    return _BlockSums(ports, [(point.unit, share)], mlp)


def _mapped(block: BlockParts, sums: _BlockSums) -> Tensor:
    """Return gradients on the stream: all ports, then the MLP, ``[receiver, batch, pos, d]``."""
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
