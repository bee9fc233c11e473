"""The parts of a TransformerBridge that edge algorithms use: weights, norms, hook points.

The name of an architecture is not used. A block must have the parts listed in :class:`BlockParts`.
Their assumed behaviour (heads and MLP sum to the residual stream, projections read the norm's
output) is checked numerically when the algorithms run. A model that fails one of these checks is
refused with :class:`registry.errors.UnsupportedModel`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from ingest.discovery.model.block_parts import (
    BlockParts,
    Heads,
    Projection,
    read_block,
)
from ingest.discovery.model.faults import told_by_part, unknown_arithmetic
from registry.errors import BadInput, UnsupportedModel
from registry.models.edge_space import EdgeSpace

__all__ = ["Anatomy", "Hook", "frozen", "read_anatomy", "require_close"]

Hook = Callable[..., Tensor | None]
_TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4}
_TOLERANCE_HALF = 5e-2
_BATCH_BYTES = 2**28
_ROUNDING_STEPS = 16
_GROUPS = "num_key_value_groups"
_MODULE = "original_component"
_LONGEST = "max_seq_len_cached"
"""Attribute of a rotary embedding: the longest prompt so far."""
_SHAPE_ERRORS = ("is invalid for input of size", "must match")
"""torch's errors if attention requires its own number of key/value heads."""


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A decoder seen as senders and receivers.

    Attributes:
        name: Architecture, for messages.
        space: Names and order of senders and receivers.
        blocks: Parts of each block.
        d_model: Width of the residual stream.
        device: Device of the prompts.
        dtype: Precision of the residual stream.
        learned_positions: Whether positions are looked up in a table.
        growing: Rotary embeddings whose frequencies depend on the longest prompt so far.
    """

    name: str
    space: EdgeSpace
    blocks: tuple[BlockParts, ...]
    d_model: int
    device: torch.device
    dtype: torch.dtype
    learned_positions: bool
    growing: tuple[Any, ...]
    _heads_first: dict[str, bool] = field(default_factory=dict)
    _shown: set[str] = field(default_factory=set)

    def run(self, model: Any, tokens: Tensor, hooks: Sequence[tuple[str, Hook]]) -> Tensor:
        """Run unpadded prompts under hooks; return the last position's logits ``[batch, word]``."""
        last = ("unembed.hook_in", _keep_last)  # logits of other positions are not needed
        copying = self._copying()
        self.forget_lengths()
        with self._keys_per_reader(), model.hooks(fwd_hooks=[*copying, *hooks, last]):
            try:
                with told_by_part(model.original_model, self.name, self.dtype):
                    mask = torch.ones_like(tokens)
                    logits = cast(Tensor, model(tokens, attention_mask=mask, use_cache=False))
            except UnsupportedModel as error:
                if copying and any(text in str(error.__cause__) for text in _SHAPE_ERRORS):
                    raise self.refuse(
                        "keys and values cannot be counted per query head; use kv_heads='grouped'"
                    ) from error.__cause__
                raise
        return logits[:, -1]

    def heads_come_first(self, model: Any, hook: str) -> bool:
        """Return whether a hook point has ``[batch, head, pos, d_head]``, as norms of q and k may.

        This is tested with one token, because a shape may have as many heads as positions.

        Raises:
            UnsupportedModel: The model's forward pass fails.
        """
        if hook not in self._heads_first:
            seen: list[tuple[int, ...]] = []

            def see(value: Tensor, hook: object) -> None:  # noqa: ARG001
                seen.append(tuple(value.shape))

            token = torch.zeros(1, 1, dtype=torch.long, device=self.device)
            with torch.no_grad():
                self.run(model, token, [(hook, see)])
            self._heads_first[hook] = any(len(shape) == 4 and shape[1] > 1 for shape in seen)
        return self._heads_first[hook]

    def shows(self, model: Any, hook: str) -> bool:
        """Return whether the model has a hook point of this name.

        Names that were found are remembered, because the bridge collects all names again for each
        request, and a request is made for each of many neurons.
        """
        if hook not in self._shown and hook in model.hook_dict:
            self._shown.add(hook)
        return hook in self._shown

    def forget_lengths(self) -> None:
        """Reset rotary embeddings, so that an earlier, longer prompt does not change the logits."""
        for part in self.growing:
            for name in [name for name in vars(part) if name.endswith(_LONGEST)]:
                setattr(part, name, 0)

    @property
    def through_post_norm(self) -> bool:
        """Whether heads reach the residual stream through a norm (Gemma)."""
        return any(block.post_norm is not None for block in self.blocks)

    def _copying(self) -> list[tuple[str, Hook]]:
        """Return hooks that give every query head a separate copy of its keys and values."""
        projections = (p for block in self.blocks for p in block.ports.values())
        return [(p.hook, _copied(p)) for p in projections if p.copies > 1]

    @contextmanager
    def _keys_per_reader(self) -> Iterator[None]:
        """Let attention know that keys and values are copied already, if they are."""
        with ExitStack() as stack:
            for block in self.blocks:
                if any(projection.copies > 1 for projection in block.ports.values()):
                    stack.callback(
                        setattr, block.attention, _GROUPS, getattr(block.attention, _GROUPS)
                    )
                    setattr(block.attention, _GROUPS, 1)
            yield

    def refuse(self, reason: str) -> UnsupportedModel:
        """Return the error for a model that does not have the assumed properties."""
        return unknown_arithmetic(self.name, reason)

    def as_matrix(self, edges: Iterable[str]) -> Tensor:
        """Return 1 for named edges, else 0: ``[sender, receiver]``, in the model's dtype.

        Raises:
            BadInput: The model does not have an edge.
        """
        space = self.space
        matrix = torch.zeros(len(space.senders), len(space.receivers))
        for edge in edges:
            matrix[space.locate(edge)] = 1
        return matrix.to(self.device, self.dtype)

    def batch_size(self, n_prompts: int, n_positions: int, wanted: int | None) -> int:
        """Return prompts per batch: as requested, or such that senders' outputs fit into 256 MiB.

        Raises:
            BadInput: The requested number is not a whole number of at least 1.
        """
        if wanted is not None:
            if not isinstance(wanted, int) or wanted < 1:
                raise BadInput(f"batch_size must be a whole number of at least 1; got {wanted}")
            return wanted
        element = torch.finfo(self.dtype).bits // 8
        per_prompt = len(self.space.senders) * n_positions * self.d_model * element
        return max(1, min(n_prompts, _BATCH_BYTES // per_prompt))


def read_anatomy(model: Any, kv_heads: str = "grouped") -> Anatomy:
    """Read the anatomy of a TransformerBridge.

    Args:
        model: A ``TransformerBridge`` around a causal decoder.
        kv_heads: ``grouped``: key/value heads as the model has them. ``per-query-head``: a copy for
            every query head that reads them, as EAP-IG and MIB count.

    Raises:
        UnsupportedModel: The model lacks a part, a weight is not a plain matrix, or a setting of
            the bridge separates heads.
        BadInput: ``kv_heads`` is something else.
    """
    if kv_heads not in ("grouped", "per-query-head"):
        raise BadInput(f"kv_heads must be 'grouped' or 'per-query-head'; got {kv_heads!r}")
    cfg = model.cfg
    name = str(getattr(cfg, "architecture", None) or type(model).__name__)
    n_kv_heads = getattr(cfg, "n_key_value_heads", None) or cfg.n_heads
    copies = cfg.n_heads // n_kv_heads if kv_heads == "per-query-head" else 1
    _check_switches(cfg, name)
    last = getattr(model, "ln_final", None)
    if "ln_final.hook_in" not in model.hook_dict or getattr(last, _MODULE, None) is None:
        raise unknown_arithmetic(name, "it has no norm before its unembedding")
    heads = Heads(cfg.n_heads, n_kv_heads, copies)
    blocks = tuple(
        read_block(block, layer, heads, name, model.hook_dict)
        for layer, block in enumerate(model.blocks)
    )
    if not blocks:
        raise unknown_arithmetic(name, "it has no layers, so it has no heads for edges")
    if cfg.d_vocab < 2:
        raise unknown_arithmetic(name, "its vocabulary is one token, so no answer is wrong")
    parallel = bool(cfg.parallel_attn_mlp)
    if not parallel and any(block.mlp_norm is not None for block in blocks):
        raise unknown_arithmetic(name, "attention and MLP share a norm, one after the other")
    w_q = blocks[0].ports["q"].weight
    return Anatomy(
        name,
        EdgeSpace(cfg.n_layers, cfg.n_heads, n_kv_heads * copies, parallel),
        blocks,
        w_q.shape[-1],
        w_q.device,
        w_q.dtype,
        learned_positions="pos_embed.hook_out" in model.hook_dict,
        growing=tuple(_growing(model)),
    )


def _growing(model: Any) -> Iterator[Any]:
    """Yield rotary embeddings of the dynamic kind (NTK)."""
    for part in model.original_model.modules():
        if hasattr(part, _LONGEST) and "dynamic" in str(getattr(part, "rope_type", "")):
            yield part


@contextmanager
def frozen(model: Any) -> Iterator[None]:
    """Set evaluation mode without gradients to weights; both are restored afterwards."""
    modules = [*model.modules(), *model.original_model.modules()]
    training = [module for module in modules if module.training]
    weights = {id(p): p for module in modules for p in module.parameters(recurse=False)}
    trainable = [weight for weight in weights.values() if weight.requires_grad]
    for weight in trainable:
        weight.requires_grad_(False)
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for weight in trainable:
            weight.requires_grad_(True)
        for module in training:
            module.training = True


def require_close(
    anatomy: Anatomy, actual: Tensor, expected: Tensor, reason: str, size: Tensor | None = None
) -> None:
    """Refuse the model unless two tensors agree in norm, within their precision.

    Args:
        anatomy: Names the model in the error.
        actual: The model's result.
        expected: The result that the algorithm assumes.
        reason: The failed assumption; the end of the error's sentence.
        size: If both tensors are differences, the numbers that were subtracted: rounding errors are
            relative to these.
    """
    tolerance = _TOLERANCE.get(actual.dtype, _TOLERANCE_HALF)
    allowed = tolerance * float(expected.norm())
    if size is not None:
        allowed += _ROUNDING_STEPS * torch.finfo(actual.dtype).eps * float(size.norm())
    error = float((actual - expected).norm())
    if error > allowed:  # False for NaN, which is reported later with its prompt
        raise anatomy.refuse(f"{reason} (differs by {error:.3g}, allowed {allowed:.3g})")


def _keep_last(residual: Tensor, hook: object) -> Tensor:  # noqa: ARG001  hooks are called so
    return residual[:, -1:]


def _copied(projection: Projection) -> Hook:
    def copy(value: Tensor, hook: object) -> Tensor:  # noqa: ARG001
        by_head = value.reshape(*value.shape[:2], len(projection.weight) // projection.copies, -1)
        return by_head.repeat_interleave(projection.copies, 2).flatten(2)

    return copy


def _check_switches(cfg: Any, name: str) -> None:
    for switch in ("use_split_qkv_input", "use_attn_in", "use_attn_result"):
        if getattr(cfg, switch, False):
            raise UnsupportedModel(f"turn {switch} off first: {name} computes heads apart with it")
