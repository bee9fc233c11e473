"""Ablating parts of a plain model of transformers, with nothing but PyTorch's own hooks.

The measure for what is computed through bridges: one set, one full forward pass, nothing of ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tests.ingest.discovery.plain_patcher import Names

__all__ = ["PlainPart", "PlainParts"]

_DOWN = ("down_proj", "mlp.c_proj", "dense_4h_to_h", "fc2", "fc_out", "ffn.down_proj", "w2")
_HEAD_NORMS = {
    "q_norm": ("q_norm", "q_layernorm", "query_layernorm"),
    "k_norm": ("k_norm", "k_layernorm", "key_layernorm"),
}
Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class PlainPart:
    """What a module reads or gives, and which of its numbers; all where ``columns`` is None."""

    module: Any
    given: bool
    columns: list[int] | None = None
    carried_by: Any = None


class PlainParts:
    """Finds parts of a plain model and runs it with some replaced."""

    def __init__(self, model: Any, names: Names, n_heads: int, n_kv_heads: int, d_head: int):
        self._model, self._names = model, names
        self._blocks = list(model.get_submodule(names.blocks))
        self._n_heads, self._n_kv_heads, self._d_head = n_heads, n_kv_heads, d_head

    def find(self, name: str) -> list[PlainPart]:
        """A part's places; a group of heads shares keys and values, and has two."""
        layer = int(found[0]) if (found := re.findall(r"\d+", name)) else 0
        names, block = self._names, self._blocks[layer]
        index = int(found[1]) if len(found) > 1 else 0
        if name in ("input", "l0.resid_pre"):
            return [PlainPart(block, given=False)]
        if name == "ln_final":
            return [PlainPart(self._model.get_submodule(names.final), given=True)]
        kind = re.sub(r"\d+", "", name, count=0)
        match kind:
            case "a.h" | "a.h.z":
                own = range(index * self._d_head, (index + 1) * self._d_head)
                return [PlainPart(block.get_submodule(names.o), given=False, columns=list(own))]
            case "a.kv":
                return [self._projected(block, port, index) for port in "kv"]
            case "a.kv.k" | "a.kv.v" | "a.h.q" | "a.h.k" | "a.h.v":
                return [self._projected(block, kind[-1], index)]
            case "m" | "l.mlp_out":
                return [PlainPart(block.get_submodule(names.mlp_out), given=True)]
            case "m.n":
                return [PlainPart(self._down(block), given=False, columns=[index])]
            case "m.hidden":
                return [PlainPart(self._down(block), given=False)]
            case "l.resid_post":
                last = layer + 1 == len(self._blocks)
                reader = self._model.get_submodule(names.final) if last else None
                return [PlainPart(reader or self._blocks[layer + 1], given=False)]
            case "l.resid_mid":
                reader = block.get_submodule(names.mlp_norm or names.mlp)
                return [PlainPart(reader, given=False, carried_by=block)]
            case "l.attn_out":
                return [PlainPart(block.get_submodule(names.post_norm or names.o), given=True)]
            case "l.q_norm" | "l.k_norm":
                return [PlainPart(self._head_norm(block, kind[2:]), given=True)]
        norms = {
            f"l{layer}.ln1": names.norm,
            f"l{layer}.ln2": names.mlp_norm,
            f"l{layer}.ln1_post": names.post_norm,
            f"l{layer}.ln2_post": names.mlp_out,
        }
        norm = norms[name]
        assert norm is not None
        return [PlainPart(block.get_submodule(norm), given=True)]

    def values(self, part: PlainPart, tokens: Tensor) -> Tensor:
        """What is there, ``[prompt, pos, width]``, in a run of prompts."""
        seen: list[Tensor] = []

        def see(value: Tensor) -> Tensor:
            seen.append(value.clone())  # Falcon adds to it in place
            return value

        self.run([(part, see)], tokens)
        return seen[0]

    def run(self, changes: Sequence[tuple[PlainPart, Change]], tokens: Tensor) -> Tensor:
        """Last logits with parts changed."""
        with ExitStack() as stack, torch.no_grad():
            for part, change in changes:
                for handle in self._hooked(part, change, tuple(tokens.shape)):
                    stack.callback(handle.remove)
            found = self._model(tokens, attention_mask=torch.ones_like(tokens), use_cache=False)
            logits: Tensor = found.logits[:, -1]
            return logits

    def _hooked(self, part: PlainPart, change: Change, shape: tuple[int, ...]) -> list[Any]:
        def changed(value: Tensor) -> Tensor:
            heads_first = value.ndim == 4 and value.shape[1] != shape[1]
            turned = value.transpose(1, 2) if heads_first else value
            apart = turned.reshape(*shape, -1).clone()
            columns = slice(None) if part.columns is None else part.columns
            apart[..., columns] = change(apart[..., columns])
            found = apart.reshape(turned.shape)
            return found.transpose(1, 2) if heads_first else found

        if part.given:
            return [part.module.register_forward_hook(lambda _, args, out: _first(out, changed))]
        moved: list[Tensor] = []

        def read(module: Any, args: Any, kwargs: Any) -> Any:
            value = args[0] if args else kwargs["hidden_states"]
            found = changed(value)
            moved.append(found - value)
            if args:
                return (found, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": found}

        handles = [part.module.register_forward_pre_hook(read, with_kwargs=True)]
        if part.carried_by is not None:
            handles.append(
                part.carried_by.register_forward_hook(
                    lambda _, args, out: _first(
                        out, lambda value: value + moved[0].reshape(value.shape)
                    )
                )
            )
        return handles

    def _projected(self, block: Any, port: str, head: int) -> PlainPart:
        module = block.get_submodule(self._names.ports["qkv".index(port)])
        return PlainPart(module, given=True, columns=self._names.rows(port, head, self._d_head))

    def _head_norm(self, block: Any, norm: str) -> Any:
        names = (name for name, _ in block.named_modules() if name.endswith(_HEAD_NORMS[norm]))
        return block.get_submodule(next(names))

    def _down(self, block: Any) -> Any:
        return next(
            module
            for name, module in block.named_modules()
            if name.endswith(_DOWN) and name != self._names.o and "expert" not in name
        )


def _first(output: Any, change: Change) -> Any:
    if isinstance(output, tuple):
        return (change(output[0]), *output[1:])
    return change(output)
