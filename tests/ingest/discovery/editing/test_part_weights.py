"""Weights of parts: removing them removes what the part adds, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ingest.discovery.editing.part_weights import weights_of_parts
from ingest.discovery.model.anatomy import read_anatomy
from ingest.discovery.model.weights import named_weights
from ingest.discovery.model.weights_in_place import changed_weights
from ingest.models import wrap
from registry.errors import BadInput
from tests.few import every_nth
from tests.ingest import tiny_models
from tests.ingest.discovery import families

FAMILIES = sorted(tiny_models.ALL)
ALL_FAMILIES = every_nth(sorted(families.FAMILIES), 4, "a quarter of the families", first=1)
TOKENS = tiny_models.token_ids()
LAYER, HEAD = 1, 2


def model_of(family: str) -> Any:
    """A model with random biases and norms too: those of new models are all 0 or 1."""
    model = tiny_models.ALL[family]().double()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=draw, dtype=weight.dtype))
    return wrap(model)


def masks_of(model: Any, *parts: str) -> dict[str, Tensor]:
    return weights_of_parts(model, read_anatomy(model), parts)


def seen(model: Any, hook: str, without: dict[str, Tensor]) -> Tensor:
    """A hook's value, with these weights set to zero."""
    found: list[Tensor] = []

    def see(value: Tensor, hook: object) -> None:
        found.append(value.detach().clone())

    with changed_weights(model, masked={name: ~mask for name, mask in without.items()}):
        model.run_with_hooks(TOKENS, fwd_hooks=[(hook, see)])
    return found[0]


def by_head(value: Tensor, n_heads: int) -> Tensor:
    """``[batch, pos, head, d_head]``."""
    return value.reshape(*value.shape[:2], n_heads, -1)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("port", ["q", "k", "v"])
