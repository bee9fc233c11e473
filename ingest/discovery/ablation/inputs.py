"""The inputs that every computation reads first: prompts, the model, the ablation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ingest.discovery.ablation.replacement import Ablation, Replacement, check_ablation
from ingest.discovery.model.anatomy import Anatomy, read_anatomy
from ingest.discovery.model.batches import (
    PromptBatch,
    PromptPairs,
    each_batch,
    padding_token,
    read_prompts,
)
from ingest.discovery.model.texts import Prompts, as_tokens
from ingest.discovery.model.wrapping import require_same_at_length
from registry.errors import BadInput
from registry.progress import OnProgress

__all__ = ["Inputs", "read_inputs"]


@dataclass(frozen=True, eq=False)
class Inputs:
    """Checked inputs.

    Attributes:
        prompts: Clean and corrupt prompts.
        reference: Prompts for the mean, or None.
        anatomy: Anatomy of the model.
        ablation: What senders write instead.
        size: Prompts per batch; None: as memory allows, beginning with ``start``.
        start: Prompts in the first batch; ``size`` if it is given.
    """

    prompts: PromptPairs
    reference: PromptPairs | None
    anatomy: Anatomy
    ablation: Ablation
    size: int | None
    start: int

    def replacement(self, model: Any) -> Replacement:
        """Prepare the ablation; runs the reference prompts if there are any."""
        return Replacement.read(model, self.anatomy, self.ablation, self.reference, self.start)

    def first(self) -> PromptBatch:
        """Return one prompt, on which the model must prove its computations."""
        return self.prompts.batch(next(self.prompts.groups())[:1], self.anatomy.device)

    def each_batch(
        self,
        work: Callable[[PromptBatch], None],
        progress: OnProgress | None,
        *,
        start: int | None = None,
    ) -> None:
        """Call ``work`` on batches that cover all prompts; see :func:`..batches.each_batch`."""
        each_batch(
            self.prompts,
            self.anatomy.device,
            work,
            size=self.size,
            start=start or self.start,
            progress=progress,
        )


def read_inputs(
    model: Any,
    clean: Prompts,
    corrupt: Prompts | None,
    *,
    ablation: Ablation,
    reference: Prompts | None,
    kv_heads: str,
    batch_size: int | None,
    attention_mask: Tensor | None,
    reference_mask: Tensor | None,
) -> Inputs:
    """Check a caller's inputs, as :func:`..setting.prepare_setting` describes them.

    Raises:
        UnsupportedModel: A part is missing, or TransformerLens changes the model on prompts of this
            length.
        BadInput: Prompts, ablation or batch size are malformed, or prompts are padded without a
            mask.
    """
    check_ablation(ablation, corrupt, reference)
    padding = padding_token(model)
    clean, corrupt, attention_mask = as_tokens(model, clean, corrupt, attention_mask)
    prompts = read_prompts(clean, corrupt, attention_mask, padding)
    others = None
    if reference is not None:
        reference, _, reference_mask = as_tokens(
            model, reference, None, reference_mask, names=("reference", "", "reference_mask")
        )
        names = ("reference", "reference_mask")
        others = read_prompts(reference, None, reference_mask, padding, names=names)
    anatomy = read_anatomy(model, kv_heads)
    for name, tokens, mask, longest in (
        ("clean", clean, attention_mask, prompts.longest),
        ("corrupt", corrupt, attention_mask, prompts.longest),
        ("reference", reference, reference_mask, others.longest if others else 0),
    ):
        if tokens is not None:
            _check_tokens(model, anatomy, name, tokens, mask, longest)
    for pairs in filter(None, (prompts, others)):
        require_same_at_length(model, anatomy, pairs.longest_one(anatomy.device))
    return Inputs(
        prompts,
        others,
        anatomy,
        ablation,
        batch_size,
        anatomy.batch_size(len(prompts), prompts.longest, batch_size),
    )


def _check_tokens(
    model: Any, anatomy: Anatomy, name: str, tokens: Tensor, mask: Tensor | None, longest: int
) -> None:
    """Refuse tokens that the model cannot read; masked tokens never reach it."""
    n_words, n_positions = int(model.cfg.d_vocab), int(model.cfg.n_ctx)
    unknown = (tokens < 0) | (tokens >= n_words)
    if mask is not None:
        unknown &= mask.to(unknown.device) != 0
    if bool(unknown.any()):
        prompt = int(unknown.any(1).nonzero()[0])
        raise BadInput(
            f"prompt {prompt} (counted from 0) of {name} has a token the model does not "
            f"know; ids go from 0 to {n_words - 1}"
        )
    if anatomy.learned_positions and longest > n_positions:
        raise BadInput(f"{name} has {longest} positions, but the model reads {n_positions}")
