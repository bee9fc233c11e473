"""How much of a model's behaviour a circuit keeps when every other edge is corrupted.

The circuit runs on the clean prompts, block by block. What a receiver reads is put together anew:
what it read in the corrupt run, plus, for every sender with an edge of the circuit to it, what that
sender writes now minus what it wrote in the corrupt run. Heads' queries, keys and values read
separately, and every norm is computed again on what its receiver reads. Exact, without gradients.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ingest.discovery.anatomy import (
    Anatomy,
    BlockParts,
    Hook,
    frozen,
    read_anatomy,
    require_close,
)
from ingest.discovery.metrics import Metric, Progress, per_prompt
from ingest.discovery.prompts import PromptBatch, read_prompts
from ingest.discovery.recording import Recording
from registry.errors import NonFiniteScores
from registry.identifiers import PORTS, Port

__all__ = ["CircuitEvaluation", "evaluate_circuit"]

_SMALLEST_GAP = 1e-6


@dataclass(frozen=True, eq=False)
class CircuitEvaluation:
    """The metric of each prompt, ``[prompt]``, float64, under three amounts of corruption.

    Attributes:
        circuit: Every edge outside the circuit carries the corrupt run's value.
        empty: Every edge does: the corrupt run.
        full: None does: the clean run.
    """

    circuit: Tensor
    empty: Tensor
    full: Tensor

    @property
    def faithfulness(self) -> float | None:
        """``(m(circuit) - m(empty)) / (m(full) - m(empty))`` of the mean metrics.

        1: the circuit does what the model does; 0: no more than the corrupt run. Neither a bound.
        None where the full model does no better or worse than the corrupt run, to rounding.
        """
        circuit, empty, full = (float(m.mean()) for m in (self.circuit, self.empty, self.full))
        if abs(full - empty) <= _SMALLEST_GAP * max(abs(full), abs(empty), 1.0):
            return None
        return (circuit - empty) / (full - empty)


def evaluate_circuit(
    model: Any,
    edges: Iterable[str],
    clean: Tensor,
    corrupt: Tensor,
    metric: Metric,
    *,
    attention_mask: Tensor | None = None,
    batch_size: int | None = None,
    kv_heads: str = "grouped",
    progress: Progress | None = None,
) -> CircuitEvaluation:
    """Measure a circuit with every edge outside it corrupted.

    Args:
        model: A TransformerLens ``TransformerBridge``.
        edges: The circuit, as ids like ``input->a0.h0<q>``. May be empty.
        clean: Token ids ``[prompt, position]``.
        corrupt: Token ids of the same shape: each pair's counterpart, token by token.
        metric: One number per prompt from the logits at its last real position.
        attention_mask: 1 at real tokens, 0 at padding on either side, ``[prompt, position]``.
        batch_size: Prompts run at once; None: as many as keep all senders' outputs in 256 MiB.
        kv_heads: ``grouped``: the model's own key/value heads.
        progress: Called after each batch with prompts done and in all.

    Raises:
        UnsupportedModel: A part is missing, or putting inputs together anew does not give back the
            model's own logits when no edge or every edge is corrupted.
        BadInput: An edge is none of this model's, or prompts or batch size are malformed.
        NonFiniteScores: The metric of a prompt is not finite.
    """
    prompts = read_prompts(clean, corrupt, attention_mask)
    anatomy = read_anatomy(model, kv_heads)
    size = anatomy.batch_size(len(prompts), prompts.longest, batch_size)
    circuit = _as_matrix(anatomy, edges)
    metrics = torch.zeros(3, len(prompts), dtype=torch.float64)
    done = 0
    with frozen(model), torch.no_grad():
        for batch in prompts.batches(size, anatomy.device):
            if not done:
                _check_both_ends(model, anatomy, batch)
            logits = _run_three(model, anatomy, circuit, batch)
            metrics[:, batch.index] = torch.stack(
                [per_prompt(metric, part, batch.index) for part in logits]
            ).to(metrics)
            done += len(batch.index)
            if progress is not None:
                progress(done, len(prompts))
    bad = (~torch.isfinite(metrics).all(0)).nonzero()
    if len(bad):
        raise NonFiniteScores(int(bad[0]))
    return CircuitEvaluation(*metrics)


def _as_matrix(anatomy: Anatomy, edges: Iterable[str]) -> Tensor:
    """1 where an edge is in the circuit, ``[sender, receiver]``, in the model's dtype."""
    space = anatomy.space
    matrix = torch.zeros(len(space.senders), len(space.receivers))
    for edge in edges:
        matrix[space.locate(edge)] = 1
    return matrix.to(anatomy.device, anatomy.dtype)


