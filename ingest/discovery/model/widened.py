"""A half-precision model that temporarily computes in float32, one block at a time.

Rounding to half precision hides small differences from a proof: bfloat16 has three digits, and a
block's output can be smaller than the rounding of the residual stream. So proofs run in float32.
Weights are widened when their block begins and restored when it ends, so a model needs memory for
one more block, not three times its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["is_half", "widened"]


def is_half(dtype: torch.dtype) -> bool:
    """Return whether a dtype is floating-point and narrower than float32."""
    return dtype.is_floating_point and dtype.itemsize < 4


@contextmanager
def widened(model: nn.Module) -> Iterator[None]:
    """Let a model, or a part of one, compute in float32 if it is of half precision.

    Only for forward passes without gradients: a backward pass would keep every block's wide
    weights. Weights and buffers of half precision are always restored.

    Args:
        model: As transformers has it, or with its parts replaced by bridges.
    """
    if not any(is_half(each.dtype) for each in (*model.parameters(), *model.buffers())):
        yield  # checking every block again takes a tenth of the time of a small model's pass
        return
    at_once = _Widened()
    handles = []
    for part in _parts(model, at_once):
        own = _Widened()
        handles.append(part.register_forward_pre_hook(own.before))
        handles.append(part.register_forward_hook(own.after, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        at_once.put_back()


class _Widened:
    """Tensors that are wide at present, with their narrow values."""

    def __init__(self) -> None:
        self._kept: list[tuple[Tensor, Tensor]] = []

    def before(self, module: nn.Module, arguments: object) -> None:  # noqa: ARG002
        self.widen([*module.parameters(), *module.buffers()])

    def after(self, module: nn.Module, arguments: object, output: Any) -> None:  # noqa: ARG002
        self.put_back()

    def widen(self, tensors: list[Any]) -> None:
        for tensor in tensors:
            if is_half(tensor.dtype):
                self._kept.append((tensor, tensor.data))
                tensor.data = tensor.data.to(torch.float32)

    def put_back(self) -> None:
        for tensor, narrow in self._kept:
            tensor.data = narrow
        self._kept.clear()


def _parts(module: nn.Module, at_once: _Widened) -> Iterator[nn.Module]:
    """Yield blocks, and modules outside them; a module's own weights around blocks are widened."""
    if not any(isinstance(each, nn.ModuleList) for each in module.modules()):
        at_once.widen([*module.parameters(), *module.buffers()])
        return
    at_once.widen([*module.parameters(recurse=False), *module.buffers(recurse=False)])
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        elif any(isinstance(each, nn.ModuleList) for each in child.modules()):
            yield from _parts(child, at_once)
        else:
            yield child
