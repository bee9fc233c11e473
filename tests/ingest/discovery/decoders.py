"""Tiny random decoders as bridges, and pairs of prompts for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor

from ingest.models import wrap
from tests.ingest import tiny_models
from tests.ingest.discovery.fixtures import logit_difference

N_PROMPTS, N_POSITIONS = 3, 6


def gemma3() -> transformers.PreTrainedModel:
    """Norms of queries and keys, norms after the blocks' parts, a sliding window at work."""
    config = transformers.Gemma3TextConfig(
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        query_pre_attn_scalar=8,
        hidden_size=32,
        intermediate_size=48,
        vocab_size=tiny_models.D_VOCAB,
        sliding_window=4,
        layer_types=["sliding_attention", "full_attention"],
        architectures=["Gemma3ForCausalLM"],
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    torch.manual_seed(0)
    model = transformers.Gemma3ForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # far from zero, so that a lost part shows
            parameter.copy_(torch.randn(parameter.shape) * 0.3)
    return model


ALL: dict[str, Callable[[], transformers.PreTrainedModel]] = {**tiny_models.ALL, "gemma3": gemma3}


def bridge(name: str, dtype: torch.dtype = torch.float32) -> Any:
    return wrap(ALL[name](), dtype=dtype)


def clean_ids() -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randint(2, tiny_models.D_VOCAB, (N_PROMPTS, N_POSITIONS), generator=generator)


def corrupt_ids() -> Tensor:
    """As the clean prompts, with other tokens at two places."""
    ids = clean_ids()
    ids[:, 1] = (ids[:, 1] + 5) % tiny_models.D_VOCAB
    ids[:, 3] = (ids[:, 3] + 9) % tiny_models.D_VOCAB
    return ids


def metric(first: int = 0) -> Callable[[Tensor, Tensor], Tensor]:
    """Logit difference of the prompts from ``first`` on."""
    correct = torch.arange(first, N_PROMPTS) + 3
    return logit_difference(correct, correct + 7)
