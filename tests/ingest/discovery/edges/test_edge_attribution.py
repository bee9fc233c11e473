from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from ingest.discovery import EdgeScores, attribute_edges, prepare_setting
from ingest.models import wrap
from registry.errors import BadInput, NonFiniteScores, UnsupportedModel
from tests.ingest import tiny_models
from tests.ingest.discovery.asking import attribute
from tests.ingest.discovery.decoders import (
    ALL,
    N_POSITIONS,
    N_PROMPTS,
    bridge,
    clean_ids,
    corrupt_ids,
    metric,
)


def score(model: Any, **options: Any) -> EdgeScores:
    return attribute(model, clean_ids(), corrupt_ids(), metric(), **options)


def corrupt_metric(found: EdgeScores) -> Tensor:
    assert found.corrupt_metric is not None
    return found.corrupt_metric


def assert_same(found: EdgeScores, expected: EdgeScores) -> None:
    largest = float(expected.matrix.abs().max())
    assert largest > 0.01
    torch.testing.assert_close(found.matrix, expected.matrix, atol=1e-5 * largest, rtol=0)


def padded(tokens: Tensor, lengths: list[int], side: str) -> tuple[Tensor, Tensor]:
    """The first tokens of each prompt behind or before padding, and the mask of real ones."""
    width = max(lengths) + 2
    rows, masks = [], []
    for row, length in zip(tokens, lengths, strict=True):
        gap = torch.full((width - length,), 1)
        real, none = torch.ones(length), torch.zeros(width - length)
        parts = [(row[:length], real), (gap, none)]
        ids, mask = zip(*(parts if side == "right" else parts[::-1]), strict=True)
        rows.append(torch.cat(ids))
        masks.append(torch.cat(mask))
    return torch.stack(rows), torch.stack(masks).long()


