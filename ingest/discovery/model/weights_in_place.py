"""Weights changed in place for a limited time, and restored bit for bit.

Edits and masks are tried on the model itself, because a second copy of it would often not fit into
memory. Only the old values of the changed weights are kept. They are restored when the block ends,
also after an exception or Ctrl-C. During the restoration, Ctrl-C is delayed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ingest.discovery.model.interrupts import without_interrupts
from ingest.discovery.model.weights import all_names
from ingest.discovery.model.wrapping import unwrapped
from registry.errors import BadInput

__all__ = ["ChangedWeights", "changed_weights"]

_Weights = Mapping[str, Tensor]
_Saved = list[tuple[Tensor, Tensor]]
"""Weights and their old values, in the order of the changes."""


@dataclass(frozen=True, slots=True)
class ChangedWeights:
    """The changed weights.

    Attributes:
        names: Their names in the model; a tied weight has one name.
        kept_bytes: Size of the values that are kept to restore them.
    """

    names: tuple[str, ...]
    kept_bytes: int

    def __repr__(self) -> str:
        return f"<ChangedWeights of {len(self.names)} weights, {self.kept_bytes:,} bytes kept>"


@contextmanager
def changed_weights(
    model: Any,
    *,
    replaced: _Weights | None = None,
    added: _Weights | None = None,
    masked: _Weights | None = None,
    keep_on: str | torch.device | None = None,
) -> Iterator[ChangedWeights]:
    """Change weights of a model within a ``with`` block; afterwards they are restored.

    For a weight with several changes: ``(replaced + added) * masked``. Blocks may be nested. If the
    code in the block writes to the weights named here, this is undone too. An ``Anatomy`` and
    scores of edges belong to the old weights: compute them again inside the block. A setting and
    the result of ``prepare_parts`` notice the change and compute again what they need.

    Args:
        model: A TransformerLens ``TransformerBridge``, or a model of transformers.
        replaced: New values by the weight's name in transformers: ``lm_head.weight``.
        added: Changes, added in float32 or wider and then rounded to the weight's precision.
        masked: Factors of weights: 1 keeps, 0 removes; booleans are allowed too.
        keep_on: Device on which old values are kept; None: the device of each weight.

    Raises:
        BadInput: No weight has that name, shapes differ, a value is not finite, a tied weight is
            given two values, or a weight cannot be written to (offloaded, or packed).
    """
    weights = all_names(model)
    plan = _plan(weights, replaced or {}, added or {}, masked or {})
    saved: _Saved = []
    try:
        try:
            for name, change in plan.items():
                _set(saved, weights[name], change.applied(name, weights[name]), keep_on)
            _renew_copies(model, {_place(weights[name]) for name in plan}, saved, keep_on)
            n_bytes = sum(before.numel() * before.element_size() for _, before in saved)
            yield ChangedWeights(tuple(plan), n_bytes)
        finally:
            _put_back(saved)
    finally:
        _put_back(saved)  # needed if Ctrl-C came at the beginning of the other call


@dataclass(frozen=True, eq=False)
class _Change:
    """The change of one weight."""

    replaced: Tensor | None
    added: Tensor | None
    masked: Tensor | None

    def same_as(self, other: _Change) -> bool:
        """Return whether two changes give the same result."""
        pairs = zip(self._all(), other._all(), strict=True)
        return all(
            a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs
        )

    def applied(self, name: str, weight: Tensor) -> Tensor:
        """Return the weight's new value, in its own precision."""
        for value in self._all():
            if value is not None and value.shape != weight.shape:
                raise BadInput(
                    f"{name} is {list(weight.shape)}, but the given value is {list(value.shape)}"
                )
        wide = torch.promote_types(weight.dtype, torch.float32)
        found = (weight if self.replaced is None else self.replaced).detach()
        if self.added is not None or self.masked is not None:
            found = found.to(weight.device, wide)
        if self.added is not None:
            found = found + self.added.detach().to(weight.device, wide)
        if self.masked is not None:
            found = found * self.masked.detach().to(weight.device, wide)
        found = found.to(weight.device, weight.dtype)
        if not bool(torch.isfinite(found).all()):
            raise BadInput(f"{name} would not be finite in {weight.dtype}; nothing is changed")
        return found

    def _all(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        return self.replaced, self.added, self.masked


def _plan(
    weights: Mapping[str, nn.Parameter], replaced: _Weights, added: _Weights, masked: _Weights
) -> dict[str, _Change]:
    """Return the change of each weight, tied weights only once; all names are checked first."""
    found: dict[str, _Change] = {}
    first: dict[object, str] = {}
    own = {_place(weight): name for name, weight in reversed(list(weights.items()))}
    for name in dict.fromkeys([*replaced, *added, *masked]):
        weight = weights.get(name)
        if weight is None:
            raise BadInput(f"no weight has the name {name!r}; {_hint(name, weights)}")
        if weight.device.type == "meta" or not weight.is_floating_point():
            raise BadInput(f"{name} cannot be written to: it is offloaded, or packed")
        change = _Change(replaced.get(name), added.get(name), masked.get(name))
        place = _place(weight)
        if place not in first:
            first[place] = name
            found[own[place]] = change
        elif not change.same_as(found[own[place]]):
            raise BadInput(
                f"{name} and {first[place]} are one weight and are given two values; give it "
                "under one name"
            )
    return found


def _hint(name: str, weights: Mapping[str, nn.Parameter]) -> str:
    end = name.rpartition(".")[0].rpartition(".")[2]
    alike = [known for known in weights if end and end in known.split(".")]
    return f"names are those of transformers, such as {(alike or list(weights))[0]!r}"


def _set(saved: _Saved, weight: Tensor, value: Tensor, keep_on: Any) -> None:
    """Write to a weight; its old value is kept first."""
    before = weight.detach()
    saved.append((weight, before.clone() if keep_on is None else before.to(keep_on, copy=True)))
    with torch.no_grad():
        weight.copy_(value)


def _renew_copies(
    model: Any, changed: set[tuple[object, ...]], saved: _Saved, keep_on: Any
) -> None:
    """Write to the queries, keys and values that TransformerLens split from a joint weight.

    In some families (GPT-NeoX, BLOOM, Falcon) these are copies, which the bridge uses.
    """
    if not hasattr(model, "original_model"):
        return
    for part in model.modules():
        cut = getattr(part, "split_qkv_matrix", None)
        if cut is None or not changed & {_place(w) for w in part.original_component.parameters()}:
            continue
        with without_interrupts(), unwrapped(model), torch.no_grad():
            pieces = cut(part.original_component)
        for port, piece in zip("qkv", pieces, strict=True):
            for name, value in piece.named_parameters():
                copy = getattr(getattr(part, port).original_component, name)
                if not torch.equal(copy, value):
                    _set(saved, copy, value, keep_on)


def _place(weight: Tensor) -> tuple[object, ...]:
    """Return the memory of a weight's numbers: equal for tied weights."""
    if weight.numel() == 0:
        return (id(weight),)
    storage = weight.untyped_storage().data_ptr()
    return storage, weight.storage_offset(), weight.shape, weight.stride()


def _put_back(saved: _Saved) -> None:
    """Restore old values, last change first; restored values are forgotten."""
    if not saved:
        return
    with without_interrupts(), torch.no_grad():
        while saved:
            weight, before = saved[-1]
            weight.copy_(before)
            saved.pop()