def _check_both_ends(model: Any, anatomy: Anatomy, batch: PromptBatch) -> None:
    """On one prompt: all edges must give the clean run, none the corrupt run."""
    one = PromptBatch(batch.index[:1], batch.clean[:1], batch.corrupt[:1])
    n_senders, n_receivers = len(anatomy.space.senders), len(anatomy.space.receivers)
    every = torch.ones(n_senders, n_receivers, device=anatomy.device, dtype=anatomy.dtype)
    empty, record = _run_corrupt(model, anatomy, one)
    full = anatomy.run(model, one.clean, [])
    for circuit, expected, kept in ((every, full, "kept"), (0 * every, empty, "corrupted")):
        logits = anatomy.run(model, one.clean, _PatchedRun(anatomy, circuit, record).hooks())
        require_close(anatomy, logits, expected, f"with every edge {kept} it gives other logits")


def _run_three(
    model: Any, anatomy: Anatomy, circuit: Tensor, batch: PromptBatch
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits ``[batch, word]`` of the circuit, the corrupt run and the clean run."""
    empty, record = _run_corrupt(model, anatomy, batch)
    full = anatomy.run(model, batch.clean, [])
    patched = _PatchedRun(anatomy, circuit, record)
    return anatomy.run(model, batch.clean, patched.hooks()), empty, full


def _run_corrupt(
    model: Any, anatomy: Anatomy, batch: PromptBatch
) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits of the corrupt run and what flowed in it."""
    record = Recording()
    logits = anatomy.run(model, batch.corrupt, _recording_hooks(anatomy, record))
    return logits, record.values


def _recording_hooks(anatomy: Anatomy, record: Recording) -> list[tuple[str, Hook]]:
    """What every sender writes and every receiver reads in the corrupt run."""
    hooks = [record.keep("ln_final.hook_in")]
    for block in anatomy.blocks:
        places = ["hook_in", "ln2.hook_in", "attn.o.hook_in", block.mlp_out]
        if block.post_norm is not None:
            places.append("attn.hook_out")
        hooks += [record.keep(block.at(place)) for place in places]
    return hooks


class _PatchedRun:
    """A forward pass whose receivers' inputs are overwritten as it goes.

    The model's own residual stream carries nothing of use here: each receiver's input, query, key
    or value is replaced at its hook before it is used.
    """

    def __init__(self, anatomy: Anatomy, circuit: Tensor, corrupt: dict[str, Tensor]) -> None:
        """Prepare a run of ``circuit`` ``[sender, receiver]`` against a corrupt run's record."""
        self._anatomy = anatomy
        self._space = anatomy.space
        self._circuit = circuit
        self._corrupt = corrupt
        first = corrupt["blocks.0.hook_in"]
        # Of each sender, what it writes now minus what it wrote in the corrupt run.
        self._changes = first.new_zeros(len(self._space.senders), *first.shape)
        self._normed = (-1, first)
        self._through_post_norm = any(block.post_norm is not None for block in anatomy.blocks)
        self._direct = circuit.clone()
        if self._through_post_norm:  # heads of such a block reach receivers through its norm
            for block in anatomy.blocks:
                self._direct[self._space.head_rows(block.layer)] = 0

    def hooks(self) -> list[tuple[str, Hook]]:
        """Hooks of the run, to be used once."""
        hooks: list[tuple[str, Hook]] = [("blocks.0.hook_in", self._after_embedding)]
        for block in self._anatomy.blocks:
            hooks += [(block.ports[port].hook, self._at_port(block, port)) for port in PORTS]
            hooks.append((block.at("attn.o.hook_in"), self._after_heads(block)))
            hooks.append((block.at("ln2.hook_in"), self._before_mlp(block)))
            hooks.append((block.at(block.mlp_out), self._after_mlp(block)))
        hooks.append(("ln_final.hook_in", self._before_logits))
        return hooks

    def _after_embedding(self, value: Tensor, hook: object) -> None:  # noqa: ARG002
        self._changes[0] = value - self._corrupt["blocks.0.hook_in"]

    def _at_port(self, block: BlockParts, port: Port) -> Hook:
        first = self._space.attention_columns(block.layer).start
        columns = self._space.port_columns(block.layer, port)

        def overwrite(value: Tensor, hook: object) -> Tensor:  # noqa: ARG001
            normed = self._normed_inputs(block)[columns.start - first : columns.stop - first]
            projected = block.ports[port].apply(normed)
            return projected.permute(1, 2, 0, 3).reshape(value.shape)

        return overwrite

    def _normed_inputs(self, block: BlockParts) -> Tensor:
        """What all queries, keys and values of a block read, after the norm; made once."""
        if self._normed[0] != block.layer:
            columns = self._space.attention_columns(block.layer)
            inputs = self._inputs(self._corrupt[block.at("hook_in")], columns)
            self._normed = (block.layer, block.norm(inputs))
        return self._normed[1]

    def _after_heads(self, block: BlockParts) -> Hook:
        name, rows = block.at("attn.o.hook_in"), self._space.head_rows(block.layer)

        def note(value: Tensor, hook: object) -> None:  # noqa: ARG001
            self._changes[rows] = block.head_outputs(value - self._corrupt[name])

        return note

    def _before_mlp(self, block: BlockParts) -> Hook:
        name, column = block.at("ln2.hook_in"), self._space.mlp_column(block.layer)

        def overwrite(value: Tensor, hook: object) -> Tensor:  # noqa: ARG001
            return self._inputs(self._corrupt[name], slice(column, column + 1))[0]

        return overwrite

    def _after_mlp(self, block: BlockParts) -> Hook:
        name, row = block.at(block.mlp_out), self._space.mlp_row(block.layer)

        def note(value: Tensor, hook: object) -> None:  # noqa: ARG001
            self._changes[row] = value - self._corrupt[name]

        return note

    def _before_logits(self, value: Tensor, hook: object) -> Tensor:  # noqa: ARG002
        column = self._space.logits_column
        return self._inputs(self._corrupt["ln_final.hook_in"], slice(column, column + 1))[0]

    def _inputs(self, corrupt: Tensor, columns: slice) -> Tensor:
        """What receivers that read at one moment read, ``[port, batch, pos, d_model]``."""
        n_sources = self._space.receivers[columns.start].n_sources
        inputs = corrupt + self._mix(self._direct[:n_sources, columns], 0)
        if self._through_post_norm:
            for block in self._anatomy.blocks:
                rows = self._space.head_rows(block.layer)
                if rows.stop <= n_sources:
                    inputs += self._through(block, self._circuit[rows, columns], rows.start)
        return inputs

    def _mix(self, weights: Tensor, first: int) -> Tensor:
        """Changes of the senders from row ``first`` on, summed with ``weights`` for each port."""
        used = weights.any(1).nonzero().flatten()  # few, in a circuit; most rows need no reading
        mixed = weights[used].mT @ self._changes[first + used].flatten(1)
        return mixed.reshape(-1, *self._changes.shape[1:])

    def _through(self, block: BlockParts, weights: Tensor, first: int) -> Tensor:
        """What a block's attention changes for some receivers, its post-norm computed again."""
        mixed = self._mix(weights, first)
        if block.post_norm is None:
            return mixed
        raw = self._corrupt[block.at("attn.hook_out")]
        change: Tensor = block.post_norm(raw + mixed) - block.post_norm(raw)
        return change
