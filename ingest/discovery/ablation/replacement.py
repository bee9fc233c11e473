"""What senders write instead of their own output when they are ablated.

``resample``: their output on the paired corrupt prompt. ``mean``: their mean over all real tokens
of a reference set, one vector for every position. ``zero``: zero. Outputs that belong to no sender,
such as biases after the heads and learned positions, stay as in the clean run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ingest.discovery.model.anatomy import Anatomy, Hook
from ingest.discovery.model.batches import PromptBatch, PromptPairs
from ingest.discovery.model.recording import Recording
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
    "stream_with",
    "written_hooks",
    "written_of",
]

Ablation = Literal["resample", "mean", "zero"]


@dataclass(frozen=True, eq=False)
class Written:
    """The outputs of all senders in one run, heads before their block's post-norm, if it has one.

    Attributes:
        input: The token embedding without learned positions, ``[batch, pos, d_model]``.
        positions: Learned positions added to it, which belong to no sender; 0 if there are none.
        z: For each block, the heads' outputs before W_O, ``[batch, pos, head * d_head]``.
        mlps: For each block, the output that its MLP adds, ``[batch, pos, d_model]``.

    A value that all prompts and positions share has 1 in place of ``batch`` and ``pos``.
    """

    input: Tensor
    positions: Tensor
    z: tuple[Tensor, ...]
    mlps: tuple[Tensor, ...]

    def minus(self, other: Written) -> Written:
        """Return the difference to another run's outputs; a shared value counts for all."""
        return Written(
            self.input - other.input,
            self.positions,
            tuple(a - b for a, b in zip(self.z, other.z, strict=True)),
            tuple(a - b for a, b in zip(self.mlps, other.mlps, strict=True)),
        )

    def part(self, rows: slice, positions: slice = slice(None)) -> Written:
        """Return a part of the prompts and positions."""
        learned = self.positions
        return Written(
            self.input[rows, positions],
            learned[rows, positions] if learned.ndim else learned,
            tuple(z[rows, positions] for z in self.z),
            tuple(mlp[rows, positions] for mlp in self.mlps),
        )

    @property
    def first_position(self) -> int:
        """The first position with nonzero outputs; earlier positions are exactly 0."""
        written = torch.stack(
            [value.ne(0).any(-1).any(0).cpu() for value in (self.input, *self.z, *self.mlps)]
        )
        found = written.any(0).nonzero()
        return int(found[0]) if len(found) else 0


@dataclass(frozen=True, eq=False)
class Stream:
    """A run, real or computed: the outputs of senders, and the stream that receivers read.

    Attributes:
        written: Outputs of all senders.
        at: The residual stream by hook name: each block's ``hook_in``, the input of its MLP, and
            ``ln_final.hook_in``; ``[batch, pos, d_model]``.
        attention: By layer, attention's output before its post-norm, for blocks that have one.
    """

    written: Written
    at: Mapping[str, Tensor]
    attention: Mapping[int, Tensor]

    def part(self, rows: slice) -> Stream:
        """Return a part of the prompts."""
        return Stream(
            self.written.part(rows),
            {name: value[rows] for name, value in self.at.items()},
            {layer: value[rows] for layer, value in self.attention.items()},
        )

    def one(self) -> Stream:
        """Return the first prompt, in separate memory; shared outputs stay shared."""
        return Stream(
            self.written,
            {name: value[:1].clone() for name, value in self.at.items()},
            {layer: value[:1].clone() for layer, value in self.attention.items()},
        )

    @property
    def n_bytes(self) -> int:
        """Its memory in addition to the outputs of senders."""
        held = (*self.at.values(), *self.attention.values())
        return sum(value.numel() * value.element_size() for value in held)


