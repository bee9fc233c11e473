"""Which dtype weights and proofs have, and what is said of a model that cannot be run in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from ingest.discovery import attribute_edges, evaluate_circuits, prepare_setting
from ingest.discovery.model.faults import told_by_part
from ingest.discovery.model.widened import widened
from ingest.jobs.answering import judge
from ingest.models import wrap
from ingest.models.proof import all_logits, require_same_logits
from ingest.tasks.base import PromptPair, TokenPair
from registry.errors import UnsupportedModel
from tests.ingest.discovery.decoders import bridge, clean_ids, corrupt_ids, metric
from tests.ingest.discovery.families import FAMILIES, Family, build
from tests.ingest.discovery.plain_patcher import PlainPatcher
from tests.ingest.discovery.test_families import ids
from tests.ingest.discovery.test_families import metric as difference

HALVES = [torch.bfloat16, torch.float16]


def loaded(family: Family, folder: Path, dtype: torch.dtype) -> Any:
    """A model as transformers loads it in a dtype."""
    build(family).save_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager"
    )
    return model.eval()


@pytest.mark.parametrize("dtype", HALVES)
def test_what_transformers_keeps_in_float32_is_not_rounded(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    """The router of ERNIE 4.5 decides otherwise once it is rounded."""
    family = FAMILIES["ernie4_5_moe"]
    theirs = {
        name: parameter.dtype
        for name, parameter in loaded(family, tmp_path, dtype).named_parameters()
    }
    assert {torch.float32, dtype} == set(theirs.values())
    plain = build(family)
    wrap(plain, dtype=dtype)
    ours = {
        name.replace("_original_component.", ""): parameter.dtype
        for name, parameter in plain.named_parameters()
    }
    assert {name: ours[name] for name in theirs if name in ours} == {
        name: kind for name, kind in theirs.items() if name in ours
    }
    assert sum(kind == torch.float32 for kind in ours.values()) >= sum(
        kind == torch.float32 for kind in theirs.values()
    )


def test_edges_of_a_rounded_mixture_of_experts_are_those_of_the_plain_model(
    tmp_path: Path,
) -> None:
    family, (clean, corrupt) = FAMILIES["ernie4_5_moe"], ids()
    found = attribute_edges(
        prepare_setting(wrap(build(family), dtype=torch.bfloat16), clean, corrupt, difference),
        method="exact",
    )
    model = loaded(family, tmp_path, torch.bfloat16)
    plain = PlainPatcher(model, family.names, found.space, clean, corrupt)
    index = torch.arange(3)
    full = difference(plain.clean.logits.float(), index)
    rounding = 0.05 * float(found.matrix.abs().max())
    for row, column in list(found.space.edges())[::5]:
        sender, receiver = found.space.senders[row], found.space.receivers[column]
        patched = difference(plain.logits_without(sender, receiver).float(), index)
        expected = float((full - patched).mean())
        assert float(found.matrix[row, column]) == pytest.approx(expected, abs=rounding)


@pytest.mark.parametrize("dtype", HALVES)
def test_a_widened_model_computes_in_float32_and_is_put_back(dtype: torch.dtype) -> None:
    model = bridge("llama", dtype).original_model
    before = {name: each.data.clone() for name, each in model.named_parameters()}
    with torch.no_grad():
        narrow = model(clean_ids()).logits
        with widened(model):
            wide = model(clean_ids()).logits
        again = model(clean_ids()).logits
    assert (narrow.dtype, wide.dtype) == (dtype, torch.float32)
    assert torch.equal(narrow, again)
    for name, each in model.named_parameters():
        assert each.dtype == before[name].dtype
        assert torch.equal(each.data, before[name])


def test_a_widened_model_is_put_back_when_its_forward_pass_fails() -> None:
    model = bridge("llama", torch.bfloat16).original_model
    handle = model.model.layers[1].register_forward_pre_hook(_failing)
    with pytest.raises(RuntimeError, match="broken"), widened(model):
        model(clean_ids())
    handle.remove()
    assert {each.dtype for each in model.parameters()} == {torch.bfloat16}
    assert model(clean_ids()).logits.dtype == torch.bfloat16


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_every_pass_of_a_widened_model_uses_the_memory_of_the_first(family: str) -> None:
    model = bridge(family, torch.bfloat16).original_model
    embedding = model.get_input_embeddings()
    embedding = getattr(embedding, "original_component", embedding)
    wide: list[torch.Tensor] = []  # held, so that no other tensor gets their memory
    handle = embedding.register_forward_hook(lambda *_: wide.append(embedding.weight.data))
    with torch.no_grad(), widened(model):
        for _ in range(3):
            model(clean_ids())
    handle.remove()
    assert {each.dtype for each in wide} == {torch.float32}
    assert len({each.data_ptr() for each in wide}) == 1


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
@pytest.mark.parametrize("place", ["embedding", "block"])
def test_a_widened_model_is_put_back_after_ctrl_c(family: str, place: str) -> None:
    model = bridge(family, torch.bfloat16).original_model
    before = {name: each.data.clone() for name, each in model.named_parameters()}
    embedding = model.get_input_embeddings()
    embedding = getattr(embedding, "original_component", embedding)
    blocks = next(each for each in model.modules() if isinstance(each, nn.ModuleList))
    inner = [each for each in blocks[1].modules() if _is_linear(each)]
    handle = (embedding if place == "embedding" else inner[-1]).register_forward_hook(_stopping)
    with pytest.raises(KeyboardInterrupt), widened(model):
        model(clean_ids())
    handle.remove()
    for name, each in model.named_parameters():
        assert each.dtype == torch.bfloat16, name
        assert torch.equal(each.data, before[name]), name


def _is_linear(module: nn.Module) -> bool:
    return type(module).__name__ in {"Linear", "Conv1D"}


def _stopping(module: nn.Module, arguments: object, output: object) -> None:
    raise KeyboardInterrupt


def _failing(module: nn.Module, arguments: object) -> None:
    raise RuntimeError("broken")


def test_a_model_that_cannot_be_float64_is_refused_with_the_part_that_fails() -> None:
    with pytest.raises(
        UnsupportedModel,
        match=r"XGLMForCausalLM cannot be run in float64: .* in XGLMAttention at model\.layers\.0\."
        r"self_attn \(.*\); use float32",
    ):
        wrap(build(FAMILIES["xglm"]), dtype="float64")


@pytest.mark.parametrize("dtype", HALVES)
def test_a_model_that_cannot_be_run_in_half_precision_is_refused_with_the_part(
    dtype: torch.dtype,
) -> None:
    """What is compared while loading is computed in float32, where none of these fails."""
    kind = str(dtype).removeprefix("torch.")
    narrow = Family(
        "ernie4_5_moe",
        more={"moe_intermediate_size": 12, "moe_num_experts": 4, "moe_layer_start_index": 0},
    )
    grouped = build(narrow)
    grouped.set_experts_implementation("grouped_mm")  # as transformers does by itself
    for model, part in (
        (build(FAMILIES["xglm"]), r"XGLMDecoderLayer at model\.layers\.0"),
        (build(FAMILIES["olmo2"]), r"Olmo2DecoderLayer at model\.layers\.0"),
        (grouped, r"Ernie4_5_MoeExperts at model\.layers\.\d\.mlp\.experts"),
    ):
        with pytest.raises(
            UnsupportedModel,
            match=rf"cannot be run in {kind} once it is wrapped: .* in {part} \(.*\); use float32",
        ):
            wrap(model, dtype=dtype)


@pytest.mark.parametrize("dtype", HALVES)
def test_prompts_are_answered_without_a_cache_of_another_dtype(dtype: torch.dtype) -> None:
    model = wrap(build(FAMILIES["codegen"]), dtype=dtype)
    text = PromptPair(clean="a", corrupt="b", correct=" c", wrong=" d")
    pair = TokenPair(text=text, clean=(3, 5, 7), corrupt=(3, 6, 7), correct=4, wrong=8)
    (verdict,) = judge(model)([pair])
    logits = model.original_model(torch.tensor([[3, 5, 7]]), use_cache=False).logits[0, -1]
    assert verdict.correct == bool(logits[4] > logits[8])


def test_experts_run_in_float64() -> None:
    """The grouped product that transformers prefers has no float64."""
    model = wrap(build(FAMILIES["mixtral"]), dtype="float64")
    assert model.original_model.dtype == torch.float64


def test_a_fault_of_our_own_hooks_is_not_blamed_on_the_model() -> None:
    model = bridge("gpt2")

    def wrong(logits: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        raise KeyError("ours")

    with pytest.raises(KeyError, match="ours"):
        attribute_edges(prepare_setting(model, clean_ids(), corrupt_ids(), wrong))


def test_a_bare_assertion_is_told_by_its_line() -> None:
    class Picky(nn.Module):
        def forward(self, value: torch.Tensor) -> torch.Tensor:
            if value.shape[0] != 7:
                raise AssertionError
            return value

    model = nn.Sequential(Picky())
    with (
        pytest.raises(
            UnsupportedModel, match=r"in Picky at 0 \(AssertionError: raise AssertionError\)"
        ),
        told_by_part(model, "a model", torch.float32),
    ):
        model(torch.zeros(2))


def test_logits_may_differ_by_rounding_and_no_more() -> None:
    plain = build(FAMILIES["llama"])
    found = all_logits(plain, "tiny")
    assert found.shape == (3, 40)
    require_same_logits("tiny", found, found + 1e-6 * found.std())
    with pytest.raises(UnsupportedModel, match="tiny becomes another model"):
        require_same_logits("tiny", found, found + 1e-3 * found.std() * torch.randn(found.shape))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_of_a_large_vocabulary_some_words_are_compared_and_weights_stay(
    dtype: torch.dtype, *, tied: bool
) -> None:
    config = transformers.GPT2Config(
        n_layer=1, n_head=2, n_embd=8, vocab_size=10_000, tie_word_embeddings=tied
    )
    plain = transformers.GPT2LMHeadModel(config).to(dtype).eval()
    weight, values = plain.lm_head.weight, plain.lm_head.weight.clone()
    tokens = torch.tensor([[2_500, 5_000, 7_499]])
    wide = transformers.GPT2LMHeadModel(config).eval()
    wide.load_state_dict(plain.state_dict())
    torch.testing.assert_close(all_logits(plain, "tiny"), wide(tokens).logits[0, :, ::3])
    assert plain.lm_head.weight is weight
    assert (plain.transformer.wte.weight is weight) is tied
    bridge = wrap(plain)
    assert bridge.original_model.lm_head.original_component.weight is weight
    assert torch.equal(weight, values)


@pytest.mark.parametrize("dtype", HALVES)
def test_scores_of_a_model_that_is_right_pass_in_half_precision(dtype: torch.dtype) -> None:
    for name in ("gpt2", "llama", "neox", "gemma2"):
        attribute_edges(prepare_setting(bridge(name, dtype), clean_ids(), corrupt_ids(), metric()))


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("name", ["granite", "gptj", "falcon 7b", "llama"])
def test_what_zero_ablation_leaves_is_no_rounding(name: str, dtype: torch.dtype) -> None:
    """What is left may be nothing, and the next norm makes rounding as large as anything."""
    clean, _ = ids()
    exact, rounded = (_rounded(FAMILIES[name], one) for one in (torch.float64, dtype))
    scores = attribute_edges(prepare_setting(exact, clean, None, difference, ablation="zero"))
    every = list(scores.to_dict())
    circuits = [[], [one for one in every if not one.startswith("input")], every[::3]]
    expected, found = (
        evaluate_circuits(
            prepare_setting(model, clean, None, difference, ablation="zero"), circuits
        )
        for model in (exact, rounded)
    )
    whole = expected[0].full.abs().max()
    for a, b in zip(expected, found, strict=True):
        assert (a.empty - b.empty).abs().max() < 0.05 * whole
        assert (a.circuit - b.circuit).abs().max() < 0.05 * whole


def _rounded(family: Family, dtype: torch.dtype) -> Any:
    """A model whose weights bfloat16 can hold, in a dtype."""
    return wrap(build(family).to(torch.bfloat16).to(dtype))
