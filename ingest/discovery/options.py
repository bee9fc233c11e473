"""What every function that measures circuits can be told besides model, prompts and metric."""

from __future__ import annotations

from typing import TypedDict

from torch import Tensor

from ingest.discovery.ablation import Ablation
from ingest.discovery.metrics import Progress
from ingest.discovery.texts import Prompts

__all__ = ["EvaluationOptions"]


class EvaluationOptions(TypedDict, total=False):
    """Passed on to :func:`ingest.discovery.evaluate_circuits`, which explains them."""

    ablation: Ablation
    reference: Prompts | None
    kv_heads: str
    batch_size: int | None
    attention_mask: Tensor | None
    reference_mask: Tensor | None
    progress: Progress | None
