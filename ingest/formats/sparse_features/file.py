"""A sparse feature circuit's ``.pt``, checked: effects by site, position and unit, and edges.

The file is a pickle with objects of a class of the tool, ``SparseAct``. Torch refuses it unchanged.
Here an inert class with fields and no code replaces that class. Everything else that is neither
tensor nor plain container is still refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest.formats.base import Limits
from ingest.formats.torch_files import load_tensors
from registry.errors import BadInput, MissingExtra
from registry.identifiers import never_feeds, parse_local

if TYPE_CHECKING:
    import numpy

__all__ = ["OUTPUT", "Block", "SparseFile", "Submodule", "read_sparse_features"]

OUTPUT = "y"
"""The tool's name of the metric, where edges of the last residual stream end."""
_CLASSES = (
    "activation_utils.SparseAct",
    "feature_circuits.activation_utils.SparseAct",
    "__main__.SparseAct",
)
_NAME = re.compile(r"(attn|mlp|resid)_(0|[1-9]\d{0,8})", re.ASCII)
_SITES = {"attn": "attn_out", "mlp": "mlp_out", "resid": "resid_post"}


class _SparseAct:
    """Replaces the tool's class: it has the fields that the pickle gives, and no method."""

    act: Any = None
    res: Any = None
    resc: Any = None


@dataclass(frozen=True, slots=True)
class Submodule:
    """Effects at one site of the model.

    Attributes:
        name: The tool's name, ``resid_5``.
        site: The grammar's name, ``l5.resid_post``.
        effects: ``[position, unit]``; the last unit is the error of the dictionary, NaN if the file
            does not give it as one number; one row if positions are summed.
        n_infinite: Number of values that are infinite in the file and NaN here.
    """

    name: str
    site: str
    effects: numpy.ndarray[Any, Any]
    n_infinite: int = 0


@dataclass(frozen=True, slots=True)
class Block:
    """Edges from one site to another, or to :data:`OUTPUT`.

    Attributes:
        ends: ``[edge, (source position, source unit, target position, target unit)]``; zeros for
            the target if it is the output.
        effects: ``[edge]``.
    """

    source: str
    target: str
    ends: numpy.ndarray[Any, Any]
    effects: numpy.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class SparseFile:
    """The content of a whole file.

    Attributes:
        submodules: Sites by the tool's name, in the order of a forward pass.
        positions: Number of tokens per prompt; None if positions are summed.
        examples: The prompts, as in the file.
        blocks: None if the file has only nodes.
        neurons: Whether all errors are zero, as if units are not features of a dictionary but the
            activations themselves.
        errors_unknown: Number of sites whose dictionary error is not a single number.
    """

    submodules: Mapping[str, Submodule]
    positions: int | None
    examples: Sequence[Any]
    blocks: Sequence[Block] | None
    neurons: bool
    errors_unknown: int


def read_sparse_features(path: Path, limits: Limits) -> SparseFile:
    """Read and check a file.

    Raises:
        BadInput: It is malformed, too large, or has content that must not be unpickled.
        MissingExtra: torch is not installed.
    """
    data, name = _loaded(path, limits), path.name
    if not isinstance(data, dict) or not isinstance(data.get("nodes"), dict):
        raise BadInput(f"{name} holds no nodes: expected examples, nodes and edges")
    examples = data.get("examples")
    examples = examples if isinstance(examples, list) else []
    budget = _Budget(name, limits)
    given = {key: value for key, value in data["nodes"].items() if key != OUTPUT}
    submodules = {
        key: _submodule(key, value, budget) for key, value in sorted(given.items(), key=_run_order)
    }
    if not submodules:
        raise BadInput(f"{name} holds no nodes of attention, MLPs or the residual stream")
    summed = {_is_summed(value) for value in given.values()}
    rows = {len(one.effects) for one in submodules.values()}
    if len(summed) > 1 or len(rows) > 1:
        raise BadInput(f"{name}: its nodes differ in their numbers of positions: {sorted(rows)}")
    edges = data.get("edges")
    positions = None if summed == {True} else rows.pop()
    blocks = None if edges is None else list(_blocks(edges, submodules, positions, budget))
    last = [one.effects[:, -1] for one in submodules.values()]
    return SparseFile(
        submodules,
        positions,
        examples,
        blocks,
        all((errors == 0).all() for errors in last),
        sum(bool((errors != errors).any()) for errors in last),
    )


def _loaded(path: Path, limits: Limits) -> Any:
    try:
        from torch.serialization import safe_globals
    except ImportError as error:
        raise MissingExtra("reading .pt files", "discover") from error
    with safe_globals([(_SparseAct, name) for name in _CLASSES]):
        return load_tensors(path, limits)


class _Budget:
    """The amount of data that may still be read from a file: tensors may share one storage."""

    def __init__(self, name: str, limits: Limits) -> None:
        self.name, self._bytes = name, limits.max_bytes

    def array(self, tensor: Any, what: str) -> numpy.ndarray[Any, Any]:
        """Return a tensor's numbers.

        Raises:
            BadInput: It is not a tensor of numbers, or claims more of them than it stores.
        """
        import torch

        if not isinstance(tensor, torch.Tensor) or tensor.layout is not torch.strided:
            raise BadInput(f"{self.name}: {what} is no tensor of numbers")
        needed = tensor.numel() * max(tensor.element_size(), 4)
        stored = tensor.untyped_storage().nbytes()
        self._bytes -= needed
        if tensor.numel() * tensor.element_size() > stored or self._bytes < 0:
            raise BadInput(f"{self.name}: {what} claims more numbers than the file holds")
        if tensor.is_complex() or tensor.is_quantized:
            raise BadInput(f"{self.name}: {what} holds no real numbers")
        whole = not tensor.is_floating_point()
        wide = tensor.dtype is torch.float64
        kept = torch.int64 if whole else torch.float64 if wide else torch.float32
        return tensor.detach().to(kept).contiguous().numpy()


