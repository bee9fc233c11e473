"""Circuits of nodes against knocking out every other head and MLP of a plain transformers model.

Nothing of ours but names of parts: PyTorch's own hooks put the ablated values in their places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from ingest.discovery import evaluate_circuit, prepare_setting
from ingest.discovery.model.anatomy import read_anatomy
from ingest.models import wrap
from registry.identifiers import Kind, parse_local
from tests.ingest import tiny_models
from tests.ingest.discovery.decoders import clean_ids, corrupt_ids, metric

N_HEADS, N_LAYERS = 4, 2
NAMES = {
    "gpt2": ("transformer.h.{}.attn.c_proj", "transformer.h.{}.mlp"),
    "llama": ("model.layers.{}.self_attn.o_proj", "model.layers.{}.mlp"),
    "neox": ("gpt_neox.layers.{}.attention.dense", "gpt_neox.layers.{}.mlp"),
}
"""Of each family, what mixes the heads of a block, and its MLP."""
PARTS = [f"a{layer}.h{head}" for layer in range(N_LAYERS) for head in range(N_HEADS)]
PARTS += [f"m{layer}" for layer in range(N_LAYERS)]
KEPT = [[], ["a0.h1", "m0", "a1.h3"], ["a0.h0", "a0.h2", "m1"], PARTS]
Values = dict[str, Tensor]


def columns(head: int, width: int) -> slice:
    size = width // N_HEADS
    return slice(head * size, (head + 1) * size)


@contextmanager
def hooked(model: Any, family: str, see: Callable[[str, Tensor], Tensor]) -> Iterator[None]:
    """Let ``see`` replace what heads give to the mixing matrix, and what MLPs write."""
    mixing, mlp = NAMES[family]

    def heads(layer: int) -> Callable[..., Any]:
        def before(_: Any, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            mixed = given[0].clone()
            for head in range(N_HEADS):
                of = columns(head, mixed.shape[-1])
                mixed[..., of] = see(f"a{layer}.h{head}", mixed[..., of])
            return (mixed, *given[1:])

        return before

    with ExitStack() as stack:
        for layer in range(N_LAYERS):
            part = model.get_submodule(mixing.format(layer))
            stack.enter_context(_removed(part.register_forward_pre_hook(heads(layer))))
            name = f"m{layer}"
            part = model.get_submodule(mlp.format(layer))
            hook = part.register_forward_hook(lambda _m, _i, out, name=name: see(name, out))
            stack.enter_context(_removed(hook))
        yield


@contextmanager
def _removed(hook: Any) -> Iterator[None]:
    try:
        yield
    finally:
        hook.remove()


def written(model: Any, family: str, tokens: Tensor) -> Values:
    """What every head and MLP gives on these prompts."""
    seen: Values = {}

    def see(name: str, value: Tensor) -> Tensor:
        seen[name] = value.clone()
        return value

    with torch.no_grad(), hooked(model, family, see):
        model(tokens)
    return seen


def knocked_out(model: Any, family: str, kept: list[str], ablated: Mapping[str, Tensor]) -> Tensor:
    """Logits at the last position with all parts but ``kept`` replaced."""

    def see(name: str, value: Tensor) -> Tensor:
        return value if name in kept else ablated[name].expand_as(value)

    with torch.no_grad(), hooked(model, family, see):
        logits: Tensor = model(clean_ids()).logits[:, -1]
    return logits


@pytest.mark.parametrize("ablation", ["resample", "mean", "zero"])
@pytest.mark.parametrize("family", sorted(NAMES))
def test_a_circuit_of_nodes_is_the_model_with_every_other_part_knocked_out(
    family: str, ablation: Any
) -> None:
    plain = tiny_models.ALL[family]().to(torch.float64)
    found_on = corrupt_ids() if ablation == "resample" else clean_ids()
    values = written(plain, family, found_on)
    factor = 0.0 if ablation == "zero" else 1.0
    if ablation != "resample":
        values = {name: factor * v.mean((0, 1), keepdim=True) for name, v in values.items()}
    bridge = wrap(tiny_models.ALL[family](), dtype=torch.float64)
    space = read_anatomy(bridge, "grouped").space
    every = torch.arange(len(clean_ids()))
    seen = []
    for kept in KEPT:
        found = evaluate_circuit(
            prepare_setting(
                bridge,
                clean_ids(),
                corrupt_ids() if ablation == "resample" else None,
                metric(),
                ablation=ablation,
                reference=clean_ids() if ablation == "mean" else None,
            ),
            space.edges_from(["input", *kept]),
        )
        expected = metric()(knocked_out(plain, family, kept, values), every)
        # Softmax and RMSNorm of rotary models are computed in float32 even in a float64 model.
        torch.testing.assert_close(found.circuit, expected, atol=2e-6, rtol=0)
        seen.append(found.circuit)
    torch.testing.assert_close(seen[-1], found.full, atol=2e-6, rtol=0)
    assert all(float((one - seen[-1]).abs().max()) > 1e-3 for one in seen[:-1])


def test_edges_into_what_is_left_out_make_no_difference() -> None:
    """Edges among a circuit's nodes, from the input and to the logits are as good as all."""
    bridge = wrap(tiny_models.ALL["llama"](), dtype=torch.float64)
    space = read_anatomy(bridge, "grouped").space
    kept = KEPT[1]
    sent = set(space.edges_from(["input", *kept]))

    def stays(edge: str) -> bool:
        target = parse_local(edge.partition("->")[2].partition("<")[0])
        if target.kind is Kind.KV_HEAD:  # read by heads that are kept, or not
            return any(head in kept for head in space.query_heads_of(str(target)))
        return target.kind is Kind.LOGITS or str(target) in kept

    among = {edge for edge in sent if stays(edge)}
    assert among < sent
    all_, few = (
        evaluate_circuit(
            prepare_setting(bridge, clean_ids(), corrupt_ids(), metric()), edges
        ).circuit
        for edges in (sent, among)
    )
    torch.testing.assert_close(all_, few, atol=1e-6, rtol=0)
