"""What a model must prove before anything is scored."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from ingest.discovery import attribute_edges, evaluate_circuit, prepare_setting
from ingest.discovery.ablation.inputs import read_inputs
from ingest.discovery.ablation.replacement import record_stream
from ingest.discovery.edges.proof import check_scores, differing_prompt, require_known_arithmetic
from ingest.discovery.model.anatomy import frozen
from ingest.models import wrap
from registry.errors import UnsupportedModel
from tests.ingest.discovery.decoders import ALL, N_PROMPTS, bridge, clean_ids, corrupt_ids, metric
from tests.ingest.discovery.families import FAMILIES, Family, build
from tests.ingest.discovery.plain_patcher import PlainPatcher

WRONG = {
    "nothing": lambda scores: scores * 0,
    "twice": lambda scores: scores * 2,
    "turned": lambda scores: -scores,
    "mixed up": lambda scores: scores[:, torch.randperm(scores.shape[1])],
}


def checked(model: Any, change: Any) -> None:
    inputs = read_inputs(
        model, clean_ids(), corrupt_ids(), ablation="resample", reference=None,
        kv_heads="grouped", batch_size=None, attention_mask=None, reference_mask=None,
    )  # fmt: skip
    scores = attribute_edges(
        prepare_setting(model, clean_ids()[:1], corrupt_ids()[:1], metric())
    ).matrix
    with frozen(model), torch.no_grad():
        ablated, _ = record_stream(model, inputs.anatomy, inputs.first().counterpart())
        check_scores(model, inputs.anatomy, inputs.first(), metric(), change(scores), ablated)


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", sorted(ALL))
def test_wrong_scores_do_not_pass(name: str, wrong: str) -> None:
    torch.manual_seed(0)
    model = bridge(name)
    checked(model, lambda scores: scores)
    with pytest.raises(UnsupportedModel, match="their scores say"):
        checked(model, WRONG[wrong])


def test_positions_that_cannot_be_told_from_tokens_are_refused_where_it_matters() -> None:
    config = transformers.XGLMConfig(
        vocab_size=24, d_model=16, num_layers=2, attention_heads=2, ffn_dim=32,
        max_position_embeddings=32, architectures=["XGLMForCausalLM"], dropout=0.0,
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    model = wrap(transformers.XGLMForCausalLM(config))
    attribute_edges(prepare_setting(model, clean_ids(), corrupt_ids(), metric()))
    for score in (_scored, _evaluated):
        with pytest.raises(
            UnsupportedModel, match=r"contains positions .* use ablation='resample'"
        ):
            score(model)


def _scored(model: Any) -> Any:
    return attribute_edges(prepare_setting(model, clean_ids(), None, metric(), ablation="zero"))


def _evaluated(model: Any) -> Any:
    return evaluate_circuit(
        prepare_setting(model, clean_ids(), None, metric(), ablation="zero"), []
    )


def test_a_model_without_a_last_norm_is_refused_by_name() -> None:
    config = transformers.OPTConfig(
        vocab_size=24, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, ffn_dim=32,
        max_position_embeddings=32, do_layer_norm_before=False, word_embed_proj_dim=16,
        architectures=["OPTForCausalLM"], bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    with pytest.raises(UnsupportedModel, match=r"once it is wrapped.*decoder\.final_layer_norm"):
        wrap(transformers.OPTForCausalLM(config))


def test_keys_that_attention_counts_itself_are_refused_per_query_head() -> None:
    config = transformers.Phi3Config(
        vocab_size=24, hidden_size=32, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=48, max_position_embeddings=64,
        original_max_position_embeddings=64, architectures=["Phi3ForCausalLM"],
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    model = wrap(transformers.Phi3ForCausalLM(config))
    attribute_edges(prepare_setting(model, clean_ids(), corrupt_ids(), metric()))
    with pytest.raises(UnsupportedModel, match="use kv_heads='grouped'"):
        attribute_edges(
            prepare_setting(model, clean_ids(), corrupt_ids(), metric(), kv_heads="per-query-head")
        )


def test_a_metric_whose_slope_differs_on_both_sides_is_no_models_fault() -> None:
    model = bridge("gpt2")
    with torch.no_grad():
        here: Tensor = model(clean_ids())[:, -1, 0]

    def kink(logits: Tensor, index: Tensor) -> Tensor:
        return torch.relu(logits[:, 0] - here[index]) + 0.1 * logits[:, 1]

    inputs = read_inputs(
        model, clean_ids(), corrupt_ids(), ablation="resample", reference=None,
        kv_heads="grouped", batch_size=None, attention_mask=None, reference_mask=None,
    )  # fmt: skip
    with frozen(model):
        require_known_arithmetic(
            model, inputs.anatomy, inputs.first(), kink, inputs.replacement(model)
        )


def test_a_pair_that_differs_proves_the_model_by_its_own_runs() -> None:
    clean, corrupt = clean_ids(), corrupt_ids()
    corrupt[0] = clean[0]
    resample, zero = (_differing(clean, corrupt, ablation) for ablation in ("resample", "zero"))
    assert (resample, zero) == (1, None)
    assert _differing(clean, clean, "resample") is None


def _differing(clean: Tensor, corrupt: Tensor, ablation: Any) -> int | None:
    model = bridge("gpt2")
    inputs = read_inputs(
        model, clean, corrupt, ablation=ablation, reference=None,
        kv_heads="grouped", batch_size=None, attention_mask=None, reference_mask=None,
    )  # fmt: skip
    batch = inputs.prompts.batch([*range(N_PROMPTS)], inputs.anatomy.device)
    return differing_prompt(batch, inputs.replacement(model))


@pytest.mark.parametrize("method", ["eap", "eap-ig-inputs"])
@pytest.mark.parametrize("unchanged", [0, N_PROMPTS])
def test_a_block_that_adds_more_than_heads_and_mlp_is_refused(method: Any, unchanged: int) -> None:
    corrupt = corrupt_ids()
    corrupt[:unchanged] = clean_ids()[:unchanged]
    model = bridge("gpt2")
    block = model.original_model.transformer.h[1]
    with _added_to(block), pytest.raises(UnsupportedModel, match="residual stream"):
        attribute_edges(prepare_setting(model, clean_ids(), corrupt, metric()), method=method)


HALVES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("ask", ["scores", "exact", "faithfulness"])
def test_rounding_hides_no_multiplier_of_what_blocks_add(dtype: torch.dtype, ask: str) -> None:
    """A stream twelve times as large as what is added to it, and .22 of that added."""
    model = wrap(_granite(), dtype=dtype)
    _asked(model, ask)
    for block in model.blocks:
        block.residual_contribution_scale = 1.0  # of which what an MLP adds is made, too
    with pytest.raises(UnsupportedModel, match="do not add up to the residual stream"):
        _asked(model, ask)


def _asked(model: Any, ask: str) -> Any:
    if ask == "faithfulness":
        return evaluate_circuit(
            prepare_setting(model, clean_ids(), corrupt_ids(), metric()), ["input->a0.h0<q>"]
        )
    method: Any = "exact" if ask == "exact" else "eap"
    return attribute_edges(
        prepare_setting(model, clean_ids(), corrupt_ids(), metric()), method=method
    )


def _granite() -> Any:
    config = transformers.GraniteConfig(
        vocab_size=24, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=48, architectures=["GraniteForCausalLM"],
        embedding_multiplier=12.0, residual_multiplier=0.22, bos_token_id=0, eos_token_id=1,
        pad_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.GraniteForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.1)
    return model


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("circuit", [[], ["a0.h0->logits"]])
def test_a_gate_that_reads_the_first_norm_is_refused_without_gradients_too(
    dtype: torch.dtype, circuit: list[str]
) -> None:
    """A circuit that no edge enters keeps nothing; the gate would let it keep .72 or 2.09."""
    model = wrap(build(Family("afmoe", more={"num_dense_layers": 1})), dtype=dtype)
    with pytest.raises(UnsupportedModel, match="AfmoeForCausalLM: something besides queries"):
        evaluate_circuit(prepare_setting(model, clean_ids(), corrupt_ids(), metric()), circuit)


def test_the_gate_is_found_where_a_random_circuit_keeps_no_part_that_is_fed_and_read() -> None:
    """Two blocks, senders set to zero: a third of the edges leaves every head silent."""
    model = wrap(build(Family("afmoe", more={"num_dense_layers": 1})))
    why = "AfmoeForCausalLM: something besides queries"
    with pytest.raises(UnsupportedModel, match=why):
        attribute_edges(
            prepare_setting(model, clean_ids(), None, metric(), ablation="zero"), method="exact"
        )
    with pytest.raises(UnsupportedModel, match=why):
        evaluate_circuit(
            prepare_setting(model, clean_ids(), None, metric(), ablation="zero"),
            ["input->m0", "m0->logits"],
        )


def test_large_weights_are_no_reason_to_refuse() -> None:
    """Within .01 the metric is curved: its slope was 129 where the scores rightly say 167."""
    clean = torch.randint(2, 40, (2, 9), generator=torch.Generator().manual_seed(7))
    corrupt = clean.clone()
    for position in (1, 3, 6):
        corrupt[:, position] = 2 + (clean[:, position] + 5) % 38

    def difference(logits: Tensor, index: Tensor) -> Tensor:
        return logits[:, 3] - logits[:, 7]

    scores = attribute_edges(prepare_setting(wrap(_large_llama()), clean, corrupt, difference))
    names = FAMILIES["llama"].names
    plain = PlainPatcher(_large_llama(), names, scores.space, clean, corrupt)
    largest, step, index = float(scores.matrix.abs().max()), 1e-4, torch.arange(2)
    for row, column in random.Random(0).sample(list(scores.space.edges()), 12):
        sender, receiver = scores.space.senders[row], scores.space.receivers[column]
        up, down = (plain.logits_without(sender, receiver, share) for share in (step, -step))
        slope = float((difference(down, index) - difference(up, index)).mean()) / (2 * step)
        assert float(scores.matrix[row, column]) == pytest.approx(slope, abs=2e-3 * largest)


def _large_llama() -> Any:
    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(2)
    model = transformers.LlamaForCausalLM(config).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    return model


def test_effects_of_nothing_are_no_reason_to_refuse_in_float64() -> None:
    """What differs lies outside the window, and norms round to float32 in a float64 model."""
    config = transformers.Cohere2Config(
        vocab_size=10, hidden_size=40, intermediate_size=20, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=1, head_dim=10, max_position_embeddings=64,
        layer_types=["sliding_attention"], sliding_window=3, logit_scale=0.5,
        pad_token_id=1, bos_token_id=0, eos_token_id=1, architectures=["Cohere2ForCausalLM"],
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.Cohere2ForCausalLM(config).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.5)
    clean = torch.randint(2, 10, (2, 14))
    corrupt = clean.clone()
    corrupt[:, 1:7] = 2 + (clean[:, 1:7] + 3) % 8
    scores = attribute_edges(
        prepare_setting(wrap(model), clean, corrupt, lambda logits, _: logits[:, 3])
    )
    assert float(scores.matrix.abs().max()) < 1e-6


@pytest.mark.parametrize("ask", ["scores", "exact", "faithfulness"])
def test_heads_that_carry_values_of_others_are_refused(ask: str) -> None:
    model = bridge("llama")

    def turned(value: Tensor, hook: Any) -> Tensor:
        by_head = value.reshape(*value.shape[:2], 4, -1)
        return by_head.flip(2).reshape(value.shape)

    model.blocks[1].attn.o.hook_in.add_hook(turned, is_permanent=True)
    with pytest.raises(UnsupportedModel, match="heads of block 1 carry values of other heads"):
        _asked(model, ask)


@contextmanager
def _added_to(block: Any) -> Iterator[None]:
    """A block that adds to the stream what no head and no MLP of it does."""

    def more(module: Any, arguments: Any, output: Any) -> Any:
        first = output[0] if isinstance(output, tuple) else output
        changed = first + 0.3 * torch.tanh(first)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    handle = block.register_forward_hook(more)
    try:
        yield
    finally:
        handle.remove()
