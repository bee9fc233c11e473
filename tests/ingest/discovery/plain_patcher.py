"""Patching edges of a plain model of transformers, with nothing but PyTorch's own hooks.

The measure for what is computed through bridges: no TransformerLens, nothing of ours but the names
of heads. It must be told where a family keeps its parts (:class:`Names`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from registry.identifiers import parse_local
from registry.models.edge_space import EdgeSpace, Receiver

__all__ = ["Names", "PlainPatcher", "thirds"]

Rows = Callable[[str, int, int], list[int]]
"""``rows(port, head, d_head)``: which numbers a projection's output holds of one head."""


def thirds(port: str, head: int, d_head: int) -> list[int]:
    """Of a projection of its own: heads one after the other."""
    del port
    return list(range(head * d_head, (head + 1) * d_head))


@dataclass(frozen=True)
class Names:
    """Where a family keeps its parts; a block's, seen from the block.

    Attributes:
        blocks: The list of blocks.
        ports: Projections of queries, keys and values; the same one thrice where they are joint.
        rows: Which numbers of a projection's output are whose.
        o: Output projection of attention.
        norm: Before attention; None where attention reads the stream.
        mlp: Whose input is what the MLP reads.
        mlp_norm: Before it; None where it reads the stream, ``shared`` where it is attention's.
        mlp_out: Whose output is what the MLP adds.
        post_norm: After attention.
        final: The norm before the unembedding.
        scale: What the block multiplies what it adds by.
    """

    blocks: str = "model.layers"
    ports: tuple[str, str, str] = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    rows: Rows = thirds
    o: str = "self_attn.o_proj"
    norm: str | None = "input_layernorm"
    mlp: str = "mlp"
    mlp_norm: str | None = "post_attention_layernorm"
    mlp_out: str = "mlp"
    post_norm: str | None = None
    final: str = "model.norm"
    scale: float = 1.0


@dataclass(eq=False)
class Run:
    """What one run's parts wrote and read."""

    stream: dict[str, Tensor] = field(default_factory=dict)
    wrote: dict[str, Tensor] = field(default_factory=dict)
    raw: dict[int, Tensor] = field(default_factory=dict)
    logits: Tensor = field(default_factory=lambda: torch.zeros(0))


