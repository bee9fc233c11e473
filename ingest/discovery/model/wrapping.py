"""Proof that a wrapped model is still the model, on prompts as long as the given ones.

A model's computations may depend on the position. If TransformerLens ignores an attention window,
or a scale for positions beyond the training length, shorter prompts do not show it. When a model is
loaded, no prompt is known yet. So before anything is scored, the last logits of the longest prompt
are computed twice: by TransformerLens, and by the same model with its own parts restored
temporarily.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from ingest.discovery.model.anatomy import Anatomy, frozen
from ingest.discovery.model.faults import told_by_part
from ingest.discovery.model.interrupts import without_interrupts
from ingest.discovery.model.widened import widened
from registry.errors import UnsupportedModel

__all__ = ["SHORT", "difference", "require_same_at_length", "unwrapped"]

SHORT = 3
"""Length of the prompt with which a model is checked when it is loaded. A longer one would make
loading slower. Most differences appear at the second token; the others are found before anything is
scored."""
_TOLERANCE = 1e-3
"""Largest allowed difference, in standard deviations of the logits. Long prompts accumulate more
rounding than the short one; an omitted part still causes 1e-2 and more."""
_PROVEN = "circuits_proven_length"
"""Attribute of a bridge: length of the longest prompt that gave the model's own logits."""
_MODULE = "original_component"


def difference(plain: Tensor, wrapped: Tensor) -> tuple[float, float]:
    """Return the largest difference of logits, and the plain ones' deviation over words."""
    spread = float((plain - plain.mean(-1, keepdim=True)).square().mean().sqrt())
    return float((wrapped - plain).abs().max()), spread


def require_same_at_length(model: Any, anatomy: Anatomy, prompt: Tensor) -> None:
    """Refuse a model that TransformerLens changes on a prompt of this length.

    A bridge that its user changed, by hooks or new weights, also differs on the short prompt. It is
    accepted, because its user wants this change. A model that TransformerLens itself defines is
    also accepted, because there is no other code for it.

    Args:
        model: A TransformerLens ``TransformerBridge``.
        anatomy: Anatomy of the model.
        prompt: Token ids ``[1, pos]``.

    Raises:
        UnsupportedModel: The last logits differ.
    """
    n_tokens = prompt.shape[1]
    of_transformers = hasattr(model.original_model, "get_output_embeddings")
    if n_tokens <= getattr(model, _PROVEN, SHORT) or not of_transformers:
        return
    with frozen(model), torch.no_grad():
        largest, spread = _compared(model, anatomy, prompt)
        if not largest > _TOLERANCE * spread:  # NaN is reported later, with its prompt
            setattr(model, _PROVEN, n_tokens)
            return
        short, usual = _compared(model, anatomy, prompt[:, :SHORT])
    if short > _TOLERANCE * usual:
        return
    raise UnsupportedModel(
        f"{anatomy.name} becomes another model on prompts of {n_tokens} tokens when "
        f"TransformerLens wraps it: their last logits differ by up to {largest:.3g}, but "
        f"spread by {spread:.3g}; a setting of its config.json for later positions is "
        "ignored there, so use shorter prompts"
    )


@contextmanager
def unwrapped(model: Any) -> Iterator[nn.Module]:
    """Yield a bridge's model as transformers has it: with its own parts instead of the bridge's."""
    plain = cast(nn.Module, model.original_model)
    replaced: list[tuple[nn.Module, str, nn.Module]] = []
    try:
        try:
            _put_own_parts(plain, replaced)
            yield plain
        finally:
            _put_back(replaced)
    finally:
        _put_back(replaced)  # needed if Ctrl-C came at the beginning of the other call


def _put_back(replaced: list[tuple[nn.Module, str, nn.Module]]) -> None:
    """Put the bridge's parts back, last one first; parts that are back are forgotten."""
    with without_interrupts():
        while replaced:
            parent, name, part = replaced[-1]
            parent._modules[name] = part
            replaced.pop()


def _put_own_parts(parent: nn.Module, replaced: list[tuple[nn.Module, str, nn.Module]]) -> None:
    for name, part in list(parent._modules.items()):
        if part is None:
            continue
        own = getattr(part, _MODULE, None)
        if isinstance(own, nn.Module):
            replaced.append((parent, name, part))
            parent._modules[name] = part = own
        _put_own_parts(part, replaced)


def _compared(model: Any, anatomy: Anatomy, prompt: Tensor) -> tuple[float, float]:
    with widened(model.original_model):
        wrapped = anatomy.run(model, prompt, [])
    anatomy.forget_lengths()
    with unwrapped(model) as plain, widened(plain):
        return difference(_last_logits(plain, anatomy, prompt), wrapped)


def _last_logits(plain: Any, anatomy: Anatomy, prompt: Tensor) -> Tensor:
    """Return a model's last logits; those of other positions would fill the memory."""
    words = plain.get_output_embeddings()
    handle = words.register_forward_pre_hook(lambda _, given: (given[0][:, -1:], *given[1:]))
    try:
        with told_by_part(plain, anatomy.name, anatomy.dtype, wrapped=False):
            mask = torch.ones_like(prompt)
            found = plain(input_ids=prompt, attention_mask=mask, use_cache=False)
    finally:
        handle.remove()
    return cast(Tensor, found.logits[:, -1])
