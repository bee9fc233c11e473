"""The parts of one block of a decoder: projections by head, norms, and hook points.

There are three types of blocks. *Pre-norm* (GPT-2, Llama): attention and MLP each read the residual
stream through a norm. *Shared norm* (GPT-J, Phi, Falcon 7B, Cohere): attention and MLP both read
the output of one norm. *Post-norm* (OLMo 2): they read the stream directly, and a norm is applied
to their outputs. Gemma's blocks have norms on both sides. A block may scale its outputs (Granite).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from ingest.discovery.model.faults import unknown_arithmetic
from ingest.discovery.model.norms import Norm, no_norm, read_norm
from registry.errors import UnsupportedModel

__all__ = ["BlockParts", "Heads", "Projection", "read_block"]

_GROUPS = "num_key_value_groups"


@dataclass(frozen=True, eq=False)
class Projection:
    """Queries, keys or values of one block, by head.

    Attributes:
        weight: ``[head, d_head, d_model]``.
        bias: ``[head, 1, d_head]`` or None.
        hook: Name of the hook point after the projection.
        copies: Number of query heads with a separate copy of each head's output; above 1 if a
            grouped model's keys and values are counted per query head.
    """

    weight: Tensor
    bias: Tensor | None
    hook: str
    copies: int = 1

    def apply(self, normed: Tensor) -> Tensor:
        """Project each head's separate input: ``[head, batch, pos, d_model]`` to ``... d_head``.

        The result has the precision of ``normed``, which may be wider than that of the weights.
        """
        flat = normed.flatten(1, 2) @ self.weight.to(normed.dtype).mT
        if self.bias is not None:
            flat = flat + self.bias
        return flat.reshape(*normed.shape[:3], -1)

    def apply_head(self, normed: Tensor, head: int) -> Tensor:
        """Project one head's input: ``[batch, pos, d_model]`` to ``[batch, pos, d_head]``."""
        projected = normed @ self.weight[head].to(normed.dtype).mT
        return projected if self.bias is None else projected + self.bias[head]

    def by_head(self, value: Tensor) -> Tensor:
        """Separate heads: ``[batch, pos, head * d_head]`` to ``[head, batch, pos, d_head]``."""
        return value.reshape(*value.shape[:2], len(self.weight), -1).permute(2, 0, 1, 3)


@dataclass(frozen=True, eq=False)
class BlockParts:
    """One block's weights and hook names.

    Attributes:
        layer: Index of the block.
        ports: Projections ``q``, ``k``, ``v``.
        w_o: Output weight of each head, ``[head, d_head, d_model]``.
        b_o: The bias of all heads' outputs, which belongs to no head, ``[d_model]``; or None.
        scale: Multiplier of attention's output (Granite). Not folded into ``w_o``, because half
            precision would round it.
        norm: The norm between the stream and the projections; the identity in a post-norm block.
        attention: The model's own module, whose number of key/value groups can be changed.
        post_norm: A norm between attention's output and the residual stream, or None.
        attention_in: Hook point at which attention reads the stream, before the norm.
        mlp_in: Hook point at which the MLP's input can be replaced.
        mlp_stream: Hook point at which the stream that the MLP reads can be seen.
        mlp_norm: The norm between ``mlp_stream`` and ``mlp_in``, which attention also uses; None if
            there is no norm, or if the MLP's own norm is after ``mlp_in``.
        mlp_out: Hook point of the MLP's output, after its own post-norm and scale if it has any.
    """

    layer: int
    ports: dict[str, Projection]
    w_o: Tensor
    b_o: Tensor | None
    scale: float
    norm: Norm
    attention: Any
    post_norm: Norm | None
    attention_in: str
    mlp_in: str
    mlp_stream: str
    mlp_norm: Norm | None
    mlp_out: str

    def at(self, place: str) -> str:
        """Return the full name of a hook point of this block."""
        return f"blocks.{self.layer}.{place}"

    def head_outputs(self, z: Tensor) -> Tensor:
        """Return what each head adds, ``[head, batch, pos, d_model]``.

        This is the output before the post-norm, if there is one, and without the output bias.

        Args:
            z: The heads' outputs before W_O, ``[batch, pos, head * d_head]``.
        """
        by_head = self.scaled(z).reshape(*z.shape[:2], len(self.w_o), -1).permute(2, 0, 1, 3)
        return (by_head.flatten(1, 2) @ self.w_o.to(z.dtype)).reshape(*by_head.shape[:3], -1)

    def attention_output(self, z: Tensor, *, bias: bool = False) -> Tensor:
        """Return what all heads add together, ``[batch, pos, d_model]``, before a post-norm.

        Args:
            z: The heads' outputs before W_O, ``[batch, pos, head * d_head]``.
            bias: Add the output bias.
        """
        written = self.scaled(z) @ self.w_o.flatten(0, 1).to(z.dtype)
        if not bias or self.b_o is None:
            return written
        return written + self.scaled(self.b_o.to(z.dtype))

    def scaled(self, z: Tensor) -> Tensor:
        """Return heads' outputs times the block's multiplier."""
        return z if self.scale == 1 else z * self.scale

    def mlp_reads(self, stream: Tensor) -> Tensor:
        """Return the value at ``mlp_in`` with which the MLP reads this residual stream."""
        return stream if self.mlp_norm is None else self.mlp_norm(stream)


@dataclass(frozen=True, slots=True)
class Heads:
    """Numbers of heads of a block.

    Attributes:
        query: Query heads.
        kv: Key/value heads of the model.
        copies: Copies of each key/value head, if they are counted per query head; else 1.
    """

    query: int
    kv: int
    copies: int = 1