class PlainPatcher:
    """Runs a plain model clean and corrupt, and clean with edges that carry corrupt values."""

    def __init__(self, model: Any, names: Names, space: EdgeSpace, clean: Tensor, corrupt: Tensor):
        self._model, self._names, self._space, self._tokens = model, names, space, clean
        self._blocks = list(model.get_submodule(names.blocks))
        self.clean = self._record(clean)
        self.corrupt = self._record(corrupt)

    def logits_without(self, sender: str, receiver: Receiver, share: float = 1.0) -> Tensor:
        """Last logits of the clean run but for one edge, ``share`` of the way to corrupt."""
        change = self._written_change(sender, share)
        local = parse_local(receiver.node)
        if local.layer is None:
            changed = self.clean.stream["logits"] + change
            hooks = [self._put_in(self._model.get_submodule(self._names.final), changed)]
        elif receiver.port is None:
            hooks = [self._mlp_reading(local.layer, self._at_mlp(local.layer, self.clean) + change)]
        else:
            read = self.clean.stream[f"a{local.layer}"] + change
            reads = {local.head or 0: read}
            hooks = [self._port_reading(local.layer, receiver.port, lambda: reads)]
        return self._run(hooks)

    def logits_of(self, circuit: Collection[str]) -> Tensor:
        """Last logits with every edge outside a circuit carrying what the corrupt run wrote."""
        now = Run()
        hooks = list(self._recording(now))
        for layer in range(len(self._blocks)):
            for port in "qkv":
                reads = self._reads(layer, port, now, circuit)
                hooks.append(self._port_reading(layer, port, reads))
            hooks.append(self._mlp_circuit(layer, now, circuit))
        hooks.append(self._final_circuit(now, circuit))
        return self._run(hooks)

    def _reads(self, layer: int, port: str, now: Run, circuit: Collection[str]) -> Any:
        def reads() -> dict[int, Tensor]:
            return {
                head: self._mixed(f"{node}<{port}>", f"a{layer}", now, circuit)
                for head, node in enumerate(self._space.nodes_with(layer, port))  # type: ignore[arg-type]
            }

        return reads

    def _mlp_circuit(self, layer: int, now: Run, circuit: Collection[str]) -> Any:
        place = self._mlp_place(layer)

        def put(module: Any, args: Any, kwargs: Any) -> Any:
            stream = self._mixed(f"m{layer}", f"m{layer}", now, circuit)
            return _replaced(args, kwargs, self._for_mlp(layer, stream))

        return place.register_forward_pre_hook(put, with_kwargs=True)

    def _final_circuit(self, now: Run, circuit: Collection[str]) -> Any:
        def put(module: Any, args: Any, kwargs: Any) -> Any:
            return _replaced(args, kwargs, self._mixed("logits", "logits", now, circuit))

        final = self._model.get_submodule(self._names.final)
        return final.register_forward_pre_hook(put, with_kwargs=True)

    def _mixed(self, receiver: str, place: str, now: Run, circuit: Collection[str]) -> Tensor:
        """What a receiver reads of senders in the circuit as they write now, else corrupt."""
        found = self.corrupt.stream[place].clone()
        kept = [s for s in self._space.senders if f"{s}->{receiver}" in circuit]
        for sender in kept:
            if not self._through_norm(sender):
                found += now.wrote[sender] - self.corrupt.wrote[sender]
        for layer, block in enumerate(self._blocks):
            heads = [s for s in kept if self._through_norm(s) and s.startswith(f"a{layer}.")]
            if heads:
                raw = self.corrupt.raw[layer]
                change = sum((now.wrote[s] - self.corrupt.wrote[s] for s in heads), torch.zeros(()))
                norm = block.get_submodule(self._names.post_norm)
                found += self._names.scale * (norm(raw + change) - norm(raw))
        return found

    def _through_norm(self, sender: str) -> bool:
        return self._names.post_norm is not None and ".h" in sender

    def _written_change(self, sender: str, share: float) -> Tensor:
        """What the stream gains when a sender writes, in part, what it wrote when corrupt."""
        change = share * (self.corrupt.wrote[sender] - self.clean.wrote[sender])
        if not self._through_norm(sender):
            return change
        layer = parse_local(sender).layer or 0
        norm = self._blocks[layer].get_submodule(self._names.post_norm)
        raw = self.clean.raw[layer]
        through: Tensor = norm(raw + change) - norm(raw)
        return self._names.scale * through

    def _record(self, tokens: Tensor) -> Run:
        run = Run()
        run.logits = self._run(list(self._recording(run)), tokens)
        return run

    def _recording(self, run: Run) -> Iterator[Any]:
        names, shape = self._names, self._tokens.shape
        for layer, block in enumerate(self._blocks):
            yield _seeing(block, run.stream, f"a{layer}", shape)
            if layer == 0:
                yield _seeing(block, run.wrote, "input", shape)
            yield self._seeing_heads(block.get_submodule(names.o), run, layer)
            yield _seeing(self._mlp_stream(layer), run.stream, f"m{layer}", shape)
            if names.post_norm is not None:
                yield _seeing(block.get_submodule(names.post_norm), run.raw, layer, shape)
            yield self._seeing_out(block.get_submodule(names.mlp_out), run, f"m{layer}")
        yield _seeing(self._model.get_submodule(names.final), run.stream, "logits", shape)

    def _seeing_heads(self, o: Any, run: Run, layer: int) -> Any:
        scale = 1.0 if self._names.post_norm is not None else self._names.scale

        def see(module: Any, args: Any) -> None:
            weight = _as_linear(module)
            d_head = args[0].shape[-1] // self._space.n_heads
            for head in range(self._space.n_heads):
                own = slice(head * d_head, (head + 1) * d_head)
                written = args[0][..., own] @ weight[:, own].mT
                run.wrote[f"a{layer}.h{head}"] = scale * written

        return o.register_forward_pre_hook(see)

    def _seeing_out(self, part: Any, run: Run, name: str) -> Any:
        def see(module: Any, args: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) else output
            run.wrote[name] = self._names.scale * first.reshape(*self._tokens.shape, -1)

        return part.register_forward_hook(see)

    def _mlp_stream(self, layer: int) -> Any:
        """Whose input is the stream that an MLP reads."""
        names, block = self._names, self._blocks[layer]
        if names.mlp_norm == "shared":
            return block
        return block.get_submodule(names.mlp_norm or names.mlp)

    def _mlp_place(self, layer: int) -> Any:
        names = self._names
        own = names.mlp if names.mlp_norm in (None, "shared") else names.mlp_norm
        return self._blocks[layer].get_submodule(own)

    def _at_mlp(self, layer: int, run: Run) -> Tensor:
        return run.stream[f"m{layer}"]

    def _for_mlp(self, layer: int, stream: Tensor) -> Tensor:
        if self._names.mlp_norm != "shared":
            return stream
        return self._normed(layer, stream)

    def _mlp_reading(self, layer: int, stream: Tensor) -> Any:
        return self._put_in(self._mlp_place(layer), self._for_mlp(layer, stream))

    def _normed(self, layer: int, stream: Tensor) -> Tensor:
        if self._names.norm is None:
            return stream
        norm = self._blocks[layer].get_submodule(self._names.norm)
        found: Tensor = norm.forward(stream)  # without what is hooked to it
        return found

    def _port_reading(self, layer: int, port: str, reads: Callable[[], dict[int, Tensor]]) -> Any:
        """Let some heads of a block read other streams, by head."""
        names = self._names
        projection = self._blocks[layer].get_submodule(names.ports["qkv".index(port)])
        n_heads = len(self._space.nodes_with(layer, port))  # type: ignore[arg-type]

        def project(module: Any, args: Any, output: Tensor) -> Tensor:
            changed = output.clone()
            weight = _as_linear(module)
            d_head = self._d_head(weight, n_heads)
            for head, stream in reads().items():
                rows = names.rows(port, head, d_head)
                found = self._normed(layer, stream) @ weight[rows].mT
                changed[..., rows] = found if module.bias is None else found + module.bias[rows]
            return changed

        return projection.register_forward_hook(project)

    def _d_head(self, weight: Tensor, n_heads: int) -> int:
        space = self._space
        joint = len(set(self._names.ports)) == 1
        return weight.shape[0] // (space.n_heads + 2 * space.n_kv_heads if joint else n_heads)

    def _put_in(self, part: Any, value: Tensor) -> Any:
        def put(module: Any, args: Any, kwargs: Any) -> Any:
            return _replaced(args, kwargs, value)

        return part.register_forward_pre_hook(put, with_kwargs=True)

    def _run(self, handles: list[Any], tokens: Tensor | None = None) -> Tensor:
        tokens = self._tokens if tokens is None else tokens
        try:
            with torch.no_grad():
                found = self._model(tokens, attention_mask=torch.ones_like(tokens), use_cache=False)
                logits: Tensor = found.logits[:, -1]
        finally:
            for handle in handles:
                handle.remove()
        return logits


def _as_linear(module: Any) -> Tensor:
    """Weight as ``[out, in]``; GPT-2 keeps it the other way round."""
    weight: Tensor = module.weight
    return weight if isinstance(module, nn.Linear) else weight.mT


def _seeing(part: Any, into: dict[Any, Tensor], name: Any, shape: Any) -> Any:
    def see(module: Any, args: Any, kwargs: Any) -> None:
        value = (args[0] if args else kwargs["hidden_states"]).detach().clone()
        into[name] = value.reshape(*shape, -1)  # OPT's MLP takes prompts and positions as one

    return part.register_forward_pre_hook(see, with_kwargs=True)


def _replaced(args: Any, kwargs: Any, value: Tensor) -> Any:
    if args:
        return (value.reshape(args[0].shape), *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": value}
