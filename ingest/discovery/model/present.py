"""The present state of a model, to be compared with a later state.

Kept results are valid only as long as the model is unchanged. Hooks can be added and parts can be
replaced. Weights can be written to, also in a way that autograd does not see (``weight.data``). So
all numbers must be read. Summing them takes less time than a pass of one prompt, which reads them
too: 60 ms for a hundred million weights on one core.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Present", "present"]

_SHORT = 4_096
"""Number of values of a weight that is kept whole, such as a bias."""
_PLAIN = (bool, int, float, str, type(None))
_MOVING = ("training", "circuits_proven_length")
_LONGEST = "max_seq_len_cached"
"""Attributes that do not affect a model's computations, or that each run sets again."""


@dataclass(frozen=True, eq=False)
class Present:
    """A model's parts, their hooks and plain attributes, and sums of the bits of its weights.

    Attributes:
        parts: A description of each module.
        sums: Sums of each weight and buffer, by row and by column.
    """

    parts: tuple[object, ...]
    sums: tuple[Tensor, ...]

    def same(self, other: Present) -> bool:
        """Return whether both are the same model in the same state."""
        if self.parts != other.parts or len(self.sums) != len(other.sums):
            return False
        return all(torch.equal(a, b) for a, b in zip(self.sums, other.sums, strict=True))


def present(model: Any) -> Present:
    """Return the present state of a TransformerLens ``TransformerBridge``."""
    modules = list(dict.fromkeys([*model.modules(), *model.original_model.modules()]))
    tensors = {id(each): each for module in modules for each in _tensors(module)}
    with torch.no_grad():
        sums = tuple(part for each in tensors.values() for part in _sums(each))
    return Present(tuple(_part(module) for module in modules), sums)


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters(recurse=False)
    yield from module.buffers(recurse=False)


def _part(module: nn.Module) -> tuple[object, ...]:
    """Return a module's type and identity, forward function, hooks, and plain attributes."""
    own = vars(module)
    plain = tuple(
        (name, value)
        for name, value in own.items()
        if isinstance(value, _PLAIN) and not name.startswith("_") and not _moves(name)
    )
    hooks = tuple(module._forward_pre_hooks), tuple(module._forward_hooks)
    return type(module), id(module), id(own.get("forward")), hooks, plain


def _moves(name: str) -> bool:
    return name in _MOVING or name.endswith(_LONGEST)


def _sums(weight: Tensor) -> Iterator[Tensor]:
    """Yield sums of a weight's bits as whole numbers: exact, so one changed bit is found."""
    value = weight.detach()
    if value.is_meta:  # its values are elsewhere until they are used
        return
    if value.numel() <= _SHORT:
        yield _bits(value).cpu().clone()
        return
    bits = _bits(value).flatten(0, -2) if value.ndim > 1 else _bits(value)[None]
    yield bits.sum(-1).cpu()
    yield bits.sum(0).cpu()  # sums of rows do not show an exchange within a row


def _bits(value: Tensor) -> Tensor:
    """Return a tensor's bits as whole numbers; values are joined if the row size allows it."""
    value = value.contiguous() if value.ndim else value[None]
    size = value.element_size()
    row, first = value.shape[-1] * size, value.storage_offset() * size
    for dtype in (torch.int64, torch.int32, torch.int16):
        if row % dtype.itemsize == 0 and first % dtype.itemsize == 0:
            return value.view(dtype)
    return value.view(torch.uint8)
