"""What attribution, evaluation and patching read first: prompts, the model, the ablation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ingest.discovery.ablation import Ablation, Replacement, check_ablation
from ingest.discovery.anatomy import Anatomy, read_anatomy
from ingest.discovery.metrics import Progress
from ingest.discovery.prompts import (
    PromptBatch,
    PromptPairs,
    each_batch,
    padding_token,
    read_prompts,
)
from ingest.discovery.texts import Prompts, as_tokens
from registry.errors import BadInput

__all__ = ["Inputs", "read_inputs"]


@dataclass(frozen=True, eq=False)
class Inputs:
    """Checked and ready.

    Attributes:
        prompts: Clean and corrupt.
        reference: Prompts whose mean is taken, or None.
        anatomy: Of the model.
        ablation: What senders write instead.
        size: Prompts at once; None: as memory allows, beginning with ``start``.
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
        """One prompt, on which the model has to prove its arithmetic."""
        return self.prompts.batch(next(self.prompts.groups())[:1], self.anatomy.device)

    def each_batch(
        self,
        work: Callable[[PromptBatch], None],
        progress: Progress | None,
        *,
        start: int | None = None,
    ) -> None:
        """Call ``work`` on batches that cover all prompts; see :func:`..prompts.each_batch`."""
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
    """Check what a caller gave, as ``attribute_edges`` explains it.

    Raises:
        UnsupportedModel: A part is missing.
        BadInput: Prompts, ablation or batch size are malformed, or prompts are padded and there is
            no mask.
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
    """Refuse what the model cannot read; what a mask hides never reaches it."""
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
        raise BadInput(f"{name} has {longest} positions, and the model reads {n_positions}")
