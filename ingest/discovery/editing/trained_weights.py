"""Weights in training: which may change, and how they are restored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ingest.discovery.editing.part_weights import Masks
from ingest.discovery.model.interrupts import without_interrupts
from ingest.discovery.model.weights import all_names, named_weights
from ingest.discovery.model.wrapping import unwrapped
from registry.errors import BadInput

__all__ = ["TrainedWeight", "chosen_weights", "trained"]


def chosen_weights(model: Any, masks: Masks | None) -> dict[str, Tensor | None]:
    """Check masks, and return them by the first name of each weight; None: the whole weight.

    Args:
        model: A TransformerLens ``TransformerBridge``, or a model of transformers.
        masks: Which numbers of which weights may change; None: all of all weights.

    Raises:
        BadInput: No weight has a mask's name, a mask is not of booleans or of another shape, a tied
            weight has two masks, all masks are empty, or a weight cannot be written to.
    """
    first = {id(weight): name for name, weight in named_weights(model).items()}
    weights = all_names(model)
    given: Masks | dict[str, None] = dict.fromkeys(first.values()) if masks is None else masks
    chosen: dict[str, Tensor | None] = {}
    for name, mask in given.items():
        if name not in weights:
            raise BadInput(
                f"no weight has the name {name!r}; names are those of transformers, such as"
                f" {next(iter(weights))!r}"
            )
        _check_weight(name, weights[name], mask)
        own = first[id(weights[name])]
        other = chosen.setdefault(own, mask)
        if other is not mask and not (mask is None or other is None or torch.equal(mask, other)):
            raise BadInput(f"{name} and {own} are one weight and have two masks; give one of them")
    some = {name: mask for name, mask in chosen.items() if mask is None or bool(mask.any())}
    if not some:
        raise BadInput("the masks let 0 weights change; name more parts, or give no masks")
    return some


def _check_weight(name: str, weight: Tensor, mask: Tensor | None) -> None:
    if weight.device.type == "meta" or not weight.is_floating_point():
        raise BadInput(f"{name} cannot be written to: it is offloaded, or packed")
    if mask is None:
        return
    if mask.shape != weight.shape or mask.dtype is not torch.bool:
        raise BadInput(
            f"the mask of {name} is {mask.dtype} of shape {list(mask.shape)}; it must be booleans"
            f" of shape {list(weight.shape)}"
        )


class TrainedWeight:
    """A weight in training.

    Attributes:
        name: Its first name in transformers.
        weight: The weight.
        start: Its values at the start.
        added: The change since then, float32 or wider; its ``grad`` is the gradient of the step.
    """

    def __init__(self, name: str, weight: nn.Parameter, mask: Tensor | None) -> None:
        self.name, self.weight = name, weight
        self.start = weight.detach().clone()
        self._mask = None if mask is None else mask.to(weight.device)
        wide = torch.promote_types(weight.dtype, torch.float32)
        self.added = torch.zeros_like(self.start, dtype=wide)

    def take(self, gradient: Tensor) -> None:
        """Add a gradient to that of the step."""
        total = self.added.grad
        self.added.grad = gradient if total is None else total.add_(gradient)

    def restrict(self, weight_decay: float) -> None:
        """Drop the gradient outside the mask; take a share of the weight inside of it."""
        outside = None if self._mask is None else ~self._mask
        if self.added.grad is not None and outside is not None:
            self.added.grad.masked_fill_(outside, 0)
        if weight_decay:
            lost = (self.start + self.added) * weight_decay
            self.added -= lost if outside is None else lost.masked_fill_(outside, 0)

    def write(self) -> None:
        """Write the rounded sum; weights without a change keep every bit, such as that of -0."""
        self.weight.copy_(torch.where(self.added != 0, self.start + self.added, self.start))


@contextmanager
def trained(
    model: Any, chosen: Mapping[str, Tensor | None]
) -> Iterator[tuple[nn.Module, list[TrainedWeight]]]:
    """Yield the plain model, of which only the chosen weights have gradients; then restore it.

    Weights, gradient flags and the mode of modules are put back, also after an exception or Ctrl-C.

    Args:
        model: A TransformerLens ``TransformerBridge``, or a model of transformers.
        chosen: From :func:`chosen_weights`.
    """
    with unwrapped(model) if hasattr(model, "original_model") else nullcontext(model) as plain:
        state = _State(plain)
        try:
            try:
                yield plain, state.train(chosen)
            finally:
                state.restore()
        finally:
            state.restore()  # needed if Ctrl-C came at the beginning of the other call


class _State:
    """What training changes in a model: weights, their gradient flags, the mode of modules."""

    def __init__(self, plain: nn.Module) -> None:
        self._weights = dict(plain.named_parameters())
        self._flags = {name: one.requires_grad for name, one in self._weights.items()}
        self._training = [module for module in plain.modules() if module.training]
        self._trained: list[TrainedWeight] = []

    def train(self, chosen: Mapping[str, Tensor | None]) -> list[TrainedWeight]:
        """Let only the chosen weights have gradients, and return them."""
        for name, mask in chosen.items():
            self._trained.append(TrainedWeight(name, self._weights[name], mask))
        for name, weight in self._weights.items():
            weight.requires_grad_(name in chosen)
        for module in self._training:
            module.training = False
        return self._trained

    def restore(self) -> None:
        """Put everything back; a second call does it again, with the same result."""
        with without_interrupts(), torch.no_grad():
            for one in self._trained:
                one.weight.copy_(one.start)
            for name, weight in self._weights.items():
                weight.requires_grad_(self._flags[name])
            for module in self._training:
                module.training = True
