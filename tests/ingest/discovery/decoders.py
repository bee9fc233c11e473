"""Tiny random decoders as bridges, and pairs of prompts for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ingest.models import wrap
from tests.ingest import tiny_models
from tests.ingest.discovery.fixtures import logit_difference

N_PROMPTS, N_POSITIONS = 3, 6


def bridge(name: str, dtype: torch.dtype = torch.float32) -> Any:
    return wrap(tiny_models.ALL[name](), dtype=dtype)


def clean_ids() -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randint(2, tiny_models.D_VOCAB, (N_PROMPTS, N_POSITIONS), generator=generator)


def corrupt_ids() -> Tensor:
    """As the clean prompts, with other tokens at two places."""
    ids = clean_ids()
    ids[:, 1] = (ids[:, 1] + 5) % tiny_models.D_VOCAB
    ids[:, 3] = (ids[:, 3] + 9) % tiny_models.D_VOCAB
    return ids


def metric() -> Callable[[Tensor, Tensor], Tensor]:
    correct = torch.arange(N_PROMPTS) + 3
    return logit_difference(correct, correct + 7)
