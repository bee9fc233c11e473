"""The down-projection of an MLP: its weight, its inputs (keys) and its outputs (values).

ROME and MEMIT read an MLP's last linear layer as a memory: its input at a position is a key, its
output the value that is stored for this key (Meng et al. 2022, arXiv 2202.05262, section 3.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ingest.discovery.model.weights import named_weights
from registry.errors import BadInput, UnsupportedModel

__all__ = ["DownProjection", "Prompt", "added_at", "down_projection", "read_at", "seen"]

Prompt = tuple[Sequence[int], int]
"""Token ids of one prompt, and the position that is read or changed."""


@dataclass(frozen=True, eq=False)
class DownProjection:
    """The last linear layer of one MLP.

    Attributes:
        layer: Index of the block.
        name: Name of its weight in transformers: ``transformer.h.5.mlp.c_proj.weight``.
        weight: The weight as the model has it, ``[d_mlp, d_model]`` if ``is_transposed``, else
            ``[d_model, d_mlp]``.
        is_transposed: Whether inputs are multiplied from the left (GPT-2's ``Conv1D``).
        module: The layer; its input is ``[batch, pos, d_mlp]``, its output ``[..., d_model]``.
    """

    layer: int
    name: str
    weight: nn.Parameter
    is_transposed: bool
    module: nn.Module

    @property
    def d_mlp(self) -> int:
        """Size of a key."""
        return self.weight.shape[0 if self.is_transposed else 1]

    @property
    def d_model(self) -> int:
        """Size of a value."""
        return self.weight.shape[1 if self.is_transposed else 0]

    def as_stored(self, change: Tensor) -> Tensor:
        """Return a change ``[d_model, d_mlp]`` in the shape of the weight."""
        return change.T if self.is_transposed else change


def down_projection(model: Any, layer: int) -> DownProjection:
    """Find the down-projection of one MLP.

    Args:
        model: A TransformerLens ``TransformerBridge``.
        layer: Index of the block.

    Raises:
        BadInput: The model has no such layer.
        UnsupportedModel: The MLP has no single down-projection (experts), or its weight cannot be
            written to.
    """
    n_layers = int(model.cfg.n_layers)
    if not 0 <= layer < n_layers:
        raise BadInput(f"layer is {layer}, but the model has layers 0 to {n_layers - 1}")
    wrapped = getattr(getattr(model.blocks[layer], "mlp", None), "out", None)
    module = getattr(wrapped, "original_component", None)
    weight = getattr(module, "weight", None)
    name = next((n for n, w in named_weights(model).items() if w is weight), None)
    if module is None or weight is None or name is None or weight.ndim != 2:
        raise UnsupportedModel(
            f"the MLP of layer {layer} has no single down-projection, as with experts; edit another"
            " layer or use fine-tuning"
        )
    is_transposed = not isinstance(module, nn.Linear)
    return DownProjection(layer, name, weight, is_transposed, module)


def read_at(model: Any, place: DownProjection, prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor]:
    """Return keys and values of one MLP, each at its prompt's own position.

    Args:
        model: The model that has this MLP.
        place: From :func:`down_projection`.
        prompts: One or more; they run one after the other, so that none needs padding.

    Returns:
        Keys ``[prompt, d_mlp]`` and values ``[prompt, d_model]``, as the model computes them.
    """
    keys, values = [], []
    device = place.weight.device
    for ids, position in prompts:
        with seen(place.module) as pairs, torch.no_grad():
            model(torch.tensor([list(ids)], device=device))
        key, value = pairs[0]
        keys.append(key[0, position])
        values.append(value[0, position])
    return torch.stack(keys), torch.stack(values)


@contextmanager
def seen(module: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Collect inputs and outputs of a layer within a ``with`` block."""
    pairs: list[tuple[Tensor, Tensor]] = []

    def keep(_: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        pairs.append((given[0], out))

    hook = module.register_forward_hook(keep)
    try:
        yield pairs
    finally:
        hook.remove()


@contextmanager
def added_at(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Replace a layer's output by ``change(output)`` within a ``with`` block."""
    hook = module.register_forward_hook(lambda _module, _given, out: change(out))
    try:
        yield
    finally:
        hook.remove()
