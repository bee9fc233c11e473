"""The reference's scores on four tiny models, beside the checkout where it is shared."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import transformers
from torch import Tensor

from ingest.models import load, wrap
from registry.models.edge_space import EdgeSpace

FOLDER = Path(__file__).parents[4] / "shared" / "fixtures" / "edge_attribution"
MODELS = ("gpt2_tiny", "llama_gqa_tiny", "neox_tiny", "gemma2_tiny")
needs_reference = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="the reference's scores are not beside this checkout"
)


@dataclass(frozen=True, eq=False)
class Prompts:
    """Token ids ``[prompt, position]`` padded on the right, and the logit difference asked for."""

    clean: Tensor
    corrupt: Tensor
    attention_mask: Tensor
    metric: Callable[[Tensor, Tensor], Tensor]


def bridge(model: str, dtype: torch.dtype = torch.float32) -> Any:
    return load(str(FOLDER / model), dtype=dtype)


def multi_head_bridge(model: str) -> Any:
    """The same model with a copy of its key/value head for every query head.

    The reference counts keys and values so.
    """
    hf = transformers.AutoModelForCausalLM.from_pretrained(FOLDER / model)
    config = hf.config
    n_heads = config.num_attention_heads
    n_kv_heads = getattr(config, "num_key_value_heads", n_heads)
    if n_kv_heads == n_heads:
        return bridge(model)
    weights = hf.state_dict()
    for name in weights:
        if "k_proj" in name or "v_proj" in name:
            by_head = weights[name].reshape(n_kv_heads, -1, config.hidden_size)
            copies = by_head.repeat_interleave(n_heads // n_kv_heads, dim=0)
            weights[name] = copies.reshape(-1, config.hidden_size)
    wide = copy.deepcopy(config)
    wide.num_key_value_heads = n_heads
    copied = transformers.AutoModelForCausalLM.from_config(wide)
    copied.load_state_dict(weights)
    return wrap(copied)


def prompts(model: str, which: str) -> Prompts:
    pairs = read(model, "prompts.json")[which]
    width = max(len(pair["clean"]) for pair in pairs)

    def padded(key: str) -> Tensor:
        return torch.tensor([pair[key] + [0] * (width - len(pair[key])) for pair in pairs])

    lengths = torch.tensor([len(pair["clean"]) for pair in pairs])
    return Prompts(
        padded("clean"),
        padded("corrupt"),
        (torch.arange(width) < lengths[:, None]).long(),
        logit_difference(
            torch.tensor([pair["correct"] for pair in pairs]),
            torch.tensor([pair["wrong"] for pair in pairs]),
        ),
    )


def logit_difference(correct: Tensor, wrong: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    def metric(logits: Tensor, index: Tensor) -> Tensor:
        rows = torch.arange(len(index))
        return logits[rows, correct[index]] - logits[rows, wrong[index]]

    return metric


def read(model: str, file: str) -> Any:
    return json.loads((FOLDER / model / file).read_text(encoding="utf-8"))


def scores(model: str, file: str, space: EdgeSpace) -> dict[str, float]:
    """Reference scores; those of query heads' keys and values summed over each group."""
    folded: dict[str, float] = {}
    for edge, score in cast(dict[str, float], read(model, file)).items():
        name = _grouped(edge, space)
        folded[name] = folded.get(name, 0.0) + score
    return folded


def _grouped(edge: str, space: EdgeSpace) -> str:
    if not space.grouped or not edge.endswith(("<k>", "<v>")):
        return edge
    before, head = edge[:-3].rsplit(".h", 1)
    return f"{before}.kv{int(head) * space.n_kv_heads // space.n_heads}{edge[-3:]}"
