"""Patching one edge at a time the slow way, to check the algorithms against.

It uses TransformerLens's own split of the residual stream, one copy per query, key and value, which
the algorithms do without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from registry.identifiers import Local, parse_local
from registry.models.edge_space import EdgeSpace, Receiver
from tests.ingest.discovery.decoders import clean_ids, corrupt_ids, metric

__all__ = ["Patcher", "edges_of", "places"]

Written = dict[str, Tensor]


class Patcher:
    """Adds something to what one receiver of a bridge reads, in the clean run or an altered one.

    Args:
        model: The bridge.
        ablated: What senders write instead, by sender; by default what they write on the corrupt
            prompts.
        instead: Values that take the place of those at hook points, in the run that is patched.
    """

    def __init__(
        self,
        model: Any,
        ablated: Written | None = None,
        instead: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.model = model
        self.clean = self.written(clean_ids())
        self.ablated = self.written(corrupt_ids()) if ablated is None else ablated
        self._instead = [(name, _put(value)) for name, value in (instead or {}).items()]
        self._present = self.written(clean_ids(), self._instead)

    def metric(self, receiver: Receiver, change: Tensor) -> Tensor:
        """Metric of each prompt with ``change`` ``[prompt, pos, d_model]`` added."""
        local = parse_local(receiver.node)

        def add(value: Tensor, hook: object) -> Tensor:
            if local.head is None:
                return value + change
            changed = value.clone()
            changed[:, :, local.head] += change
            return changed

        hooks = [*self._instead, (_place(receiver, local), add)]
        with self._split(), torch.no_grad(), self.model.hooks(hooks):
            logits = self.model(clean_ids())[:, -1]
        return metric()(logits, torch.arange(len(logits)))

    def effect(self, sender: str, size: float) -> Tensor:
        """What a sender adds to the stream when moved by ``size`` towards its ablated output."""
        local = parse_local(sender)
        change = size * (self.ablated[sender] - self.clean[sender])
        if local.layer is None or local.head is None:
            return change
        norm = self.model.blocks[local.layer].submodules.get("ln1_post")
        if norm is None:
            return change
        raw = self._present[f"attention {local.layer}"]
        through: Tensor = norm.original_component(raw + change) - norm.original_component(raw)
        return through.detach()

    def slope(self, sender: str, receiver: Receiver, step: float) -> float:
        """What the metric loses, to first order, when the edge is ablated; mean over prompts."""
        up = self.metric(receiver, self.effect(sender, step))
        down = self.metric(receiver, self.effect(sender, -step))
        return float((down - up).mean()) / (2 * step)

    def written(
        self, tokens: Tensor, hooks: list[tuple[str, Callable[..., Tensor]]] | None = None
    ) -> Written:
        """What every sender writes on some prompts, and each attention's output."""
        seen: dict[str, Tensor] = {}

        def keep(value: Tensor, hook: Any) -> None:
            seen[hook.name] = value.detach().clone()

        names = ["blocks.0.hook_in", "pos_embed.hook_out"]
        for layer in range(self.model.cfg.n_layers):
            names += [f"blocks.{layer}.attn.hook_result", f"blocks.{layer}.attn.hook_out"]
            names.append(mlp_out(self.model, layer))
        names = [name for name in names if name in self.model.hook_dict]
        keeping = [(name, keep) for name in names]
        with self._split(), torch.no_grad(), self.model.hooks([*(hooks or []), *keeping]):
            self.model(tokens)
        positions = seen.get("pos_embed.hook_out", torch.zeros(()))
        found = {"input": seen["blocks.0.hook_in"] - positions, "positions": positions}
        for layer in range(self.model.cfg.n_layers):
            for head in range(self.model.cfg.n_heads):
                found[f"a{layer}.h{head}"] = seen[f"blocks.{layer}.attn.hook_result"][:, :, head]
            found[f"attention {layer}"] = seen[f"blocks.{layer}.attn.hook_out"]
            found[f"m{layer}"] = seen[mlp_out(self.model, layer)]
        return found

    @contextmanager
    def _split(self) -> Iterator[None]:
        switches = ("use_split_qkv_input", "use_hook_mlp_in", "use_attn_result")
        for switch in switches:
            getattr(self.model, f"set_{switch}")(True)
        try:
            yield
        finally:
            for switch in switches:
                getattr(self.model, f"set_{switch}")(False)


def mlp_out(model: Any, layer: int) -> str:
    """Hook point of what an MLP adds."""
    after_norm = f"blocks.{layer}.ln2_post.hook_out"
    return after_norm if after_norm in model.hook_dict else f"blocks.{layer}.mlp.hook_out"


def places(model: Any, clean: Written, ablated: Written, share: float) -> Iterator[dict[str, Any]]:
    """Each place whose output can be mixed, ``share`` clean and the rest ablated."""

    def mixed(sender: str) -> Tensor:
        return share * clean[sender] + (1 - share) * ablated[sender]

    yield {"blocks.0.hook_in": mixed("input") + clean["positions"]}
    for layer in range(model.cfg.n_layers):
        heads = [mixed(f"a{layer}.h{head}") for head in range(model.cfg.n_heads)]
        yield {f"blocks.{layer}.attn.hook_result": torch.stack(heads, 2)}
        yield {mlp_out(model, layer): mixed(f"m{layer}")}


def edges_of(space: EdgeSpace) -> Iterator[tuple[str, str, Receiver]]:
    """Id, sender and receiver of every edge."""
    for row, column in space.edges():
        yield space.edge_id(row, column), space.senders[row], space.receivers[column]


def _put(by: Tensor) -> Callable[..., Tensor]:
    def put(value: Tensor, hook: object) -> Tensor:
        return by.expand_as(value)

    return put


def _place(receiver: Receiver, local: Local) -> str:
    if local.layer is None:
        return "ln_final.hook_in"
    if receiver.port is None:
        return f"blocks.{local.layer}.hook_mlp_in"
    return f"blocks.{local.layer}.attn.hook_{receiver.port}_input"
