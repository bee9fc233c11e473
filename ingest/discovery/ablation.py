"""What senders write instead of their own output when they are ablated.

``resample``: what they wrote on the paired corrupt prompt. ``mean``: their mean over all real
tokens of a reference set, one vector for every position. ``zero``: nothing. What is no sender's,
such as biases after the heads and learned positions, stays as it is in the clean run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ingest.discovery.anatomy import Anatomy, Hook
from ingest.discovery.block_parts import BlockParts
from ingest.discovery.prompts import PromptBatch, PromptPairs
from ingest.discovery.recording import Recording
from ingest.discovery.texts import Prompts
from registry.errors import BadInput

__all__ = [
    "Ablation",
    "Replacement",
    "Stream",
    "Written",
    "check_ablation",
    "mean_written",
    "nothing_written",
    "record_stream",
    "stream_hooks",
    "stream_of",
    "stream_without",
    "written_hooks",
    "written_of",
]

Ablation = Literal["resample", "mean", "zero"]


@dataclass(frozen=True, eq=False)
class Written:
    """What every sender writes in one run, heads and MLPs before their post-norms' linearisation.

    Attributes:
        input: The token embedding without learned positions, ``[batch, pos, d_model]``.
        positions: What learned positions add to it, which is no sender's; 0 where there are none.
        z: Of each block, the heads' outputs before W_O, ``[batch, pos, head * d_head]``.
        mlps: Of each block, what its MLP adds, ``[batch, pos, d_model]``.

    A value that is one for all prompts and positions has 1 in place of ``batch`` and ``pos``.
    """

    input: Tensor
    positions: Tensor
    z: tuple[Tensor, ...]
    mlps: tuple[Tensor, ...]

    def minus(self, other: Written) -> Written:
        """What this run's senders write beyond another's; one value there counts for all."""
        return Written(
            self.input - other.input,
            self.positions,
            tuple(a - b for a, b in zip(self.z, other.z, strict=True)),
            tuple(a - b for a, b in zip(self.mlps, other.mlps, strict=True)),
        )

    def part(self, rows: slice, positions: slice = slice(None)) -> Written:
        """Of some of the prompts, at some positions."""
        learned = self.positions
        return Written(
            self.input[rows, positions],
            learned[rows, positions] if learned.ndim else learned,
            tuple(z[rows, positions] for z in self.z),
            tuple(mlp[rows, positions] for mlp in self.mlps),
        )

    @property
    def first_position(self) -> int:
        """First position at which anything is written; what lies before is exactly 0."""
        written = torch.stack(
            [value.ne(0).any(-1).any(0).cpu() for value in (self.input, *self.z, *self.mlps)]
        )
        found = written.any(0).nonzero()
        return int(found[0]) if len(found) else 0


@dataclass(frozen=True, eq=False)
class Stream:
    """One run, or what one would be: everything written, and what receivers read of it.

    Attributes:
        written: By every sender.
        at: The residual stream by hook name: each block's ``hook_in`` and where its MLP reads, and
            ``ln_final.hook_in``; ``[batch, pos, d_model]``.
        attention: Attention's output before its post-norm, of the blocks that have one.
    """

    written: Written
    at: Mapping[str, Tensor]
    attention: Mapping[int, Tensor]

    def part(self, rows: slice) -> Stream:
        """Of some of the prompts."""
        return Stream(
            self.written.part(rows),
            {name: value[rows] for name, value in self.at.items()},
            {layer: value[rows] for layer, value in self.attention.items()},
        )


@dataclass(frozen=True, eq=False)
class Replacement:
    """How senders are ablated.

    Attributes:
        kind: ``resample``, ``mean`` or ``zero``.
        constant: What they write instead, the same for every prompt; None for ``resample``.
    """

    kind: Ablation
    constant: Written | None

    @classmethod
    def read(
        cls, model: Any, anatomy: Anatomy, kind: Ablation, reference: PromptPairs | None, size: int
    ) -> Replacement:
        """Prepare an ablation; ``reference`` is run in batches of ``size`` for ``mean``."""
        if kind == "mean" and reference is not None:
            return cls(kind, mean_written(model, anatomy, reference, size))
        return cls(kind, nothing_written(anatomy) if kind == "zero" else None)

    def written(self, model: Any, anatomy: Anatomy, batch: PromptBatch) -> Written:
        """What senders write instead on these prompts."""
        if self.constant is not None:
            return self.constant
        record = Recording()
        anatomy.run(model, batch.counterpart(), written_hooks(anatomy, record))
        return written_of(anatomy, record.values)

    def stream(
        self, model: Any, anatomy: Anatomy, batch: PromptBatch, clean: Stream
    ) -> tuple[Stream, Tensor | None]:
        """The run with every sender ablated; its last logits too where a real run tells them."""
        if self.constant is not None:
            return stream_without(anatomy, clean, self.constant), None
        return record_stream(model, anatomy, batch.counterpart())


def check_ablation(ablation: str, corrupt: Prompts | None, reference: Prompts | None) -> None:
    """Refuse an ablation that is none, or that lacks its prompts.

    Raises:
        BadInput: That.
    """
    if ablation not in get_args(Ablation):
        raise BadInput(f"ablation must be 'resample', 'mean' or 'zero'; got {ablation!r}")
    if ablation == "resample" and corrupt is None:
        raise BadInput("ablation='resample' needs corrupt prompts, one for each clean one")
    if ablation == "mean" and reference is None:
        raise BadInput("ablation='mean' needs reference: the prompts whose mean is taken")


def written_hooks(
    anatomy: Anatomy, record: Recording, *, senders: bool = True
) -> list[tuple[str, Hook]]:
    """Record what :func:`written_of` needs."""
    hooks = [record.keep("blocks.0.hook_in")]
    if anatomy.learned_positions:
        hooks.append(record.keep("pos_embed.hook_out"))
    for block in anatomy.blocks if senders else ():
        hooks += [record.keep(block.at(at)) for at in ("attn.o.hook_in", block.mlp_out)]
    return hooks


def written_of(anatomy: Anatomy, values: Mapping[str, Tensor], *, senders: bool = True) -> Written:
    """What senders wrote in a recorded run; without ``senders``, the embedding alone."""
    blocks = anatomy.blocks if senders else ()
    first = values["blocks.0.hook_in"].detach()
    positions = first.new_zeros(())
    if anatomy.learned_positions:
        positions = values["pos_embed.hook_out"].detach()
    return Written(
        first - positions,
        positions,
        tuple(values[b.at("attn.o.hook_in")].detach().flatten(2) for b in blocks),
        tuple(values[b.at(b.mlp_out)].detach() for b in blocks),
    )


def nothing_written(anatomy: Anatomy) -> Written:
    """Zeros in every sender's place."""
    zero = torch.zeros(1, 1, anatomy.d_model, device=anatomy.device, dtype=anatomy.dtype)
    z = tuple(b.w_o.new_zeros(1, 1, b.w_o.shape[0] * b.w_o.shape[1]) for b in anatomy.blocks)
    mlps = tuple(b.w_o.new_zeros(1, 1, anatomy.d_model) for b in anatomy.blocks)
    return Written(zero, zero.new_zeros(()), z, mlps)


