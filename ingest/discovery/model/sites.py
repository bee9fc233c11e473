"""Where the numbers of a named part or site can be read and replaced in a run.

Names are those of :mod:`registry.identifiers`: components (``a0.h1``, ``a0.kv1``, ``m2``,
``m2.n17``, ``input``), sites (``l3.resid_post``, ``m2.hidden``, ``a0.h1.z``) and norms (``l2.ln1``,
``l2.q_norm``, ``ln_final``), which mean the norm's output.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ingest.discovery.model.anatomy import Anatomy
from ingest.discovery.model.block_parts import BlockParts
from registry.errors import BadInput
from registry.identifiers import LAST_NORM, NORMS, PORTS, STREAM_NORMS

__all__ = [
    "INPUT",
    "POSITIONS",
    "Place",
    "heads_first",
    "heads_side_by_side",
    "places_of",
    "stream_hook",
]

INPUT = "input"
"""Name of the value that the token embedding writes, without learned positions."""
POSITIONS = "pos_embed.hook_out"
_FIRST = "blocks.0.hook_in"
_HIDDEN = "mlp.out.hook_in"
_HEAD_NORMS = tuple(norm for norm in NORMS if norm not in STREAM_NORMS)
_HEAD_NORM_HOOKS = tuple(f".attn.{norm}.hook_out" for norm in _HEAD_NORMS)
_NUMBER = r"(0|[1-9]\d{0,8})"


@dataclass(frozen=True, slots=True)
class Place:
    """Some numbers at a hook point.

    Attributes:
        hook: Name of the hook point.
        value: Name under which the numbers are recorded: ``input``, or the hook point's name.
        columns: Indices of the numbers, with heads side by side: ``[batch, pos, width]``.
        layer: The lowest block whose output changes when they are replaced; the number of blocks if
            no block's output changes.
        carried: Hook point at which a change is added to the residual stream, if ``hook`` is on a
            separate branch of the stream; None otherwise.
        heads_first: Whether the model has heads before positions there, as norms of queries and
            keys do in many models.
    """

    hook: str
    value: str
    columns: slice
    layer: int
    carried: str | None = None
    heads_first: bool = False

    @property
    def width(self) -> int:
        """The number of values at each position."""
        return int(self.columns.stop - self.columns.start)


def places_of(model: Any, anatomy: Anatomy, name: str) -> tuple[Place, ...]:
    """Find a part's numbers: one place, or two (keys and values) for ``a0.kv1``.

    Args:
        model: A TransformerLens ``TransformerBridge``.
        anatomy: Anatomy of the model, with key/value heads grouped.
        name: Name of a component, site or norm, without position and without basis.

    Raises:
        BadInput: The model has no such part, or the part has no separate numbers.
    """
    for pattern, find in _FORMS:
        found = pattern.fullmatch(name)
        if found is not None:
            finder = _Finder(model, anatomy, name)
            return find(finder, *found.groups())
    raise BadInput(
        f"{name!r} is no part whose numbers can be read or replaced; such are input, a0.h1, "
        "a0.kv1, m0, m0.n17, l0.ln1, l0.q_norm, ln_final, and sites such as l0.resid_post, "
        "m0.hidden, a0.h1.z"
    )


def stream_hook(anatomy: Anatomy, layer: int) -> str:
    """Return the hook point of the stream before a block; after the last, before the last norm."""
    return f"blocks.{layer}.hook_in" if layer < len(anatomy.blocks) else "ln_final.hook_in"


def heads_first(model: Any, anatomy: Anatomy, hook: str) -> bool:
    """Return whether the numbers at a hook point have heads before positions.

    Raises:
        UnsupportedModel: The model's forward pass fails.
    """
    return hook.endswith(_HEAD_NORM_HOOKS) and anatomy.heads_come_first(model, hook)


def heads_side_by_side(value: Tensor, *, heads_first: bool) -> Tensor:
    """Return the value with positions before heads: ``[batch, pos, ...]``, for any model."""
    return value.transpose(1, 2) if heads_first else value


class _Finder:
    """Finds the places of one name; its methods receive the numbers in the name as text."""

    def __init__(self, model: Any, anatomy: Anatomy, name: str) -> None:
        self._model, self._anatomy, self._name = model, anatomy, name

    def input(self) -> tuple[Place, ...]:
        return (Place(_FIRST, INPUT, self._whole, 0),)

    def resid_pre(self) -> tuple[Place, ...]:
        return self._one(_FIRST, 0)

    def resid_post(self, layer: str) -> tuple[Place, ...]:
        following = self._block(layer).layer + 1
        return self._one(stream_hook(self._anatomy, following), following)

    def resid_mid(self, layer: str) -> tuple[Place, ...]:
        block = self._block(layer)
        if self._anatomy.space.parallel:
            raise self._none("attention and MLP of a block read the same stream in this model")
        hook, carried = block.at(block.mlp_stream), block.at(block.mlp_out)
        return (Place(hook, hook, self._whole, block.layer, carried),)

    def attn_out(self, layer: str) -> tuple[Place, ...]:
        block = self._block(layer)
        aliases = self._model.blocks[block.layer].hook_aliases
        alias = aliases.get("hook_attn_out", "hook_attn_out")
        return self._one(block.at(str(alias)), block.layer)

    def mlp_out(self, layer: str) -> tuple[Place, ...]:
        block = self._block(layer)
        return self._one(block.at(block.mlp_out), block.layer)

    def hidden(self, layer: str) -> tuple[Place, ...]:
        block = self._block(layer)
        return self._one(block.at(_HIDDEN), block.layer, slice(0, self._n_neurons(block)))

    def neuron(self, layer: str, index: str) -> tuple[Place, ...]:
        block = self._block(layer)
        at = self._below(index, self._n_neurons(block), "neurons in this MLP")
        return self._one(block.at(_HIDDEN), block.layer, slice(at, at + 1))

    def head(self, layer: str, head: str) -> tuple[Place, ...]:
        return self.head_site(layer, head, "z")

    def head_site(self, layer: str, head: str, site: str) -> tuple[Place, ...]:
        block = self._block(layer)
        if site == "z":
            at = self._below(head, len(block.w_o), "heads in each block")
            return (self._columns(block, block.at("attn.o.hook_in"), at, block.w_o.shape[1]),)
        if site != "q" and self._anatomy.space.grouped:
            raise self._none(
                f"query heads share keys and values in this model; name a{layer}.kv0.{site}"
            )
        return (self._projected(block, head, site),)

    def kv_head(self, layer: str, head: str) -> tuple[Place, ...]:
        return tuple(self.kv_site(layer, head, port)[0] for port in PORTS[1:])

    def kv_site(self, layer: str, head: str, site: str) -> tuple[Place, ...]:
        block = self._block(layer)
        if not self._anatomy.space.grouped:
            raise self._none(f"each head has separate keys and values; name a{layer}.h{head}")
        return (self._projected(block, head, site),)

    def norm(self, layer: str, norm: str) -> tuple[Place, ...]:
        block = self._block(layer)
        if norm not in self._model.blocks[block.layer].submodules:
            raise self._none("the block has no such norm")
        return self._one(block.at(f"{norm}.hook_out"), block.layer)

    def head_norm(self, layer: str, norm: str) -> tuple[Place, ...]:
        """Return the norm of all queries of a block, or of all keys, before they are multiplied."""
        block = self._block(layer)
        if norm not in self._model.blocks[block.layer].attn.submodules:
            raise self._none("its attention has no such norm")
        hook = block.at(f"attn.{norm}.hook_out")
        n_heads, d_head, _ = block.ports[norm[0]].weight.shape
        (place,) = self._one(hook, block.layer, slice(0, n_heads * d_head))
        return (replace(place, heads_first=heads_first(self._model, self._anatomy, hook)),)

    def last_norm(self) -> tuple[Place, ...]:
        return self._one("ln_final.hook_out", len(self._anatomy.blocks))

    @property
    def _whole(self) -> slice:
        return slice(0, self._anatomy.d_model)

    def _one(self, hook: str, layer: int, columns: slice | None = None) -> tuple[Place, ...]:
        if not self._anatomy.shows(self._model, hook):
            raise self._none(f"TransformerLens does not show it in {self._anatomy.name}")
        return (Place(hook, hook, self._whole if columns is None else columns, layer),)

    def _projected(self, block: BlockParts, head: str, port: str) -> Place:
        projection = block.ports[port]
        at = self._below(head, len(projection.weight), f"heads of {port} in each block")
        return self._columns(block, projection.hook, at, projection.weight.shape[1])

    def _columns(self, block: BlockParts, hook: str, head: int, width: int) -> Place:
        return Place(hook, hook, slice(head * width, (head + 1) * width), block.layer)

    def _block(self, layer: str) -> BlockParts:
        return self._anatomy.blocks[self._below(layer, len(self._anatomy.blocks), "layers")]

    def _n_neurons(self, block: BlockParts) -> int:
        """Return the input width of the MLP's last projection; GPT-2 stores its transpose."""
        parts = self._model.blocks[block.layer].mlp.submodules
        own = getattr(parts.get("out"), "original_component", None)
        if own is None:
            raise self._none("this MLP has no single hidden layer (a mixture of experts)")
        return int(own.in_features if hasattr(own, "in_features") else own.weight.shape[0])

    def _below(self, number: str, n: int, what: str) -> int:
        if int(number) >= n:
            raise self._none(f"there are {n} {what}, counted from 0")
        return int(number)

    def _none(self, reason: str) -> BadInput:
        return BadInput(f"this model has no {self._name}: {reason}")


