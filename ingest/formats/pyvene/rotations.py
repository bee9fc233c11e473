"""The rotation that an intervention of pyvene has learned, and the columns it exchanges.

A state is a dictionary of tensors. torch stores an orthogonal matrix as unconstrained numbers
(``...parametrizations.weight.original``) and a base, from which the matrix is computed: for a
square matrix ``base @ exp(A - A^T)`` with A the lower triangle; otherwise ``base @ H``, where H is
the product of the Householder reflections whose vectors are below the diagonal (Lezcano-Casado
2019, arXiv 1909.09501; ``torch.nn.utils.parametrizations.orthogonal``). ReFT stores the matrix
itself, PCA its components as rows. It is computed in float64 and stored in float32, a precision
well above the effect of different orders of summation, so a file gives the same bytes on all
machines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Rotation", "read_rotation", "shown_columns"]

_ORIGINAL, _BASE = ".parametrizations.weight.original", ".parametrizations.weight.0.base"
_PLAIN = ("rotate_layer", "rotate_layer.weight")
_TOLERANCE = 1e-2  # bfloat16 has little more precision


@dataclass(frozen=True)
class Rotation:
    """A learned basis.

    Attributes:
        matrix: ``[dimension, columns]`` in float32; the columns are the basis.
        subspaces: The columns of each subspace.
        boundary: Share of the dimensions that is exchanged, if it was learned.
        orthonormal: Whether the columns are orthonormal, to two digits.
    """

    matrix: Tensor
    subspaces: tuple[tuple[int, ...], ...]
    boundary: float | None
    orthonormal: bool


def read_rotation(
    state: Mapping[str, Any], partition: Any, dimension: Any, where: str
) -> Rotation | None:
    """Return the rotation in a state; None if it has none.

    Args:
        state: The state of the intervention, as ``torch.save`` wrote it.
        partition: The configuration's ``subspace_partition``, or None.
        dimension: Number of columns that are exchanged if neither a partition nor a mask was
            learned.
        where: The file, for errors.

    Raises:
        BadInput: A tensor has the wrong shape or kind, or is not finite.
    """
    import torch

    matrix = _matrix(state, where)
    if matrix is None:
        return None
    gram = matrix.T @ matrix
    orthonormal = bool((gram - torch.eye(len(gram), dtype=gram.dtype)).abs().max() < _TOLERANCE)
    boundary = _boundary(state, where)
    return Rotation(
        matrix.float().contiguous(),
        _subspaces(state, matrix, partition, dimension, boundary, where),
        boundary,
        orthonormal,
    )


def _matrix(state: Mapping[str, Any], where: str) -> Tensor | None:
    originals = [key for key in state if isinstance(key, str) and key.endswith(_ORIGINAL)]
    if len(originals) > 1:
        raise BadInput(f"{where} has {len(originals)} rotations, where one is expected")
    if originals:
        original = _tensor(state, originals[0], 2, where)
        base = originals[0].removesuffix(_ORIGINAL) + _BASE
        return _orthogonal(original, _tensor(state, base, 2, where) if base in state else None,
                           where)  # fmt: skip
    for key in _PLAIN:
        if key in state:
            return _tensor(state, key, 2, where)
    if "pca_components" in state:
        return _tensor(state, "pca_components", 2, where).T
    return None


def _orthogonal(original: Tensor, base: Tensor | None, where: str) -> Tensor:
    import torch

    wide = original.shape[0] < original.shape[1]
    made: Tensor
    free = original.T if wide else original
    if free.shape[0] == free.shape[1]:
        lower = free.tril()
        made = torch.linalg.matrix_exp(lower - lower.T)
    else:
        vectors = free.tril(diagonal=-1)
        made = torch.linalg.householder_product(vectors, 2.0 / (1.0 + (vectors**2).sum(dim=0)))
        # The diagonal holds signs; torch truncates what weight decay has left to whole numbers.
        made = made * free.diagonal().trunc()
    if base is not None:
        if base.shape[1] != made.shape[0] or base.shape[0] != made.shape[0]:
            raise BadInput(f"{where}: the rotation's base is {tuple(base.shape)}, which does not"
                           f" fit a rotation of {tuple(original.shape)}")  # fmt: skip
        made = base @ made
    if not bool(torch.isfinite(made).all()):
        raise BadInput(f"{where}: the rotation made of it is not finite")
    return made.T if wide else made


def _subspaces(
    state: Mapping[str, Any],
    matrix: Tensor,
    partition: Any,
    dimension: Any,
    boundary: float | None,
    where: str,
) -> tuple[tuple[int, ...], ...]:
    rows, columns = matrix.shape
    if partition is not None:
        return _partition(partition, columns, where)
    if boundary is not None:
        # A sigmoid step at boundary * dimension; dimensions below it are exchanged.
        return (tuple(at for at in range(columns) if at < boundary * rows),)
    if "masks" in state:
        masks = _tensor(state, "masks", 1, where)
        if len(masks) != columns:
            raise BadInput(f"{where}: {len(masks)} masks for {columns} columns of the rotation")
        # A mask's sigmoid is above one half where the mask is positive.
        chosen = tuple(int(at) for at in (masks > 0).nonzero().flatten())
        if not chosen:
            raise BadInput(f"{where}: the masks choose no column of the rotation")
        return (chosen,)
    whole = type(dimension) is int and 0 < dimension < columns and rows == columns
    return (tuple(range(dimension if whole else columns)),)


def _partition(given: Any, columns: int, where: str) -> tuple[tuple[int, ...], ...]:
    """Return each part's columns: two numbers are first and last (exclusive), else a list."""
    if not isinstance(given, list) or not given:
        raise BadInput(f"{where}: subspace_partition is no list of parts")
    parts: list[tuple[int, ...]] = []
    for part in given:
        if not _are_columns(part, columns):
            raise BadInput(
                f"{where}: subspace_partition has {str(part)[:80]}, which are no columns of the"
                f" {columns} there are"
            )
        parts.append(tuple(range(*part)) if len(part) == 2 else tuple(part))
    if not all(parts):
        raise BadInput(f"{where}: subspace_partition has an empty part")
    return tuple(parts)