def mean_written(model: Any, anatomy: Anatomy, reference: PromptPairs, size: int) -> Written:
    """The mean of what senders write over all real tokens of the reference prompts."""
    sums: list[Tensor] = []
    n_tokens = 0
    with torch.no_grad():
        for batch in reference.batches(size, anatomy.device):
            record = Recording()
            anatomy.run(model, batch.clean, written_hooks(anatomy, record))
            written = written_of(anatomy, record.values)
            flat = [written.input, *written.z, *written.mlps]
            found = [value.double().sum((0, 1), keepdim=True) for value in flat]
            sums = [a + b for a, b in zip(sums, found, strict=True)] if sums else found
            n_tokens += batch.clean.numel()
    means = [(total / n_tokens).to(anatomy.dtype) for total in sums]
    n_blocks = len(anatomy.blocks)
    z, mlps = means[1 : 1 + n_blocks], means[1 + n_blocks :]
    return Written(means[0], means[0].new_zeros(()), tuple(z), tuple(mlps))


def stream_hooks(anatomy: Anatomy, record: Recording) -> list[tuple[str, Hook]]:
    """Record what :func:`stream_of` needs besides what was written."""
    hooks = [record.keep("ln_final.hook_in")]
    for block in anatomy.blocks:
        places = [block.mlp_stream, "hook_in"]
        if block.post_norm is not None:
            places.append("attn.hook_out")
        hooks += [record.keep(block.at(place)) for place in dict.fromkeys(places)]
    return hooks


def stream_of(anatomy: Anatomy, values: Mapping[str, Tensor]) -> Stream:
    """A recorded run as a stream."""
    places = [b.at(place) for b in anatomy.blocks for place in ("hook_in", b.mlp_stream)]
    return Stream(
        written_of(anatomy, values),
        {place: values[place].detach() for place in [*places, "ln_final.hook_in"]},
        {
            block.layer: values[block.at("attn.hook_out")].detach()
            for block in anatomy.blocks
            if block.post_norm is not None
        },
    )


def record_stream(model: Any, anatomy: Anatomy, tokens: Tensor) -> tuple[Stream, Tensor]:
    """Run prompts ``[batch, pos]``; give the stream and the last logits ``[batch, word]``."""
    record = Recording()
    hooks = [*written_hooks(anatomy, record), *stream_hooks(anatomy, record)]
    with torch.no_grad():
        logits = anatomy.run(model, tokens, hooks)
    return stream_of(anatomy, record.values), logits


def stream_without(anatomy: Anatomy, clean: Stream, ablated: Written) -> Stream:
    """What receivers would read if every sender wrote ``ablated`` instead."""
    at: dict[str, Tensor] = {}
    attention: dict[int, Tensor] = {}
    gone = clean.written.input - ablated.input
    for block in anatomy.blocks:
        layer = block.layer
        before = clean.at[block.at("hook_in")]
        at[block.at("hook_in")] = before - gone.to(before.device)
        lost, raw = _attention_lost(block, clean, ablated)
        gone = gone.to(lost.device)  # blocks may lie on several devices
        if raw is not None:
            attention[layer] = raw
        before_mlp = gone if anatomy.space.parallel else gone + lost
        at[block.at(block.mlp_stream)] = clean.at[block.at(block.mlp_stream)] - before_mlp
        gone = gone + lost + clean.written.mlps[layer] - ablated.mlps[layer]
    last = clean.at["ln_final.hook_in"]
    at["ln_final.hook_in"] = last - gone.to(last.device)
    return Stream(ablated, at, attention)


def _attention_lost(
    block: BlockParts, clean: Stream, ablated: Written
) -> tuple[Tensor, Tensor | None]:
    """What attention no longer adds, and what it then gives to its post-norm if it has one."""
    lost = block.attention_output(clean.written.z[block.layer] - ablated.z[block.layer])
    if block.post_norm is None:
        return lost, None
    raw = clean.attention[block.layer]
    return block.post_norm(raw) - block.post_norm(raw - lost), raw - lost
