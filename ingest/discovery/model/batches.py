"""Pairs of prompts, cut to their real tokens, in batches of equal length.

The model never receives padding: prompts of different lengths run in different batches. So results
are the same as for one prompt at a time, with mixed lengths, padding on either side and any batch
size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from registry.errors import BadInput
from registry.progress import OnProgress

__all__ = [
    "Padding",
    "PromptBatch",
    "PromptPairs",
    "each_batch",
    "out_of_memory",
    "padding_token",
    "read_prompts",
    "spread_tokens",
]

_NO_MEMORY = ("out of memory", "can't allocate memory")


@dataclass(frozen=True, slots=True)
class Padding:
    """The padding of prompts.

    Attributes:
        token: Its id.
        may_begin: Whether a prompt may begin with it once: it is also the BOS token, or the BOS
            token is unknown.
    """

    token: int
    may_begin: bool = True


@dataclass(frozen=True, eq=False)
class PromptBatch:
    """Pairs of one length.

    Attributes:
        index: Index of each pair in the caller's input, ``[batch]``, on the CPU.
        clean: Token ids ``[batch, position]``.
        corrupt: Token ids ``[batch, position]``, or None if there are none.
    """

    index: Tensor
    clean: Tensor
    corrupt: Tensor | None

    def counterpart(self) -> Tensor:
        """Return the corrupt prompts.

        Raises:
            BadInput: There are none.
        """
        if self.corrupt is None:
            raise BadInput("corrupt prompts are needed, one per clean prompt")
        return self.corrupt

    def part(self, rows: slice) -> PromptBatch:
        """Return some of the pairs."""
        corrupt = None if self.corrupt is None else self.corrupt[rows]
        return PromptBatch(self.index[rows], self.clean[rows], corrupt)


@dataclass(frozen=True, eq=False)
class PromptPairs:
    """Clean and corrupt prompts with the positions of their real tokens.

    Attributes:
        clean: Token ids ``[prompt, position]``.
        corrupt: Token ids ``[prompt, position]``, or None.
        starts: First real position of each prompt.
        lengths: Real positions of each prompt, contiguous.
    """

    clean: Tensor
    corrupt: Tensor | None
    starts: tuple[int, ...]
    lengths: tuple[int, ...]

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.lengths)

    @property
    def longest(self) -> int:
        """Number of real tokens of the longest prompt."""
        return max(self.lengths)

    def longest_one(self, device: torch.device) -> Tensor:
        """Return the first clean prompt of that length, ``[1, pos]``."""
        return self.batch([self.lengths.index(self.longest)], device).clean

    def groups(self) -> Iterator[list[int]]:
        """Yield indices of the prompts of each length, short ones first."""
        for length in sorted(set(self.lengths)):
            yield [i for i, found in enumerate(self.lengths) if found == length]

    def batch(self, chosen: list[int], device: torch.device) -> PromptBatch:
        """Return the prompts with these indices, which have one length."""
        corrupt = None if self.corrupt is None else self._cut(self.corrupt, chosen).to(device)
        return PromptBatch(torch.tensor(chosen), self._cut(self.clean, chosen).to(device), corrupt)

    def batches(self, size: int, device: torch.device) -> Iterator[PromptBatch]:
        """Yield batches of at most ``size`` pairs of one length, short prompts first."""
        for members in self.groups():
            for first in range(0, len(members), size):
                yield self.batch(members[first : first + size], device)

    def _cut(self, tokens: Tensor, chosen: list[int]) -> Tensor:
        return torch.stack(
            [tokens[i, self.starts[i] : self.starts[i] + self.lengths[i]] for i in chosen]
        )


def spread_tokens(n_words: int, n_tokens: int) -> Tensor:
    """Return different tokens from the whole vocabulary, ``[1, pos]``, for proofs of a model."""
    return torch.linspace(0, n_words - 1, n_tokens + 2)[1:-1].round().long()[None]


def each_batch(
    prompts: PromptPairs,
    device: torch.device,
    work: Callable[[PromptBatch], None],
    *,
    size: int | None,
    start: int,
    progress: OnProgress | None = None,
) -> None:
    """Call ``work`` on batches that cover all prompts.

    Args:
        prompts: All prompts.
        device: Device of the batches.
        work: Must change nothing if it fails: a batch that did not fit is repeated in parts.
        size: Prompts per batch. None: as memory allows. Then a batch that does not fit is halved.
            After a batch that fits, the size is doubled, but only on an accelerator, which reports
            a lack of memory before anything else fails.
        start: First size that is tried if ``size`` is None.
        progress: Called after each batch with the number of finished prompts and the total.

    Raises:
        BadInput: Memory is too small for a single prompt.
    """
    now, ceiling, done = size or start, len(prompts), 0
    for members in prompts.groups():
        waiting = members
        while waiting:
            batch = prompts.batch(waiting[:now], device)
            try:
                work(batch)
            except (RuntimeError, MemoryError) as error:
                if size is not None or not out_of_memory(error):
                    raise
                if len(batch.index) == 1:
                    raise BadInput(
                        f"memory on {device} is too small for one prompt of {batch.clean.shape[1]} "
                        "tokens; use shorter prompts, a smaller dtype or another device"
                    ) from error
                now = ceiling = len(batch.index) // 2
                continue
            waiting = waiting[len(batch.index) :]
            done += len(batch.index)
            if size is None and device.type != "cpu":
                now = min(2 * now, ceiling)
            if progress is not None:
                progress(done, len(prompts))


def read_prompts(
    clean: Tensor,
    corrupt: Tensor | None,
    attention_mask: Tensor | None,
    padding: Padding | None = None,
    *,
    names: tuple[str, str] = ("clean", "attention_mask"),
) -> PromptPairs:
    """Check prompts and find their real tokens.

    Args:
        clean: Token ids ``[prompt, position]``.
        corrupt: Token ids of the same shape; pair ``i`` has the same real positions in both. None
            if they are not needed.
        attention_mask: 1 at real tokens, 0 at padding on either side; None: all are real.
        padding: The padding token; prompts that look padded are refused without a mask.
        names: Names of the prompts and their mask in errors.

    Raises:
        BadInput: Shapes differ, ids are not integers, a mask's row is empty or has a gap, or there
            is padding without a mask.
    """
    _check_shapes(clean, corrupt, attention_mask, names)
    if attention_mask is None:
        for tokens in (clean, corrupt):
            if tokens is not None and padding is not None:
                _refuse_padding(tokens, padding, names)
        n_prompts, n_positions = clean.shape
        return PromptPairs(clean, corrupt, (0,) * n_prompts, (n_positions,) * n_prompts)
    starts, lengths = [], []
    for prompt, row in enumerate((attention_mask != 0).cpu()):
        real = torch.nonzero(row).flatten().tolist()
        if not real or real[-1] - real[0] + 1 != len(real):
            found = "no real token" if not real else "padding between real tokens"
            raise BadInput(
                f"{names[1]} of prompt {prompt} has {found}; "
                "it must be 1 on one contiguous range of tokens and 0 elsewhere"
            )
        starts.append(real[0])
        lengths.append(len(real))
    return PromptPairs(clean, corrupt, tuple(starts), tuple(lengths))


def padding_token(model: Any) -> Padding | None:
    """Return the padding of a model's tokenizer, or of its configuration; None if unknown."""
    holders = (getattr(model, "tokenizer", None), getattr(model.original_model, "config", None))
    for holder in holders:
        found, first = (getattr(holder, f"{kind}_token_id", None) for kind in ("pad", "bos"))
        if isinstance(found, int):
            return Padding(found, may_begin=first is None or first == found)
    return None