def _run_order(item: tuple[Any, Any]) -> tuple[int, int]:
    """Return the order of the tool's names in a forward pass: embedding first, then by block."""
    found = _NAME.fullmatch(item[0]) if isinstance(item[0], str) else None
    return (int(found[2]), list(_SITES).index(found[1])) if found else (-1, 0)


def _site(name: Any, file: str) -> str:
    found = _NAME.fullmatch(name) if isinstance(name, str) else None
    if found:
        return f"l{found[2]}.{_SITES[found[1]]}"
    if name == "embed":
        return "l0.resid_pre"
    raise BadInput(f"{file}: {_short(name)} is none of embed, attn_0, mlp_0, resid_0, ...")


def _is_summed(value: Any) -> bool:
    return bool(value.act.ndim == 1)


def _submodule(name: Any, value: Any, budget: _Budget) -> Submodule:
    import numpy as np

    site, file = _site(name, budget.name), budget.name
    if not isinstance(value, _SparseAct):
        raise BadInput(f"{file}: {name} is no SparseAct with act, res and resc")
    act = budget.array(value.act, f"{name}.act")
    if act.ndim not in {1, 2} or not act.size:
        raise BadInput(f"{file}: {name}.act has the shape {list(act.shape)}, not [position, unit]")
    effects = np.atleast_2d(act)
    errors = np.full(len(effects), np.nan)
    if value.resc is not None:
        errors = budget.array(value.resc, f"{name}.resc").reshape(-1)
        if len(errors) != len(effects):
            raise BadInput(f"{file}: {name}.resc has {len(errors)} positions, act {len(effects)}")
    both = np.concatenate([effects, errors[:, None].astype(effects.dtype)], axis=1)
    n_infinite = int(np.isinf(both).sum())
    both[~np.isfinite(both)] = np.nan
    return Submodule(name, site, both, n_infinite)


def _blocks(
    edges: Any, submodules: Mapping[str, Submodule], positions: int | None, budget: _Budget
) -> Iterator[Block]:
    file = budget.name
    if not isinstance(edges, dict):
        raise BadInput(f"{file}: edges is neither None nor a dictionary of dictionaries")
    for source, targets in edges.items():
        if not isinstance(targets, dict):
            raise BadInput(f"{file}: the edges from {_short(source)} are no dictionary")
        for target, tensor in targets.items():
            if source not in submodules or not (target in submodules or target == OUTPUT):
                raise BadInput(
                    f"{file}: edges from {_short(source)} to {_short(target)}, which have no nodes"
                )
            _check_order(source, target, submodules, file)
            yield _block(source, target, tensor, submodules, positions, budget)


def _check_order(source: str, target: str, submodules: Mapping[str, Submodule], file: str) -> None:
    if target == OUTPUT:
        return
    one, other = (parse_local(f"{submodules[name].site}.error#d") for name in (source, target))
    if never_feeds(one, other):
        raise BadInput(
            f"{file}: edges from {_short(source)} to {_short(target)}, which reads before"
            " the source writes, are in no model"
        )


def _block(
    source: str,
    target: str,
    tensor: Any,
    submodules: Mapping[str, Submodule],
    positions: int | None,
    budget: _Budget,
) -> Block:
    """Read one tensor, ``[target, source]``, each ``[position, unit]`` or ``[unit]``."""
    import numpy as np

    what = f"edges[{source}][{target}]"
    index, effects, shape = _entries(tensor, what, budget)
    ends = [submodules[name].effects.shape for name in (target, source) if name != OUTPUT]
    wanted = [size for end in ends for size in (end if positions is not None else end[1:])]
    if list(shape) != wanted:
        raise BadInput(f"{budget.name}: {what} has the shape {list(shape)}, not {wanted}")
    if index.size and (index.min() < 0 or (index.max(1) >= np.array(wanted)).any()):
        raise BadInput(f"{budget.name}: {what} has entries outside its shape")
    if positions is None:  # all positions are summed in one row
        index = np.stack([part for unit in index for part in (np.zeros_like(unit), unit)])
    if target == OUTPUT:
        index = np.concatenate([np.zeros_like(index), index])
    return Block(source, target, np.concatenate([index[2:], index[:2]]).T, effects)


def _entries(
    tensor: Any, what: str, budget: _Budget
) -> tuple[numpy.ndarray[Any, Any], numpy.ndarray[Any, Any], Sequence[int]]:
    """Return a tensor's nonzero entries: ``[axis, entry]``, ``[entry]``, and its shape."""
    import numpy as np
    import torch

    if isinstance(tensor, torch.Tensor) and tensor.layout is torch.sparse_coo:
        # The public versions of these require a tensor without repeated indices.
        index = budget.array(tensor._indices(), f"the places of {what}")
        effects = budget.array(tensor._values(), what)
        if effects.ndim != 1:
            raise BadInput(f"{budget.name}: {what} has no single number at each place")
        return index, effects, tensor.shape
    dense = budget.array(tensor, what)
    if dense.ndim == 0:
        raise BadInput(f"{budget.name}: {what} is a single number, without units")
    index = np.array(np.nonzero(dense))
    return index, dense[tuple(index)], dense.shape


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