@dataclass(frozen=True, eq=False)
class Replacement:
    """The ablation of senders.

    Attributes:
        kind: ``resample``, ``mean`` or ``zero``.
        constant: What senders write instead, equal for every prompt; None for ``resample``.
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
        """Return what senders write instead on these prompts."""
        if self.constant is not None:
            return self.constant
        record = Recording()
        anatomy.run(model, batch.counterpart(), written_hooks(anatomy, record))
        return written_of(anatomy, record.values)

    def stream(
        self, model: Any, anatomy: Anatomy, batch: PromptBatch, clean: Stream
    ) -> tuple[Stream, Tensor | None]:
        """Return the run with every sender ablated; with last logits if a real run gives them."""
        if self.constant is not None:
            return stream_with(anatomy, clean, self.constant), None
        return record_stream(model, anatomy, batch.counterpart())


def check_ablation(ablation: str, corrupt: object | None, reference: object | None) -> None:
    """Refuse an unknown ablation, or an ablation without its prompts.

    Raises:
        BadInput: It is unknown, or its prompts are missing.
    """
    if ablation not in get_args(Ablation):
        raise BadInput(f"ablation must be 'resample', 'mean' or 'zero'; got {ablation!r}")
    if ablation == "resample" and corrupt is None:
        raise BadInput("ablation='resample' needs corrupt prompts, one per clean prompt")
    if ablation == "mean" and reference is None:
        raise BadInput("ablation='mean' needs reference: the prompts for the mean")


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
    """Return senders' outputs in a recorded run; without ``senders``, only the embedding."""
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
    """Return zeros for every sender's output."""
    zero = torch.zeros(1, 1, anatomy.d_model, device=anatomy.device, dtype=anatomy.dtype)
    z = tuple(b.w_o.new_zeros(1, 1, b.w_o.shape[0] * b.w_o.shape[1]) for b in anatomy.blocks)
    mlps = tuple(b.w_o.new_zeros(1, 1, anatomy.d_model) for b in anatomy.blocks)
    return Written(zero, zero.new_zeros(()), z, mlps)


def mean_written(model: Any, anatomy: Anatomy, reference: PromptPairs, size: int) -> Written:
    """Return the mean of senders' outputs over all real tokens of the reference prompts."""
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
    """Make hooks that record what :func:`stream_of` needs in addition to senders' outputs."""
    hooks = [record.keep("ln_final.hook_in")]
    for block in anatomy.blocks:
        places = [block.mlp_stream, "hook_in"]
        if block.post_norm is not None:
            places.append("attn.hook_out")
        hooks += [record.keep(block.at(place)) for place in dict.fromkeys(places)]
    return hooks


def stream_of(anatomy: Anatomy, values: Mapping[str, Tensor]) -> Stream:
    """Return a recorded run as a stream."""
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
    """Run prompts ``[batch, pos]``; return the stream and the last logits ``[batch, word]``."""
    record = Recording()
    hooks = [*written_hooks(anatomy, record), *stream_hooks(anatomy, record)]
    with torch.no_grad():
        logits = anatomy.run(model, tokens, hooks)
    return stream_of(anatomy, record.values), logits


def stream_with(anatomy: Anatomy, like: Stream, written: Written) -> Stream:
    """Return the stream that receivers would read if every sender wrote ``written``.

    It is summed from the embedding on, in float32 or wider, and not subtracted from a run's stream.
    With everything ablated the sum may be exactly zero. A difference would leave rounding errors
    instead, which the next norm would amplify.

    Args:
        anatomy: Anatomy of the model.
        like: A run on the same prompts: it gives learned positions, shapes and precision.
        written: Outputs of all senders; one value for all prompts and positions, or one for each.
    """
    at: dict[str, Tensor] = {}
    attention: dict[int, Tensor] = {}
    wide = torch.promote_types(written.input.dtype, torch.float32)
    stream = written.input.to(wide) + like.written.positions.to(wide)
    for block in anatomy.blocks:
        layer, before = block.layer, like.at[block.at("hook_in")]
        stream = stream.to(before.device)  # blocks may be on several devices
        at[block.at("hook_in")] = stream.to(before.dtype).expand_as(before)
        added = block.attention_output(written.z[layer].to(before.device, wide), bias=True)
        if block.post_norm is not None:
            raw = like.attention[layer]
            attention[layer] = added.to(raw.dtype).expand_as(raw)
            added = block.post_norm(added)
        mlp = stream if anatomy.space.parallel else stream + added
        at[block.at(block.mlp_stream)] = mlp.to(before.dtype).expand_as(before)
        stream = stream + added + written.mlps[layer].to(before.device, wide)
    last = like.at["ln_final.hook_in"]
    at["ln_final.hook_in"] = stream.to(last.device, last.dtype).expand_as(last)
    return Stream(written, at, attention)
