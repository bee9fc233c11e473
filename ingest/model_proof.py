"""Proof that a wrapped model computes what its authors' own code computes.

TransformerLens takes a model's attention apart and, for many families, computes it anew; a setting
that it does not know then makes another model of it without a word. So the logits of a short prompt
are taken before and after wrapping, at all positions, and a model whose logits differ is refused. A
model of half precision is compared in float32, where its rounding hides nothing.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ingest.discovery.faults import told_by_part
from ingest.discovery.prompts import spread_tokens
from ingest.discovery.widened import widened
from registry.errors import UnsupportedModel

__all__ = ["all_logits", "require_same_logits"]

_N_TOKENS = 4
"""More would make loading slower and show no more: what differs does so at the second token."""
_TOLERANCE = 1e-4
"""Largest difference allowed, in standard deviations of the logits. Families that are computed
rightly stay below 1e-5 in float32; a part that is left out shows as 1e-2 and more."""


def all_logits(model: Any, name: str) -> Tensor:
    """Logits of one short prompt at all positions, ``[pos, word]``, float32 or wider.

    Args:
        model: A causal language model of transformers, or a bridge around one.
        name: For errors.

    Raises:
        UnsupportedModel: Its own forward pass fails.
    """
    plain = getattr(model, "original_model", model)
    embedding = plain.get_input_embeddings()
    weight = embedding.weight
    tokens = spread_tokens(len(weight), _N_TOKENS).to(weight.device)
    mask = torch.ones_like(tokens)
    told = told_by_part(plain, name, plain.dtype, wrapped=plain is not model)
    with torch.no_grad(), widened(plain), told:
        found = plain(input_ids=tokens, attention_mask=mask, use_cache=False)
    logits: Tensor = found.logits[0]
    return logits.to("cpu", torch.promote_types(logits.dtype, torch.float32))


def require_same_logits(name: str, plain: Tensor, wrapped: Tensor) -> None:
    """Refuse a model whose logits differ once it is wrapped.

    Args:
        name: Of the model and its architecture.
        plain: Before, as :func:`all_logits` gives them.
        wrapped: After.

    Raises:
        UnsupportedModel: They differ.
    """
    spread = float((plain - plain.mean(-1, keepdim=True)).square().mean().sqrt())
    largest = float((wrapped - plain).abs().max())
    if largest <= _TOLERANCE * spread or math.isnan(spread):  # NaN is told later, with its prompt
        return
    raise UnsupportedModel(
        f"{name} becomes another model when TransformerLens wraps it: logits of a short prompt "
        f"differ by up to {largest:.3g}, where they spread by {spread:.3g}; a setting of its "
        "config.json is left out there, so that no circuit of it would be the model's"
    )
