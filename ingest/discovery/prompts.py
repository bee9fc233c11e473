"""Pairs of prompts, cut to their real tokens and put into batches of equal length.

No padding ever reaches a model from here: prompts of different lengths run in different batches,
so that mixed lengths, either padding side and any batch size give what one prompt at a time gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from registry.errors import BadInput

__all__ = ["PromptBatch", "PromptPairs", "read_prompts"]


@dataclass(frozen=True, eq=False)
class PromptBatch:
    """Pairs of one length.

    Attributes:
        index: Place of each pair in what the caller gave, ``[batch]``, on the CPU.
        clean: Token ids ``[batch, position]``.
        corrupt: Token ids ``[batch, position]``.
    """

    index: Tensor
    clean: Tensor
    corrupt: Tensor


@dataclass(frozen=True, eq=False)
class PromptPairs:
    """Clean and corrupt prompts with where their real tokens lie.

    Attributes:
        clean: Token ids ``[prompt, position]``.
        corrupt: Token ids ``[prompt, position]``.
        starts: First real position of each prompt.
        lengths: Real positions of each prompt, contiguous.
    """

    clean: Tensor
    corrupt: Tensor
    starts: tuple[int, ...]
    lengths: tuple[int, ...]

    def __len__(self) -> int:
        """How many pairs there are."""
        return len(self.lengths)

    @property
    def longest(self) -> int:
        """Real tokens of the longest prompt."""
        return max(self.lengths)

    def batches(self, size: int, device: torch.device) -> Iterator[PromptBatch]:
        """Batches of at most ``size`` pairs of one length, short prompts first."""
        for length in sorted(set(self.lengths)):
            members = [i for i, found in enumerate(self.lengths) if found == length]
            for first in range(0, len(members), size):
                chosen = members[first : first + size]
                yield PromptBatch(
                    torch.tensor(chosen),
                    self._cut(self.clean, chosen).to(device),
                    self._cut(self.corrupt, chosen).to(device),
                )

    def _cut(self, tokens: Tensor, chosen: list[int]) -> Tensor:
        return torch.stack(
            [tokens[i, self.starts[i] : self.starts[i] + self.lengths[i]] for i in chosen]
        )


def read_prompts(clean: Tensor, corrupt: Tensor, attention_mask: Tensor | None) -> PromptPairs:
    """Check prompts and find their real tokens.

    Args:
        clean: Token ids ``[prompt, position]``.
        corrupt: Token ids of the same shape; pair ``i`` has the same real positions in both.
        attention_mask: 1 at real tokens, 0 at padding on either side; None: all are real.

    Raises:
        BadInput: Shapes differ, ids are not integers, or a mask's row is empty or has a gap.
    """
    _check_shapes(clean, corrupt, attention_mask)
    if attention_mask is None:
        n_prompts, n_positions = clean.shape
        return PromptPairs(clean, corrupt, (0,) * n_prompts, (n_positions,) * n_prompts)
    starts, lengths = [], []
    for prompt, row in enumerate((attention_mask != 0).cpu()):
        real = torch.nonzero(row).flatten().tolist()
        if not real or real[-1] - real[0] + 1 != len(real):
            found = "no real token" if not real else "padding between real tokens"
            raise BadInput(
                f"attention_mask of prompt {prompt} has {found}; "
                "it must be 1 on one unbroken stretch of tokens and 0 around it"
            )
        starts.append(real[0])
        lengths.append(len(real))
    return PromptPairs(clean, corrupt, tuple(starts), tuple(lengths))


def _check_shapes(clean: Tensor, corrupt: Tensor, attention_mask: Tensor | None) -> None:
    for name, tokens in (("clean", clean), ("corrupt", corrupt)):
        if tokens.ndim != 2 or tokens.numel() == 0 or tokens.is_floating_point():
            raise BadInput(
                f"{name} must be token ids [prompt, position] with at least one of each; "
                f"got {tokens.dtype} of shape {list(tokens.shape)}"
            )
    if clean.shape != corrupt.shape:
        raise BadInput(
            f"clean and corrupt prompts must pair up token by token; got {list(clean.shape)} "
            f"and {list(corrupt.shape)}"
        )
    if attention_mask is not None and attention_mask.shape != clean.shape:
        raise BadInput(
            f"attention_mask must have the prompts' shape {list(clean.shape)}; "
            f"got {list(attention_mask.shape)}"
        )
