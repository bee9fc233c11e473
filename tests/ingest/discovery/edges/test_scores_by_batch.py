"""Whoever watches batches sees scores that add up to the whole, down to single prompts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ingest.discovery import attribute_edges, prepare_setting
from tests.ingest.discovery.decoders import N_PROMPTS, bridge, clean_ids, corrupt_ids, metric


@pytest.mark.parametrize("method", ["eap", "eap-ig-inputs", "exact"])
@pytest.mark.parametrize("batch_size", [1, 2, None])
def test_scores_of_batches_add_up_to_the_mean_over_prompts(
    method: Any, batch_size: int | None
) -> None:
    seen: list[torch.Tensor] = []
    parts: list[torch.Tensor] = []

    def watch(index: torch.Tensor, scores: torch.Tensor) -> None:
        seen.append(index)
        parts.append(scores.clone())

    whole = attribute_edges(
        prepare_setting(
            bridge("llama", torch.float64),
            clean_ids(),
            corrupt_ids(),
            metric(),
            batch_size=batch_size,
        ),
        method=method,
        on_batch=watch,
    )
    assert sorted(torch.cat(seen).tolist()) == list(range(N_PROMPTS))
    if batch_size is not None:
        assert len(seen) == -(-N_PROMPTS // batch_size)
    torch.testing.assert_close(torch.stack(parts).sum(0) / N_PROMPTS, whole.matrix)


def test_a_prompt_seen_alone_has_the_scores_it_has_alone() -> None:
    model = bridge("gpt2", torch.float64)
    found: dict[int, torch.Tensor] = {}

    def watch(index: torch.Tensor, scores: torch.Tensor) -> None:
        found[int(index)] = scores.clone()

    attribute_edges(
        prepare_setting(model, clean_ids(), corrupt_ids(), metric(), batch_size=1), on_batch=watch
    )
    for prompt, scores in found.items():
        only = slice(prompt, prompt + 1)

        def alone(logits: torch.Tensor, index: torch.Tensor, first: int = prompt) -> torch.Tensor:
            return metric()(logits, index + first)

        expected = attribute_edges(
            prepare_setting(model, clean_ids()[only], corrupt_ids()[only], alone)
        )
        torch.testing.assert_close(scores, expected.matrix)