def _refuse_padding(tokens: Tensor, padding: Padding, names: tuple[str, str]) -> None:
    """Refuse a prompt with padding at its end or beginning, unless it may begin with it once."""
    is_padding = tokens.cpu() == padding.token
    padded = is_padding[:, -1] | is_padding[:, : 2 if padding.may_begin else 1].all(1)
    if bool(padded.any()):
        prompt = int(padded.nonzero()[0])
        raise BadInput(
            f"prompt {prompt} (counted from 0) seems padded with token {padding.token}; give "
            f"{names[1]}, 1 at real tokens and 0 at padding (all 1 if these are real tokens)"
        )


def _check_shapes(clean: Any, corrupt: Any, attention_mask: Any, names: tuple[str, str]) -> None:
    for name, tokens in ((names[0], clean), ("corrupt", corrupt)):
        if tokens is None:
            continue
        if not isinstance(tokens, Tensor):
            raise BadInput(f"{name} must be a tensor of token ids; got {type(tokens).__name__}")
        if tokens.ndim != 2 or tokens.numel() == 0 or tokens.is_floating_point():
            raise BadInput(
                f"{name} must be token ids [prompt, position] with at least one of each; "
                f"got {tokens.dtype} of shape {list(tokens.shape)}"
            )
    if corrupt is not None and clean.shape != corrupt.shape:
        raise BadInput(
            f"clean and corrupt prompts must pair up token by token; got {list(clean.shape)} "
            f"and {list(corrupt.shape)}"
        )
    if attention_mask is not None:
        if not isinstance(attention_mask, Tensor):
            kind = type(attention_mask).__name__
            raise BadInput(f"{names[1]} must be a tensor of 0 and 1; got {kind}")
        if attention_mask.shape != clean.shape:
            raise BadInput(
                f"{names[1]} must have the prompts' shape {list(clean.shape)}; "
                f"got {list(attention_mask.shape)}"
            )


def out_of_memory(error: Exception) -> bool:
    """Return whether an error says that memory is full, on any device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(text in str(error).lower() for text in _NO_MEMORY)