def _are_columns(part: Any, columns: int) -> bool:
    if not isinstance(part, list) or not all(type(at) is int for at in part):
        return False
    last = columns if len(part) == 2 else columns - 1
    return all(0 <= at <= last for at in part)


def _boundary(state: Mapping[str, Any], where: str) -> float | None:
    if "intervention_boundaries" not in state:
        return None
    given = _tensor(state, "intervention_boundaries", 1, where)
    if len(given) != 1:
        raise BadInput(f"{where}: {len(given)} boundaries where one is expected")
    return float(given.clamp(1e-3, 1.0)[0])


def _tensor(state: Mapping[str, Any], key: str, axes: int, where: str) -> Tensor:
    """Return a tensor of the state in float64; refuse one that claims more memory than it has."""
    import torch

    value = state[key]
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.is_quantized:
        raise BadInput(f"{where}: {key} is no plain tensor")
    if value.device.type != "cpu" or not value.is_floating_point() or value.dim() != axes:
        kind = f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
        raise BadInput(
            f"{where}: {key} is {kind}, no {'matrix' if axes == 2 else 'list'} of floats"
        )
    if value.numel() == 0 or value.nbytes > value.untyped_storage().nbytes():
        raise BadInput(f"{where}: {key} of {tuple(value.shape)} is not what the file holds of it")
    found = value.detach().to(torch.float64)
    if not bool(torch.isfinite(found).all()):
        raise BadInput(f"{where}: {key} is not finite")
    return found


def shown_columns(columns: Sequence[int]) -> list[int] | dict[str, int]:
    """Return columns as a record keeps them: from and to (exclusive) if they are contiguous."""
    first, last = columns[0], columns[-1]
    whole = list(columns) == list(range(first, last + 1))
    return {"from": first, "to": last + 1} if whole else list(columns)
