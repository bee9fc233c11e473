"""A forward pass in which every edge carries its sender's present value, its ablated one, or a mix.

The model runs on the clean prompts, block by block. The input of a receiver is recomputed. It
begins with the residual stream of the ablated run. For every sender with an edge to the receiver,
the sender's present output minus its ablated output, times the edge's weight, is added. Queries,
keys and values of heads have separate inputs, and every norm is recomputed on its receiver's input.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ingest.discovery.ablation.replacement import Stream
from ingest.discovery.model.anatomy import Anatomy, Hook
from ingest.discovery.model.block_parts import BlockParts
from registry.identifiers import PORTS, Port

__all__ = ["run_patched"]


def run_patched(
    model: Any,
    anatomy: Anatomy,
    clean: Tensor,
    weights: Tensor,
    ablated: Stream,
    *,
    also: Sequence[tuple[str, Hook]] = (),
) -> Tensor:
    """Run clean prompts ``[batch, pos]`` with weighted edges; return the last logits.

    Args:
        model: Frozen.
        anatomy: Anatomy of the model.
        clean: Token ids.
        weights: Weight of each edge, ``[sender, receiver]``, or separately per prompt, ``[batch,
            sender, receiver]``: 1 carries the present value, 0 the ablated value.
        ablated: The run in which every sender is ablated, for each prompt, or one run for all.
        also: Further hooks, called after those of the run.
    """
    hooks = _PatchedRun(anatomy, clean, weights, ablated).hooks()
    return anatomy.run(model, clean, [*hooks, *also])


class _PatchedRun:
    """The hooks of one run.

    The model's own residual stream is not used: each receiver's input, query, key or value is
    replaced at its hook before it is used.
    """

    def __init__(self, anatomy: Anatomy, clean: Tensor, weights: Tensor, ablated: Stream) -> None:
        self._anatomy = anatomy
        self._space = anatomy.space
        first = ablated.at["blocks.0.hook_in"]
        self._weights = (weights if weights.ndim == 3 else weights[None]).to(first.dtype)
        self._ablated = ablated
        self._positions = first.new_zeros(())
        # For each sender, its present output minus its ablated output.
        self._changes = first.new_zeros(len(self._space.senders), *clean.shape, anatomy.d_model)
        self._normed = (-1, first)
        self._direct = self._weights.clone()
        for block in anatomy.blocks:
            if block.post_norm is not None:  # these heads reach receivers through the norm
                self._direct[:, self._space.head_rows(block.layer)] = 0

    def hooks(self) -> list[tuple[str, Hook]]:
        """Return the hooks of the run, to be used once."""
        hooks: list[tuple[str, Hook]] = [("blocks.0.hook_in", self._after_embedding)]
        if self._anatomy.learned_positions:
            hooks.append(("pos_embed.hook_out", self._after_positions))
        for block in self._anatomy.blocks:
            hooks += [(block.ports[port].hook, self._at_port(block, port)) for port in PORTS]
            hooks.append((block.at("attn.o.hook_in"), self._after_heads(block)))
            hooks.append((block.at(block.mlp_in), self._before_mlp(block)))
            hooks.append((block.at(block.mlp_out), self._after_mlp(block)))
        hooks.append(("ln_final.hook_in", self._before_logits))
        return hooks

    def _after_positions(self, value: Tensor, hook: object) -> None:  # noqa: ARG002
        self._positions = value

    def _after_embedding(self, value: Tensor, hook: object) -> None:  # noqa: ARG002
        self._changes[0] = value - self._positions - self._ablated.written.input

    def _at_port(self, block: BlockParts, port: Port) -> Hook:
        first = self._space.attention_columns(block.layer).start
        columns = self._space.port_columns(block.layer, port)

        def overwrite(value: Tensor, hook: object) -> Tensor:  # noqa: ARG001
            normed = self._normed_inputs(block)[columns.start - first : columns.stop - first]
            projected = block.ports[port].apply(normed)
            return projected.permute(1, 2, 0, 3).reshape(value.shape)

        return overwrite

    def _normed_inputs(self, block: BlockParts) -> Tensor:
        """Return the normed inputs of all queries, keys and values of a block; computed once."""
        if self._normed[0] != block.layer:
            columns = self._space.attention_columns(block.layer)
            inputs = self._inputs(self._ablated.at[block.at("hook_in")], columns)
            self._normed = (block.layer, block.norm(inputs))
        return self._normed[1]

    def _after_heads(self, block: BlockParts) -> Hook:
        rows = self._space.head_rows(block.layer)

        def note(value: Tensor, hook: object) -> None:  # noqa: ARG001
            change = value.flatten(2) - self._ablated.written.z[block.layer]
            self._changes[rows] = block.head_outputs(change)

        return note

    def _before_mlp(self, block: BlockParts) -> Hook:
        name, column = block.at(block.mlp_stream), self._space.mlp_column(block.layer)

        def overwrite(value: Tensor, hook: object) -> Tensor:  # noqa: ARG001
            stream = self._inputs(self._ablated.at[name], slice(column, column + 1))[0]
            return block.mlp_reads(stream)

        return overwrite

    def _after_mlp(self, block: BlockParts) -> Hook:
        row = self._space.mlp_row(block.layer)

        def note(value: Tensor, hook: object) -> None:  # noqa: ARG001
            self._changes[row] = value - self._ablated.written.mlps[block.layer]

        return note

    def _before_logits(self, value: Tensor, hook: object) -> Tensor:  # noqa: ARG002
        column = self._space.logits_column
        return self._inputs(self._ablated.at["ln_final.hook_in"], slice(column, column + 1))[0]

    def _inputs(self, ablated: Tensor, columns: slice) -> Tensor:
        """Return the inputs of receivers that read at one time, ``[port, batch, pos, d_model]``."""
        n_sources = self._space.receivers[columns.start].n_sources
        mixed = self._mix(self._direct[:, :n_sources, columns], 0)
        inputs = ablated + mixed.to(ablated.device)  # blocks may be on several devices
        for block in self._anatomy.blocks:
            rows = self._space.head_rows(block.layer)
            if block.post_norm is not None and rows.stop <= n_sources:
                change = self._through(block, self._weights[:, rows, columns], rows.start)
                inputs += change.to(inputs.device)
        return inputs

    def _mix(self, weights: Tensor, first: int) -> Tensor:
        """Sum changes of the senders from row ``first`` on, weighted for each port."""
        changes = self._changes[first : first + weights.shape[1]]
        used = weights.any(0).any(1).nonzero().flatten()
        if len(used) < len(changes):  # a circuit uses few rows; the others need not be read
            weights, changes = weights[:, used], changes[used]
        if len(weights) == 1:
            mixed = weights[0].mT @ changes.flatten(1)
        else:
            mixed = (weights.mT @ changes.flatten(2).transpose(0, 1)).transpose(0, 1)
        return mixed.reshape(-1, *changes.shape[1:])

    def _through(self, block: BlockParts, weights: Tensor, first: int) -> Tensor:
        """Return an attention's change for some receivers, with recomputed post-norm."""
        mixed = self._mix(weights, first)
        if block.post_norm is None:
            return mixed
        raw = self._ablated.attention[block.layer]
        change: Tensor = block.post_norm(raw + mixed.to(raw.device)) - block.post_norm(raw)
        return change