@pytest.mark.parametrize("name", sorted(ALL))
@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_prompts_score_as_one_by_one(name: str, side: str) -> None:
    model, lengths = bridge(name), [N_POSITIONS, 4, 5]
    clean, mask = padded(clean_ids(), lengths, side)
    corrupt, _ = padded(corrupt_ids(), lengths, side)
    found = attribute_edges(prepare_setting(model, clean, corrupt, metric(), attention_mask=mask))
    one_by_one = [
        attribute_edges(
            prepare_setting(
                model,
                clean_ids()[prompt : prompt + 1, :length],
                corrupt_ids()[prompt : prompt + 1, :length],
                metric(first=prompt),
            )
        )
        for prompt, length in enumerate(lengths)
    ]
    mean = torch.stack([scores.matrix for scores in one_by_one]).mean(0)
    assert_same(found, EdgeScores(mean, found.space, found.clean_metric, found.corrupt_metric))
    alone = torch.cat([scores.clean_metric for scores in one_by_one])
    torch.testing.assert_close(found.clean_metric, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_scores_do_not_depend_on_the_batch_size(batch_size: int) -> None:
    model = bridge("llama")
    assert_same(score(model, batch_size=batch_size), score(model))


@pytest.mark.parametrize("name", sorted(ALL))
def test_folding_norms_into_weights_changes_no_score(name: str) -> None:
    model = bridge(name)
    expected = score(model, method="eap-ig-inputs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TransformerLens advises on its own switches
        model.enable_compatibility_mode(disable_warnings=True)
    assert_same(score(model, method="eap-ig-inputs"), expected)


def test_scores_do_not_depend_on_the_order_of_prompts() -> None:
    model, order = bridge("gpt2"), torch.tensor([2, 0, 1])
    shuffled = attribute_edges(
        prepare_setting(
            model,
            clean_ids()[order],
            corrupt_ids()[order],
            lambda logits, index: metric()(logits, order[index]),
        )
    )
    expected = score(model)
    assert_same(shuffled, expected)
    torch.testing.assert_close(shuffled.clean_metric, expected.clean_metric[order])


def test_swapping_two_heads_swaps_their_scores() -> None:
    hf = tiny_models.llama()
    swapped = tiny_models.llama()
    attention = swapped.model.layers[0].self_attn
    d_head = attention.head_dim
    order = torch.arange(4 * d_head).reshape(4, d_head)[[1, 0, 2, 3]].flatten()
    with torch.no_grad():  # heads 0 and 1 share a key/value head, so only they may change places
        attention.q_proj.weight.copy_(attention.q_proj.weight[order])
        attention.o_proj.weight.copy_(attention.o_proj.weight[:, order])
    before, after = score(wrap(hf)).to_dict(), score(wrap(swapped)).to_dict()
    largest = max(map(abs, before.values()))
    names = {"a0.h0": "a0.h1", "a0.h1": "a0.h0"}
    for edge, value in before.items():
        source, target = edge.split("->")
        node, bracket, port = target.partition("<")
        moved = f"{names.get(source, source)}->{names.get(node, node)}{bracket}{port}"
        assert after[moved] == pytest.approx(value, abs=1e-5 * largest)


def test_metrics_of_both_runs_come_with_the_scores() -> None:
    model = bridge("neox")
    found = score(model)
    for metrics, tokens in (
        (found.clean_metric, clean_ids()),
        (corrupt_metric(found), corrupt_ids()),
    ):
        with torch.no_grad():
            expected = metric()(model(tokens)[:, -1], torch.arange(N_PROMPTS))
        torch.testing.assert_close(metrics, expected.double(), atol=1e-5, rtol=0)


def test_progress_counts_prompts() -> None:
    seen: list[tuple[int, int]] = []
    score(bridge("gpt2"), batch_size=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, N_PROMPTS), (N_PROMPTS, N_PROMPTS)]


def test_scoring_works_where_gradients_are_off() -> None:
    model = bridge("gemma2")
    with torch.no_grad():
        found = score(model)
    assert_same(found, score(model))


def test_the_model_is_left_as_it_was() -> None:
    model = bridge("gpt2")
    model.original_model.train()
    trainable = [p.requires_grad for p in model.original_model.parameters()]
    hooks = {name: len(point.fwd_hooks) for name, point in model.hook_dict.items()}
    score(model)
    assert model.original_model.training
    assert [p.requires_grad for p in model.original_model.parameters()] == trainable
    assert all(p.grad is None for p in model.original_model.parameters())
    assert {name: len(point.fwd_hooks) for name, point in model.hook_dict.items()} == hooks


def test_dropout_is_off_while_scoring() -> None:
    model = bridge("gpt2")
    expected = score(model)
    model.original_model.train()
    model.train()
    assert_same(score(model), expected)


def test_the_model_is_left_as_it_was_after_an_error() -> None:
    model = bridge("gpt2")

    def failing(logits: Tensor, index: Tensor) -> Tensor:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        attribute_edges(prepare_setting(model, clean_ids(), corrupt_ids(), failing))
    assert all(p.requires_grad for p in model.original_model.parameters())
    assert not any(point.fwd_hooks for point in model.hook_dict.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_scores_are_near(dtype: torch.dtype) -> None:
    exact = score(bridge("llama")).matrix
    found = score(bridge("llama", dtype)).matrix
    assert float(torch.corrcoef(torch.stack([found.flatten(), exact.flatten()]))[0, 1]) > 0.99


def test_a_sequential_model_taken_for_a_parallel_one_is_refused() -> None:
    model = bridge("gpt2")
    model.cfg.parallel_attn_mlp = True
    with pytest.raises(
        UnsupportedModel, match=r"do not add up to the residual stream at blocks\.0"
    ):
        score(model)


def test_an_adapted_weight_is_refused() -> None:
    model = bridge("llama")

    class Adapted(torch.nn.Linear):
        def forward(self, value: torch.Tensor) -> torch.Tensor:
            return super().forward(value) + 0.1 * value

    attention = model.blocks[1].attn
    attention.o.set_original_component(Adapted(32, 32, bias=False))
    with pytest.raises(UnsupportedModel, match=r"blocks\.1\.attn\.o is a Adapted, not a plain"):
        score(model)


def test_a_split_stream_is_refused() -> None:
    model = bridge("llama")
    model.set_use_split_qkv_input(True)
    with pytest.raises(UnsupportedModel, match="turn use_split_qkv_input off first"):
        score(model)


def test_a_metric_without_gradient_is_refused() -> None:
    with pytest.raises(BadInput, match="the metric has no gradient"):
        attribute_edges(
            prepare_setting(
                bridge("gpt2"), clean_ids(), corrupt_ids(), lambda logits, _: logits.detach()[:, 0]
            )
        )


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (lambda logits: logits[:, 0], r"<lambda>"),
        (lambda logits, index, *, word: logits[:, word], r"<lambda>"),
        (torch.nn.Softmax(-1), "Softmax"),
        ("logit_difference", "str"),
    ],
)
def test_a_metric_that_does_not_take_logits_and_index_is_refused(given: Any, name: str) -> None:
    with pytest.raises(BadInput, match=rf"{name} does not take .* metric\(logits, index\): "):
        attribute_edges(prepare_setting(bridge("gpt2"), clean_ids(), corrupt_ids(), given))


