"""The setting of a job's measurements: its model on its prompts, with one ablation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from ingest.tasks.base import TokenPair

if TYPE_CHECKING:
    from ingest.discovery import Setting

__all__ = ["setting_of"]


def setting_of(
    bridge: Any,
    pairs: Sequence[TokenPair],
    *,
    ablation: Literal["resample", "mean", "zero"] = "resample",
    reference: Sequence[TokenPair] | None = None,
    kv_heads: str = "grouped",
    batch_size: int | None = None,
) -> Setting:
    """Prepare a model on pairs of prompts, measured by their logit difference.

    Args:
        bridge: The model, a TransformerLens ``TransformerBridge``.
        pairs: The prompts.
        ablation: What replaces the outputs of ablated parts.
        reference: For ``mean``: pairs over whose clean prompts the mean is taken; None for
            ``pairs``. Ignored for other ablations.
        kv_heads: Key/value heads as the model has them, or one copy per query head.
        batch_size: Prompts per batch; None: as many as memory allows.

    Raises:
        UnsupportedModel, BadInput: See :func:`ingest.discovery.prepare_setting`.
    """
    from ingest.discovery import prepare_setting
    from ingest.jobs.answering import as_tensors

    prompts = mean_of = as_tensors(pairs)
    if reference is not None:
        mean_of = as_tensors(reference)
    takes_mean = ablation == "mean"
    return prepare_setting(
        bridge,
        prompts.clean,
        prompts.corrupt,
        prompts.logit_difference,
        ablation=ablation,
        reference=mean_of.clean if takes_mean else None,
        kv_heads=kv_heads,
        batch_size=batch_size,
        attention_mask=prompts.attention_mask,
        reference_mask=mean_of.attention_mask if takes_mean else None,
    )
