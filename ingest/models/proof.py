"""Proof that a wrapped model computes the same as its authors' own code.

TransformerLens replaces a model's attention and, for many families, reimplements it. If it does not
know a setting of the model, it changes the model without a warning. So the logits of a short prompt
are computed before and after wrapping, at all positions, and a model with different logits is
refused. A model of half precision is compared in float32, where rounding hides no difference. Most
omitted settings already change the logits at the second token. Effects on later tokens are found
when the prompts are known (:mod:`ingest.discovery.model.wrapping`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ingest.discovery.model.batches import spread_tokens
from ingest.discovery.model.faults import told_by_part
from ingest.discovery.model.interrupts import without_interrupts
from ingest.discovery.model.widened import widened
from ingest.discovery.model.wrapping import SHORT, difference
from registry.errors import BadInput, UnsupportedModel

__all__ = [
    "NotFinite",
    "all_logits",
    "not_finite",
    "require_finite",
    "require_finite_logits",
    "require_one_attention",
    "require_running",
    "require_same_logits",
]

_MOST_WORDS = 4_096
"""Number of words whose logits are compared. All logits are computed in the same way, and the
vocabulary is a third of a small model's weights."""
_ROUNDING_STEPS = 16
"""Difference that is allowed in addition, in rounding steps of the largest logit. It is needed for
logits without spread: those of a single word, or equal logits."""
_TOLERANCE = 1e-4
"""Largest allowed difference, in standard deviations of the logits. Correct families stay below
1e-5 in float32; an omitted part causes 1e-2 and more."""


def all_logits(model: Any, name: str) -> Tensor:
    """Return logits of one short prompt at all positions, ``[pos, word]``, float32 or wider.

    If the vocabulary is large and an ``nn.Linear`` computes the logits, only some thousands of
    words at equal distances are computed.

    Args:
        model: A causal language model of transformers, or a bridge around one.
        name: Its name, for errors.

    Raises:
        UnsupportedModel: Its own forward pass fails.
        BadInput: It has no positions.
    """
    plain = getattr(model, "original_model", model)
    tokens = _short_prompt(plain, name)
    mask = torch.ones_like(tokens)
    by_part = told_by_part(plain, name, plain.dtype, wrapped=plain is not model)
    with torch.no_grad(), _some_words(plain), widened(plain), by_part:
        found = plain(input_ids=tokens, attention_mask=mask, use_cache=False)
    logits: Tensor = found.logits[0]
    return logits.to("cpu", torch.promote_types(logits.dtype, torch.float32))


def require_running(bridge: Any, name: str) -> None:
    """Refuse a wrapped model whose forward pass fails in its own dtype.

    :func:`all_logits` computes in float32, where a part that mixes dtypes or needs a kernel for
    half precision does not fail.

    Args:
        bridge: A TransformerLens ``TransformerBridge``.
        name: Name of the model and its architecture.

    Raises:
        UnsupportedModel: It fails; the text names the part.
        BadInput: It has no positions.
    """
    plain = bridge.original_model
    tokens = _short_prompt(plain, name)
    told = told_by_part(plain, name, plain.dtype)
    with torch.no_grad(), _some_words(plain), told:
        plain(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False)


def _short_prompt(model: Any, name: str) -> Tensor:
    """Return token ids of a prompt of three tokens, or fewer if the model has fewer positions."""
    weight = model.get_input_embeddings().weight
    longest = getattr(model.config, "max_position_embeddings", None)
    longest = SHORT if longest is None else longest
    if longest < 1:
        raise BadInput(f"{name} has {longest} positions (max_position_embeddings), and needs one")
    return spread_tokens(len(weight), min(SHORT, longest)).to(weight.device)