_FORMS: tuple[tuple[re.Pattern[str], Callable[..., tuple[Place, ...]]], ...] = tuple(
    (re.compile(pattern, re.ASCII), find)
    for pattern, find in (
        (r"input", _Finder.input),
        (rf"m{_NUMBER}", _Finder.mlp_out),
        (rf"m{_NUMBER}\.n{_NUMBER}", _Finder.neuron),
        (rf"m{_NUMBER}\.hidden", _Finder.hidden),
        (rf"a{_NUMBER}\.h{_NUMBER}", _Finder.head),
        (rf"a{_NUMBER}\.h{_NUMBER}\.([qkvz])", _Finder.head_site),
        (rf"a{_NUMBER}\.kv{_NUMBER}", _Finder.kv_head),
        (rf"a{_NUMBER}\.kv{_NUMBER}\.([kv])", _Finder.kv_site),
        (r"l0\.resid_pre", _Finder.resid_pre),
        (rf"l{_NUMBER}\.resid_mid", _Finder.resid_mid),
        (rf"l{_NUMBER}\.resid_post", _Finder.resid_post),
        (rf"l{_NUMBER}\.attn_out", _Finder.attn_out),
        (rf"l{_NUMBER}\.mlp_out", _Finder.mlp_out),
        (rf"l{_NUMBER}\.({'|'.join(STREAM_NORMS)})", _Finder.norm),
        (rf"l{_NUMBER}\.({'|'.join(_HEAD_NORMS)})", _Finder.head_norm),
        (LAST_NORM, _Finder.last_norm),
    )
)
