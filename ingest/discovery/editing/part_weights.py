"""The weights of a part of a model: which numbers of which tensors are a head, an MLP or a norm.

A head is slices of the query, key, value and output weights. In a joint weight of queries, keys and
values the slices may be anywhere: GPT-2 puts the three side by side, GPT-NeoX puts those of one
head together. So a copy of the joint weight that holds its own indices is split as TransformerLens
splits the weight, and the indices are read from the pieces.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ingest.discovery.model.anatomy import Anatomy
from ingest.discovery.model.interrupts import without_interrupts
from ingest.discovery.model.weights import named_weights
from ingest.discovery.model.wrapping import unwrapped
from registry.errors import BadInput
from registry.identifiers import Kind, Local, parse_local

__all__ = ["Masks", "weights_of_parts"]

Masks = Mapping[str, Tensor]
"""For each weight by its name in transformers, which of its numbers are meant: booleans."""

_MODULE = "original_component"
_HEAD_NORM = re.compile("[qk]_norm")


def weights_of_parts(model: Any, anatomy: Anatomy, parts: Iterable[str]) -> dict[str, Tensor]:
    """Return the weights of parts, as masks on the CPU.

    If query heads share keys and values and the anatomy counts these as parts of their own, a head
    is its queries and outputs, and ``a5.kv0`` its keys and values. Otherwise a head has those of
    its group too. The bias of attention's output belongs to no head, and is in no mask.

    Args:
        model: A TransformerLens ``TransformerBridge``.
        anatomy: From ``read_anatomy`` of this model.
        parts: Local names: ``a9.h6``, ``a5.kv0``, ``m3``, ``m3.n12``, ``l5.ln1``, ``ln_final``,
            ``input``, ``embed``, ``pos_embed``, ``unembed``; with ``logits``, which has no weights.

    Returns:
        Masks of the shapes of the weights, only of weights of which some number is meant. A tied
        weight has only its first name.

    Raises:
        BadInput: The model has no such part, or the part has no weights of its own (a subspace, a
            feature).
    """
    finder = _Finder(model, anatomy)
    for part in parts:
        finder.add(parse_local(part))
    return finder.masks


@dataclass(frozen=True, eq=False)
class _Indices:
    """Where the numbers of a matrix or a bias are in a weight.

    Attributes:
        name: The weight.
        at: Flat indices in the weight, ``[out, in]`` or ``[out]``.
    """

    name: str
    at: Tensor


class _Finder:
    """Collects masks part by part."""

    def __init__(self, model: Any, anatomy: Anatomy) -> None:
        self._model, self._anatomy = model, anatomy
        self._weights = named_weights(model)
        self._names = {id(weight): name for name, weight in self._weights.items()}
        self._projections: dict[tuple[int, str], list[_Indices]] = {}
        self.masks: dict[str, Tensor] = {}

    def add(self, part: Local) -> None:
        """Add the weights of one part."""
        match part.kind:
            case Kind.HEAD:
                self._add_head(part)
            case Kind.KV_HEAD:
                self._add_kv_head(part)
            case Kind.MLP:
                self._add_module(self._block(part).mlp, part)
            case Kind.NEURON:
                self._add_neuron(part)
            case Kind.NORM:
                self._add_module(self._norm(part), part)
            case Kind.INPUT:
                self._add_module(self._model.embed, part)
                if self._anatomy.learned_positions:
                    self._add_module(self._model.pos_embed, part)
            case Kind.EMBED | Kind.POS_EMBED | Kind.UNEMBED:
                self._add_module(getattr(self._model, part.kind.value, None), part)
            case Kind.LOGITS | Kind.LOGIT:
                pass
            case _:
                raise BadInput(f"{part} has no weights of its own; name heads, MLPs or norms")

    def _add_head(self, part: Local) -> None:
        layer, head = self._layer(part), _index(part.head)
        space = self._anatomy.space
        self._require(head < space.n_heads, part, f"{space.n_heads} heads in each block")
        self._add_rows(layer, "q", head, space.n_heads)
        self._add_rows(layer, "o", head, space.n_heads)
        if not space.grouped:
            n_kv = self._n_kv_heads()
            for port in "kv":
                self._add_rows(layer, port, head * n_kv // space.n_heads, n_kv)

    def _add_kv_head(self, part: Local) -> None:
        layer, head, n_kv = self._layer(part), _index(part.head), self._n_kv_heads()
        grouped = self._anatomy.space.grouped
        self._require(grouped, part, "separate keys and values for each head")
        self._require(head < n_kv, part, f"{n_kv} key/value heads in each block")
        for port in "kv":
            self._add_rows(layer, port, head, n_kv)

    def _add_rows(self, layer: int, port: str, head: int, n_heads: int) -> None:
        """Add one head's rows of a projection; of the output's they are columns, without bias."""
        for one in self._projection(layer, port):
            if port != "o":
                self._mark(one.name, one.at.reshape(n_heads, -1)[head])
            elif one.at.ndim == 2:
                self._mark(one.name, one.at.T.reshape(n_heads, -1)[head])

    def _add_neuron(self, part: Local) -> None:
        mlp, neuron = self._block(part).mlp, _index(part.index)
        for name in ("gate", "in", "out"):
            module = getattr(mlp.submodules.get(name), _MODULE, None)
            if module is None and name == "gate":
                continue
            self._require(module is not None, part, "experts, whose neurons have no single weight")
            for one in self._direct(module):
                at = one.at.T if name == "out" and one.at.ndim == 2 else one.at
                if name != "out" or at.ndim == 2:
                    self._require(neuron < len(at), part, f"{len(at)} neurons in this MLP")
                    self._mark(one.name, at[neuron])

    def _projection(self, layer: int, port: str) -> list[_Indices]:
        """Return where the numbers of queries, keys, values or outputs of a block are."""
        if (layer, port) not in self._projections:
            attention = self._model.blocks[layer].attn
            module = getattr(attention, port).original_component
            if id(module.weight) in self._names:
                self._projections[layer, port] = self._direct(module)
            else:
                for name, found in self._split(attention).items():
                    self._projections[layer, name] = found
        return self._projections[layer, port]

    def _direct(self, module: Any) -> list[_Indices]:
        """Return where the numbers of a linear layer are, if it has weights of its own."""
        found = []
        for weight in (module.weight, module.bias if hasattr(module, "bias") else None):
            if weight is not None:
                at = torch.arange(weight.numel()).reshape(weight.shape)
                is_transposed = at.ndim == 2 and not isinstance(module, nn.Linear)
                found.append(_Indices(self._names[id(weight)], at.T if is_transposed else at))
        return found

    def _split(self, attention: Any) -> dict[str, list[_Indices]]:
        """Return where queries, keys and values are in the joint weight that they were split from.

        The first index is 1, so that a number which no piece takes from the weight shows.
        """
        own = attention.original_component
        with without_interrupts(), unwrapped(self._model):
            joint = {
                name: weight for name, weight in own.named_parameters() if id(weight) in self._names
            }
            twin = copy.deepcopy(own).to("cpu", torch.float64)
        first, starts = 1, {}
        for name, weight in joint.items():
            at = torch.arange(first, first + weight.numel(), dtype=torch.float64)
            twin.get_parameter(name).data = at.reshape(weight.shape)
            starts[name] = first
            first += weight.numel()
        pieces = attention.split_qkv_matrix(twin)
        owners = [(starts[name], self._names[id(weight)]) for name, weight in joint.items()]
        return {
            port: [_from_index(value.detach(), owners) for value in piece.parameters()]
            for port, piece in zip("qkv", pieces, strict=True)
        }

    def _add_module(self, module: Any, part: Local) -> None:
        own: nn.Module | None = getattr(module, _MODULE, None)
        self._require(own is not None, part, "no such part")
        for weight in () if own is None else own.parameters():
            if id(weight) in self._names:
                name = self._names[id(weight)]
                self._mark(name, torch.arange(weight.numel()))

    def _norm(self, part: Local) -> Any:
        norm = str(part.norm)
        if part.layer is None:
            return getattr(self._model, norm, None)
        block = self._block(part)
        holder = block.attn if _HEAD_NORM.fullmatch(norm) else block
        return holder.submodules.get(norm)

    def _mark(self, name: str, at: Tensor) -> None:
        weight = self._weights[name]
        mask = self.masks.setdefault(name, torch.zeros(weight.shape, dtype=torch.bool))
        mask.view(-1)[at.reshape(-1)] = True

    def _block(self, part: Local) -> Any:
        return self._model.blocks[self._layer(part)]

    def _layer(self, part: Local) -> int:
        n_layers, layer = len(self._anatomy.blocks), _index(part.layer)
        self._require(layer < n_layers, part, f"{n_layers} layers")
        return layer

    def _n_kv_heads(self) -> int:
        return int(getattr(self._model.cfg, "n_key_value_heads", None) or self._model.cfg.n_heads)

    def _require(self, holds: bool, part: Local, there_is: str) -> None:
        if not holds:
            raise BadInput(f"the model has no {part}: it has {there_is}")


def _from_index(value: Tensor, owners: list[tuple[int, str]]) -> _Indices:
    """Return the weight and the flat indices that a piece of it holds."""
    first = int(value.min())
    start, name = max(one for one in owners if one[0] <= first)
    return _Indices(name, value.long() - start)


def _index(value: int | None) -> int:
    if value is None:
        raise ValueError("this kind of part has an index")
    return value
