"""The exact effect of patching one edge or node on the metric, without gradients.

A patched run is the clean run in which one edge carries its sender's ablated output, and nothing
else is replaced. Many patches run at once, each on a separate copy of the prompts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ingest.discovery.ablation.patched_run import run_patched
from ingest.discovery.ablation.replacement import Replacement, Stream, record_stream
from ingest.discovery.model.anatomy import Anatomy, Hook
from ingest.discovery.model.batches import PromptBatch, out_of_memory
from ingest.discovery.model.block_parts import BlockParts
from ingest.discovery.model.metrics import Metric, per_prompt
from registry.errors import BadInput
from registry.identifiers import PORTS, Kind, parse_local

__all__ = ["BatchEffects", "patch_edges", "patch_nodes", "prepare_patches", "score_by_patching"]

_TOKENS_AT_ONCE = 4_096
_Change = Callable[[Tensor], None]
"""Changes the rows of one patch in the value of a hook point, in place."""
Patch = tuple[str, _Change]
"""Name of a hook point, and the change there."""


@dataclass(frozen=True, eq=False)
class BatchEffects:
    """Scores summed over a batch ``[sender, receiver]``, and the metric of each prompt.

    Attributes:
        full: Metric of the clean run.
        empty: Metric with every edge ablated.
    """

    scores: Tensor
    full: Tensor
    empty: Tensor


@dataclass(frozen=True, eq=False)
class Prepared:
    """The clean and ablated runs of a batch.

    Attributes:
        changes: ``clean - ablated`` of every sender on the residual stream, exactly,
            ``[sender, batch, pos, d_model]``.
        full: Metric of the clean run, ``[batch]``.
        empty: Metric with every edge ablated.
    """

    batch: PromptBatch
    clean: Stream
    ablated: Stream
    changes: Tensor
    full: Tensor
    empty: Tensor


def score_by_patching(
    model: Any, anatomy: Anatomy, batch: PromptBatch, metric: Metric, replacement: Replacement
) -> BatchEffects:
    """Patch every edge separately."""
    prepared = prepare_patches(model, anatomy, batch, metric, replacement)
    edges = list(anatomy.space.edges())
    found = patch_edges(model, anatomy, prepared, metric, edges)
    space = anatomy.space
    scores = torch.zeros(len(space.senders), len(space.receivers), dtype=torch.float64)
    rows, columns = zip(*edges, strict=True)
    scores[list(rows), list(columns)] = found
    return BatchEffects(scores, prepared.full.double().cpu(), prepared.empty.double().cpu())


def prepare_patches(
    model: Any, anatomy: Anatomy, batch: PromptBatch, metric: Metric, replacement: Replacement
) -> Prepared:
    """Run a batch clean and ablated."""
    with torch.no_grad():
        clean, logits = record_stream(model, anatomy, batch.clean)
        full = per_prompt(metric, logits, batch.index)
        ablated, logits_empty = replacement.stream(model, anatomy, batch, clean)
        if logits_empty is None:
            space = anatomy.space
            nothing = full.new_zeros(len(space.senders), len(space.receivers), dtype=anatomy.dtype)
            logits_empty = run_patched(model, anatomy, batch.clean, nothing, ablated)
        empty = per_prompt(metric, logits_empty, batch.index)
        changes = _exact_changes(anatomy, clean, ablated)
    return Prepared(batch, clean, ablated, changes, full, empty)


def patch_edges(
    model: Any,
    anatomy: Anatomy,
    prepared: Prepared,
    metric: Metric,
    edges: Sequence[tuple[int, int]],
) -> Tensor:
    """Return the effects of edges ``(row, column)``, summed over the batch, ``[edge]``, float64."""

    def patches(chosen: Sequence[tuple[int, int]]) -> list[Patch]:
        size = len(prepared.batch.index)
        return [
            _edge_patch(anatomy, prepared, row, column, slice(at * size, (at + 1) * size))
            for at, (row, column) in enumerate(chosen)
        ]

    return _effects(model, anatomy, prepared, metric, edges, patches)


def patch_nodes(
    model: Any, anatomy: Anatomy, prepared: Prepared, metric: Metric, nodes: Sequence[str]
) -> Tensor:
    """Return the effects of nodes, summed over the batch, ``[node]``, float64.

    A sender is replaced for all its readers; for a key/value head, all its inputs are replaced.
    """

    def patches(chosen: Sequence[str]) -> list[Patch]:
        size = len(prepared.batch.index)
        found: list[Patch] = []
        for at, node in enumerate(chosen):
            found += _node_patches(anatomy, prepared, node, slice(at * size, (at + 1) * size))
        return found

    return _effects(model, anatomy, prepared, metric, nodes, patches)


def _effects(
    model: Any,
    anatomy: Anatomy,
    prepared: Prepared,
    metric: Metric,
    what: Sequence[Any],
    patches: Callable[[Sequence[Any]], list[Patch]],
) -> Tensor:
    batch = prepared.batch

    def effects(chosen: Sequence[Any]) -> Tensor:
        tokens = batch.clean.repeat(len(chosen), 1)
        logits = anatomy.run(model, tokens, list(_hooks(patches(chosen))))
        patched = per_prompt(metric, logits, batch.index.repeat(len(chosen)))
        return (prepared.full - patched.reshape(len(chosen), -1)).double().sum(1).cpu()

    at_once = max(1, _TOKENS_AT_ONCE // batch.clean.numel())
    found, done = [torch.zeros(0, dtype=torch.float64)], 0
    with torch.no_grad():
        while done < len(what):
            chosen = what[done : done + at_once]
            try:
                found.append(effects(chosen))
            except (RuntimeError, MemoryError) as error:
                if len(chosen) == 1 or not out_of_memory(error):
                    raise
                at_once = len(chosen) // 2
                continue
            done += len(chosen)
    return torch.cat(found)


def _hooks(patches: Sequence[Patch]) -> Iterator[tuple[str, Hook]]:
    """Yield one hook per hook point; the order is free, because each patch has separate rows."""
    by_place: dict[str, list[_Change]] = defaultdict(list)
    for name, change in patches:
        by_place[name].append(change)
    for name, changes in by_place.items():
        yield name, _changing(changes)


def _changing(changes: Sequence[_Change]) -> Hook:
    def change_all(value: Tensor, hook: object) -> Tensor:  # noqa: ARG001
        changed = value.clone(memory_format=torch.contiguous_format)
        for change in changes:
            change(changed.flatten(2))  # heads come flat or separate; this is a view in both cases
        return changed

    return change_all


def _edge_patch(anatomy: Anatomy, prepared: Prepared, row: int, column: int, rows: slice) -> Patch:
    receiver, change = anatomy.space.receivers[column], prepared.changes[row]
    local = parse_local(receiver.node)
    if local.layer is None:
        return "ln_final.hook_in", _subtracting(change, rows)
    block = anatomy.blocks[local.layer]
    if receiver.port is None:
        return block.at(block.mlp_in), _mlp_reading(block, prepared, change, rows)
    projection = block.ports[receiver.port]
    present = prepared.clean.at[block.at("hook_in")]
    read = present - change.to(present.device)
    head = local.head or 0
    return projection.hook, _projecting(block, receiver.port, head, read, rows)


def _node_patches(anatomy: Anatomy, prepared: Prepared, node: str, rows: slice) -> Iterator[Patch]:
    local, written = parse_local(node), prepared.ablated.written
    if local.kind is Kind.INPUT:
        yield "blocks.0.hook_in", _subtracting(prepared.changes[0], rows)
    elif local.kind is Kind.MLP:
        assert local.layer is not None
        block = anatomy.blocks[local.layer]
        yield block.at(block.mlp_out), _setting(written.mlps[local.layer], rows)
    elif local.kind is Kind.HEAD:
        assert local.layer is not None
        assert local.head is not None
        block = anatomy.blocks[local.layer]
        width = block.w_o.shape[1]
        columns = slice(local.head * width, (local.head + 1) * width)
        z = written.z[local.layer]
        yield block.at("attn.o.hook_in"), _setting(z[..., columns], rows, columns)
    elif local.kind is Kind.KV_HEAD:
        assert local.layer is not None
        block = anatomy.blocks[local.layer]
        read = prepared.ablated.at[block.at("hook_in")]
        for port in PORTS[1:]:
            yield block.ports[port].hook, _projecting(block, port, local.head or 0, read, rows)
    else:
        raise BadInput(f"{node!r} writes nothing, so it cannot be patched")


def _subtracting(change: Tensor, rows: slice) -> _Change:
    def subtract(value: Tensor) -> None:
        value[rows] -= change.to(value.device)

    return subtract


def _mlp_reading(block: BlockParts, prepared: Prepared, change: Tensor, rows: slice) -> _Change:
    if block.mlp_norm is None:
        return _subtracting(change, rows)
    present = prepared.clean.at[block.at(block.mlp_stream)]
    return _setting(block.mlp_reads(present - change.to(present.device)), rows)


def _setting(by: Tensor, rows: slice, columns: slice = slice(None)) -> _Change:
    def put(value: Tensor) -> None:
        value[rows, :, columns] = by

    return put


def _projecting(block: BlockParts, port: Any, head: int, read: Tensor, rows: slice) -> _Change:
    """Change one head's query, key or value to that of another input."""
    projection = block.ports[port]
    width = projection.weight.shape[1]

    def project(value: Tensor) -> None:
        columns = slice(head * width, (head + 1) * width)
        value[rows, :, columns] = projection.apply_head(block.norm(read), head)

    return project


def _exact_changes(anatomy: Anatomy, clean: Stream, ablated: Stream) -> Tensor:
    space, first = anatomy.space, clean.written.input
    changes = first.new_empty(len(space.senders), *first.shape)
    changes[0] = first - ablated.written.input
    for block in anatomy.blocks:
        layer = block.layer
        heads = block.head_outputs(clean.written.z[layer] - ablated.written.z[layer])
        if block.post_norm is not None:
            raw = clean.attention[layer]
            heads = block.post_norm(raw) - block.post_norm(raw - heads)
        changes[space.head_rows(layer)] = heads
        changes[space.mlp_row(layer)] = clean.written.mlps[layer] - ablated.written.mlps[layer]
    return changes
