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


def qwen2() -> transformers.PreTrainedModel:
    """Biases of queries, keys and values, large ones as in the real models."""
    return _far_from_zero(
        transformers.Qwen2ForCausalLM(
            transformers.Qwen2Config(**_SIZES, architectures=["Qwen2ForCausalLM"])
        ),
        "bias",
    )


def qwen3() -> transformers.PreTrainedModel:
    """Norms of queries and keys."""
    return _far_from_zero(
        transformers.Qwen3ForCausalLM(
            transformers.Qwen3Config(**_SIZES, head_dim=12, architectures=["Qwen3ForCausalLM"])
        )
    )


def mistral() -> transformers.PreTrainedModel:
    """A sliding window at work in every block."""
    return _far_from_zero(
        transformers.MistralForCausalLM(
            transformers.MistralConfig(
                **_SIZES, sliding_window=3, architectures=["MistralForCausalLM"]
            )
        )
    )


_SIZES: dict[str, Any] = {
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "vocab_size": tiny_models.D_VOCAB,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}


def _far_from_zero(
    model: transformers.PreTrainedModel, large: str = ""
) -> transformers.PreTrainedModel:
    """Random weights, so that a lost part shows; larger where the name holds ``large``."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            size = 2.0 if large and large in name else 0.3
            parameter.copy_(torch.randn(parameter.shape) * size)
    return model.eval()


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
    return _far_from_zero(transformers.Gemma3ForCausalLM(config))


ALL: dict[str, Callable[[], transformers.PreTrainedModel]] = {**tiny_models.ALL, "gemma3": gemma3}
MORE: dict[str, Callable[[], transformers.PreTrainedModel]] = {
    "qwen2": qwen2,
    "qwen3": qwen3,
    "mistral": mistral,
}


def bridge(name: str, dtype: torch.dtype = torch.float32) -> Any:
    return wrap((ALL | MORE)[name](), dtype=dtype)


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