def test_a_projection_without_its_head_s_weights_is_zero_for_that_head(
    family: str, port: str
) -> None:
    model = model_of(family)
    n_heads = model.cfg.n_heads
    n_kv = getattr(model.cfg, "n_key_value_heads", None) or n_heads
    grouped = n_kv != n_heads
    of_kv = port != "q" and grouped
    part, head, n = (
        (f"a0.kv{HEAD // 2}", HEAD // 2, n_kv) if of_kv else (f"a0.h{HEAD}", HEAD, n_heads)
    )
    hook = f"blocks.0.attn.{port}.hook_out"
    whole = by_head(seen(model, hook, {}), n)
    found = by_head(seen(model, hook, masks_of(model, part)), n)
    assert not bool(found[:, :, head].any())
    assert bool(whole[:, :, head].any())
    others = [other for other in range(n) if other != head]
    assert torch.equal(found[:, :, others], whole[:, :, others])


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_in_every_family_projections_lack_the_head_whose_weights_are_removed(family: str) -> None:
    model = wrap(families.build(families.FAMILIES[family]))
    anatomy = read_anatomy(model)
    n_heads = anatomy.space.n_heads
    last = n_heads - 1
    grouped, n_kv = anatomy.space.grouped, anatomy.space.n_kv_heads
    for port in "qkv":
        n = n_heads if port == "q" else n_kv
        part = f"a0.kv{n_kv - 1}" if grouped and port != "q" else f"a0.h{last}"
        hook = f"blocks.0.attn.{port}.hook_out"
        whole, found = (
            by_head(seen(model, hook, one), n)
            for one in ({}, weights_of_parts(model, anatomy, [part]))
        )
        assert not bool(found[:, :, n - 1].any())
        assert bool(whole[:, :, n - 1].any())
        assert torch.equal(found[:, :, : n - 1], whole[:, :, : n - 1])


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_without_a_head_s_weights_adds_what_the_other_heads_add(family: str) -> None:
    model = model_of(family)
    n_heads = model.cfg.n_heads
    hook = "blocks.0.attn.o.hook_out"
    found = seen(model, hook, masks_of(model, f"a0.h{HEAD}"))
    wanted: list[Tensor] = []

    def ablate(z: Tensor, hook: object) -> Tensor:
        parts = by_head(z.clone(), n_heads)
        parts[:, :, HEAD] = 0
        return parts.reshape(z.shape)

    def see(value: Tensor, hook: object) -> None:
        wanted.append(value.detach().clone())

    model.run_with_hooks(TOKENS, fwd_hooks=[("blocks.0.attn.o.hook_in", ablate), (hook, see)])
    assert torch.allclose(found, wanted[0], atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_neuron_without_its_weights_is_silent(family: str) -> None:
    model = model_of(family)
    hook = "blocks.1.mlp.out.hook_in"
    whole, found = (seen(model, hook, one) for one in ({}, masks_of(model, "m1.n5")))
    assert not bool(found[..., 5].any())
    others = [at for at in range(whole.shape[-1]) if at != 5]
    assert torch.equal(found[..., others], whole[..., others])
    out = model.blocks[1].mlp.out.original_component
    is_transposed = not isinstance(out, torch.nn.Linear)
    with changed_weights(
        model, masked={name: ~mask for name, mask in masks_of(model, "m1.n5").items()}
    ):
        assert not bool((out.weight[5] if is_transposed else out.weight[:, 5]).any())


@pytest.mark.parametrize("family", FAMILIES)
def test_all_parts_together_are_all_weights_except_the_output_biases_of_attention(
    family: str,
) -> None:
    model = model_of(family)
    anatomy = read_anatomy(model)
    space = anatomy.space
    parts = ["input", "unembed", "ln_final"]
    for layer in range(2):
        parts += [f"a{layer}.h{head}" for head in range(space.n_heads)]
        if space.grouped:
            parts += [f"a{layer}.kv{head}" for head in range(2)]
        parts += [f"m{layer}"]
        parts += [f"l{layer}.{name}" for name in model.blocks[layer].submodules if "ln" in name]
    masks = weights_of_parts(model, anatomy, parts)
    weights = named_weights(model)
    left = {name for name in weights if name not in masks or not bool(masks[name].all())}
    outputs = [block.attn.o.original_component for block in model.blocks]
    biases = [getattr(one, "bias", None) for one in outputs]
    output_biases = {
        name for name, weight in weights.items() if any(weight is one for one in biases)
    }
    assert left == output_biases


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_do_not_share_weights(family: str) -> None:
    model = model_of(family)
    anatomy = read_anatomy(model)
    heads = [f"a1.h{head}" for head in range(anatomy.space.n_heads)]
    total: dict[str, Tensor] = {}
    for part in [*heads, "m1", "l1.ln1"]:
        for name, mask in weights_of_parts(model, anatomy, [part]).items():
            total[name] = total.get(name, torch.zeros(mask.shape, dtype=torch.long)) + mask
    assert all(int(count.max()) == 1 for count in total.values())


def test_heads_counted_with_their_own_keys_share_those_of_their_group() -> None:
    model = model_of("llama")
    anatomy = read_anatomy(model, kv_heads="per-query-head")
    first, second, third = (weights_of_parts(model, anatomy, [f"a0.h{head}"]) for head in (0, 1, 2))
    keys = "model.layers.0.self_attn.k_proj.weight"
    assert torch.equal(first[keys], second[keys])
    assert not bool((first[keys] & third[keys]).any())


@pytest.mark.parametrize(
    ("part", "why"),
    [
        ("a0.h4", "no a0.h4: it has 4 heads in each block"),
        ("a2.h0", "no a2.h0: it has 2 layers"),
        ("m9", "no m9: it has 2 layers"),
        ("m0.n64", "no m0.n64: it has 64 neurons"),
        ("a0.kv0", "no a0.kv0: it has separate keys and values for each head"),
        ("l0.ln1_post", "no l0.ln1_post"),
        ("m0.f3#sae", "m0.f3#sae has no weights of its own; name heads, MLPs or norms"),
    ],
)
def test_a_part_that_is_not_there_is_refused(part: str, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        masks_of(model_of("gpt2"), part)


def test_the_logits_have_no_weights() -> None:
    assert masks_of(model_of("gpt2"), "logits") == {}
