"""Norms in closed form: their input, their Jacobian and its transpose.

A decoder has LayerNorm or RMSNorm, with or without gain and bias, or no norm::

    y = gain * unit + bias,   unit = centred(x) / sqrt(mean(centred(x) ** 2) + eps)

A module counts as one of these only if it computes the same on random vectors. Any other module is
refused. In closed form, the transpose Jacobian needs two passes over the gradients. Autograd would
need a forward and a backward pass of the norm for every port of every head.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from ingest.discovery.model.faults import unknown_arithmetic
from ingest.discovery.model.widened import widened

__all__ = ["Norm", "Point", "no_norm", "read_norm"]

_EPS_NAMES = ("variance_epsilon", "eps", "epsilon", "norm_eps")
_PROBES = 4
_PROBE_SIZES = (0.01, 0.1, 1.0, 10.0, 100.0)
_EPS_UNSAID = (1e-5, 1e-6, 1e-8, 1e-12, 0.0)
"""Values of eps to try if no attribute of a module gives it: OLMo's is in the code of its forward
pass."""


@dataclass(frozen=True, eq=False)
class Point:
    """The point at which a norm is linearised.

    Attributes:
        unit: The input centred and scaled to unit mean square, ``[..., d_model]``.
        scale: The factor of this scaling, ``[..., 1]``.
    """

    unit: Tensor
    scale: Tensor


@dataclass(frozen=True, eq=False)
class Norm:
    """A norm of a model.

    Attributes:
        module: The model's own module, which computes all values.
        gain: ``[d_model]``.
        bias: ``[d_model]``, or None.
        eps: Added to the mean square.
        centred: Whether the mean is subtracted: LayerNorm.
        identity: Whether there is no norm: the module returns its input.
    """

    module: Any
    gain: Tensor
    bias: Tensor | None
    eps: float
    centred: bool
    identity: bool = False

    def __call__(self, value: Tensor) -> Tensor:
        """Return the norm of ``value``, as the model computes it, in the precision of ``value``."""
        if value.dtype == self.gain.dtype:
            return cast(Tensor, self.module(value))
        with widened(self.module):
            return cast(Tensor, self.module(value))

    def to(self, dtype: torch.dtype) -> Norm:
        """Return the norm with its gain and bias in a dtype."""
        bias = None if self.bias is None else self.bias.to(dtype)
        return replace(self, gain=self.gain.to(dtype), bias=bias)

    def point(self, value: Tensor) -> Point:
        """Prepare the Jacobian at ``value`` ``[..., d_model]``."""
        if self.identity:
            return Point(torch.zeros_like(value), torch.ones_like(value[..., :1]))
        wide = _widened(value)
        if self.centred:
            wide = wide - wide.mean(-1, keepdim=True)
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return Point((wide * scale).to(value.dtype), scale.to(value.dtype))

    def fold(self, weight: Tensor) -> Tensor:
        """Fold the gain into a projection ``[..., d_model]``, which then reads the unit vector."""
        folded = weight * self.gain
        return folded - folded.mean(-1, keepdim=True) if self.centred else folded

    def pull_back(self, point: Point, gradient: Tensor) -> Tensor:
        """Map a gradient ``[..., d_model]`` at the output back to the input."""
        if self.identity:
            return gradient
        scaled = gradient * self.gain * point.scale
        if self.centred:
            scaled = scaled - scaled.mean(-1, keepdim=True)
        along = (scaled * point.unit).mean(-1, keepdim=True)
        return scaled - point.unit * along

    def push_forward(self, point: Point, changes: Tensor) -> Tensor:
        """Return the output's change for small changes ``[change, ..., d_model]`` of the input."""
        if self.centred:
            changes = changes - changes.mean(-1, keepdim=True)
        along = (changes * point.unit).mean(-1, keepdim=True)
        return torch.addcmul(changes, point.unit, along, value=-1).mul_(point.scale * self.gain)


def no_norm(d_model: int, like: Tensor) -> Norm:
    """Return the identity for a model without a norm; ``like`` has its dtype and device."""
    ones = torch.ones(d_model, device=like.device, dtype=like.dtype)
    return Norm(torch.nn.Identity(), ones, None, 0.0, centred=False, identity=True)


def read_norm(module: Any, d_model: int, like: Tensor, where: str, name: str) -> Norm:
    """Find out what a module computes.

    Args:
        module: A norm of the model; it is tested in float32 or wider, which is more precise.
        d_model: Width of its input.
        like: A tensor of the model's dtype and on its device.
        where: Its place, for the error.
        name: The architecture, for the error.

    Raises:
        UnsupportedModel: It is neither LayerNorm nor RMSNorm.
    """
    generator = torch.Generator().manual_seed(0)
    sizes = torch.tensor(_PROBE_SIZES).repeat_interleave(_PROBES)[:, None]
    probes = torch.randn(len(sizes), d_model, generator=generator) * sizes + 0.5 * sizes
    probes = probes.to(like.device, torch.promote_types(like.dtype, torch.float32))
    with torch.no_grad(), widened(module):
        expected = cast(Tensor, module(probes))
        for norm in _candidates(module, d_model, probes):
            if _agrees(norm, probes, expected):
                return norm.to(like.dtype)
    raise unknown_arithmetic(
        name, f"{where}, a {type(module).__name__}, is neither LayerNorm nor RMSNorm"
    )


def _candidates(module: Any, d_model: int, like: Tensor) -> Iterator[Norm]:
    ones = torch.ones(d_model, device=like.device, dtype=like.dtype)
    yield Norm(module, ones, None, 0.0, centred=False, identity=True)
    weight, bias = (_vector(getattr(module, name, None), like) for name in ("weight", "bias"))
    gains = [ones] if weight is None else [weight, 1 + weight]
    said = [getattr(module, name, None) for name in _EPS_NAMES]
    found = [float(value) for value in said if isinstance(value, float)]
    for eps in dict.fromkeys([*found, *_EPS_UNSAID, torch.finfo(like.dtype).eps]):
        for gain in gains:
            for centred in (False, True):
                yield Norm(module, gain, bias, eps, centred)


def _vector(value: Any, like: Tensor) -> Tensor | None:
    return value.detach().to(like) if isinstance(value, Tensor) and value.ndim == 1 else None


def _agrees(norm: Norm, probes: Tensor, expected: Tensor) -> bool:
    if expected.shape != probes.shape:
        return False
    written = probes if norm.identity else norm.point(probes).unit * norm.gain
    if norm.bias is not None and not norm.identity:
        written = written + norm.bias
    # Norms of float64 models compute in float32 in many implementations.
    tolerance = 64 * torch.finfo(torch.float32).eps
    difference = (written - expected).norm(dim=-1)
    return bool((difference <= tolerance * expected.norm(dim=-1)).all())


def _widened(value: Tensor) -> Tensor:
    return value.float() if value.dtype.itemsize < 4 else value