def not_finite(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """Return the first of some weights that has NaN or an infinite value."""
    return next((name for name, values in tensors if not _is_finite(values)), None)


class NotFinite(UnsupportedModel):
    """A model has a weight or a logit that is not finite; its family is not the reason."""


def require_finite(name: str, weight: str | None) -> None:
    """Refuse a model with a weight that is not finite.

    Args:
        name: Name of the model and its architecture.
        weight: The result of :func:`not_finite`.

    Raises:
        NotFinite: There is such a weight.
    """
    if weight is not None:
        raise NotFinite(
            f"{name} has values that are not finite in its weight {weight!r}, so its "
            "logits and scores are not numbers; its files are damaged, or its values too large for "
            "this dtype: download it again, or use float32"
        )


def require_finite_logits(name: str, model: Any, logits: Tensor) -> None:
    """Refuse a model whose logits of a short prompt are not finite, and name the cause.

    Raises:
        NotFinite: The logits are not finite.
    """
    if bool(logits.isfinite().all()):
        return
    require_finite(name, not_finite(model.named_parameters()))
    raise NotFinite(
        f"{name} gives logits that are not finite for a short prompt, although all weights are: "
        "a value in its config.json is wrong, such as its rope_theta, or numbers overflow in "
        "the forward pass; correct it, or use float64"
    )


def _is_finite(values: Tensor) -> bool:
    """Return whether all values are finite.

    The sum is tested first, which takes a twentieth of the time.
    """
    if not values.is_floating_point() or values.is_meta:
        return True
    if values.dtype.itemsize == 1:
        values = values.to(torch.float32)  # torch cannot sum this type
    wide = torch.promote_types(values.dtype, torch.float32)
    values = values.detach()
    return math.isfinite(float(values.sum(dtype=wide))) or bool(values.isfinite().all())


def require_one_attention(name: str, model: Any) -> None:
    """Refuse a model whose eager attention computes something else; select eager attention.

    A difference is possible only if the model's own code chooses between kinds of attention (Falcon
    adds ALiBi twice in one of them). If transformers chooses, it offers only complete
    implementations.

    Args:
        name: Name of the model and its architecture.
        model: The model of transformers.

    Raises:
        UnsupportedModel: The logits differ.
    """
    if model._can_set_attn_implementation() or not model._supports_sdpa:
        return
    found = []
    for kind in ("sdpa", "eager"):
        model.config._attn_implementation_internal = kind
        found.append(all_logits(model, name))
    largest, spread = difference(*found)
    if largest > _TOLERANCE * spread:
        raise UnsupportedModel(
            f"{name} computes something else with eager attention, which hooks need, than with "
            f"sdpa: logits of a short prompt differ by up to {largest:.3g}, but spread by "
            f"{spread:.3g}; docs/models.md lists the families that are known to work"
        )


def require_same_logits(name: str, plain: Tensor, wrapped: Tensor) -> None:
    """Refuse a model whose logits differ once it is wrapped.

    Args:
        name: Name of the model and its architecture.
        plain: Logits before, as :func:`all_logits` returns them.
        wrapped: Logits after.

    Raises:
        UnsupportedModel: They differ.
    """
    largest, spread = difference(plain, wrapped)
    rounding = _ROUNDING_STEPS * torch.finfo(plain.dtype).eps * float(plain.abs().max())
    if largest <= _TOLERANCE * spread + rounding:
        return
    raise UnsupportedModel(
        f"{name} becomes another model when TransformerLens wraps it: logits of a short prompt "
        f"differ by up to {largest:.3g}, but spread by {spread:.3g}; a setting of its "
        "config.json is ignored there, so a circuit found there would not be a circuit of the model"
    )


@contextmanager
def _some_words(model: Any) -> Iterator[None]:
    """Let a model compute the logits of only some words."""
    head = model.get_output_embeddings()
    head = getattr(head, "original_component", head)
    # Weights that are still on a disk have the device "meta" and are loaded completely.
    if type(head) is not nn.Linear or head.weight.is_meta or len(head.weight) <= _MOST_WORDS:
        yield
        return
    weight, bias = head.weight, head.bias
    step = -(-len(weight) // _MOST_WORDS)
    kept = None if bias is None else bias.data
    # The embedding may have the same weight, and keeps all of it. TransformerLens gives a separate
    # bias to a head without bias; it is not a parameter.
    try:
        head.weight = nn.Parameter(weight.detach()[::step], requires_grad=False)
        if bias is not None:
            bias.data = kept[::step]
        yield
    finally:
        with without_interrupts():
            head.weight = weight
            if bias is not None:
                bias.data = kept
