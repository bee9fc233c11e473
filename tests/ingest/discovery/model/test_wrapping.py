"""What shows only on prompts longer than the one that proves a model when it is loaded."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ingest.discovery import attribute_edges, evaluate_circuit, prepare_setting
from ingest.discovery.model.anatomy import read_anatomy
from ingest.discovery.model.wrapping import SHORT, unwrapped
from ingest.models import wrap
from registry.errors import UnsupportedModel
from tests.ingest.discovery.families import FAMILIES, Family, build

_ROPE = {"rope_type": "default", "rope_theta": 1e4}
_SCALED = {**_ROPE, "llama_4_scaling_beta": 0.5, "original_max_position_embeddings": 5}
_LATE = "becomes another model on prompts of 9 tokens"


def metric(logits: Tensor, index: Tensor) -> Tensor:
    return logits[:, 3] - logits[:, 10]


def prompts(n_positions: int = 9) -> Tensor:
    return torch.randint(2, 40, (2, n_positions), generator=torch.Generator().manual_seed(7))


def scaled_late(dtype: torch.dtype = torch.float32) -> Any:
    """TransformerLens scales its queries from the sixth token on; transformers does not."""
    return wrap(build(Family("llama", more={"rope_parameters": _SCALED})), dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ask", ["scores", "exact", "faithfulness", "reference"])
def test_a_model_that_differs_at_later_positions_is_refused_there(
    ask: str, dtype: torch.dtype
) -> None:
    model, clean = scaled_late(dtype), prompts()
    with pytest.raises(UnsupportedModel, match=_LATE):
        _asked(model, ask, clean)
    if ask != "reference":
        _asked(model, ask, clean[:, :5])


def _asked(model: Any, ask: str, clean: Tensor) -> Any:
    corrupt = clean.roll(1, 0)
    if ask == "faithfulness":
        return evaluate_circuit(prepare_setting(model, clean, corrupt, metric), ["input->a0.h0<q>"])
    if ask == "reference":
        short = clean[:, :SHORT]
        mask = torch.ones_like(clean)
        return attribute_edges(
            prepare_setting(
                model, short, None, metric, ablation="mean", reference=clean, reference_mask=mask
            )
        )
    method: Any = "exact" if ask == "exact" else "eap"
    return attribute_edges(prepare_setting(model, clean, corrupt, metric), method=method)


def test_what_the_owner_of_a_bridge_changed_is_not_refused() -> None:
    model = wrap(build(FAMILIES["llama"]))
    model.blocks[0].mlp.hook_out.add_hook(lambda value, hook: 0.5 * value, is_permanent=True)
    _asked(model, "faithfulness", prompts())


def test_length_is_proven_once() -> None:
    model = wrap(build(FAMILIES["llama"]))
    _asked(model, "faithfulness", prompts())
    with unwrapped(model) as plain:
        ran: list[int] = []
        handle = plain.register_forward_hook(lambda *_: ran.append(1))
    n_runs = []
    for n_positions in (9, 12, 12):
        ran.clear()
        _asked(model, "faithfulness", prompts(n_positions))
        n_runs.append(len(ran))
    handle.remove()
    assert n_runs[1] == n_runs[0] + 2 == n_runs[2] + 2


@pytest.mark.parametrize("name", ["codegen", "gemma2", "gpt2", "llama4", "mpt", "opt"])
def test_a_bridge_is_the_plain_model_while_it_is_unwrapped(name: str) -> None:
    dtype, tokens = torch.float64, prompts()
    expected = build(FAMILIES[name], dtype)(tokens).logits
    bridge = wrap(build(FAMILIES[name], dtype))
    before = bridge(tokens)
    with unwrapped(bridge) as plain:
        own = {type(part).__module__.partition(".")[0] for part in plain.modules()}
        assert own <= {"torch", "transformers"}
        torch.testing.assert_close(plain(tokens).logits, expected, atol=1e-12, rtol=0)
    assert torch.equal(bridge(tokens), before)


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_a_longer_prompt_before_it_changes_no_prompt_of_a_dynamic_rotary_embedding(
    name: str,
) -> None:
    rope = {**_ROPE, "rope_type": "dynamic", "factor": 2.0}
    by_kind = {"full_attention": rope, "sliding_attention": rope}
    given = {"max_position_embeddings": 6, "rope_parameters": rope if name == "llama" else by_kind}
    family = Family(FAMILIES[name].kind, FAMILIES[name].names, given)
    model, tokens = wrap(build(family, torch.float64)), prompts()
    anatomy = read_anatomy(model)
    with torch.no_grad():
        alone = build(family, torch.float64)(tokens).logits[:, -1]
        anatomy.run(model, prompts(18), [])
        torch.testing.assert_close(anatomy.run(model, tokens, []), alone, atol=1e-12, rtol=0)
