"""A half-precision model that temporarily computes in float32, one block at a time.

Rounding to half precision hides small differences from a proof: bfloat16 has three digits, and a
block's output can be smaller than the rounding error of the residual stream. So proofs run in
float32. Weights are widened when their block begins and restored when it ends. So a model needs
additional memory for only one block of each kind, instead of three times its own memory. Of an
embedding only the rows that are looked up are widened.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ingest.discovery.model.interrupts import without_interrupts

__all__ = ["is_half", "widened"]


def is_half(dtype: torch.dtype) -> bool:
    """Return whether a dtype is floating-point and narrower than float32."""
    return dtype.is_floating_point and dtype.itemsize < 4


@contextmanager
def widened(model: nn.Module) -> Iterator[None]:
    """Let a model, or a part of one, compute in float32 if it is of half precision.

    Only for forward passes without gradients: a backward pass would keep every block's wide
    weights. Weights and buffers of half precision are always restored, also after Ctrl-C.

    Args:
        model: A module of transformers, or one whose parts are replaced by bridges.
    """
    if not any(is_half(each.dtype) for each in (*model.parameters(), *model.buffers())):
        yield  # checking every block again takes a tenth of the time of a small model's pass
        return
    spare = _Spare()
    at_once = _Widened(spare)
    all_widened, handles = [at_once], []
    try:
        for part in _parts(model, at_once):
            own = _Widened(spare)
            all_widened.append(own)
            handles.append(part.register_forward_pre_hook(own.before))
            handles.append(part.register_forward_hook(own.after, always_call=True))
        yield
    finally:
        with without_interrupts():
            for handle in handles:
                handle.remove()
            for one in all_widened:  # torch omits the hooks of a block that Ctrl-C ends
                one.put_back()


class _Spare:
    """Memory of earlier blocks; allocating new memory would take longer than widening into this."""

    def __init__(self) -> None:
        self._free: dict[tuple[torch.device, int], list[Tensor]] = {}

    def take(self, narrow: Tensor) -> Tensor:
        """Return a float32 tensor of the same shape, whose values are not set."""
        free = self._free.get((narrow.device, narrow.numel()))
        if not free:
            return torch.empty(narrow.shape, dtype=torch.float32, device=narrow.device)
        return free.pop().view(narrow.shape)

    def give(self, wide: Tensor) -> None:
        """Accept memory that is no longer used."""
        self._free.setdefault((wide.device, wide.numel()), []).append(wide)


class _Widened:
    """Tensors that are in float32 now, with their values in half precision."""

    def __init__(self, spare: _Spare) -> None:
        self._spare = spare
        self._kept: list[tuple[Tensor, Tensor]] = []

    def before(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        table = _looked_up(module)
        if table is not None and arguments and not arguments[0].is_floating_point():
            self._widen_rows(table.weight, arguments[0])
        else:
            self.widen([*module.parameters(), *module.buffers()])

    def after(self, module: nn.Module, arguments: object, output: Any) -> None:  # noqa: ARG002
        self.put_back()

    def widen(self, tensors: list[Any]) -> None:
        for tensor in tensors:
            if is_half(tensor.dtype):
                self._kept.append((tensor, tensor.data))
                tensor.data = self._spare.take(tensor.data).copy_(tensor.data)

    def _widen_rows(self, tensor: Tensor, rows: Tensor) -> None:
        """Widen the rows that a lookup reads; the other rows are not filled."""
        if is_half(tensor.dtype):
            narrow, rows = tensor.data, torch.unique(rows)
            self._kept.append((tensor, narrow))
            tensor.data = self._spare.take(narrow)
            tensor.data[rows] = narrow[rows].to(torch.float32)

    def put_back(self) -> None:
        for tensor, narrow in self._kept:
            wide = tensor.data
            tensor.data = narrow
            self._spare.give(wide)
        self._kept.clear()


def _looked_up(part: nn.Module) -> nn.Embedding | None:
    """Return the module, or the module in a bridge, if it is an embedding; else None."""
    found = getattr(part, "original_component", part)
    return found if type(found) is nn.Embedding else None


def _parts(module: nn.Module, at_once: _Widened) -> Iterator[nn.Module]:
    """Yield blocks and modules outside blocks; widen the weights of modules that contain blocks."""
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