def test_an_error_inside_a_metric_stays_as_it_is() -> None:
    def adding(logits: Tensor, index: Tensor) -> Tensor:
        return logits[:, 0] + "x"  # type: ignore[operator]

    with pytest.raises(TypeError, match="unsupported operand"):
        attribute_edges(prepare_setting(bridge("gpt2"), clean_ids(), corrupt_ids(), adding))


@pytest.mark.parametrize("shape", [(), (N_PROMPTS, 1)])
def test_a_metric_that_is_not_one_number_per_prompt_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match=r"one number per prompt, \[3\]; got"):
        attribute_edges(
            prepare_setting(
                bridge("gpt2"), clean_ids(), corrupt_ids(), lambda logits, _: torch.zeros(shape)
            )
        )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_prompt_whose_metric_is_not_finite_is_named(value: float) -> None:
    factors = torch.tensor([1.0, 1.0, value])
    with pytest.raises(NonFiniteScores, match=r"prompt 2 \(counted from 0\)"):
        attribute_edges(
            prepare_setting(
                bridge("gpt2"),
                clean_ids(),
                corrupt_ids(),
                lambda logits, index: logits[:, 0] * factors[index],
            )
        )


def test_a_prompt_whose_gradient_is_not_finite_is_named() -> None:
    # The root's slope is infinite where it is 0, though the metric itself is finite there.
    # What is subtracted is what the run with gradients itself gives: others may round otherwise.
    model, clean = bridge("llama"), torch.zeros(N_PROMPTS)

    def root(logits: Tensor, index: Tensor) -> Tensor:
        if logits.requires_grad:
            clean[index] = logits[:, 0].detach()
        return torch.sqrt((logits[:, 0] - clean[index]).abs() + torch.tensor([1.0, 0, 1])[index])

    with pytest.raises(NonFiniteScores, match="prompt 1"):
        attribute_edges(prepare_setting(model, clean_ids(), corrupt_ids(), root, batch_size=3))


def test_grouped_and_per_query_head_are_one_in_a_multi_head_model() -> None:
    model = bridge("gpt2")
    assert_same(score(model, kv_heads="per-query-head"), score(model))


@pytest.mark.parametrize("name", ["llama", "gemma2", "gemma3"])
def test_scores_per_query_head_add_up_to_those_of_their_group(name: str) -> None:
    model = bridge(name)
    grouped, apart = score(model).to_dict(), score(model, kv_heads="per-query-head").to_dict()
    summed: dict[str, float] = {}
    for edge, value in apart.items():
        source, target = edge.split("->")
        if target.endswith(("<k>", "<v>")):
            layer, head = target[:-3].split(".h")
            target = f"{layer}.kv{int(head) // 2}{target[-3:]}"
        summed[f"{source}->{target}"] = summed.get(f"{source}->{target}", 0.0) + value
    assert summed.keys() == grouped.keys()
    largest = max(map(abs, grouped.values()))
    for edge, value in grouped.items():
        assert summed[edge] == pytest.approx(value, abs=1e-5 * largest)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "magic"}, "method must be one of 'eap', .*; got 'magic'"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1; got 0"),
        ({"kv_heads": "all"}, "kv_heads must be 'grouped' or 'per-query-head'; got 'all'"),
        ({"attention_mask": torch.ones(1, 1)}, r"the prompts' shape \[3, 6\]; got \[1, 1\]"),
    ],
)
def test_options_that_are_none_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        score(bridge("gpt2"), **options)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([0, 0, 0, 0, 0, 0], "prompt 1 has no real token"),
        ([1, 1, 0, 1, 1, 1], "prompt 1 has padding between real tokens"),
    ],
)
def test_a_broken_mask_is_refused_with_its_prompt(row: list[int], message: str) -> None:
    mask = torch.ones(N_PROMPTS, N_POSITIONS)
    mask[1] = torch.tensor(row)
    with pytest.raises(BadInput, match=message):
        score(bridge("gpt2"), attention_mask=mask)


@pytest.mark.parametrize(
    ("clean", "corrupt", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 3).long(), "clean must be token ids"),
        (torch.zeros(3).long(), torch.zeros(3).long(), "clean must be token ids"),
        (torch.zeros(0, 3).long(), torch.zeros(0, 3).long(), "at least one of each"),
        (torch.zeros(2, 3).long(), torch.zeros(2, 4).long(), "must pair up token by token"),
    ],
)
def test_prompts_that_are_none_are_refused(clean: Tensor, corrupt: Tensor, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        attribute_edges(prepare_setting(bridge("gpt2"), clean, corrupt, metric()))