def read_block(
    block: Any, layer: int, heads: Heads, name: str, hooks: Mapping[str, Any]
) -> BlockParts:
    """Read the parts of a block of a TransformerBridge.

    Args:
        block: The block.
        layer: Its index.
        heads: Its numbers of heads.
        name: The architecture, for errors.
        hooks: The bridge's hook points by name.

    Raises:
        UnsupportedModel: The block lacks a part, or a weight is not a plain matrix.
    """
    parts = block.submodules
    attention = _attention(parts, layer, name)
    own = attention.original_component
    if heads.copies > 1 and getattr(own, _GROUPS, None) != heads.copies:
        raise UnsupportedModel(
            f"{name} does not give how its query heads share keys and values, so they cannot "
            "be counted per query head; use kv_heads='grouped'"
        )
    where = f"blocks.{layer}"
    w_o = _matrix(attention.o, f"{where}.attn.o", name)
    w_o = w_o.mT.reshape(heads.query, -1, len(w_o))
    b_o = attention.o.original_component.bias
    scale = float(getattr(block, "residual_contribution_scale", 1.0))

    def norm(part: str) -> Norm:
        module = parts[part].original_component
        return read_norm(module, w_o.shape[-1], w_o, f"{where}.{part}", name)

    first = norm("ln1") if "ln1" in parts else no_norm(w_o.shape[-1], w_o)
    mlp_in, mlp_stream, shared = _mlp_places(parts)
    return BlockParts(
        layer=layer,
        ports={
            "q": _read_projection(attention.q, heads.query, 1, f"{where}.attn.q", name),
            "k": _read_projection(attention.k, heads.kv, heads.copies, f"{where}.attn.k", name),
            "v": _read_projection(attention.v, heads.kv, heads.copies, f"{where}.attn.v", name),
        },
        w_o=w_o,
        b_o=None if b_o is None else b_o.detach(),
        scale=scale,
        norm=first,
        attention=own,
        post_norm=norm("ln1_post") if "ln1_post" in parts else None,
        attention_in="ln1.hook_in" if "ln1" in parts else "attn.hook_in",
        mlp_in=mlp_in,
        mlp_stream=mlp_stream,
        mlp_norm=first if shared else None,
        mlp_out=_mlp_out(block, where, name, hooks),
    )


def _attention(parts: Mapping[str, Any], layer: int, name: str) -> Any:
    """Return a block's attention, after checking that all parts exist."""
    attention = parts.get("attn")
    missing = [part for part in ("attn", "mlp") if part not in parts]
    if "ln1" not in parts and "ln1_post" not in parts:
        missing.append("ln1")
    if "ln1" not in parts and not {"ln2", "ln2_post"} & set(parts):
        missing.append("ln2")
    if attention is not None:
        missing += [part for part in "qkvo" if part not in attention.submodules]
    if missing:
        raise unknown_arithmetic(name, f"block {layer} has no {' or '.join(missing)}")
    return attention


def _mlp_places(parts: Mapping[str, Any]) -> tuple[str, str, bool]:
    """Return hook points of the MLP's input and stream, and whether it shares the norm."""
    if "ln2" in parts:
        return "ln2.hook_in", "ln2.hook_in", False
    if "ln2_post" in parts:
        return "mlp.hook_in", "mlp.hook_in", False
    return "mlp.hook_in", "hook_in", True


def _mlp_out(block: Any, where: str, name: str, hooks: Mapping[str, Any]) -> str:
    """Return the hook point of the MLP's output; some MLPs add the stream, some are scaled."""
    place = block.hook_aliases.get("hook_mlp_out", "hook_mlp_out")
    if not isinstance(place, str) or f"{where}.{place}" not in hooks:
        raise unknown_arithmetic(name, f"{where} does not show what its MLP adds to the stream")
    return place


def _read_projection(linear: Any, n_heads: int, copies: int, where: str, name: str) -> Projection:
    weight = _matrix(linear, where, name)
    if weight.shape[0] % n_heads:
        raise unknown_arithmetic(
            name, f"{where} gives {weight.shape[0]} numbers for {n_heads} heads"
        )
    bias = linear.original_component.bias
    by_head = weight.reshape(n_heads, -1, weight.shape[1])
    return Projection(
        by_head.repeat_interleave(copies, 0) if copies > 1 else by_head,
        None
        if bias is None
        else bias.detach().reshape(n_heads, 1, -1).repeat_interleave(copies, 0),
        f"{where}.hook_out",
        copies,
    )


def _matrix(linear: Any, where: str, name: str) -> Tensor:
    """Return a weight as ``[out, in]``; GPT-2's Conv1D stores its transpose."""
    from transformers.pytorch_utils import Conv1D

    module = linear.original_component
    if type(module) is Conv1D:
        return cast(Tensor, module.weight).detach().mT
    if type(module) is torch.nn.Linear or _computes_as_linear(module):
        return cast(Tensor, module.weight).detach()
    raise unknown_arithmetic(name, f"{where} is a {type(module).__name__}, not a plain matrix")


def _computes_as_linear(module: Any) -> bool:
    """Return whether a model's own ``Linear``, such as Falcon's, multiplies by its weight."""
    if not isinstance(module, torch.nn.Linear) or module.weight.ndim != 2:
        return False
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(4, module.weight.shape[1], generator=generator).to(module.weight)
    with torch.no_grad():
        try:
            found = cast(Tensor, module(probe))
            plain = torch.nn.functional.linear(probe, module.weight, module.bias)
        except RuntimeError:
            return False  # packed weights have another shape than their layer
    return found.shape == plain.shape and torch.allclose(found, plain, rtol=1e-2, atol=1e-3)
