"""Divergence and perplexity on neutral text, by hand and against torch."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from ingest.discovery.editing.neutral import divergence, neutral_logits, perplexity_ratio
from ingest.discovery.model.weights import named_weights
from ingest.discovery.model.weights_in_place import changed_weights
from ingest.models import wrap
from registry.errors import BadInput
from tests.ingest import tiny_models
from tests.ingest.discovery.editing.table_model import A, B, C, D, Table

UNIFORM = (0.25, 0.25, 0.25, 0.25)
BEFORE = Table((0.1, 0.4, 0.3, 0.2), UNIFORM, UNIFORM, UNIFORM)
AFTER = Table((0.1, 0.3, 0.5, 0.1), UNIFORM, UNIFORM, UNIFORM)
WINDOWS = [(A, B), (B, D, A), (C,)]
"""A is read at two of six positions, and at one of three is there a next token."""


def test_the_divergence_is_a_mean_over_all_tokens() -> None:
    before, after = (neutral_logits(model, WINDOWS) for model in (BEFORE, AFTER))
    at_a = 0.4 * math.log(0.4 / 0.3) + 0.3 * math.log(0.3 / 0.5) + 0.2 * math.log(0.2 / 0.1)
    back = 0.3 * math.log(0.3 / 0.4) + 0.5 * math.log(0.5 / 0.3) + 0.1 * math.log(0.1 / 0.2)
    assert divergence(before, after) == pytest.approx(2 * at_a / 6, abs=1e-7)
    assert divergence(after, before) == pytest.approx(2 * back / 6, abs=1e-7)


def test_the_perplexity_is_over_tokens_that_are_predicted() -> None:
    before, after = (neutral_logits(model, WINDOWS) for model in (BEFORE, AFTER))
    assert perplexity_ratio(before, after) == pytest.approx((0.4 / 0.3) ** (1 / 3), abs=1e-6)


@pytest.mark.parametrize("family", sorted(tiny_models.ALL))
def test_the_divergence_is_that_of_torch_and_zero_without_a_change(family: str) -> None:
    model = wrap(tiny_models.ALL[family]().double())
    windows = [(3, 4, 5, 6), (7, 8, 9)]
    before = neutral_logits(model, windows)
    assert divergence(before, neutral_logits(model, windows)) == 0
    kept = [model(torch.tensor([one])).detach().log_softmax(-1) for one in windows]
    name, weight = next(iter(named_weights(model).items()))
    draw = torch.Generator().manual_seed(0)
    change = 0.1 * torch.randn(weight.shape, generator=draw, dtype=weight.dtype)
    with changed_weights(model, added={name: change}):
        after = neutral_logits(model, windows)
        now = [model(torch.tensor([one])).detach().log_softmax(-1) for one in windows]
    wanted = sum(
        float(torch.nn.functional.kl_div(one, other, log_target=True, reduction="sum"))
        for one, other in zip(now, kept, strict=True)
    )
    assert divergence(before, after) == pytest.approx(wanted / 7, abs=1e-6)
    assert divergence(before, after) > 1e-3
    assert {one.dtype for one in after.log_probabilities} == {torch.float32}


@pytest.mark.parametrize(
    ("windows", "options", "why"),
    [
        ([], {}, "the neutral text has no tokens"),
        ([(A,), ()], {}, r"window 1 \(counted from 0\) has no tokens"),
        (WINDOWS, {"limit_bytes": 95}, r"6 neutral tokens take 96 bytes, .* give at most 5 tokens"),
    ],
)
def test_text_that_does_not_fit_is_refused(windows: Any, options: Any, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        neutral_logits(BEFORE, windows, **options)
    assert neutral_logits(BEFORE, WINDOWS, limit_bytes=96).n_tokens == 6


def test_logits_that_are_not_finite_are_refused() -> None:
    with pytest.raises(BadInput, match=r"the logits of neutral window 0 .* are not finite"):
        neutral_logits(Table(*[(math.nan,) * 4] * 4), WINDOWS)


def test_other_text_is_refused() -> None:
    one, other = neutral_logits(BEFORE, WINDOWS), neutral_logits(AFTER, WINDOWS[:2])
    for measure in (divergence, perplexity_ratio):
        with pytest.raises(BadInput, match="2 windows, 5 tokens> are of different text"):
            measure(one, other)


def test_a_perplexity_needs_a_next_token() -> None:
    one = neutral_logits(BEFORE, [(A,), (B,)])
    with pytest.raises(BadInput, match="needs a window of two tokens or more"):
        perplexity_ratio(one, one)


def test_a_perplexity_that_no_number_can_hold_is_refused() -> None:
    never = Table((1.0, math.exp(-300), math.exp(-300), math.exp(-300)), UNIFORM, UNIFORM, UNIFORM)
    with torch.no_grad():
        never.log.mul_(3)
    before, after = neutral_logits(BEFORE, [(A, B)]), neutral_logits(never, [(A, B)])
    with pytest.raises(BadInput, match=r"the perplexity grew by e\*\*899"):
        perplexity_ratio(before, after)
